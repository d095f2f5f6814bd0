//! cuBLAS handles: a stream, a math mode and a pointer mode.
//!
//! The workspace PyTorch gives a handle is not needed and not remembered.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering::Relaxed};

use standin_blas_common::{Handle, Status};

use crate::api;

/// `CUBLAS_POINTER_MODE_HOST`: scalars lie in host memory.
pub const POINTER_MODE_HOST: i32 = 0;

/// What a `cublasHandle_t` points to. Settings are atomics because nothing
/// stops a program from changing them while another thread calls.
pub struct Context {
    stream: AtomicPtr<c_void>,
    math_mode: AtomicI32,
    pointer_mode: AtomicI32,
}

impl Context {
    pub fn stream(&self) -> Handle {
        self.stream.load(Relaxed)
    }

    pub fn scalars_on_host(&self) -> bool {
        self.pointer_mode.load(Relaxed) == POINTER_MODE_HOST
    }
}

/// # Safety
/// `handle` is null or came from `cublasCreate_v2` and was not destroyed.
pub unsafe fn get<'a>(handle: Handle) -> Result<&'a Context, Status> {
    // SAFETY: as the caller promises.
    unsafe { handle.cast::<Context>().as_ref() }.ok_or(Status::NOT_INITIALIZED)
}

api! {
    fn cublasCreate_v2(handle: *mut Handle) {
        if handle.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let context = Box::new(Context {
            stream: AtomicPtr::new(std::ptr::null_mut()),
            math_mode: AtomicI32::new(0),
            pointer_mode: AtomicI32::new(POINTER_MODE_HOST),
        });
        // SAFETY: not null, and the caller's to write.
        unsafe { *handle = Box::into_raw(context).cast() };
        Ok(())
    }

    fn cublasDestroy_v2(handle: Handle) {
        if handle.is_null() {
            return Err(Status::NOT_INITIALIZED);
        }
        // SAFETY: a handle of ours, not used afterwards.
        drop(unsafe { Box::from_raw(handle.cast::<Context>()) });
        Ok(())
    }

    fn cublasSetStream_v2(handle: Handle, stream: Handle) {
        // SAFETY: the caller's handle.
        unsafe { get(handle)? }.stream.store(stream, Relaxed);
        Ok(())
    }

    fn cublasSetWorkspace_v2(handle: Handle, _workspace: *mut c_void, _bytes: usize) {
        // SAFETY: the caller's handle.
        unsafe { get(handle) }.map(|_| ())
    }

    fn cublasSetMathMode(handle: Handle, mode: i32) {
        // SAFETY: the caller's handle.
        unsafe { get(handle)? }.math_mode.store(mode, Relaxed);
        Ok(())
    }

    fn cublasGetMathMode(handle: Handle, mode: *mut i32) {
        if mode.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller's handle; the result is not null.
        unsafe { *mode = get(handle)?.math_mode.load(Relaxed) };
        Ok(())
    }

    fn cublasSetPointerMode_v2(handle: Handle, mode: i32) {
        // SAFETY: the caller's handle.
        unsafe { get(handle)? }.pointer_mode.store(mode, Relaxed);
        Ok(())
    }

    fn cublasGetPointerMode_v2(handle: Handle, mode: *mut i32) {
        if mode.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller's handle; the result is not null.
        unsafe { *mode = get(handle)?.pointer_mode.load(Relaxed) };
        Ok(())
    }
}
