//! Streams and contexts that end, and devices that reach each other's memory.

use std::sync::atomic::Ordering;

use autooffload_core::unmanaged::Unmanaged;

use super::account::WaitReason;
use super::allocation::{release, synchronize};
use super::device::Device as DeviceState;
use super::state::{Engine, engine, lock};
use super::{Allocation, ChunkId, stream_ordered};
use crate::driver::abi::*;

/// Called before the original destroys `stream`.
pub fn stream_destroyed(stream: CUstream) {
    let Some(engine) = engine() else { return };
    engine.users.stream_ends(stream);
}

/// Called before the original makes a context.
pub fn context_made() {
    if let Some(engine) = engine() {
        engine.users.context_made();
    }
}

/// The context of `accessor` may from now on read and write the memory of
/// `owner` (`cuCtxEnablePeerAccess`): what is mapped, and what will be.
pub fn peer_access_enabled(accessor: Device, owner: Device) {
    let Some(engine) = engine() else { return };
    let Some(slot) = engine.devices.get(owner as usize) else { return };
    if engine.peers[owner as usize].fetch_or(1 << accessor, Ordering::Relaxed) & (1 << accessor)
        != 0
    {
        return;
    }
    if lock(&slot.state).is_none() {
        return;
    }
    let outcome = engine.with_device(owner as usize, WaitReason::PlanChange, |state| {
        for id in state.streamer.mapped() {
            state.backend.grant(id, accessor);
        }
        Ok(())
    });
    if outcome.is_err() {
        log::debug!("device {accessor} gets no access to all memory of device {owner}");
    }
}

/// Called before `ctx`, which is not a primary one, is destroyed: its
/// allocations end with it.
pub fn context_destroyed(device: Device, ctx: CUcontext) {
    let Some(engine) = engine() else { return };
    // The driver's own waits for it as well.
    if let Err(code) = synchronize(engine, ctx) {
        log::debug!("waiting for an ending context: {code}");
    }
    take_back(engine, device, ctx);
    engine.users.context_ends(ctx);
}

/// Takes back what was allocated in `ctx`, which is over. Stream-ordered memory
/// belongs to the device's pools: it goes when nobody else has any there.
fn take_back(engine: &'static Engine, device: Device, ctx: CUcontext) {
    engine.small.context_ends(ctx);
    let here: Vec<(ChunkId, Allocation)> = engine
        .allocations
        .iter()
        .filter(|entry| entry.device == device)
        .map(|entry| (*entry.key(), *entry.value()))
        .collect();
    let shared = here.iter().any(|(_, other)| other.ctx != ctx);
    for &(id, allocation) in &here {
        if allocation.ctx == ctx && (allocation.pool.is_none() || !shared) {
            release(engine, id, allocation);
        }
    }
    if !shared {
        stream_ordered::context_lost(engine, device);
    }
}

/// The context that our streams of `device` are in, if it was set up.
fn our_context(engine: &Engine, device: Device) -> Option<CUcontext> {
    let slot = engine.devices.get(device as usize)?;
    lock(&slot.state).as_ref().map(|state| state.backend.ctx)
}

/// Called before the primary context of `device` is reset. Our streams go with
/// it; what other contexts have on the device lives on.
pub fn primary_context_resets(device: Device) {
    let Some(engine) = engine() else { return };
    let Some(ctx) = our_context(engine, device) else { return };
    if let Err(code) = synchronize(engine, ctx) {
        log::debug!("waiting for an ending context: {code}");
    }
    primary_context_ends(engine, device, ctx);
}

fn primary_context_ends(engine: &'static Engine, device: Device, ctx: CUcontext) {
    let slot = &engine.devices[device as usize];
    engine.users.context_ends(ctx);
    // What the next one takes is not known yet.
    *lock(&engine.unmanaged[device as usize]) = Unmanaged::default();
    if let Some(state) = lock(&slot.state).as_mut() {
        state.backend.order.forget_events();
    }
    take_back(engine, device, ctx);
    if !engine.allocations.iter().any(|entry| entry.device == device) {
        // The next allocation sets the device up again.
        *lock(&slot.state) = None;
        // Whoever waits for chunks to be let go finds the device gone.
        slot.released.notify_all();
    }
}

/// Called when it was reset: what lives there is served by streams in the next.
pub fn primary_context_reset(device: Device) {
    let Some(engine) = engine() else { return };
    let Some(slot) = engine.devices.get(device as usize) else { return };
    if let Some(state) = lock(&slot.state).as_mut()
        && let Err(code) = state.backend.renew(&engine.users)
    {
        log::error!(
            "device {device}: the driver gives us no stream after a reset ({code}): calls that name \
             memory of our keeping may fail; start the program again"
        );
    }
}

/// Called before the program gives up its hold on the primary context of
/// `device`: what other contexts have there needs our streams in it.
pub fn primary_context_releases(device: Device) {
    let Some(engine) = engine() else { return };
    let Some(slot) = engine.devices.get(device as usize) else { return };
    let mut state = lock(&slot.state);
    let Some(DeviceState { backend, .. }) = state.as_mut() else { return };
    let ctx = backend.ctx;
    let foreign = || engine.allocations.iter().any(|a| a.device == device && a.ctx != ctx);
    if !backend.holds_context && foreign() {
        backend.holds_context = engine.driver.primary_ctx_retain(device).is_ok();
    }
}

/// Called when the primary context of `device` is no longer active.
pub fn primary_context_lost(device: Device) {
    let Some(engine) = engine() else { return };
    if let Some(ctx) = our_context(engine, device) {
        primary_context_ends(engine, device, ctx);
    }
}
