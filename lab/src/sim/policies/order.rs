//! What an integration into a framework knows: the modules of each model, and
//! the order in which they run.

use crate::sim::run::{Gpu, Infeasible};
use crate::workload::{Event, Trace, TraceChunk};

/// The order of uses in the first iteration of each phase, and what is not a
/// weight.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Per phase, uses in order; uses in a row count once.
    pub sequences: Vec<Vec<TraceChunk>>,
    /// Where each chunk comes: sequence and index, rising.
    places: Vec<Vec<(u32, u32)>>,
    /// Sequences, the one that runs most first.
    by_weight: Vec<usize>,
    /// Written to by kernels or allocated on the way: no module's weight. It
    /// stays on the device.
    unmanaged: Vec<bool>,
    /// Weights that some launch uses and that exist from the start.
    weight: Vec<bool>,
    /// The most that is unmanaged at any time.
    unmanaged_bytes: u64,
}

impl Order {
    pub fn of(trace: &Trace) -> Self {
        let mut unmanaged: Vec<bool> = trace.initially_live().iter().map(|live| !live).collect();
        trace.uses.iter().filter(|used| used.writes).for_each(|used| {
            unmanaged[used.chunk as usize] = true;
        });
        let unmanaged_bytes = most_alive(trace, &unmanaged);
        let mut weight = vec![false; trace.chunks.len()];
        trace.uses.iter().for_each(|used| {
            weight[used.chunk as usize] = !unmanaged[used.chunk as usize];
        });

        let mut phases: Vec<u16> = Vec::new();
        let mut sequences: Vec<Vec<TraceChunk>> = Vec::new();
        let mut iterations: Vec<u64> = Vec::new();
        let mut present: Option<usize> = None;
        for event in &trace.events {
            match event {
                Event::Iteration { phase } => {
                    let index = phases.iter().position(|known| known == phase);
                    let index = index.unwrap_or_else(|| {
                        phases.push(*phase);
                        sequences.push(Vec::new());
                        iterations.push(0);
                        phases.len() - 1
                    });
                    iterations[index] += 1;
                    present = (iterations[index] == 1).then_some(index);
                }
                Event::Launch(launch) => {
                    let Some(index) = present else { continue };
                    for used in trace.touches(launch) {
                        let sequence = &mut sequences[index];
                        if !unmanaged[used.chunk as usize] && sequence.last() != Some(&used.chunk) {
                            sequence.push(used.chunk);
                        }
                    }
                }
                _ => {}
            }
        }
        let mut places = vec![Vec::new(); trace.chunks.len()];
        for (phase, sequence) in sequences.iter().enumerate() {
            for (index, &chunk) in sequence.iter().enumerate() {
                places[chunk as usize].push((phase as u32, index as u32));
            }
        }
        let mut by_weight: Vec<usize> = (0..sequences.len()).collect();
        by_weight.sort_by_key(|&index| std::cmp::Reverse(iterations[index]));
        Self { sequences, places, by_weight, unmanaged, weight, unmanaged_bytes }
    }

    /// Whether `chunk` is not a module's weight.
    pub fn unmanaged(&self, chunk: TraceChunk) -> bool {
        self.unmanaged[chunk as usize]
    }

    /// Chunks of the trace.
    pub fn chunk_count(&self) -> usize {
        self.unmanaged.len()
    }

    /// What is left for weights.
    pub fn capacity(&self, gpu: &Gpu) -> Result<u64, Infeasible> {
        let left = gpu.capacity().checked_sub(self.unmanaged_bytes);
        left.ok_or_else(|| Infeasible::new("what is no weight does not fit"))
    }

    /// Every weight once, in order of first use; the model that runs most
    /// first. What the first iterations did not use (experts, for example)
    /// stands behind the one allocated before it.
    pub fn weights(&self) -> Vec<TraceChunk> {
        let mut known = vec![false; self.places.len()];
        let mut weights = Vec::new();
        for &model in &self.by_weight {
            for chunk in self.modules(model) {
                if !std::mem::replace(&mut known[chunk as usize], true) {
                    weights.push(chunk);
                }
            }
        }
        weights
    }

    /// The weights of one model, as [`Self::weights`].
    pub fn modules(&self, model: usize) -> Vec<TraceChunk> {
        let mut known = vec![false; self.places.len()];
        let mut modules = Vec::new();
        for &chunk in &self.sequences[model] {
            if std::mem::replace(&mut known[chunk as usize], true) {
                continue;
            }
            modules.push(chunk);
            let unseen = |&next: &TraceChunk| self.places[next as usize].is_empty();
            let behind = (chunk + 1..self.places.len() as TraceChunk).take_while(unseen);
            modules.extend(behind.filter(|&next| self.weight[next as usize]));
        }
        modules
    }

    /// Weights of which parts are used in three places or more, those used in
    /// most first: small tensors that share an allocation. Per module they
    /// would be moved one by one; as a whole they had better stay.
    fn shared(&self) -> Vec<TraceChunk> {
        let places = |chunk: &TraceChunk| self.places[*chunk as usize].len();
        let mut shared: Vec<TraceChunk> =
            self.weights().into_iter().filter(|chunk| places(chunk) >= 3).collect();
        shared.sort_by_key(|chunk| std::cmp::Reverse(places(chunk)));
        shared
    }

    /// As much of what is shared by many modules as fits into `bytes`.
    pub fn keep_shared(&self, gpu: &Gpu, bytes: u64) -> Vec<TraceChunk> {
        let mut left = bytes;
        let fits = |chunk: &TraceChunk| {
            let rest = left.checked_sub(gpu.bytes(*chunk));
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        self.shared().into_iter().filter(fits).collect()
    }
}

/// The most bytes of `counted` chunks that are alive at a time.
fn most_alive(trace: &Trace, counted: &[bool]) -> u64 {
    let live = trace.initially_live();
    let bytes = |chunk: usize| if counted[chunk] { trace.chunks[chunk] } else { 0 };
    let mut now: u64 = (0..live.len()).filter(|&chunk| live[chunk]).map(bytes).sum();
    let mut most = now;
    for event in &trace.events {
        match event {
            Event::Allocate { chunk } => now += bytes(*chunk as usize),
            Event::Free { chunk } => now -= bytes(*chunk as usize),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

/// A position in an [`Order`], following the launches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    at: Option<(u32, u32)>,
}

impl Walk {
    /// `chunk` is used: the position moves to its next place, over the end of
    /// the sequence if need be, or into another model's.
    pub fn see(&mut self, order: &Order, chunk: TraceChunk) {
        let places = &order.places[chunk as usize];
        let forward = |&(phase, index): &(u32, u32)| match self.at {
            Some((present, at)) if present == phase => {
                let length = order.sequences[phase as usize].len() as u32;
                (false, (index + length - at) % length)
            }
            _ => (true, index),
        };
        if let Some(&place) = places.iter().min_by_key(|place| forward(place)) {
            self.at = Some(place);
        }
    }

    /// What comes next, one after the other, round and round.
    pub fn ahead<'a>(&self, order: &'a Order) -> impl Iterator<Item = TraceChunk> + use<'a> {
        self.at.into_iter().flat_map(move |(phase, at)| {
            let sequence = &order.sequences[phase as usize];
            let at = at as usize + 1;
            sequence[at..].iter().chain(&sequence[..at - 1]).copied()
        })
    }
}
