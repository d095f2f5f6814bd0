//! The uses to come: for policies that are allowed to know them.

use crate::sim::run::launches;
use crate::workload::cards::Card;
use crate::workload::{Nanos, Trace, TraceChunk};

/// Never.
pub const NEVER: u64 = u64::MAX;

/// Every use of a run, in order.
pub struct Future {
    uses: Vec<TraceChunk>,
    /// Of each use: the next of the same chunk, or `NEVER`.
    again: Vec<u64>,
    /// Of each launch, its first use; and the end.
    first: Vec<u64>,
    /// Of each chunk, its first use.
    begins: Vec<u64>,
    /// When each launch would begin if nothing was ever waited for.
    clock: Vec<Nanos>,
}

impl Future {
    pub fn of(trace: &Trace, card: &Card) -> Self {
        let mut uses = Vec::new();
        let mut first = vec![0];
        let mut clock = vec![0];
        for launch in launches(trace) {
            clock.push(clock[clock.len() - 1] + card.kernel_time(launch));
            uses.extend(trace.touches(launch).iter().map(|used| used.chunk));
            first.push(uses.len() as u64);
        }
        let mut begins = vec![NEVER; trace.chunks.len()];
        let mut again = vec![NEVER; uses.len()];
        for (index, &chunk) in uses.iter().enumerate().rev() {
            again[index] = std::mem::replace(&mut begins[chunk as usize], index as u64);
        }
        Self { uses, again, first, begins, clock }
    }

    /// The chunk of a use.
    pub fn chunk(&self, at: u64) -> Option<TraceChunk> {
        self.uses.get(at as usize).copied()
    }

    /// The uses of a launch.
    pub fn of_launch(&self, launch: usize) -> std::ops::Range<u64> {
        self.first[launch]..self.first[launch + 1]
    }

    /// The first use of the launches that begin `ns` after `launch` or later,
    /// as far as that depends on kernels.
    pub fn after(&self, launch: usize, ns: Nanos) -> u64 {
        let time = self.clock[launch].saturating_add(ns);
        let later = self.clock[launch..].partition_point(|&begins| begins < time);
        self.first[(launch + later).min(self.first.len() - 1)]
    }

    /// Time of all kernels.
    pub fn compute_ns(&self) -> Nanos {
        self.clock[self.clock.len() - 1]
    }

    /// The use of the same chunk after this one.
    pub fn again(&self, at: u64) -> u64 {
        self.again[at as usize]
    }

    /// The first use of `chunk`.
    pub fn begins(&self, chunk: TraceChunk) -> u64 {
        self.begins[chunk as usize]
    }
}
