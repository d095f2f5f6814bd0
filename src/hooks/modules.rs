//! Modules and libraries: where kernel handles come from and end.

use std::ffi::{c_char, c_uint};

use super::{Call, layouts};
use crate::driver::abi::*;
use crate::engine;

/// Hook for `cuModuleUnload`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn unload_module(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _module: CUmodule,
) -> CuResult {
    forget_then(forward)
}

/// Hook for `cuLibraryUnload`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn unload_library(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _library: CUlibrary,
) -> CuResult {
    forget_then(forward)
}

/// Forgets before, for another thread may be given one of the handles as soon
/// as the original has let go, and after, for one may have asked meanwhile.
fn forget_then(forward: impl Fn() -> CuResult) -> CuResult {
    layouts::forget_all();
    let code = engine::watch_card(0, forward);
    layouts::forget_all();
    code
}

/// Hook for `cuLibraryGetKernel`: such handles go into `cuLaunchKernel` in
/// place of a `CUfunction`, but are asked about by another name.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn get_kernel(
    _call: Call,
    forward: impl Fn() -> CuResult,
    kernel: *mut CUkernel,
    _library: CUlibrary,
    _name: *const c_char,
) -> CuResult {
    let code = forward();
    if code.is_success() && !kernel.is_null() {
        // SAFETY: the driver has just written it.
        layouts::note_kernel(unsafe { *kernel });
    }
    code
}

/// Hook for `cuLibraryEnumerateKernels`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn enumerate_kernels(
    _call: Call,
    forward: impl Fn() -> CuResult,
    kernels: *mut CUkernel,
    count: c_uint,
    _library: CUlibrary,
) -> CuResult {
    if !kernels.is_null() {
        // Null first: the library may hold fewer kernels than were asked for.
        for i in 0..count as usize {
            // SAFETY: the array has `count` entries, all for the driver to write.
            unsafe { *kernels.add(i) = std::ptr::null_mut() };
        }
    }
    let code = forward();
    if code.is_success() && !kernels.is_null() {
        for i in 0..count as usize {
            // SAFETY: as above.
            let kernel = unsafe { *kernels.add(i) };
            if !kernel.is_null() {
                layouts::note_kernel(kernel);
            }
        }
    }
    code
}
