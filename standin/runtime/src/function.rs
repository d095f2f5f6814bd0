//! Attributes of kernels, and occupancy.

use std::ffi::c_void;

use crate::abi::{FuncAttributes, Handle, Status};
use crate::driver::Driver;
use crate::{api, context, registry};

/// `CUfunction_attribute` numbers.
mod attribute {
    pub const MAX_THREADS_PER_BLOCK: i32 = 0;
    pub const SHARED_BYTES: i32 = 1;
    pub const CONST_BYTES: i32 = 2;
    pub const LOCAL_BYTES: i32 = 3;
    pub const REGISTERS: i32 = 4;
    pub const PTX_VERSION: i32 = 5;
    pub const BINARY_VERSION: i32 = 6;
    pub const CACHE_MODE_CA: i32 = 7;
    pub const MAX_DYNAMIC_SHARED_BYTES: i32 = 8;
    pub const PREFERRED_SHARED_CARVEOUT: i32 = 9;
}

api! {
    fn cudaFuncGetAttributes(attributes: *mut FuncAttributes, host: *const c_void) {
        let driver = context::bind()?;
        if attributes.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let filled = read(driver, registry::kernel(driver, host)?)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *attributes = filled };
        Ok(())
    }

    /// The runtime's two settable attributes have the driver's numbers (8, 9).
    fn cudaFuncSetAttribute(host: *const c_void, name: i32, value: i32) {
        let driver = context::bind()?;
        let kernel = registry::kernel(driver, host)?;
        // SAFETY: a kernel handle of the driver's.
        unsafe { driver.cuKernelSetAttribute(name, value, kernel, context::device()) }
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut i32, host: *const c_void, block_size: i32, shared_bytes: usize) {
        let driver = context::bind()?;
        let kernel = registry::kernel(driver, host)?;
        // SAFETY: the caller's pointer.
        unsafe { driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, block_size, shared_bytes) }
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut i32, host: *const c_void, block_size: i32, shared_bytes: usize, flags: u32) {
        let driver = context::bind()?;
        let kernel = registry::kernel(driver, host)?;
        // SAFETY: the caller's pointer.
        unsafe { driver.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, kernel, block_size, shared_bytes, flags) }
    }
}

fn read(driver: &Driver, kernel: Handle) -> Result<FuncAttributes, Status> {
    let get = |name: i32| -> Result<i32, Status> {
        let mut value = 0;
        // SAFETY: the result is a live local, the handle the driver's.
        unsafe { driver.cuKernelGetAttribute(&mut value, name, kernel, context::device())? };
        Ok(value)
    };
    let bytes =
        |name: i32| -> Result<usize, Status> { Ok(usize::try_from(get(name)?).unwrap_or(0)) };
    Ok(FuncAttributes {
        shared_bytes: bytes(attribute::SHARED_BYTES)?,
        const_bytes: bytes(attribute::CONST_BYTES)?,
        local_bytes: bytes(attribute::LOCAL_BYTES)?,
        max_threads_per_block: get(attribute::MAX_THREADS_PER_BLOCK)?,
        registers: get(attribute::REGISTERS)?,
        ptx_version: get(attribute::PTX_VERSION)?,
        binary_version: get(attribute::BINARY_VERSION)?,
        cache_mode_ca: get(attribute::CACHE_MODE_CA)?,
        max_dynamic_shared_bytes: get(attribute::MAX_DYNAMIC_SHARED_BYTES)?,
        preferred_shared_carveout: get(attribute::PREFERRED_SHARED_CARVEOUT)?,
        // Clusters begin with compute capability 9.0; the stand-in is 8.6.
        cluster_dim_must_be_set: 0,
        required_cluster: [0; 3],
        cluster_scheduling_policy: 0,
        non_portable_cluster_allowed: 0,
        reserved: [0; 16],
    })
}
