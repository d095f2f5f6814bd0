//! What CUDA 12 declares otherwise than CUDA 13: its `cudaDeviceProp`, and
//! functions whose names took another signature since.
//!
//! `standin_cuda12_NAME` is what `NAME` of libcudart.so.12 leads to
//! (standin/stubs); names that CUDA 13 has not got are here under their own.

use std::ffi::{c_char, c_void};

use cudarc::runtime::sys::cudaUUID_t;

use crate::abi::{Handle, PointerAttributes, Status};
use crate::{api, context, entry, memory, properties};

/// The structure of CUDA 12.
#[repr(C)]
pub struct DeviceProperties {
    pub name: [c_char; 256],
    pub uuid: cudaUUID_t,
    pub luid: [c_char; 8],
    pub luidDeviceNodeMask: u32,
    pub totalGlobalMem: usize,
    pub sharedMemPerBlock: usize,
    pub regsPerBlock: i32,
    pub warpSize: i32,
    pub memPitch: usize,
    pub maxThreadsPerBlock: i32,
    pub maxThreadsDim: [i32; 3],
    pub maxGridSize: [i32; 3],
    pub clockRate: i32,
    pub totalConstMem: usize,
    pub major: i32,
    pub minor: i32,
    pub textureAlignment: usize,
    pub texturePitchAlignment: usize,
    pub deviceOverlap: i32,
    pub multiProcessorCount: i32,
    pub kernelExecTimeoutEnabled: i32,
    pub integrated: i32,
    pub canMapHostMemory: i32,
    pub computeMode: i32,
    pub maxTexture1D: i32,
    pub maxTexture1DMipmap: i32,
    pub maxTexture1DLinear: i32,
    pub maxTexture2D: [i32; 2],
    pub maxTexture2DMipmap: [i32; 2],
    pub maxTexture2DLinear: [i32; 3],
    pub maxTexture2DGather: [i32; 2],
    pub maxTexture3D: [i32; 3],
    pub maxTexture3DAlt: [i32; 3],
    pub maxTextureCubemap: i32,
    pub maxTexture1DLayered: [i32; 2],
    pub maxTexture2DLayered: [i32; 3],
    pub maxTextureCubemapLayered: [i32; 2],
    pub maxSurface1D: i32,
    pub maxSurface2D: [i32; 2],
    pub maxSurface3D: [i32; 3],
    pub maxSurface1DLayered: [i32; 2],
    pub maxSurface2DLayered: [i32; 3],
    pub maxSurfaceCubemap: i32,
    pub maxSurfaceCubemapLayered: [i32; 2],
    pub surfaceAlignment: usize,
    pub concurrentKernels: i32,
    pub ECCEnabled: i32,
    pub pciBusID: i32,
    pub pciDeviceID: i32,
    pub pciDomainID: i32,
    pub tccDriver: i32,
    pub asyncEngineCount: i32,
    pub unifiedAddressing: i32,
    pub memoryClockRate: i32,
    pub memoryBusWidth: i32,
    pub l2CacheSize: i32,
    pub persistingL2CacheMaxSize: i32,
    pub maxThreadsPerMultiProcessor: i32,
    pub streamPrioritiesSupported: i32,
    pub globalL1CacheSupported: i32,
    pub localL1CacheSupported: i32,
    pub sharedMemPerMultiprocessor: usize,
    pub regsPerMultiprocessor: i32,
    pub managedMemory: i32,
    pub isMultiGpuBoard: i32,
    pub multiGpuBoardGroupID: i32,
    pub hostNativeAtomicSupported: i32,
    pub singleToDoublePrecisionPerfRatio: i32,
    pub pageableMemoryAccess: i32,
    pub concurrentManagedAccess: i32,
    pub computePreemptionSupported: i32,
    pub canUseHostPointerForRegisteredMem: i32,
    pub cooperativeLaunch: i32,
    pub cooperativeMultiDeviceLaunch: i32,
    pub sharedMemPerBlockOptin: usize,
    pub pageableMemoryAccessUsesHostPageTables: i32,
    pub directManagedMemAccessFromHost: i32,
    pub maxBlocksPerMultiProcessor: i32,
    pub accessPolicyMaxWindowSize: i32,
    pub reservedSharedMemPerBlock: usize,
    pub hostRegisterSupported: i32,
    pub sparseCudaArraySupported: i32,
    pub hostRegisterReadOnlySupported: i32,
    pub timelineSemaphoreInteropSupported: i32,
    pub memoryPoolsSupported: i32,
    pub gpuDirectRDMASupported: i32,
    pub gpuDirectRDMAFlushWritesOptions: u32,
    pub gpuDirectRDMAWritesOrdering: i32,
    pub memoryPoolSupportedHandleTypes: u32,
    pub deferredMappingCudaArraySupported: i32,
    pub ipcEventSupported: i32,
    pub clusterLaunch: i32,
    pub unifiedFunctionPointers: i32,
    pub reserved: [i32; 63],
}

