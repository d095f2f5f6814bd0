//! Carries plans out: what the hooks ask, and nothing of CUDA's calling
//! conventions.
//!
//! The hooks hand over converted arguments; every function here either serves
//! the request or answers that it is not ours, and then the hook calls the
//! original. Nothing here is called before `cuInit` has succeeded, or in a
//! forked child. After the exit handler ran, threads that still launch are
//! still served: on the driver alone they would run on absent bytes.
//!
//! Flow of one launch: hook → [`Managed::map`] on every parameter word →
//! [`Managed::begin_fast`], and nothing is to be done, or [`carefully`] (chunks present,
//! waits queued on the stream) → original → use noted, next copies submitted.
//!
//! The rooms:
//! - `state`: everything the engine knows, and the locks round it;
//! - `operation`: a launch, copy or memset until its use is noted;
//! - `allocation`, `stream_ordered`: memory given out and taken back;
//! - `reach`: what a launch reaches through tables in device memory;
//! - `card`: how much of the card is ours to use;
//! - `passed_on`, `small`: memory that stays the driver's, why, and where;
//! - `contexts`, `captures`: what ends, and what may not move;
//! - `ranges`: what the program itself wants kept resident, by address;
//! - `setup`: the address space and a device, when they are first needed;
//! - `device`: one device's frames, copies and waits (`device::order`);
//! - `remembered`: the order of a program, kept for its next start;
//! - `flights`, `inflight`: launches while nothing moves;
//! - `waits`: the program's thread waits here, without a lock;
//! - `planning`: when a plan is searched for, and carried out;
//! - `host`: host memory; `account`: what is counted and told;
//! - `threads`: those of our own.
//!
//! Threads: all of this runs on the program's. One of our own searches for a
//! plan when that takes long (`planning`), one says so when a wait does not end
//! (`waits`); they touch nothing else. Another, once memory moves, writes this
//! process's page (`account::page`). The order of the locks is in `state`.

mod account;
mod allocation;
mod captures;
mod card;
mod chunk_bits;
mod contexts;
mod device;
mod flights;
mod guards;
mod host;
mod inflight;
mod operation;
mod passed_on;
mod planning;
mod ranges;
mod reach;
mod remembered;
mod setup;
mod small;
mod state;
mod stream_ordered;
mod threads;
mod users;
mod verify;
mod waits;

/// What `flights` is made of; where its interleavings are tried, something else.
mod sync {
    pub(super) use super::state::lock;
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    pub use std::sync::{Arc, Mutex};
}

use autooffload_core::address_map::{AddressMap, FRAME_SHIFT};
use autooffload_core::memory::Effect;

pub use account::report::{device_total_mem, ends, mem_get_info, stats_json, summary};
pub use account::{PassedOn, Recorded, recorded};
pub use allocation::{mem_alloc, mem_free, release_for_retry};
pub use autooffload_core::address_map::ChunkId;
pub use captures::{
    any_capture, capture_begins, capture_ended, is_kept, pin_for_good, pin_for_graph,
    stream_blocked, stream_blocks, stream_joins, stream_waited,
};
pub use card::{UNKNOWN_BYTES, watch_card};
pub use contexts::{
    context_destroyed, context_made, peer_access_enabled, primary_context_lost,
    primary_context_releases, primary_context_reset, primary_context_resets, stream_destroyed,
};
pub use operation::{Touched, carefully};
pub use passed_on::{pass_on, pass_on_mapping};
pub use ranges::{Range, keep, ranges_json, release};
pub use reach::Launched;
pub use small::{small_allocated, small_freed, small_span};
pub use state::{panicked, reconfigure, start};
pub use stream_ordered::{mem_alloc_async, mem_free_async, pool_of, pool_trim, pool_usage};
pub use threads::spawn;

use crate::driver::abi::*;
use state::{Engine, Space, engine, space};

const FRAME_BYTES: usize = 1 << FRAME_SHIFT;
/// Smaller allocations pass through: a frame each would waste more than
/// moving them could win. PyTorch's own segments begin at 2 MiB.
const THRESHOLD_BYTES: usize = 1 << 20;
/// Device address space asked for; halved until the driver has it.
const ARENA_BYTES: usize = 1 << 40;
const ARENA_BYTES_MIN: usize = 1 << 36;
const MAX_DEVICES: usize = 64;

/// What the hooks need to answer queries about a managed address.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub base: DevicePtr,
    /// As the program asked for, bytes.
    pub bytes: usize,
    pub device: Device,
    /// The context the allocation was made in.
    pub ctx: CUcontext,
    /// Of stream-ordered origin (`cuMemAllocAsync`): the pool it came from.
    pub pool: Option<CUmemoryPool>,
    /// Rises from one to the next.
    pub number: u64,
}

// SAFETY: the handles in it may be used from any thread.
unsafe impl Send for Allocation {}
// SAFETY: as above; it is plain data.
unsafe impl Sync for Allocation {}

/// Why a chunk is about to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A kernel (or a graph node) received a pointer into it: may read and write all of it.
    Kernel,
    /// A copy or memset reads `bytes` of it.
    CopyFrom { bytes: usize },
    /// A copy from the host writes `bytes` of it.
    HostWrite { bytes: usize },
    /// A device-side copy or memset writes `bytes` of it.
    DeviceWrite { bytes: usize },
}

impl Touch {
    fn effect(self) -> Effect {
        match self {
            Touch::CopyFrom { .. } => Effect::Read,
            _ => Effect::Write,
        }
    }
}

/// Whether memory has begun to move: from then on the original alone does not
/// see every byte.
pub fn memory_moves() -> bool {
    inflight::pressure()
}

/// Whether every launch is watched (`AUTOOFFLOAD_VERIFY`).
pub fn verifies() -> bool {
    engine().is_some_and(|engine| engine.verifies)
}

/// The chunk that contains `address`. Lock-free, a few nanoseconds; `None` for
/// anything outside the arena and for the guard gaps.
#[inline]
pub fn chunk_of(address: DevicePtr) -> Option<ChunkId> {
    space()?.map.owner(address)
}

/// There is, or was, managed memory: found once for each call.
#[derive(Clone, Copy)]
pub struct Managed {
    engine: &'static Engine,
    space: &'static Space,
}

/// `None` before the first managed allocation.
#[inline(always)]
pub fn managed() -> Option<Managed> {
    let engine = engine()?;
    Some(Managed { engine, space: engine.space.get()? })
}

impl Managed {
    /// Whether memory has begun to move.
    #[inline(always)]
    pub fn moves(self) -> bool {
        self.engine.flights.pressure()
    }

    /// Who lives where in the arena.
    #[inline(always)]
    pub fn map(self) -> &'static AddressMap {
        &self.space.map
    }
}

/// Half-open bounds of the arena, (0, 0) before the first managed allocation.
#[inline]
pub fn arena() -> (DevicePtr, DevicePtr) {
    space().map_or((0, 0), |space| space.map.bounds())
}

/// Whether `address` is where only managed memory can be, or nothing.
pub fn is_reserved(address: DevicePtr) -> bool {
    let (low, high) = arena();
    (low..high).contains(&address)
}

/// The managed allocation that contains `address`.
pub fn lookup(address: DevicePtr) -> Option<Allocation> {
    let id = chunk_of(address)?;
    let mut allocation = *engine()?.allocations.get(&id)?;
    if let Some((base, bytes)) = stream_ordered::slot_at(id, &allocation, address) {
        allocation.base = base;
        allocation.bytes = bytes as usize;
    }
    (address - allocation.base < allocation.bytes as u64).then_some(allocation)
}
