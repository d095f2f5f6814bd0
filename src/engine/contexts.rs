//! Streams and contexts that end, and devices that reach each other's memory.

use std::sync::atomic::Ordering;

use autooffload_core::address_map::NO_CHUNK;

use super::account::{WaitReason, report};
use super::allocation::{free, give_address_back};
use super::state::{engine, lock, space};
use super::{Allocation, ChunkId, FRAME_BYTES, MAX_DEVICES, stream_ordered, streams};
use crate::driver::Driver;
use crate::driver::abi::*;

/// Called before the original destroys `stream`.
pub fn stream_destroyed(stream: CUstream) {
    let Some(engine) = engine() else { return };
    streams::forget(stream);
    stream_ordered::stream_destroyed(engine, stream);
    for device in &engine.devices[..engine.device_count.min(MAX_DEVICES)] {
        if let Some(state) = lock(&device.state).as_mut() {
            state.backend.forget_stream(stream);
        }
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
        log::warn!("device {accessor} could not be given access to all memory of device {owner}");
    }
}

/// Called before `ctx` of `device` is destroyed: its allocations end with it.
pub fn context_destroyed(device: Device, ctx: CUcontext) {
    let Some(engine) = engine() else { return };
    let Some(slot) = engine.devices.get(device as usize) else { return };
    match lock(&slot.state).as_ref().map(|state| state.backend.ctx) {
        None => return,
        Some(ours) if ours == ctx => return context_lost(device),
        Some(_) => {}
    }
    let ended: Vec<(ChunkId, Allocation)> = engine
        .allocations
        .iter()
        .filter(|entry| entry.device == device && entry.ctx == ctx && entry.pool.is_none())
        .map(|entry| (*entry.key(), *entry.value()))
        .collect();
    for (id, allocation) in ended {
        if let Err(code) = free(engine, id, allocation) {
            log::debug!("freeing an ending context's memory: {code}");
        }
    }
}

/// Called before a primary context is reset, or when it has ended: the driver
/// takes everything on that device down, so we forget it.
pub fn context_lost(device: Device) {
    let (Some(engine), Some(space)) = (engine(), space()) else { return };
    let Some(slot) = engine.devices.get(device as usize) else { return };
    let Some(mut state) = lock(&slot.state).take() else { return };
    // Whoever waits for chunks to be let go finds the device gone.
    slot.released.notify_all();
    let lost: Vec<(ChunkId, Allocation)> = engine
        .allocations
        .iter()
        .filter(|entry| entry.device == device)
        .map(|entry| (*entry.key(), *entry.value()))
        .collect();
    for (id, allocation) in lost {
        let frames = allocation.bytes.div_ceil(FRAME_BYTES) as u32;
        space.map.set(allocation.base, frames, NO_CHUNK);
        engine.allocations.remove(&id);
        engine.stats.freed(allocation.bytes);
        report::forget_fill(engine, id);
        give_address_back(space, id, allocation.base, frames);
    }
    state.backend.abandon();
    stream_ordered::context_lost(engine, device);
}

/// For work of one device that used memory of another: rare, so thorough.
pub(super) fn synchronize_every_device(driver: &Driver) -> Result<()> {
    let Some(engine) = engine() else { return Ok(()) };
    for device in 0..engine.device_count {
        let device = device as Device;
        // One that nobody uses has nothing queued, and must not be made.
        if driver.primary_ctx_is_active(device) != Ok(true) {
            continue;
        }
        // Retaining answers the primary context without touching locks of ours.
        let ctx = driver.primary_ctx_retain(device)?;
        driver.ctx_push_current(ctx)?;
        let outcome = driver.ctx_synchronize();
        let _ = driver.ctx_pop_current();
        let _ = driver.primary_ctx_release(device);
        outcome?;
    }
    Ok(())
}