api! {
    fn cudaGetDeviceProperties_v2(out: *mut DeviceProperties, device: i32) {
        if out.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let filled = properties::read_12(context::init()?, device)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *out = filled };
        Ok(())
    }

    /// The structure of CUDA 13 is this one and reserved words behind it.
    fn standin_cuda12_cudaPointerGetAttributes(out: *mut PointerAttributes, pointer: u64) {
        if out.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let found = memory::pointer_attributes(pointer)?;
        let bytes = std::mem::offset_of!(PointerAttributes, reserved);
        // SAFETY: not null, and the caller's to write up to the reserved words.
        unsafe { std::ptr::copy_nonoverlapping((&raw const found).cast::<u8>(), out.cast(), bytes) };
        Ok(())
    }

    /// Without edge data.
    fn standin_cuda12_cudaGraphNodeGetDependencies(node: Handle, dependencies: *mut Handle, count: *mut usize) {
        // SAFETY: the array is null or has room for `*count` handles.
        unsafe { context::bind()?.cuGraphNodeGetDependencies(node, dependencies, std::ptr::null_mut(), count) }
    }

    /// Without edge data.
    fn cudaStreamGetCaptureInfo_v2(
        stream: Handle,
        status: *mut i32,
        id: *mut u64,
        graph: *mut Handle,
        dependencies: *mut *const Handle,
        count: *mut usize,
    ) {
        let driver = context::bind()?;
        let edges = std::ptr::null_mut();
        // SAFETY: the caller's stream; each pointer is the caller's or null.
        unsafe { driver.cuStreamGetCaptureInfo(stream, status, id, graph, dependencies, edges, count) }
    }

    fn cudaGetDriverEntryPoint(symbol: *const c_char, function: *mut *mut c_void, flags: u64, result: *mut i32) {
        // SAFETY: the caller's NUL-terminated name and pointers; `result` may be null.
        unsafe { entry::by_version(symbol, function, RUNTIME_VERSION as u32, flags, result) }
    }

    fn standin_cuda12_cudaRuntimeGetVersion(version: *mut i32) {
        if version.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller's to write.
        unsafe { *version = RUNTIME_VERSION };
        Ok(())
    }
}

/// CUDA 12.8.
const RUNTIME_VERSION: i32 = 12_080;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Numbers that a C compiler gave for the header of CUDA 12.8.
    #[test]
    fn the_layout_is_that_of_cuda_12() {
        assert_eq!(size_of::<DeviceProperties>(), 1032);
        assert_eq!(offset_of!(DeviceProperties, clockRate), 348);
        assert_eq!(offset_of!(DeviceProperties, surfaceAlignment), 568);
        assert_eq!(offset_of!(DeviceProperties, sharedMemPerBlockOptin), 696);
        assert_eq!(offset_of!(DeviceProperties, unifiedFunctionPointers), 776);
        assert_eq!(offset_of!(PointerAttributes, reserved), 24);
    }
}
