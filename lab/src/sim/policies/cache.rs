//! Whole chunks, evicted one at a time in some order of merit: what least
//! recently used, its prefetching variant, and the clairvoyant have in common.

use super::future::{Future, NEVER};
use super::pool::Pool;
use crate::sim::device::Waits;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Nanos, Trace, TraceChunk};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merit {
    /// Whoever was used, or fetched, longest ago.
    Recent,
    /// Whoever is needed last: MIN (Belady 1966).
    Needed,
}

pub struct Cache {
    merit: Merit,
    evict: Evict,
    pool: Pool,
    /// What is present, by rank: the first goes first.
    ranked: BTreeSet<(u64, TraceChunk)>,
    rank: Vec<u64>,
    /// The next use of each chunk, and which use is next, if the future is known.
    next: Vec<u64>,
    ahead: u64,
    clock: u64,
}

impl Cache {
    pub fn new(merit: Merit, evict: Evict, chunks: usize) -> Self {
        Self {
            merit,
            evict,
            pool: Pool::default(),
            ranked: BTreeSet::new(),
            rank: vec![0; chunks],
            next: vec![NEVER; chunks],
            ahead: 0,
            clock: 0,
        }
    }

    /// Places what exists, in order of allocation or of need, until memory is full.
    pub fn begin(&mut self, gpu: &mut Gpu, future: Option<&Future>) {
        self.pool = Pool::new(gpu.capacity());
        let mut chunks: Vec<TraceChunk> =
            (0..gpu.chunk_count() as TraceChunk).filter(|&chunk| gpu.exists(chunk)).collect();
        if let Some(future) = future {
            (0..gpu.chunk_count() as TraceChunk)
                .for_each(|chunk| self.next[chunk as usize] = future.begins(chunk));
            chunks.sort_by_key(|&chunk| self.next[chunk as usize]);
        }
        for chunk in chunks {
            if let Some(after) = self.pool.take(gpu.bytes(chunk)) {
                gpu.place(chunk, gpu.bytes(chunk), after);
                self.touch(chunk);
            }
        }
    }

    /// Gives `chunk`, which is present or about to be, its rank.
    fn touch(&mut self, chunk: TraceChunk) {
        self.ranked.remove(&(self.rank[chunk as usize], chunk));
        self.clock += 1;
        let rank = match self.merit {
            Merit::Recent => self.clock,
            Merit::Needed => NEVER - self.next[chunk as usize],
        };
        self.rank[chunk as usize] = rank;
        self.ranked.insert((rank, chunk));
    }

    pub fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        if self.ranked.remove(&(self.rank[chunk as usize], chunk)) {
            self.evict(gpu, chunk);
        }
    }

    fn evict(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.ranked.remove(&(self.rank[chunk as usize], chunk));
        let bytes = gpu.present(chunk);
        let freed = gpu.evict(chunk, bytes, self.evict);
        self.pool.give(bytes, freed);
    }

    /// Frees memory for `chunk`, without what `keep` names; `false`: impossible.
    pub fn make_room(
        &mut self,
        gpu: &mut Gpu,
        bytes: u64,
        keep: impl Fn(TraceChunk) -> bool,
    ) -> bool {
        let mut free = self.pool.free();
        let mut victims = Vec::new();
        for &(_, victim) in &self.ranked {
            if free >= bytes {
                break;
            }
            if !keep(victim) {
                free += gpu.bytes(victim);
                victims.push(victim);
            }
        }
        if free < bytes {
            return false;
        }
        victims.into_iter().for_each(|victim| self.evict(gpu, victim));
        true
    }

    /// What the launch uses and is not there; evicts for it whatever it takes.
    /// `bring` gets each chunk and what its memory must wait for.
    pub fn demand(
        &mut self,
        gpu: &mut Gpu,
        launch: Launching<'_>,
        mut bring: impl FnMut(&mut Gpu, TraceChunk, Waits),
    ) -> Result<(), Infeasible> {
        for used in launch.uses {
            let chunk = used.chunk;
            if !gpu.is_present(chunk) {
                let keep = |other| launch.uses.iter().any(|used| used.chunk == other);
                if !self.make_room(gpu, gpu.bytes(chunk), keep) {
                    return Err(Infeasible::new("one launch needs more than there is"));
                }
                let after = self.pool.take(gpu.bytes(chunk)).expect("there is room");
                bring(gpu, chunk, after);
            }
            self.touch(chunk);
        }
        Ok(())
    }

    /// The launch has been issued: what it used is needed later now.
    pub fn used(&mut self, future: &Future, launch: usize) {
        for at in future.of_launch(launch) {
            let chunk = future.chunk(at).expect("a use of the run");
            self.next[chunk as usize] = future.again(at);
            if self.merit == Merit::Needed {
                self.touch(chunk);
            }
        }
        self.ahead = self.ahead.max(future.of_launch(launch).end);
    }

    /// Fetches along the future up to the use `end`, until nothing may go for it.
    pub fn look_ahead(&mut self, gpu: &mut Gpu, future: &Future, end: u64) {
        while self.ahead < end
            && let Some(chunk) = future.chunk(self.ahead)
        {
            // Not allocated yet, or freed before it is allocated again.
            if !gpu.exists(chunk) {
                return;
            }
            if !gpu.is_present(chunk) {
                // Whoever goes is needed later than what comes.
                let next = &self.next;
                let sooner = |victim: TraceChunk| next[victim as usize] <= self.ahead;
                let bytes = gpu.bytes(chunk);
                let first = self.ranked.first().map(|&(_, victim)| victim);
                if self.pool.free() < bytes && first.is_none_or(sooner) {
                    return;
                }
                let mut free = self.pool.free();
                let mut victims = Vec::new();
                for &(_, victim) in &self.ranked {
                    if free >= bytes {
                        break;
                    }
                    if sooner(victim) {
                        return;
                    }
                    free += gpu.bytes(victim);
                    victims.push(victim);
                }
                if free < bytes {
                    return;
                }
                victims.into_iter().for_each(|victim| self.evict(gpu, victim));
                let after = self.pool.take(bytes).expect("there is room");
                gpu.fetch(chunk, bytes, after);
                self.touch(chunk);
            } else if self.merit == Merit::Recent {
                self.touch(chunk);
            }
            self.ahead += 1;
        }
    }
}

/// A policy that fetches whole chunks when they are missing, and ahead if it
/// knows the future: all of it that comes within a horizon.
pub struct PerChunk {
    name: &'static str,
    cache: Cache,
    future: Option<(Rc<Future>, Nanos)>,
}

impl PerChunk {
    pub fn new(
        name: &'static str,
        trace: &Trace,
        merit: Merit,
        future: Option<(Rc<Future>, Nanos)>,
    ) -> Self {
        Self { name, cache: Cache::new(merit, Evict::Clean, trace.chunks.len()), future }
    }
}

impl Policy for PerChunk {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        self.cache.begin(gpu, self.future.as_ref().map(|(future, _)| &**future));
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.cache.freed(gpu, chunk);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        self.cache.demand(gpu, launch, |gpu, chunk, after| {
            gpu.fetch(chunk, gpu.bytes(chunk), after);
        })
    }

    fn after(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        if let Some((future, horizon)) = &self.future {
            self.cache.used(future, launch.number);
            let end = match *horizon {
                NEVER => NEVER,
                horizon => future.after(launch.number, horizon),
            };
            self.cache.look_ahead(gpu, future, end);
        }
    }
}
