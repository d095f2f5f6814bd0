//! Stream-ordered allocation (`cuMemAllocAsync` and pools): ComfyUI's default.
//!
//! The program calls this per tensor, so the usual path makes no driver call:
//! what was freed is reused in stream order, its frames still mapped. Only a
//! size never seen before takes a new chunk. Pools of the program are kept
//! apart by handle; their limits and attributes stay with the driver, which
//! answers for what we pass through (allocations inside a capture).
//!
//! Locks: the zones' own, taken before a device's and never after one.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use autooffload_core::zone::{self, Freed, Zone};

use super::account::{PassedOn, WaitReason};
use super::allocation::Served;
use super::operation::current_device;
use super::state::{Engine, engine, hot, lock};
use super::{Allocation, ChunkId, FRAME_BYTES, allocation, any_capture, chunk_of, inflight};
use crate::driver::Driver;
use crate::driver::abi::*;

/// The stream as a zone names it.
fn tag(stream: CUstream) -> u64 {
    // 0 and 1 are the same stream.
    if stream.is_null() { STREAM_LEGACY as u64 } else { stream as u64 }
}

/// `cuMemAllocAsync` / `cuMemAllocFromPoolAsync`. `stream` is effective (see
/// [`effective_stream`]); `pool` is `None` for the device's current pool.
pub fn mem_alloc_async(bytes: usize, pool: Option<CUmemoryPool>, stream: CUstream) -> Served {
    let engine = engine().ok_or(PassedOn::Inactive)?;
    match is_capturing(engine, stream) {
        Ok(false) => {}
        // It becomes a node of the graph: the driver's.
        Ok(true) => return Err(PassedOn::Capturing),
        Err(code) => return Ok(Err(code)),
    }
    let device = current_device(engine).ok_or(PassedOn::NoContext)?;
    let pool = pool.unwrap_or(std::ptr::null_mut());
    let mut zones = lock(&engine.zones);
    let key = (device as Device, pool as usize);
    if !zones.contains_key(&key)
        && !pool.is_null()
        && let Err(code) = engine.driver.pool_exists(pool)
    {
        return Ok(Err(code));
    }
    let zone = zones.entry(key).or_default();
    let answer = match zone::class_of(bytes as u64) {
        Some(class) => small(engine, zone, class, pool, stream),
        None => large(engine, zone, device, bytes, pool, stream),
    };
    answer
}

/// Whether `stream` captures. Errors: the driver's, for what is no stream.
fn is_capturing(engine: &Engine, stream: CUstream) -> Result<bool> {
    // The default streams always are.
    let named = stream as usize > STREAM_PER_THREAD as usize;
    if named || any_capture() { engine.driver.stream_is_capturing(stream) } else { Ok(false) }
}

/// The pool that `allocation` came from, null for none.
pub fn pool_of(allocation: &Allocation) -> CUmemoryPool {
    let none = std::ptr::null_mut();
    match (allocation.pool, engine()) {
        (Some(pool), _) if !pool.is_null() => pool,
        // Of the device's current pool.
        (Some(_), Some(engine)) => engine.driver.current_pool(allocation.device).unwrap_or(none),
        _ => none,
    }
}

