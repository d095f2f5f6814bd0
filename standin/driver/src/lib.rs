//! `libcuda.so.1` without a GPU: a CPU stand-in for the CUDA driver.
//!
//! The flow of a call: a C symbol (`exports`) → converted arguments (`edge`)
//! → its group's body (`api`) → the GPU (`engine`): memory with real aliasing
//! and capacity, streams whose work runs asynchronously on worker threads, a
//! model clock, an account. Kernels run as CPU functions found by name
//! (`standin-kernels`); what a kernel's parameters are, its image says
//! (`image`). `resolve` answers `cuGetProcAddress`; `process` deals with fork
//! and exit.
//!
//! It runs only with the stand-in's own runtime library, and says what it is.

mod abi;
mod api;
mod edge;
mod engine;
mod exports;
mod image;
mod process;
mod resolve;

use std::ffi::c_char;
use std::panic::catch_unwind;

/// How many kernels and globals the bytes of an image name; `None`: they are none. For tests
/// that try arbitrary bytes.
#[doc(hidden)]
pub fn image_symbols(bytes: &[u8]) -> Option<(usize, usize)> {
    let symbols = image::read_bytes(bytes, (8, 6)).ok()?;
    Some((symbols.kernels.len(), symbols.globals.len()))
}

/// Copies the account as JSON text, NUL-terminated and cut to `len` bytes, to
/// `buf`. Returns the length that is needed, including the NUL; 0 before cuInit.
///
/// # Safety
/// `buf` is null or has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn standin_account_json(buf: *mut c_char, len: usize) -> usize {
    let text = catch_unwind(|| {
        let gpu = engine::gpu::gpu().ok()?;
        let state = gpu.state();
        Some(engine::account::json(gpu, &state))
    });
    let Ok(Some(text)) = text else { return 0 };
    if !buf.is_null() && len > 0 {
        let count = text.len().min(len - 1);
        // SAFETY: at most `len` bytes, as the caller promises.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buf, count);
            *buf.add(count) = 0;
        }
    }
    text.len() + 1
}
