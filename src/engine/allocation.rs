//! Allocations: addresses, ids, frames, and giving them all back.
//!
//! Not here: stream-ordered allocation (see `stream_ordered`).

use std::sync::atomic::Ordering;

use autooffload_core::address_map::NO_CHUNK;
use autooffload_core::memory::{Shortage, Streamer};
use autooffload_core::zone::Freed;

use super::account::{PassedOn, WaitReason, report};
use super::card::room_on_card;
use super::device::{Device as DeviceState, DeviceBackend};
use super::guards::ContextGuard;
use super::operation::current_device;
use super::setup::{self, set_up};
use super::state::{Engine, Failure, Space, engine, hot, lock};
use super::{
    Allocation, ChunkId, FRAME_BYTES, FRAME_SHIFT, THRESHOLD_BYTES, any_capture, chunk_of,
    inflight, stream_ordered,
};
use crate::driver::abi::*;

/// What became of a request: served, whatever the answer is, or the driver's.
pub type Served = std::result::Result<Result<DevicePtr>, PassedOn>;

/// `cuMemAlloc`.
pub fn mem_alloc(bytes: usize) -> Served {
    let engine = engine().ok_or(PassedOn::Inactive)?;
    if bytes < THRESHOLD_BYTES {
        return Err(PassedOn::TooSmall);
    }
    Ok(allocate(engine, bytes, None)?.map(|(_, base)| base))
}

/// A new chunk of the current context's device.
pub(super) fn allocate(
    engine: &'static Engine,
    bytes: usize,
    pool: Option<CUmemoryPool>,
) -> std::result::Result<Result<(ChunkId, DevicePtr)>, PassedOn> {
    // No context: the original gives the right error.
    let device = engine.driver.ctx_get_device().map_err(|_| PassedOn::NoContext)?;
    let ctx = engine.driver.ctx_get_current().map_err(|_| PassedOn::NoContext)?;
    let Some(space) = setup::space(engine) else {
        let blind = engine.no_parameters;
        return Err(if blind { PassedOn::NoParameters } else { PassedOn::NoAddressSpace });
    };
    set_up(engine, device, ctx).ok_or(PassedOn::NoFrames)?;
    let Ok(frames) = u32::try_from(bytes.div_ceil(FRAME_BYTES)) else {
        return Ok(Err(CuResult::OUT_OF_MEMORY));
    };

    let (id, base) = {
        let mut addresses = lock(&space.addresses);
        let Some(base) = addresses.arena.allocate(frames) else {
            return Ok(Err(CuResult::OUT_OF_MEMORY));
        };
        let id = addresses.unused_ids.pop().unwrap_or_else(|| {
            addresses.next_id += 1;
            addresses.next_id - 1
        });
        (id, base)
    };
    let hot = hot(id);
    hot.device.store(device as u32, Ordering::Relaxed);
    hot.bytes.store(bytes as u64, Ordering::Relaxed);
    hot.pooled.store(pool.is_some(), Ordering::Relaxed);
    hot.filled_bytes.store(0, Ordering::Relaxed);
    hot.kept.store(false, Ordering::Relaxed);
    hot.keepers.store(0, Ordering::Relaxed);
    hot.dead.store(false, Ordering::Relaxed);
    engine.users.forget_uses(id, hot);

    let outcome = engine.with_device(device as usize, WaitReason::Allocation, |state| {
        let DeviceState { streamer, backend, .. } = state;
        refresh_cap(engine, streamer, backend);
        backend.add(id, base, bytes, frames);
        let watched = inflight::pressure();
        let mut outcome = streamer.allocate(id, frames, watched, backend);
        if let Err(Shortage::Device { .. }) = outcome {
            take_all_room(engine, streamer, backend);
            outcome = streamer.allocate(id, frames, watched, backend);
        }
        if outcome.is_ok() && backend.order.failure.is_some() {
            // Answered as an error: then there is no such chunk.
            backend.order.forget(id);
            streamer.free(id, backend)?;
        }
        if outcome.is_err() || backend.order.failure.is_some() {
            backend.remove(id);
        }
        outcome
    });
    match outcome {
        Ok(()) => {
            let number = engine.stats.allocations.load(Ordering::Relaxed);
            let allocation = Allocation { base, bytes, device, ctx, pool, number };
            engine.allocations.insert(id, allocation);
            let managed = u64::from(frames) << FRAME_SHIFT;
            engine.managed_bytes[device as usize].fetch_add(managed, Ordering::Relaxed);
            space.map.set(base, frames, id);
            engine.stats.allocated(bytes);
            Ok(Ok((id, base)))
        }
        Err(failure) => {
            give_address_back(space, id, base, frames);
            Ok(Err(match failure {
                Failure::Driver(code) => code,
                Failure::Shortage(shortage) => {
                    let what = format!(
                        "an allocation of {}",
                        autooffload_core::units::format_bytes(bytes as u64)
                    );
                    engine.explain(device as usize, &what, shortage);
                    CuResult::OUT_OF_MEMORY
                }
            }))
        }
    }
}

