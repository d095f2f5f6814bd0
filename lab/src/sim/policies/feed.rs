//! What per-module offloading has in common: some weights stay, the others
//! pass through a buffer in the order of the modules. What stays, how far
//! ahead is fetched and how it goes again tells [`PerModule`]s apart.

use super::order::{Order, Walk};
use super::pool::Pool;
use crate::sim::device::Waits;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::TraceChunk;

/// What is used again within so many modules is not dropped in between.
const SOON: usize = 2;

pub struct Feed {
    order: Order,
    walk: Walk,
    /// Modules fetched ahead, at most; and bytes for all that is not resident.
    depth: usize,
    pool: Pool,
    /// In the buffer, in order of arrival.
    buffered: Vec<TraceChunk>,
    used: Vec<bool>,
    resident: Vec<bool>,
    evict: Evict,
    /// The host waits for a module's copy before it launches its kernels.
    host_waits: bool,
    /// Freed memory of what is no weight.
    unmanaged: Waits,
}

impl Feed {
    pub fn new(order: Order, depth: usize, evict: Evict, host_waits: bool) -> Self {
        let count = order.chunk_count();
        Self {
            order,
            walk: Walk::default(),
            depth,
            pool: Pool::default(),
            buffered: Vec::new(),
            used: vec![false; count],
            resident: vec![false; count],
            evict,
            host_waits,
            unmanaged: Waits::NONE,
        }
    }

    /// `residents` stay; `buffer` bytes are for the rest.
    fn begin(&mut self, gpu: &mut Gpu, residents: &[TraceChunk], buffer: u64) {
        for &chunk in residents {
            self.resident[chunk as usize] = true;
            gpu.place(chunk, gpu.bytes(chunk), Waits::NONE);
        }
        self.pool = Pool::new(buffer);
        place_unmanaged(&self.order, gpu);
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let bytes = gpu.present(chunk);
        let waits = gpu.evict(chunk, bytes, Evict::Clean);
        if let Some(at) = self.buffered.iter().position(|&other| other == chunk) {
            self.buffered.remove(at);
            self.pool.give(bytes, waits);
        } else {
            self.unmanaged.merge(&waits);
        }
    }

    /// Drops what was used and is not any more, and fetches what is missing.
    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        let managed = |chunk: TraceChunk| !self.order.unmanaged(chunk);
        if !launch.uses.iter().any(|used| managed(used.chunk)) {
            return Ok(());
        }
        for used in launch.uses {
            self.walk.see(&self.order, used.chunk);
        }
        let needed = |chunk: TraceChunk| launch.uses.iter().any(|used| used.chunk == chunk);
        let soon = self.next(SOON);
        let over: Vec<TraceChunk> = (self.buffered.iter().copied())
            .filter(|&chunk| self.used[chunk as usize] && !needed(chunk) && !soon.contains(&chunk))
            .collect();
        over.into_iter().for_each(|chunk| self.drop(gpu, chunk));
        let mut fresh = false;
        for used in launch.uses {
            let chunk = used.chunk;
            if !gpu.is_present(chunk) {
                while self.pool.free() < gpu.bytes(chunk) {
                    // What was fetched for the latest use goes first.
                    let victim = self.buffered.iter().rev().copied().find(|&other| !needed(other));
                    let Some(victim) = victim else {
                        return Err(Infeasible::new("the buffer is smaller than one launch"));
                    };
                    self.drop(gpu, victim);
                }
                self.fetch(gpu, chunk);
            }
            fresh |= !std::mem::replace(&mut self.used[chunk as usize], true)
                && !self.resident[chunk as usize];
        }
        if fresh && self.host_waits {
            for used in launch.uses {
                gpu.wait_for_arrival(used.chunk);
            }
        }
        Ok(())
    }

    /// Fetches what comes next, as far as the buffer and the depth allow.
    fn after(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        if launch.uses.is_empty() {
            return;
        }
        for (distance, chunk) in self.next(self.depth).into_iter().enumerate() {
            if !gpu.exists(chunk) || gpu.is_present(chunk) {
                continue;
            }
            if self.pool.free() < gpu.bytes(chunk) {
                // Things that were expected and did not come are in the way.
                let stale = self
                    .buffered
                    .iter()
                    .copied()
                    .find(|&other| !launch.uses.iter().any(|used| used.chunk == other));
                match stale {
                    Some(stale) if distance == 0 => self.drop(gpu, stale),
                    _ => return,
                }
                if self.pool.free() < gpu.bytes(chunk) {
                    return;
                }
            }
            self.fetch(gpu, chunk);
        }
    }

    /// The next uses of what is not resident.
    fn next(&self, count: usize) -> Vec<TraceChunk> {
        let streamed = |chunk: &TraceChunk| !self.resident[*chunk as usize];
        self.walk.ahead(&self.order).filter(streamed).take(count).collect()
    }

    fn fetch(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let after = self.pool.take(gpu.bytes(chunk)).expect("there is room");
        gpu.fetch(chunk, gpu.bytes(chunk), after);
        self.used[chunk as usize] = false;
        self.buffered.push(chunk);
    }

    fn drop(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let bytes = gpu.bytes(chunk);
        let freed = gpu.evict(chunk, bytes, self.evict);
        self.pool.give(bytes, freed);
        self.buffered.retain(|&other| other != chunk);
    }
}

/// What stays, and bytes for the buffer.
type Stay = fn(&Order, &Gpu) -> Result<(Vec<TraceChunk>, u64), Infeasible>;

/// A policy that offloads module by module.
pub struct PerModule {
    pub(super) name: &'static str,
    pub(super) feed: Feed,
    pub(super) stay: Stay,
    /// Its copies are from pageable memory.
    pub(super) pageable: bool,
}

impl Policy for PerModule {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        if self.pageable {
            let share = gpu.setup().costs.pageable_share;
            gpu.device().set_copy_share(share);
        }
        let (residents, buffer) = (self.stay)(&self.feed.order, gpu)?;
        self.feed.begin(gpu, &residents, buffer);
        Ok(())
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        gpu.place(chunk, gpu.bytes(chunk), self.feed.unmanaged);
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.feed.freed(gpu, chunk);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        self.feed.before(gpu, launch)
    }

    fn after(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        self.feed.after(gpu, launch);
    }
}

/// Nothing stays but what many modules share, as far as that is little.
pub fn shared_only(order: &Order, gpu: &Gpu) -> Result<(Vec<TraceChunk>, u64), Infeasible> {
    let capacity = order.capacity(gpu)?;
    let kept = order.keep_shared(gpu, capacity / 4);
    let bytes: u64 = kept.iter().map(|&chunk| gpu.bytes(chunk)).sum();
    Ok((kept, capacity - bytes))
}

/// What is no weight and exists from the start.
pub fn place_unmanaged(order: &Order, gpu: &mut Gpu) {
    for chunk in 0..gpu.chunk_count() as TraceChunk {
        if gpu.exists(chunk) && order.unmanaged(chunk) {
            gpu.place(chunk, gpu.bytes(chunk), Waits::NONE);
        }
    }
}

/// As many of `weights` as fit into `bytes`, from the front.
pub fn leading(gpu: &Gpu, weights: &[TraceChunk], bytes: u64) -> Vec<TraceChunk> {
    let mut left = bytes;
    let fits = |&&chunk: &&TraceChunk| {
        let rest = left.checked_sub(gpu.bytes(chunk));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    weights.iter().take_while(fits).copied().collect()
}
