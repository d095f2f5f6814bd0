//! Initialisation and the life of contexts.

use std::ffi::{c_int, c_uint, c_void};

use super::{Call, layouts, passed_on, retry_when_out_of_memory};
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
    let code = forward();
    // Its functions' handles may come again for others.
    layouts::forget_all();
    code
}

/// `cuCtxCreate_v2` and later, `cuCtxFromGreenCtx`: from now on a default stream
/// may be another context's.
macro_rules! context_makers {
    ($( $hook:ident ( $( $arg:ident : $ty:ty ),* ); )*) => { $(
        /// # Safety
        /// As cuda.h asks.
        pub unsafe fn $hook(
            _call: Call,
            forward: impl Fn() -> CuResult,
            $( $arg: $ty ),*
        ) -> CuResult {
            $( let _ = $arg; )*
            engine::context_made();
            passed_on(forward)
        }
    )* };
}

context_makers! {
    ctx_create(ctx: *mut CUcontext, flags: c_uint, device: Device);
    ctx_create_v3(ctx: *mut CUcontext, affinity: *mut c_void, count: c_int, flags: c_uint, device: Device);
    ctx_create_v4(ctx: *mut CUcontext, params: *mut c_void, flags: c_uint, device: Device);
    ctx_from_green(ctx: *mut CUcontext, green: *mut c_void);
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
    engine::primary_context_resets(device);
    let code = forward();
    if code.is_success() {
        engine::primary_context_reset(device);
        layouts::forget_all();
    }
    code
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
    engine::primary_context_releases(device);
    let code = retry_when_out_of_memory(forward);
    if code.is_success() && driver().primary_ctx_is_active(device) == Ok(false) {
        engine::primary_context_lost(device);
        layouts::forget_all();
    }
    code
}