pub(super) fn give_address_back(space: &Space, id: ChunkId, base: DevicePtr, frames: u32) {
    let mut addresses = lock(&space.addresses);
    addresses.arena.release(base, frames);
    addresses.unused_ids.push(id);
}

/// Reads the card again: what others took or gave back changes our cap. What
/// was there for a moment only does not count yet (`RecentCaps`).
pub(super) fn refresh_cap(engine: &Engine, streamer: &mut Streamer, backend: &mut DeviceBackend) {
    if let Some(frames) = room_on_card(engine, streamer, backend) {
        streamer.set_cap(backend.caps.limit(frames));
    }
}

/// The same when something would fail otherwise: what there is counts.
pub(super) fn take_all_room(engine: &Engine, streamer: &mut Streamer, backend: &mut DeviceBackend) {
    backend.caps.forget();
    refresh_cap(engine, streamer, backend);
}

/// Reads the card now and then while memory moves: another process may need
/// some, or have given some back.
#[inline]
pub(super) fn follow_card(engine: &Engine, streamer: &mut Streamer, backend: &mut DeviceBackend) {
    if backend.caps.due(streamer.operations(), streamer.period()) {
        look_at_card(engine, streamer, backend);
    }
}

#[cold]
fn look_at_card(engine: &Engine, streamer: &mut Streamer, backend: &mut DeviceBackend) {
    if let Some(frames) = room_on_card(engine, streamer, backend) {
        let counts = backend.caps.saw(frames, streamer.operations(), streamer.period());
        streamer.follow_cap(counts);
    }
}

/// `cuMemFree`; blocks until the device is idle, as the driver's does.
/// `None`: not ours.
pub fn mem_free(address: DevicePtr) -> Option<Result<()>> {
    let id = chunk_of(address)?;
    let engine = engine()?;
    let allocation = *engine.allocations.get(&id)?;
    let ctx = match engine.driver.ctx_get_current() {
        Ok(ctx) if !ctx.is_null() => ctx,
        _ => return Some(Err(CuResult::INVALID_CONTEXT)),
    };
    if let Some(pool) = allocation.pool {
        // Legal for stream-ordered memory as well, and waits all the same.
        let over = match synchronize(engine, ctx) {
            Err(CuResult::STREAM_CAPTURE_UNSUPPORTED) => await_uses(engine, id, allocation),
            other => other,
        };
        return match over {
            Ok(()) => stream_ordered::give_back(engine, id, allocation, pool, address, Freed::Long),
            Err(code) => Some(Err(code)),
        };
    }
    if allocation.base != address {
        return Some(Err(CuResult::INVALID_VALUE));
    }
    Some(free(engine, id, allocation))
}

