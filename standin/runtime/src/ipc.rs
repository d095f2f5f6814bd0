//! Sharing with other processes, which the stand-in does not have: the driver
//! is asked and answers so; the two calls whose handle goes by value are
//! answered here.

use std::ffi::c_void;

use crate::abi::{Handle, Status};
use crate::{api, context};

/// `cudaIpcMemHandle_t` and `cudaIpcEventHandle_t`, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle([u8; 64]);

api! {
    fn cudaIpcGetMemHandle(handle: *mut c_void, address: u64) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuIpcGetMemHandle(handle, address) }
    }

    fn cudaIpcOpenMemHandle(_address: *mut u64, _handle: IpcHandle, _flags: u32) {
        context::bind()?;
        Err(Status::NOT_SUPPORTED)
    }

    fn cudaIpcCloseMemHandle(address: u64) {
        // SAFETY: an address is checked by the driver.
        unsafe { context::bind()?.cuIpcCloseMemHandle(address) }
    }

    fn cudaIpcGetEventHandle(handle: *mut c_void, event: Handle) {
        // SAFETY: the caller's pointer and event.
        unsafe { context::bind()?.cuIpcGetEventHandle(handle, event) }
    }

    fn cudaIpcOpenEventHandle(_event: *mut Handle, _handle: IpcHandle) {
        context::bind()?;
        Err(Status::NOT_SUPPORTED)
    }
}
