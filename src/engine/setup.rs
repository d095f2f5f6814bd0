//! The address space and a device's state, made when they are first needed; and
//! what the driver must be able to do for that.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use autooffload_core::address_map::{AddressMap, Arena};

use super::chunk_bits::Hot;
use super::device::Device as DeviceState;
use super::guards::{ContextGuard, RelaxedCapture};
use super::state::{Addresses, Engine, Space, lock, window};
use super::{ARENA_BYTES, ARENA_BYTES_MIN, FRAME_BYTES, FRAME_SHIFT};
use crate::driver::abi::*;

/// The address space, reserved when it is first needed. `None`: the driver
/// gives none, so nothing can be managed (said once).
pub(super) fn space(engine: &'static Engine) -> Option<&'static Space> {
    if engine.no_parameters {
        let why = "this driver does not say what kernels take (it is older than CUDA 12.4: install \
                   driver 550 or newer)";
        engine.passed.say_unmanaged(why);
    }
    if engine.manages_nothing() {
        return None;
    }
    let reserved = engine.space.get_or_try_init(|| {
        let mut bytes = ARENA_BYTES;
        let base = loop {
            match engine.driver.mem_address_reserve(bytes, FRAME_BYTES) {
                Err(_) if bytes > ARENA_BYTES_MIN => bytes /= 2,
                other => break other?,
            }
        };
        let frames = bytes >> FRAME_SHIFT;
        // Every chunk takes a frame and a guard frame of address space at least.
        let hot = (0..frames / 2 + 1).map(|_| Hot::default()).collect();
        Ok(Space {
            map: AddressMap::new(base, frames),
            hot,
            addresses: Mutex::new(Addresses {
                arena: Arena::new(base, frames as u32),
                unused_ids: Vec::new(),
                next_id: 0,
            }),
        })
    });
    reserved
        .inspect_err(|code: &CuResult| {
            engine.no_space.store(true, Ordering::Relaxed);
            let why = format!("this driver gives no device address space ({code})");
            engine.passed.say_unmanaged(&why);
        })
        .ok()
}

/// The device's state, made at its first managed allocation.
pub(super) fn set_up(engine: &'static Engine, device: Device, ctx: CUcontext) -> Option<()> {
    let mut state = lock(&engine.devices.get(device as usize)?.state);
    if state.is_some() {
        return Some(());
    }
    // The virtual-memory attribute of the device (CU_DEVICE_ATTRIBUTE 102).
    const VMM_SUPPORTED: std::ffi::c_int = 102;
    if engine.driver.device_get_attribute(VMM_SUPPORTED, device) == Ok(0)
        || engine
            .driver
            .mem_granularity(device)
            .is_ok_and(|bytes| !FRAME_BYTES.is_multiple_of(bytes))
    {
        engine.passed.warn_once(format!(
            "device {device} has no virtual memory of 2 MiB frames (an old card, or a vGPU \
             profile): not offloading there"
        ));
        return None;
    }
    let window = window(&engine.config.read().unwrap_or_else(PoisonError::into_inner));
    let _relaxed = RelaxedCapture::enter(engine.driver);
    // Our streams live in the primary context, which outlives the program's
    // others. Somebody in it holds it already; else we do, for good.
    let primary = engine.driver.primary_ctx_retain(device).ok()?;
    let holds_context = primary != ctx;
    if !holds_context {
        let _ = engine.driver.primary_ctx_release(device);
    }
    let ctx = primary;
    let _context = ContextGuard::enter(engine.driver, ctx);
    match DeviceState::new(
        engine.driver,
        &engine.host_store,
        &engine.stats,
        &engine.users,
        device,
        ctx,
        holds_context,
        window,
    ) {
        Ok(made) => *state = Some(made),
        Err(code) => {
            engine.passed.warn_once(format!(
                "device {device}: the driver gives us no stream ({code}): not offloading there; see \
                 whether other programs fail as well"
            ));
            return None;
        }
    }
    Some(())
}
