//! The driver functions we call ourselves: one list of names and signatures;
//! the lazily resolved pointers and the per-name counters are derived from it.
//!
//! Resolution is retryable: a slot stays empty, and the call answers
//! `NOT_INITIALIZED`, until libcuda is there; a function that this driver does
//! not have answers `NOT_SUPPORTED`.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::abi::*;
use super::original;

macro_rules! own_calls {
    ($( $name:ident ( $( $arg:ident : $ty:ty ),* ) ; )*) => {
        /// One driver function of the list.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum OwnCall { $( $name ),* }

        /// Names in the order of [`OwnCall`].
        const NAMES: &[&std::ffi::CStr] = &[ $( {
            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => unreachable!(),
            }
        } ),* ];

        #[allow(non_snake_case)]
        impl Calls { $(
            /// # Safety
            /// The arguments satisfy what cuda.h asks of this function.
            #[allow(clippy::too_many_arguments, reason = "cuda.h's are as many")]
            pub(super) unsafe fn $name(&self, $( $arg : $ty ),*) -> CuResult {
                let Some(original) = self.resolve(OwnCall::$name) else {
                    return absent();
                };
                // SAFETY: libcuda's function of this name has this C signature (cuda.h).
                let original: unsafe extern "C" fn($( $ty ),*) -> CuResult =
                    unsafe { std::mem::transmute(original) };
                // SAFETY: passed on to the caller.
                unsafe { original($( $arg ),*) }
            }
        )* }
    };
}

own_calls! {
    cuMemGetAllocationGranularity(bytes: *mut usize, prop: *const CUmemAllocationProp, option: c_int);
    cuMemCreate(handle: *mut MemHandle, bytes: usize, prop: *const CUmemAllocationProp, flags: u64);
    cuMemRelease(handle: MemHandle);
    cuMemAddressReserve(base: *mut DevicePtr, bytes: usize, alignment: usize, hint: DevicePtr, flags: u64);
    cuMemAddressFree(base: DevicePtr, bytes: usize);
    cuMemMap(address: DevicePtr, bytes: usize, offset: usize, handle: MemHandle, flags: u64);
    cuMemUnmap(address: DevicePtr, bytes: usize);
    cuMemSetAccess(address: DevicePtr, bytes: usize, desc: *const CUmemAccessDesc, count: usize);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGetUuid_v2(uuid: *mut [u64; 2], device: Device);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: Device);
    cuCtxGetCurrent(ctx: *mut CUcontext);
    cuCtxPushCurrent_v2(ctx: CUcontext);
    cuCtxPopCurrent_v2(ctx: *mut CUcontext);
    cuCtxGetDevice(device: *mut Device);
    cuCtxSynchronize();
    cuDevicePrimaryCtxRetain(ctx: *mut CUcontext, device: Device);
    cuDevicePrimaryCtxRelease_v2(device: Device);
    cuDevicePrimaryCtxGetState(device: Device, flags: *mut c_uint, active: *mut c_int);
    cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int);
    cuPointerGetAttribute(value: *mut c_void, attribute: c_int, address: DevicePtr);
    cuStreamGetCtx(stream: CUstream, ctx: *mut CUcontext);
    cuStreamGetFlags(stream: CUstream, flags: *mut c_uint);
    cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
    cuStreamSynchronize(stream: CUstream);
    cuStreamIsCapturing(stream: CUstream, status: *mut c_int);
    cuThreadExchangeStreamCaptureMode(mode: *mut c_int);
    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventQuery(event: CUevent);
    cuEventSynchronize(event: CUevent);
    cuEventElapsedTime(ms: *mut f32, start: CUevent, end: CUevent);
    cuEventDestroy_v2(event: CUevent);
    cuMemcpyHtoDAsync_v2(dst: DevicePtr, src: *const c_void, bytes: usize, stream: CUstream);
    cuMemcpyDtoHAsync_v2(dst: *mut c_void, src: DevicePtr, bytes: usize, stream: CUstream);
    cuMemHostRegister_v2(host: *mut c_void, bytes: usize, flags: c_uint);
    cuMemHostUnregister(host: *mut c_void);
    cuMemHostGetDevicePointer_v2(address: *mut DevicePtr, host: *mut c_void, flags: c_uint);
    cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    cuModuleGetFunction(func: *mut CUfunction, module: CUmodule, name: *const c_char);
    cuLaunchKernel(func: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void);
    cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int);
    cuFuncGetParamInfo(func: CUfunction, index: usize, offset: *mut usize, size: *mut usize);
    cuKernelGetParamInfo(kernel: CUkernel, index: usize, offset: *mut usize, size: *mut usize);
    cuDeviceGetMemPool(pool: *mut CUmemoryPool, device: Device);
    cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: c_int, value: *mut c_void);
    cuFuncGetName(name: *mut *const c_char, func: CUfunction);
    cuKernelGetName(name: *mut *const c_char, kernel: CUkernel);
}

/// The answer of a call that has no original.
fn absent() -> CuResult {
    if original::libcuda().is_null() { CuResult::NOT_INITIALIZED } else { CuResult::NOT_SUPPORTED }
}

/// One function's original and how often we called it.
struct Slot {
    original: AtomicPtr<c_void>,
    count: AtomicU64,
}

pub(super) struct Calls {
    slots: [Slot; NAMES.len()],
}

impl Calls {
    pub(super) const fn new() -> Self {
        Calls {
            slots: [const {
                Slot { original: AtomicPtr::new(std::ptr::null_mut()), count: AtomicU64::new(0) }
            }; NAMES.len()],
        }
    }

    /// The original function, counted as called; `None` while libcuda or the
    /// function is not there.
    fn resolve(&self, call: OwnCall) -> Option<*mut c_void> {
        let slot = &self.slots[call as usize];
        let mut original = slot.original.load(Ordering::Acquire);
        if original.is_null() {
            original = original::resolve(NAMES[call as usize]);
            if original.is_null() {
                return None;
            }
            // Two threads may both resolve; they store the same address.
            slot.original.store(original, Ordering::Release);
        }
        slot.count.fetch_add(1, Ordering::Relaxed);
        Some(original)
    }

    /// Whether this driver has the function.
    pub(super) fn offers(&self, call: OwnCall) -> bool {
        !original::resolve(NAMES[call as usize]).is_null()
    }

    /// (name, count) of every function that was called.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        NAMES
            .iter()
            .zip(&self.slots)
            .map(|(name, slot)| (name.to_str().unwrap_or(""), slot.count.load(Ordering::Relaxed)))
            .filter(|&(_, count)| count > 0)
            .collect()
    }
}
