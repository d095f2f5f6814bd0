//! Stream-ordered allocation (`cuMemAllocAsync` and pools): ComfyUI's default.
//!
//! The program calls this per tensor, so the usual path makes no driver call:
//! what was freed is reused in stream order, its frames still mapped. Only a
//! size never seen before takes a new chunk. Pools of the program are kept
//! apart by handle; their limits and attributes stay with the driver, which
//! answers for what we pass through (allocations inside a capture).
//!
//! Locks: the zones', alone: it is held across no call that can wait.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use autooffload_core::zone::{self, Freed, Zone};

use super::account::PassedOn;
use super::allocation::Served;
use super::operation::current_device;
use super::state::{Engine, engine, hot, lock};
use super::users::{Point, UserId};
use super::{Allocation, ChunkId, FRAME_BYTES, allocation, any_capture, chunk_of, inflight};
use crate::driver::abi::*;

type Zones = HashMap<(Device, usize), Zone>;

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
    let user = engine.users.of(stream).ok_or(PassedOn::NoFrames)?;
    let pool = pool.unwrap_or(std::ptr::null_mut());
    let key = (device as Device, pool as usize);
    let known = lock(&engine.zones).contains_key(&key);
    if !known
        && !pool.is_null()
        && let Err(code) = engine.driver.pool_exists(pool)
    {
        return Ok(Err(code));
    }
    let taken = match zone::class_of(bytes as u64) {
        Some(class) => small(engine, key, class, user),
        None => large(engine, key, device, bytes, user),
    };
    Ok(match taken? {
        Ok((address, freed)) => order(engine, freed, user, stream).map(|()| address),
        Err(code) => Err(code),
    })
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

/// An address, and what its user has to wait for.
type Taken = Result<(DevicePtr, Freed)>;

fn small(
    engine: &'static Engine,
    key: (Device, usize),
    class: usize,
    user: UserId,
) -> std::result::Result<Taken, PassedOn> {
    let take = |zones: &mut Zones| zones.entry(key).or_default().take_slot(class, user);
    if let Some(taken) = take(&mut lock(&engine.zones)) {
        return Ok(Ok(taken));
    }
    let pool = key.1 as CUmemoryPool;
    Ok(allocation::allocate(engine, zone::SLAB_BYTES as usize, Some(pool))?.map(|(chunk, base)| {
        let mut zones = lock(&engine.zones);
        zones.entry(key).or_default().add_slab(class, chunk, base);
        take(&mut zones).expect("a slab that is new")
    }))
}

fn large(
    engine: &'static Engine,
    key: (Device, usize),
    device: usize,
    bytes: usize,
    user: UserId,
) -> std::result::Result<Taken, PassedOn> {
    let Ok(frames) = u32::try_from(bytes.div_ceil(FRAME_BYTES)) else {
        return Ok(Err(CuResult::OUT_OF_MEMORY));
    };
    // A little too large is better than new; under pressure, much too large.
    let tight = lock(&engine.devices[device].state)
        .as_ref()
        .is_some_and(|state| state.streamer.would_evict(frames));
    let most = frames.saturating_add(if tight { frames } else { frames / 8 });
    let taken = lock(&engine.zones).entry(key).or_default().take_chunk(frames, most, user);
    if let Some((chunk, freed)) = taken {
        hot(chunk).dead.store(false, Ordering::Release);
        let base = engine.allocations.get(&chunk).expect("a chunk that is kept").base;
        return Ok(Ok((base, freed)));
    }
    // Whole frames: the next taker of the chunk may ask for the last byte of
    // them, and what is kept on the host is as long as what was asked for first.
    let bytes = frames as usize * FRAME_BYTES;
    let pool = key.1 as CUmemoryPool;
    Ok(allocation::allocate(engine, bytes, Some(pool))?.map(|(_, base)| {
        lock(&engine.zones).entry(key).or_default().add_chunk(frames);
        (base, Freed::Long)
    }))
}

