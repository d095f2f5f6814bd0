//! Initialisation and the life of contexts.

use std::ffi::c_uint;

use super::{Call, retry_when_out_of_memory};
use crate::driver::abi::*;
use crate::driver::driver;
use crate::{engine, lifecycle};

/// `cuInit`: the engine starts after the first one that succeeds.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn init(_call: Call, forward: impl Fn() -> CuResult, _flags: c_uint) -> CuResult {
    let code = forward();
    if code.is_success() {
        lifecycle::started();
    }
    code
}

/// `cuCtxDestroy(_v2)`: the engine lets go before the context is gone.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn ctx_destroy(_call: Call, forward: impl Fn() -> CuResult, ctx: CUcontext) -> CuResult {
    if let Ok(device) = device_of(ctx) {
        engine::context_destroyed(device, ctx);
    }
    forward()
}

/// `cuCtxEnablePeerAccess`: memory of our keeping is opened to the current
/// context's device by its address, as the driver opens its own.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn enable_peer_access(
    _call: Call,
    forward: impl Fn() -> CuResult,
    peer: CUcontext,
    _flags: c_uint,
) -> CuResult {
    let code = forward();
    if code.is_success()
        && let (Ok(accessor), Ok(owner)) = (driver().ctx_get_device(), device_of(peer))
    {
        engine::peer_access_enabled(accessor, owner);
    }
    code
}

/// The device of `ctx`, whatever context the thread has.
fn device_of(ctx: CUcontext) -> Result<Device> {
    driver().ctx_push_current(ctx)?;
    let device = driver().ctx_get_device();
    driver().ctx_pop_current()?;
    device
}

/// `cuDevicePrimaryCtxReset(_v2)`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn primary_ctx_reset(
    _call: Call,
    forward: impl Fn() -> CuResult,
    device: Device,
) -> CuResult {
    engine::context_lost(device);
    forward()
}

/// `cuDevicePrimaryCtxRelease(_v2)`: libraries retain and release in pairs, so
/// only the driver knows whether this was the last.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn primary_ctx_release(
    _call: Call,
    forward: impl Fn() -> CuResult,
    device: Device,
) -> CuResult {
    let code = retry_when_out_of_memory(forward);
    if code.is_success() && driver().primary_ctx_is_active(device) == Ok(false) {
        engine::context_lost(device);
    }
    code
}
