//! Device memory, pinned host memory, and what a pointer points to.

use std::ffi::c_void;

use crate::abi::{PointerAttributes, Status};
use crate::{api, context};

api! {
    fn cudaMalloc(address: *mut u64, bytes: usize) {
        let driver = context::bind()?;
        if address.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        if bytes == 0 {
            // The runtime API gives a null pointer where the driver reports an error.
            // SAFETY: not null, and the caller's to write.
            unsafe { *address = 0 };
            return Ok(());
        }
        // SAFETY: the caller's pointer, as cudaMalloc requires it.
        unsafe { driver.cuMemAlloc(address, bytes) }
    }

    /// `cudaFree(0)` is the customary way to create the context, hence the bind first.
    fn cudaFree(address: u64) {
        let driver = context::bind()?;
        if address == 0 {
            return Ok(());
        }
        // SAFETY: an address is checked by the driver.
        unsafe { driver.cuMemFree(address) }
    }

    fn cudaMemGetInfo(free: *mut usize, total: *mut usize) {
        // SAFETY: the caller's pointers.
        unsafe { context::bind()?.cuMemGetInfo(free, total) }
    }

    /// The flags have the same values in both APIs.
    fn cudaMallocHost(address: *mut *mut c_void, bytes: usize) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuMemHostAlloc(address, bytes, 0) }
    }

    fn cudaHostAlloc(address: *mut *mut c_void, bytes: usize, flags: u32) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuMemHostAlloc(address, bytes, flags) }
    }

    fn cudaFreeHost(address: *mut c_void) {
        let driver = context::bind()?;
        if address.is_null() {
            return Ok(());
        }
        // SAFETY: an address is checked by the driver.
        unsafe { driver.cuMemFreeHost(address) }
    }

    fn cudaHostRegister(address: *mut c_void, bytes: usize, flags: u32) {
        // SAFETY: the caller owns the range for as long as it is registered.
        unsafe { context::bind()?.cuMemHostRegister(address, bytes, flags) }
    }

    fn cudaHostUnregister(address: *mut c_void) {
        // SAFETY: an address is checked by the driver.
        unsafe { context::bind()?.cuMemHostUnregister(address) }
    }

    /// Memory CUDA knows nothing of is "unregistered", which is no error.
    fn cudaPointerGetAttributes(attributes: *mut PointerAttributes, pointer: u64) {
        if attributes.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let found = pointer_attributes(pointer)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *attributes = found };
        Ok(())
    }
}

/// `CUpointer_attribute` numbers.
mod pointer_attribute {
    pub const MEMORY_TYPE: i32 = 2;
    pub const DEVICE_POINTER: i32 = 3;
    pub const HOST_POINTER: i32 = 4;
    pub const IS_MANAGED: i32 = 8;
    pub const DEVICE_ORDINAL: i32 = 9;
}

pub fn pointer_attributes(pointer: u64) -> Result<PointerAttributes, Status> {
    let driver = context::bind()?;
    let mut memory_type = 0i32;
    let mut device_pointer = 0u64;
    let mut host_pointer = 0u64;
    let mut managed = 0u32;
    let mut device = -1i32;
    let mut names = [
        pointer_attribute::MEMORY_TYPE,
        pointer_attribute::DEVICE_POINTER,
        pointer_attribute::HOST_POINTER,
        pointer_attribute::IS_MANAGED,
        pointer_attribute::DEVICE_ORDINAL,
    ];
    let mut values: [*mut c_void; 5] = [
        (&raw mut memory_type).cast(),
        (&raw mut device_pointer).cast(),
        (&raw mut host_pointer).cast(),
        (&raw mut managed).cast(),
        (&raw mut device).cast(),
    ];
    // SAFETY: each value points to a live local of the size its attribute has.
    unsafe {
        driver.cuPointerGetAttributes(
            names.len() as u32,
            names.as_mut_ptr(),
            values.as_mut_ptr(),
            pointer,
        )?;
    }
    let kind = match (managed & 1, memory_type) {
        (1, _) => 3,
        (_, crate::abi::memory_type::HOST) => 1,
        (_, crate::abi::memory_type::DEVICE) => 2,
        _ => 0,
    };
    if kind == 0 {
        // The runtime answers the pointer itself as the host pointer.
        return Ok(PointerAttributes {
            kind,
            device: -1,
            device_pointer: 0,
            host_pointer: pointer,
            reserved: [0; 8],
        });
    }
    Ok(PointerAttributes { kind, device, device_pointer, host_pointer, reserved: [0; 8] })
}
