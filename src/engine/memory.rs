//! Allocations: addresses, ids, frames, and giving them all back.
//!
//! Not here: stream-ordered allocation (see `stream_ordered`).

use std::sync::atomic::{AtomicBool, Ordering};

use autooffload_core::address_map::{AddressMap, Arena, NO_CHUNK};
use autooffload_core::config::Limit;

use super::*;

/// Before any model was loaded, this much of what the card already misses is
/// taken for our own context; the rest belongs to other processes, and no
/// budget of ours counts it. (Contexts on current cards: 300 to 600 MB.)
const CONTEXT_BYTES: u64 = 600 << 20;

/// `cuMemAlloc`. `None`: too small or not ours, call the original.
pub fn mem_alloc(bytes: usize) -> Option<Result<DevicePtr>> {
    if bytes < THRESHOLD_BYTES {
        return None;
    }
    let engine = engine()?;
    Some(allocate(engine, bytes, None)?.map(|(_, base)| base))
}

/// A new chunk of the current context's device. `None`: pass through.
pub(super) fn allocate(
    engine: &'static Engine,
    bytes: usize,
    pool: Option<CUmemoryPool>,
) -> Option<Result<(ChunkId, DevicePtr)>> {
    // No context: the original gives the right error.
    let device = engine.driver.ctx_get_device().ok()?;
    let ctx = engine.driver.ctx_get_current().ok()?;
    let space = space(engine)?;
    set_up(engine, device, ctx)?;
    let Ok(frames) = u32::try_from(bytes.div_ceil(FRAME_BYTES)) else {
        return Some(Err(CuResult::OUT_OF_MEMORY));
    };

    let (id, base) = {
        let mut addresses = lock(&space.addresses);
        let Some(base) = addresses.arena.allocate(frames) else {
            return Some(Err(CuResult::OUT_OF_MEMORY));
        };
        let id = addresses.unused_ids.pop().unwrap_or_else(|| {
            addresses.next_id += 1;
            addresses.next_id - 1
        });
        (id, base)
    };
    let hot = hot(id);
    hot.device.store(device as u32, Ordering::Relaxed);
    hot.filled_kib.store(0, Ordering::Relaxed);
    hot.kept.store(false, Ordering::Relaxed);
    hot.forget_uses();

    let outcome = engine.with_device(device as usize, WaitReason::Allocation, |state| {
        let DeviceState { streamer, machinery, .. } = state;
        refresh_cap(engine, streamer, machinery);
        machinery.add(id, base, bytes, frames);
        let outcome = streamer.allocate(id, frames, inflight::pressure(), machinery);
        if outcome.is_ok() && machinery.failure.is_some() {
            // Answered as an error: then there is no such chunk.
            streamer.free(id, machinery);
        }
        if outcome.is_err() || machinery.failure.is_some() {
            machinery.remove(id);
        }
        outcome
    });
    match outcome {
        Ok(()) => {
            let allocation = Allocation { base, bytes, device, ctx, pool };
            engine.allocations.insert(id, allocation);
            space.map.set(base, frames, id);
            engine.stats.allocated(bytes);
            Some(Ok((id, base)))
        }
        Err(failure) => {
            give_address_back(space, id, base, frames);
            Some(Err(match failure {
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

fn give_address_back(space: &Space, id: ChunkId, base: DevicePtr, frames: u32) {
    let mut addresses = lock(&space.addresses);
    addresses.arena.release(base, frames);
    addresses.unused_ids.push(id);
}

/// The address space, reserved when it is first needed. `None`: the driver
/// gives none, so nothing can be managed (said once).
fn space(engine: &Engine) -> Option<&'static Space> {
    static FAILED: AtomicBool = AtomicBool::new(false);
    if FAILED.load(Ordering::Relaxed) {
        return None;
    }
    let reserved = SPACE.get_or_try_init(|| {
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
            map: AddressMap::new(base, frames, FRAME_SHIFT),
            hot,
            addresses: Mutex::new(Addresses {
                arena: Arena::new(base, frames as u32, FRAME_SHIFT),
                unused_ids: Vec::new(),
                next_id: 0,
            }),
        })
    });
    reserved
        .inspect_err(|code: &CuResult| {
            if !FAILED.swap(true, Ordering::Relaxed) {
                log::error!(
                    "this driver gives no device address space ({code}): running without offloading"
                );
            }
        })
        .ok()
}

/// The device's state, made at its first managed allocation.
fn set_up(engine: &'static Engine, device: Device, ctx: CUcontext) -> Option<()> {
    let mut state = lock(&engine.devices.get(device as usize)?.state);
    if state.is_some() {
        return Some(());
    }
    // The virtual-memory attribute of the device (CU_DEVICE_ATTRIBUTE 102).
    const VMM_SUPPORTED: std::ffi::c_int = 102;
    if engine.driver.device_get_attribute(VMM_SUPPORTED, device) == Ok(0)
        || engine.driver.mem_granularity(device).is_ok_and(|bytes| FRAME_BYTES % bytes != 0)
    {
        log::warn!("device {device} has no virtual memory of 2 MiB frames: not offloading there");
        return None;
    }
    let window = window(&engine.config.read().unwrap_or_else(PoisonError::into_inner));
    let _relaxed = RelaxedCapture::enter(engine.driver);
    // Our streams live in the primary context, which outlives the program's
    // others. Somebody in it holds it already; else we do, for good.
    let primary = engine.driver.primary_ctx_retain(device).ok()?;
    if primary == ctx {
        let _ = engine.driver.primary_ctx_release(device);
    }
    let ctx = primary;
    let _context = ContextGuard::enter(engine.driver, ctx);
    match DeviceState::new(engine.driver, &engine.host_store, &engine.stats, device, ctx, window) {
        Ok(made) => *state = Some(made),
        Err(code) => {
            log::error!(
                "device {device}: no internal stream to be had ({code}): not offloading there"
            );
            return None;
        }
    }
    Some(())
}

/// Reads the card again: what others took or gave back changes our cap.
pub(super) fn refresh_cap(
    engine: &Engine,
    streamer: &mut autooffload_core::memory::Streamer,
    machinery: &mut Machinery,
) {
    let Ok((free, total)) = engine.driver.mem_get_info() else { return };
    let (free, total) = (free as u64, total as u64);
    let ours = u64::from(streamer.live_frames()) << FRAME_SHIFT;
    let untracked = total.saturating_sub(free + ours);
    let foreign = *machinery.foreign_bytes.get_or_insert(untracked.saturating_sub(CONTEXT_BYTES));
    let config = engine.config.read().unwrap_or_else(PoisonError::into_inner);
    let budget = config.budget_bytes(total, free, ours);
    let for_frames = match config.vram {
        // What the driver says is left for us, minus the headroom.
        Limit::Auto => budget,
        // The program's own unmanaged memory counts; other processes' does not.
        Limit::Given(_) => {
            budget.saturating_sub(untracked.saturating_sub(foreign)).min(free + ours)
        }
    };
    let reported = match config.vram {
        Limit::Auto => budget + untracked,
        Limit::Given(_) => budget,
    };
    engine.stats.budget_bytes.store(reported, Ordering::Relaxed);
    streamer.set_cap((for_frames >> FRAME_SHIFT) as u32);
}

/// `cuMemFree`; blocks until the device is idle, as the driver's does.
/// `None`: not ours.
pub fn mem_free(address: DevicePtr) -> Option<Result<()>> {
    let id = chunk_of(address)?;
    let engine = engine()?;
    let allocation = *engine.allocations.get(&id)?;
    if allocation.pool.is_some() {
        // Legal for stream-ordered memory as well, and waits all the same.
        if let Err(code) = engine.driver.ctx_synchronize() {
            return Some(Err(code));
        }
        return stream_ordered::mem_free_async(address, STREAM_LEGACY);
    }
    if allocation.base != address {
        return Some(Err(CuResult::INVALID_VALUE));
    }
    Some(free(engine, id, allocation).map(|_| ()))
}

/// Everything queued on a device is over: true as long as the number of
/// things that we queued there is still this.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    queued: u64,
}

/// Frees the chunk after everything queued on its device is over; answers what
/// is known of the device then.
pub(super) fn free(
    engine: &'static Engine,
    id: ChunkId,
    allocation: Allocation,
) -> Result<Option<Settled>> {
    // Before the wait: another thread's launch may queue copies of this very
    // chunk (a prefetch, an eviction) while we wait, or after.
    let before = lock(&engine.devices[allocation.device as usize].state)
        .as_ref()
        .map(|state| (state.machinery.ctx, state.machinery.queued));
    let settled = {
        let _context = ContextGuard::enter(engine.driver, allocation.ctx);
        let _relaxed = RelaxedCapture::enter(engine.driver);
        // While something captures, its context cannot be waited for: then
        // the chunk's own uses are.
        let over = if any_capture() {
            Err(CuResult::STREAM_CAPTURE_UNSUPPORTED)
        } else {
            engine.driver.ctx_synchronize()
        };
        match over {
            // Our copies run in our context, which may be another.
            Ok(()) => before
                .filter(|&(ours, _)| ours == allocation.ctx)
                .map(|(_, queued)| Settled { queued }),
            Err(CuResult::STREAM_CAPTURE_UNSUPPORTED) => None,
            Err(code) => return Err(code),
        }
    };
    release(engine, id, allocation, settled);
    Ok(settled)
}

/// Takes the chunk apart. `settled`: what is known of its device.
pub(super) fn release(
    engine: &'static Engine,
    id: ChunkId,
    allocation: Allocation,
    settled: Option<Settled>,
) {
    let Some(space) = SPACE.get() else { return };
    let frames = allocation.bytes.div_ceil(FRAME_BYTES) as u32;
    // Unlisted first: from here on nobody takes the address for ours.
    space.map.set(allocation.base, frames, NO_CHUNK);
    engine.allocations.remove(&id);
    let device = allocation.device as usize;
    let outcome = engine.with_device(device, WaitReason::Native, |state| {
        let DeviceState { streamer, machinery, .. } = state;
        machinery.idle = settled.is_some_and(|settled| settled.queued == machinery.queued);
        streamer.free(id, machinery);
        machinery.remove(id);
        machinery.idle = false;
        Ok(())
    });
    if outcome.is_err() {
        log::debug!("freeing met a broken context");
    }
    report::forget_fill(id);
    engine.stats.freed(allocation.bytes);
    give_address_back(space, id, allocation.base, frames);
}

/// A call of the program ran out of device memory: gives free frames and
/// headroom back to the driver. `true`: try the call once more.
///
/// Not to be called by a thread that holds an [`Access`]: it may evict.
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
        let DeviceState { streamer, machinery, .. } = state;
        if streamer.live_frames() == 0 {
            return Ok(());
        }
        let wish = FRAMES.min(streamer.live_frames() / 8).max(1);
        // Held by another thread: then there is nothing to give, not a wait.
        given = streamer.give_back(wish, machinery).unwrap_or(0);
        Ok(())
    });
    outcome.is_ok() && given > 0
}

