//! Copies and fills.
//!
//! The kind a program names selects the driver call, as in NVIDIA's runtime;
//! `cudaMemcpyDefault` leaves it to the driver to look at the pointers.

use std::ffi::c_void;

use crate::abi::{Handle, Memcpy2D, Status, copy_kind, memory_type};
use crate::{api, context, registry};

api! {
    fn cudaMemcpy(to: u64, from: u64, bytes: usize, kind: i32) {
        let driver = context::bind()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the ranges are the caller's, and of the kind it says.
        unsafe {
            match kind {
                copy_kind::HOST_TO_DEVICE => driver.cuMemcpyHtoD(to, from as *const c_void, bytes),
                copy_kind::DEVICE_TO_HOST => driver.cuMemcpyDtoH(to as *mut c_void, from, bytes),
                copy_kind::DEVICE_TO_DEVICE => driver.cuMemcpyDtoD(to, from, bytes),
                copy_kind::HOST_TO_HOST | copy_kind::DEFAULT => driver.cuMemcpy(to, from, bytes),
                _ => Err(Status::INVALID_MEMCPY_DIRECTION),
            }
        }
    }

    fn cudaMemcpyAsync(to: u64, from: u64, bytes: usize, kind: i32, stream: Handle) {
        copy_async(to, from, bytes, kind, stream)
    }

    fn cudaMemcpyPeerAsync(to: u64, to_device: i32, from: u64, from_device: i32, bytes: usize, stream: Handle) {
        let driver = context::bind()?;
        let to_context = context::primary(driver, to_device)?;
        let from_context = context::primary(driver, from_device)?;
        // SAFETY: the ranges are the caller's, the contexts ours.
        unsafe { driver.cuMemcpyPeerAsync(to, to_context, from, from_context, bytes, stream) }
    }

    #[allow(clippy::too_many_arguments, reason = "CUDA's signature")]
    fn cudaMemcpy2DAsync(to: u64, to_pitch: usize, from: u64, from_pitch: usize, width: usize, height: usize, kind: i32, stream: Handle) {
        let driver = context::bind()?;
        let (from_type, to_type) = match kind {
            copy_kind::HOST_TO_HOST => (memory_type::HOST, memory_type::HOST),
            copy_kind::HOST_TO_DEVICE => (memory_type::HOST, memory_type::DEVICE),
            copy_kind::DEVICE_TO_HOST => (memory_type::DEVICE, memory_type::HOST),
            copy_kind::DEVICE_TO_DEVICE => (memory_type::DEVICE, memory_type::DEVICE),
            copy_kind::DEFAULT => (memory_type::UNIFIED, memory_type::UNIFIED),
            _ => return Err(Status::INVALID_MEMCPY_DIRECTION),
        };
        let copy = Memcpy2D {
            src_x_bytes: 0,
            src_y: 0,
            src_memory_type: from_type,
            src_host: from as *const c_void,
            src_device: from,
            src_array: std::ptr::null_mut(),
            src_pitch_bytes: from_pitch,
            dst_x_bytes: 0,
            dst_y: 0,
            dst_memory_type: to_type,
            dst_host: to as *mut c_void,
            dst_device: to,
            dst_array: std::ptr::null_mut(),
            dst_pitch_bytes: to_pitch,
            width_bytes: width,
            height,
        };
        // SAFETY: the description is a live local; the ranges are the caller's.
        unsafe { driver.cuMemcpy2DAsync(&copy, stream) }
    }

    fn cudaMemcpyToSymbol(symbol: *const c_void, from: u64, bytes: usize, offset: usize, kind: i32) {
        let driver = context::bind()?;
        let (address, size) = registry::variable(driver, symbol)?;
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            return Err(Status::INVALID_VALUE);
        }
        let to = address + offset as u64;
        // SAFETY: the target was just checked to lie in the variable; the source is the caller's.
        unsafe {
            match kind {
                copy_kind::HOST_TO_DEVICE => driver.cuMemcpyHtoD(to, from as *const c_void, bytes),
                copy_kind::DEVICE_TO_DEVICE => driver.cuMemcpyDtoD(to, from, bytes),
                copy_kind::DEFAULT => driver.cuMemcpy(to, from, bytes),
                _ => Err(Status::INVALID_MEMCPY_DIRECTION),
            }
        }
    }

    /// Of `value` only the low byte counts.
    fn cudaMemset(address: u64, value: i32, bytes: usize) {
        // SAFETY: the range is checked by the driver.
        unsafe { context::bind()?.cuMemsetD8(address, value as u8, bytes) }
    }

    fn cudaMemsetAsync(address: u64, value: i32, bytes: usize, stream: Handle) {
        // SAFETY: the range is checked by the driver.
        unsafe { context::bind()?.cuMemsetD8Async(address, value as u8, bytes, stream) }
    }
}

fn copy_async(to: u64, from: u64, bytes: usize, kind: i32, stream: Handle) -> Result<(), Status> {
    let driver = context::bind()?;
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the ranges are the caller's, and of the kind it says.
    unsafe {
        match kind {
            copy_kind::HOST_TO_DEVICE => {
                driver.cuMemcpyHtoDAsync(to, from as *const c_void, bytes, stream)
            }
            copy_kind::DEVICE_TO_HOST => {
                driver.cuMemcpyDtoHAsync(to as *mut c_void, from, bytes, stream)
            }
            copy_kind::DEVICE_TO_DEVICE => driver.cuMemcpyDtoDAsync(to, from, bytes, stream),
            copy_kind::HOST_TO_HOST | copy_kind::DEFAULT => {
                driver.cuMemcpyAsync(to, from, bytes, stream)
            }
            _ => Err(Status::INVALID_MEMCPY_DIRECTION),
        }
    }
}
