//! Types and numbers of the runtime and driver ABIs that several files use.
//!
//! Handles are addresses, device addresses are `u64`, result codes are open
//! integers: a code this file does not name passes through unharmed.

use std::ffi::c_void;

/// Any opaque CUDA handle (stream, event, graph, context, kernel, pool …).
pub type Handle = *mut c_void;

/// A `cudaError_t` or `CUresult`: since CUDA 10.1 the two share their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    pub const INVALID_VALUE: Status = Status(1);
    pub const INSUFFICIENT_DRIVER: Status = Status(35);
    pub const INVALID_DEVICE_FUNCTION: Status = Status(98);
    pub const INVALID_DEVICE: Status = Status(101);
    pub const MISSING_CONFIGURATION: Status = Status(52);
    pub const INVALID_SYMBOL: Status = Status(13);
    pub const INVALID_MEMCPY_DIRECTION: Status = Status(21);
    pub const NOT_SUPPORTED: Status = Status(801);
    pub const UNKNOWN: Status = Status(999);
}

/// `Ok` for code 0.
pub fn check(code: i32) -> Result<(), Status> {
    if code == 0 { Ok(()) } else { Err(Status(code)) }
}

/// `dim3`, passed by value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dim3 {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

/// `cudaMemcpyKind`.
pub mod copy_kind {
    pub const HOST_TO_HOST: i32 = 0;
    pub const HOST_TO_DEVICE: i32 = 1;
    pub const DEVICE_TO_HOST: i32 = 2;
    pub const DEVICE_TO_DEVICE: i32 = 3;
    pub const DEFAULT: i32 = 4;
}

/// `CUDA_MEMCPY2D_v2`.
#[repr(C)]
pub struct Memcpy2D {
    pub src_x_bytes: usize,
    pub src_y: usize,
    pub src_memory_type: i32,
    pub src_host: *const c_void,
    pub src_device: u64,
    pub src_array: Handle,
    pub src_pitch_bytes: usize,
    pub dst_x_bytes: usize,
    pub dst_y: usize,
    pub dst_memory_type: i32,
    pub dst_host: *mut c_void,
    pub dst_device: u64,
    pub dst_array: Handle,
    pub dst_pitch_bytes: usize,
    pub width_bytes: usize,
    pub height: usize,
}

/// `CUmemorytype`.
pub mod memory_type {
    pub const HOST: i32 = 1;
    pub const DEVICE: i32 = 2;
    pub const UNIFIED: i32 = 4;
}

/// `cudaLaunchConfig_t`.
#[repr(C)]
pub struct RuntimeLaunchConfig {
    pub grid: Dim3,
    pub block: Dim3,
    pub shared_bytes: usize,
    pub stream: Handle,
    /// Attributes have the same layout and numbers in both APIs.
    pub attributes: *mut c_void,
    pub attribute_count: u32,
}

/// `CUlaunchConfig`.
#[repr(C)]
pub struct DriverLaunchConfig {
    pub grid: Dim3,
    pub block: Dim3,
    pub shared_bytes: u32,
    pub stream: Handle,
    pub attributes: *mut c_void,
    pub attribute_count: u32,
}

/// `cudaPointerAttributes` of CUDA 13.
#[repr(C)]
pub struct PointerAttributes {
    /// `cudaMemoryType`: 0 unregistered, 1 host, 2 device, 3 managed.
    pub kind: i32,
    pub device: i32,
    pub device_pointer: u64,
    pub host_pointer: u64,
    pub reserved: [i64; 8],
}

/// `cudaFuncAttributes` of CUDA 13.
#[repr(C)]
pub struct FuncAttributes {
    pub shared_bytes: usize,
    pub const_bytes: usize,
    pub local_bytes: usize,
    pub max_threads_per_block: i32,
    pub registers: i32,
    pub ptx_version: i32,
    pub binary_version: i32,
    pub cache_mode_ca: i32,
    pub max_dynamic_shared_bytes: i32,
    pub preferred_shared_carveout: i32,
    pub cluster_dim_must_be_set: i32,
    pub required_cluster: [i32; 3],
    pub cluster_scheduling_policy: i32,
    pub non_portable_cluster_allowed: i32,
    pub reserved: [i32; 16],
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::{driver::sys as driver, runtime::sys as runtime};
    use std::mem::offset_of;

    /// Our structures are laid out as the vendor's headers (through cudarc's
    /// bindings of them) lay out theirs.
    #[test]
    fn layouts_are_cudas() {
        assert_eq!(size_of::<Memcpy2D>(), size_of::<driver::CUDA_MEMCPY2D_v2>());
        assert_eq!(
            offset_of!(Memcpy2D, dst_pitch_bytes),
            offset_of!(driver::CUDA_MEMCPY2D_v2, dstPitch)
        );
        assert_eq!(size_of::<DriverLaunchConfig>(), size_of::<driver::CUlaunchConfig>());
        assert_eq!(
            offset_of!(DriverLaunchConfig, attributes),
            offset_of!(driver::CUlaunchConfig, attrs)
        );
        assert_eq!(size_of::<RuntimeLaunchConfig>(), size_of::<runtime::cudaLaunchConfig_t>());
        assert_eq!(
            offset_of!(RuntimeLaunchConfig, attributes),
            offset_of!(runtime::cudaLaunchConfig_t, attrs)
        );
        assert_eq!(size_of::<PointerAttributes>(), size_of::<runtime::cudaPointerAttributes>());
        assert_eq!(size_of::<FuncAttributes>(), size_of::<runtime::cudaFuncAttributes>());
        assert_eq!(
            offset_of!(FuncAttributes, max_dynamic_shared_bytes),
            offset_of!(runtime::cudaFuncAttributes, maxDynamicSharedSizeBytes)
        );
        assert_eq!(size_of::<Dim3>(), size_of::<runtime::dim3>());
    }
}