/// Called before the original destroys `stream`.
pub fn stream_destroyed(stream: CUstream) {
    let Some(engine) = engine() else { return };
    streams::forget(stream);
    stream_ordered::stream_destroyed(engine, stream);
    for device in &engine.devices[..engine.device_count.min(MAX_DEVICES)] {
        if let Some(state) = lock(&device.state).as_mut() {
            state.machinery.forget_stream(stream);
        }
    }
}

/// The context of `accessor` may from now on read and write the memory of
/// `owner` (`cuCtxEnablePeerAccess`): what is mapped, and what will be.
pub fn peer_access_enabled(accessor: Device, owner: Device) {
    let Some(engine) = engine() else { return };
    let Some(slot) = engine.devices.get(owner as usize) else { return };
    if device::PEERS[owner as usize].fetch_or(1 << accessor, Ordering::Relaxed) & (1 << accessor)
        != 0
    {
        return;
    }
    if lock(&slot.state).is_none() {
        return;
    }
    let outcome = engine.with_device(owner as usize, WaitReason::PlanChange, |state| {
        for id in state.streamer.mapped() {
            state.machinery.grant(id, accessor);
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
    match lock(&slot.state).as_ref().map(|state| state.machinery.ctx) {
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
    let (Some(engine), Some(space)) = (engine(), SPACE.get()) else { return };
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
        report::forget_fill(id);
        give_address_back(space, id, allocation.base, frames);
    }
    state.machinery.abandon();
    stream_ordered::context_lost(device);
}
