//! Stream-ordered allocation and memory pools.
//!
//! Attribute numbers and the access descriptor are the same in both APIs.

use std::ffi::c_void;

use crate::abi::{Handle, Status};
use crate::{api, context};

api! {
    fn cudaMallocAsync(address: *mut u64, bytes: usize, stream: Handle) {
        let driver = context::bind()?;
        if address.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        if bytes == 0 {
            // SAFETY: not null, and the caller's to write.
            unsafe { *address = 0 };
            return Ok(());
        }
        // SAFETY: the caller's pointer.
        unsafe { driver.cuMemAllocAsync(address, bytes, stream) }
    }

    fn cudaFreeAsync(address: u64, stream: Handle) {
        let driver = context::bind()?;
        if address == 0 {
            return Ok(());
        }
        // SAFETY: an address is checked by the driver.
        unsafe { driver.cuMemFreeAsync(address, stream) }
    }

    fn cudaDeviceGetDefaultMemPool(pool: *mut Handle, device: i32) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuDeviceGetDefaultMemPool(pool, device) }
    }

    fn cudaMemPoolGetAttribute(pool: Handle, attribute: i32, value: *mut c_void) {
        // SAFETY: the caller's value has the size the attribute has.
        unsafe { context::bind()?.cuMemPoolGetAttribute(pool, attribute, value) }
    }

    fn cudaMemPoolSetAttribute(pool: Handle, attribute: i32, value: *mut c_void) {
        // SAFETY: the caller's value has the size the attribute has.
        unsafe { context::bind()?.cuMemPoolSetAttribute(pool, attribute, value) }
    }

    fn cudaMemPoolSetAccess(pool: Handle, list: *const c_void, count: usize) {
        // SAFETY: the caller's list holds `count` descriptors.
        unsafe { context::bind()?.cuMemPoolSetAccess(pool, list, count) }
    }

    fn cudaMemPoolTrimTo(pool: Handle, keep_bytes: usize) {
        // SAFETY: takes no pointers of ours.
        unsafe { context::bind()?.cuMemPoolTrimTo(pool, keep_bytes) }
    }
}