/// Makes later work of `user`, which is `stream`, wait for what was freed.
fn order(engine: &Engine, freed: Freed, user: UserId, stream: CUstream) -> Result<()> {
    let Freed::By { user: former, stretch } = freed else { return Ok(()) };
    let Some((behind, mark)) = engine.users.mark_behind(Point { user: former, stretch })? else {
        return Ok(());
    };
    if !engine.users.awaits(user, behind) {
        return Ok(());
    }
    engine.driver.stream_wait_event(stream, mark.event())
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
        return Some(allocation::free(engine, id, allocation));
    };
    // Where it was freed. No other thread can mark a per-thread default stream.
    let user = engine.users.of(stream);
    let freed = match user {
        Some(user) if stream == STREAM_PER_THREAD => match engine.users.mark(user) {
            Ok(Point { user, stretch }) => Freed::By { user, stretch },
            Err(code) => return Some(Err(code)),
        },
        Some(user) => {
            let stretch = engine.users.stretch(user);
            if any_capture() {
                // It may begin to capture, and cannot be marked then.
                let _ = engine.users.mark(user);
            }
            Freed::By { user, stretch }
        }
        None => match engine.driver.stream_synchronize(stream) {
            Ok(()) => Freed::Long,
            Err(code) => return Some(Err(code)),
        },
    };
    give_back(engine, id, allocation, pool, address, freed)
}

/// What was allocated at `address` from `pool`, in the chunk `id`, may be taken by
/// others. `None`: the pool is gone.
pub(super) fn give_back(
    engine: &Engine,
    id: ChunkId,
    allocation: Allocation,
    pool: CUmemoryPool,
    address: DevicePtr,
    freed: Freed,
) -> Option<Result<()>> {
    {
        let mut zones = lock(&engine.zones);
        let zone = zones.get_mut(&(allocation.device, pool as usize))?;
        if zone.is_slab(id) {
            let known = zone.give_slot(id, address, freed);
            return Some(if known { Ok(()) } else { Err(CuResult::INVALID_VALUE) });
        }
        if allocation.base != address || zone.is_cached(id) {
            return Some(Err(CuResult::INVALID_VALUE));
        }
    }
    // Should it have to go before somebody takes it, it need not be saved; said
    // before somebody can, for what they write must be kept.
    hot(id).dead.store(true, Ordering::Release);
    if inflight::pressure()
        && let Some(state) = lock(&engine.devices[allocation.device as usize].state).as_mut()
        && state.streamer.contains(id)
    {
        // Need not be saved when it must go.
        state.streamer.forget_content(id);
    }
    let frames = allocation.bytes.div_ceil(FRAME_BYTES) as u32;
    let mut zones = lock(&engine.zones);
    zones.get_mut(&(allocation.device, pool as usize))?.give_chunk(id, frames, freed);
    Some(Ok(()))
}

/// `cuMemPoolTrimTo`: gives cached stream-ordered memory back. The hook calls
/// the original as well.
pub fn pool_trim(pool: CUmemoryPool, keep_bytes: usize) {
    let Some(engine) = engine() else { return };
    let gone = {
        let mut zones = lock(&engine.zones);
        let Some(zone) = zone_of(engine, &mut zones, pool) else { return };
        zone.drain(keep_bytes as u64)
    };
    for id in gone {
        let Some(allocation) = engine.allocations.get(&id).map(|entry| *entry) else { continue };
        if let Err(code) = allocation::synchronize(engine, allocation.ctx) {
            log::debug!("trimming a pool: {code}");
        }
        allocation::release(engine, id, allocation);
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
fn zone_of<'a>(engine: &Engine, zones: &'a mut Zones, pool: CUmemoryPool) -> Option<&'a mut Zone> {
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

/// The device's memory is gone.
pub(super) fn context_lost(engine: &Engine, device: Device) {
    lock(&engine.zones).retain(|&(owner, _), _| owner != device);
}
