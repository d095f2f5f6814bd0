//! Calls that would let a managed address escape from our keeping: another
//! process, another device or a texture unit would read frames that we move.
//! Refused with the code the driver uses for memory that cannot be shared, or
//! the chunk stays resident for good; either is said.

use std::ffi::{c_int, c_uint, c_void};

use super::{Call, say_once};
use crate::driver::abi::*;
use crate::engine;

/// Refuses, once with a sentence, if `address` is managed.
macro_rules! refuse_if_managed {
    ($address:expr, $forward:expr, $what:literal) => {{
        if engine::chunk_of($address).is_none() {
            return $forward();
        }
        say_once!(
            error,
            concat!(
                $what,
                " is not possible for memory that may be offloaded; run this program with AUTOOFFLOAD=0 if it needs it"
            )
        );
        CuResult::NOT_SUPPORTED
    }};
}

/// Keeps the chunk of `address`, if any, resident for good; then the original.
fn resident_for(address: DevicePtr, why: &'static str, forward: impl Fn() -> CuResult) -> CuResult {
    if let Some(chunk) = engine::chunk_of(address)
        && let Err(code) = engine::pin_for_good(chunk, why)
    {
        return code;
    }
    forward()
}

/// Hook for `cuIpcGetMemHandle`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn ipc_get_mem_handle(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _handle: *mut c_void,
    address: DevicePtr,
) -> CuResult {
    refuse_if_managed!(address, forward, "sharing device memory with another process")
}

/// Hook for `cuMemPoolExportPointer`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn pool_export_pointer(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _data: *mut c_void,
    address: DevicePtr,
) -> CuResult {
    refuse_if_managed!(address, forward, "sharing pool memory with another process")
}

/// Hook for `cuMemGetHandleForAddressRange` (dma-buf).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn handle_for_address_range(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _handle: *mut c_void,
    address: DevicePtr,
    _bytes: usize,
    _kind: c_int,
    _flags: u64,
) -> CuResult {
    refuse_if_managed!(address, forward, "exporting device memory (dma-buf)")
}

/// Hook for `cuMemRetainAllocationHandle`: to the program a managed address is
/// `cuMemAlloc` memory, which has no allocation handle.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn retain_allocation_handle(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _handle: *mut MemHandle,
    address: *mut c_void,
) -> CuResult {
    if engine::chunk_of(address as DevicePtr).is_some() {
        return CuResult::INVALID_VALUE;
    }
    forward()
}

/// Hook for `cuMulticastBindAddr`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn multicast_bind_addr(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _multicast: MemHandle,
    _offset: usize,
    address: DevicePtr,
    _bytes: usize,
    _flags: u64,
) -> CuResult {
    refuse_if_managed!(address, forward, "binding to a multicast object")
}

/// Hook for `cuMulticastBindAddr_v2` (CUDA 13.1).
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn multicast_bind_addr_v2(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _multicast: MemHandle,
    _device: Device,
    _offset: usize,
    address: DevicePtr,
    _bytes: usize,
    _flags: u64,
) -> CuResult {
    refuse_if_managed!(address, forward, "binding to a multicast object")
}

/// Hook for `cuLogicalEndpointBindAddr` (CUDA 13.3).
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn logical_endpoint_bind_addr(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _endpoint: c_uint,
    _device: Device,
    _offset: u64,
    address: *mut c_void,
    _bytes: u64,
    _flags: u64,
) -> CuResult {
    refuse_if_managed!(address as DevicePtr, forward, "binding to a logical endpoint")
}

/// Hook for `cuTexRefSetAddress_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn texref_set_address(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _offset: *mut usize,
    _texture: *mut c_void,
    address: DevicePtr,
    _bytes: usize,
) -> CuResult {
    resident_for(address, "a texture", forward)
}

/// Hook for `cuTexRefSetAddress2D_v3`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn texref_set_address_2d(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _texture: *mut c_void,
    _descriptor: *const c_void,
    address: DevicePtr,
    _pitch: usize,
) -> CuResult {
    resident_for(address, "a texture", forward)
}

/// Hook for `cuTexObjectCreate`: linear and pitched resources hold an address.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn texture_create(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _texture: *mut u64,
    resource: *const c_void,
    _description: *const c_void,
    _view: *const c_void,
) -> CuResult {
    const LINEAR: u64 = 2;
    const PITCH_2D: u64 = 3;
    if resource.is_null() {
        return forward();
    }
    // SAFETY: a CUDA_RESOURCE_DESC begins with its type, 32 bits and padding,
    // and goes on with the union, whose first word is the handle or address.
    let [kind, address] = unsafe { resource.cast::<[u64; 2]>().read() };
    match kind & u64::from(u32::MAX) {
        LINEAR | PITCH_2D => resident_for(address, "a texture", forward),
        _ => forward(),
    }
}