/// Frees the chunk after everything queued in its context is over.
pub(super) fn free(engine: &'static Engine, id: ChunkId, allocation: Allocation) -> Result<()> {
    match synchronize(engine, allocation.ctx) {
        // While something captures, its context cannot be waited for: then the
        // chunk's own uses are.
        Ok(()) | Err(CuResult::STREAM_CAPTURE_UNSUPPORTED) => {}
        Err(code) => return Err(code),
    }
    release(engine, id, allocation);
    Ok(())
}

/// Everything queued in `ctx` is over when this returns, and is known to be.
pub(super) fn synchronize(engine: &Engine, ctx: CUcontext) -> Result<()> {
    if any_capture() {
        return Err(CuResult::STREAM_CAPTURE_UNSUPPORTED);
    }
    let _context = ContextGuard::enter(engine.driver, ctx);
    // Before the wait: another thread may queue more while we wait.
    let ended = engine.users.end_stretches(ctx);
    engine.driver.ctx_synchronize()?;
    engine.users.are_over(&ended);
    Ok(())
}

/// What uses the chunk is over when this returns.
fn await_uses(engine: &Engine, id: ChunkId, allocation: Allocation) -> Result<()> {
    let outcome = engine.with_device(allocation.device as usize, WaitReason::Native, |state| {
        match state.backend.order.is_unused(id) {
            true => Ok(()),
            false => Err(Shortage::Unfinished),
        }
    });
    outcome.map_err(|failure| match failure {
        Failure::Driver(code) => code,
        Failure::Shortage(_) => CuResult::OUT_OF_MEMORY,
    })
}

/// Takes the chunk apart, when what uses it is over.
pub(super) fn release(engine: &'static Engine, id: ChunkId, allocation: Allocation) {
    let Some(space) = engine.space.get() else { return };
    let frames = allocation.bytes.div_ceil(FRAME_BYTES) as u32;
    // Unlisted first: from here on nobody takes the address for ours.
    space.map.set(allocation.base, frames, NO_CHUNK);
    let device = allocation.device as usize;
    if engine.allocations.remove(&id).is_some() {
        let managed = u64::from(frames) << FRAME_SHIFT;
        engine.managed_bytes[device].fetch_sub(managed, Ordering::Relaxed);
    }
    let mut last = false;
    let outcome = engine.with_device(device, WaitReason::Native, |state| {
        let DeviceState { streamer, backend, .. } = state;
        streamer.free(id, backend)?;
        backend.remove(id);
        last = backend.is_empty();
        Ok(())
    });
    if last {
        engine.give_host_memory_back(device);
    }
    if outcome.is_err() {
        log::debug!("freeing met a broken context");
        // Whatever used it cannot be waited for: it goes all the same, for its
        // address and its number do.
        let _ = engine.with_device(device, WaitReason::Native, |state| {
            let DeviceState { streamer, backend, .. } = state;
            if streamer.contains(id) {
                backend.order.forget(id);
                streamer.free(id, backend)?;
                backend.remove(id);
            }
            Ok(())
        });
    }
    report::forget_fill(engine, id);
    engine.stats.freed(allocation.bytes);
    give_address_back(space, id, allocation.base, frames);
}

/// A call of the program ran out of device memory: gives free frames and
/// headroom back to the driver. `true`: try the call once more.
///
/// Not to be called by a thread whose operation is under way: it may evict.
pub fn release_for_retry() -> bool {
    /// Enough for a kernel module or a small allocation that passes through.
    const FRAMES: u32 = 32;
    let Some(engine) = engine() else { return false };
    let Some(device) = current_device(engine) else { return false };
    if lock(&engine.devices[device].state).is_none() {
        return false;
    }
    let mut given = 0;
    let outcome = engine.with_device(device, WaitReason::Allocation, |state| {
        let DeviceState { streamer, backend, .. } = state;
        if streamer.live_frames() == 0 {
            return Ok(());
        }
        let wish = FRAMES.min(streamer.live_frames() / 8).max(1);
        given = match streamer.give_back(wish, backend) {
            Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
            // Held by another thread: then there is nothing to give, not a wait.
            other => other.unwrap_or(0),
        };
        Ok(())
    });
    outcome.is_ok() && given > 0
}
