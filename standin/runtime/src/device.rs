//! Devices: counting, choosing, describing and waiting for them.

use std::ffi::c_char;

use crate::abi::Status;
use crate::properties::{self, DeviceProperties};
use crate::{api, context};

api! {
    fn cudaGetDeviceCount(count: *mut i32) {
        if count.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller's to write.
        unsafe { *count = 0 };
        // SAFETY: as above.
        unsafe { context::init()?.cuDeviceGetCount(count) }
    }

    fn cudaGetDevice(device: *mut i32) {
        if device.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        context::init()?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *device = context::device() };
        Ok(())
    }

    fn cudaSetDevice(device: i32) {
        context::set_device(device)
    }

    fn cudaGetDeviceProperties(properties: *mut DeviceProperties, device: i32) {
        if properties.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let filled = properties::read(context::init()?, device)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *properties = filled };
        Ok(())
    }

    /// Attributes have the same numbers in both APIs.
    fn cudaDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32) {
        // SAFETY: the caller's pointer.
        unsafe { context::init()?.cuDeviceGetAttribute(value, attribute, device) }
    }

    fn cudaDeviceGetPCIBusId(text: *mut c_char, length: i32, device: i32) {
        // SAFETY: the caller's buffer of `length` bytes.
        unsafe { context::init()?.cuDeviceGetPCIBusId(text, length, device) }
    }

    fn cudaDeviceCanAccessPeer(can: *mut i32, device: i32, peer: i32) {
        // SAFETY: the caller's pointer.
        unsafe { context::init()?.cuDeviceCanAccessPeer(can, device, peer) }
    }

    fn cudaDeviceEnablePeerAccess(peer: i32, flags: u32) {
        let driver = context::bind()?;
        let peer = context::primary(driver, peer)?;
        // SAFETY: a primary context we hold.
        unsafe { driver.cuCtxEnablePeerAccess(peer, flags) }
    }

    fn cudaDeviceSynchronize() {
        // SAFETY: takes no pointers.
        unsafe { context::bind()?.cuCtxSynchronize() }
    }

    fn cudaDeviceGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) {
        // SAFETY: the caller's pointers, each of which may be null.
        unsafe { context::bind()?.cuCtxGetStreamPriorityRange(least, greatest) }
    }

    fn cudaProfilerStart() {
        // SAFETY: takes no pointers.
        unsafe { context::bind()?.cuProfilerStart() }
    }

    fn cudaProfilerStop() {
        // SAFETY: takes no pointers.
        unsafe { context::bind()?.cuProfilerStop() }
    }
}