fn small(
    engine: &'static Engine,
    zone: &mut Zone,
    class: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> Served {
    let taken = zone.take_slot(class, tag(stream));
    let (address, freed) = match taken {
        Some(taken) => taken,
        None => {
            match allocation::allocate(engine, zone::SLAB_BYTES as usize, Some(pool))? {
                Ok((chunk, base)) => zone.add_slab(class, chunk, base),
                Err(code) => return Ok(Err(code)),
            }
            zone.take_slot(class, tag(stream)).expect("a slab that is new")
        }
    };
    Ok(order(engine, freed, stream).map(|()| address))
}

fn large(
    engine: &'static Engine,
    zone: &mut Zone,
    device: usize,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> Served {
    let Ok(frames) = u32::try_from(bytes.div_ceil(FRAME_BYTES)) else {
        return Ok(Err(CuResult::OUT_OF_MEMORY));
    };
    // A little too large is better than new; under pressure, much too large.
    let tight = lock(&engine.devices[device].state)
        .as_ref()
        .is_some_and(|state| state.streamer.would_evict(frames));
    let most = frames.saturating_add(if tight { frames } else { frames / 8 });
    if let Some((chunk, freed)) = zone.take_chunk(frames, most, tag(stream)) {
        hot(chunk).dead.store(false, Ordering::Release);
        let base = engine.allocations.get(&chunk).expect("a chunk that is kept").base;
        return Ok(order(engine, freed, stream).map(|()| base));
    }
    // Whole frames: the next taker of the chunk may ask for the last byte of
    // them, and what is kept on the host is as long as what was asked for first.
    let bytes = frames as usize * FRAME_BYTES;
    Ok(allocation::allocate(engine, bytes, Some(pool))?.map(|(_, base)| {
        zone.add_chunk(frames);
        base
    }))
}

/// Makes later work of `stream` wait for what was freed.
fn order(engine: &Engine, freed: Freed, stream: CUstream) -> Result<()> {
    let driver = engine.driver;
    let event = match freed {
        Freed::Long => return Ok(()),
        Freed::After(event) => event as CUevent,
        // A capture began only after everything queued before was over; and
        // an event recorded now would become a part of its graph.
        Freed::On(other) if captures(driver, other as CUstream) => return Ok(()),
        Freed::On(other) => {
            // Later than the free itself, so never too early.
            let event = driver.event_create(true)?;
            if let Err(code) = driver.event_record(event, other as CUstream) {
                let _ = driver.event_destroy(event);
                return Err(code);
            }
            event
        }
    };
    let outcome = driver.stream_wait_event(stream, event);
    // Destroyed by the driver once the wait is over.
    let _ = driver.event_destroy(event);
    outcome
}

fn captures(driver: &Driver, stream: CUstream) -> bool {
    any_capture() && driver.stream_is_capturing(stream).unwrap_or(false)
}

/// `cuMemFreeAsync`. `None`: not ours.
pub fn mem_free_async(address: DevicePtr, stream: CUstream) -> Option<Result<()>> {
    let id = chunk_of(address)?;
    let engine = engine()?;
    let allocation = *engine.allocations.get(&id)?;
    if let Err(code) = is_capturing(engine, stream) {
        return Some(Err(code));
    }
    let Some(pool) = allocation.pool else {
        // Legal for memory of `cuMemAlloc` too; then it waits.
        if allocation.base != address {
            return Some(Err(CuResult::INVALID_VALUE));
        }
        return Some(allocation::free(engine, id, allocation).map(|_| ()));
    };
    let mut zones = lock(&engine.zones);
    let zone = zones.get_mut(&(allocation.device, pool as usize))?;
    let freed = if stream == STREAM_PER_THREAD {
        // No other thread can name this stream later, so the mark is made now.
        let marked = engine.driver.event_create(true).and_then(|event| {
            engine.driver.event_record(event, stream).map(|()| Freed::After(event as u64))
        });
        match marked {
            Ok(freed) => freed,
            Err(code) => return Some(Err(code)),
        }
    } else {
        Freed::On(tag(stream))
    };
    if zone.is_slab(id) {
        let known = zone.give_slot(id, address, freed);
        return Some(if known { Ok(()) } else { Err(CuResult::INVALID_VALUE) });
    }
    if allocation.base != address || zone.is_cached(id) {
        return Some(Err(CuResult::INVALID_VALUE));
    }
    let frames = allocation.bytes.div_ceil(FRAME_BYTES) as u32;
    zone.give_chunk(id, frames, freed);
    // Should it have to go before somebody takes it, it need not be saved.
    hot(id).dead.store(true, Ordering::Release);
    if inflight::pressure()
        && let Some(state) = lock(&engine.devices[allocation.device as usize].state).as_mut()
    {
        // Need not be saved when it must go.
        state.streamer.forget_content(id);
    }
    Some(Ok(()))
}

/// `cuMemPoolTrimTo`: gives cached stream-ordered memory back. The hook calls
/// the original as well.
pub fn pool_trim(pool: CUmemoryPool, keep_bytes: usize) {
    let Some(engine) = engine() else { return };
    let mut zones = lock(&engine.zones);
    let Some(zone) = zone_of(engine, &mut zones, pool) else { return };
    let mut settled = None;
    let mut events = Vec::new();
    let gone = zone.drain(keep_bytes as u64, &mut events);
    for event in events {
        let _ = engine.driver.event_destroy(event as CUevent);
    }
    for id in gone {
        let Some(allocation) = engine.allocations.get(&id).map(|entry| *entry) else { continue };
        if settled.is_some() {
            allocation::release(engine, id, allocation, settled);
        } else {
            settled = allocation::free(engine, id, allocation).unwrap_or(None);
        }
    }
}

/// (reserved, used) bytes that we hold for `pool`, to be added to what the
/// driver answers for `CU_MEMPOOL_ATTR_{RESERVED,USED}_MEM_CURRENT`.
pub fn pool_usage(pool: CUmemoryPool) -> (usize, usize) {
    let Some(engine) = engine() else { return (0, 0) };
    let mut zones = lock(&engine.zones);
    let zone = zone_of(engine, &mut zones, pool);
    zone.map_or((0, 0), |zone| {
        let (reserved, used) = zone.usage();
        (reserved as usize, used as usize)
    })
}

/// The zone of a pool's handle; a handle never allocated from by name stands
/// for the current device's pool.
fn zone_of<'a>(
    engine: &Engine,
    zones: &'a mut HashMap<(Device, usize), Zone>,
    pool: CUmemoryPool,
) -> Option<&'a mut Zone> {
    let key = zones.keys().find(|&&(_, known)| known == pool as usize && known != 0).copied();
    let key = match key {
        Some(key) => key,
        None => (current_device(engine)? as Device, 0),
    };
    zones.get_mut(&key)
}

/// The part of a slab that `address` was given out as: base and bytes.
pub(super) fn slot_at(
    id: ChunkId,
    allocation: &Allocation,
    address: DevicePtr,
) -> Option<(u64, u64)> {
    let pool = allocation.pool?;
    let engine = engine()?;
    let zones = lock(&engine.zones);
    zones.get(&(allocation.device, pool as usize))?.slot_at(id, address)
}

/// `stream` is about to be destroyed, perhaps with work still queued: what was
/// freed on it may be reused once that is over.
pub(super) fn stream_destroyed(engine: &Engine, stream: CUstream) {
    let mut zones = lock(&engine.zones);
    for zone in zones.values_mut() {
        if zone.awaits(tag(stream)) {
            let began = std::time::Instant::now();
            if engine.driver.stream_synchronize(stream).is_ok() {
                zone.settle(tag(stream));
            }
            engine.stats.waited(WaitReason::Native, began.elapsed());
        }
    }
}

/// The device's memory is gone.
pub(super) fn context_lost(engine: &Engine, device: Device) {
    lock(&engine.zones).retain(|&(owner, _), _| owner != device);
}
