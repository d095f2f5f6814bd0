//! What is known of reading in place: how much a use of a chunk can read, and
//! whether kernels reach the rate over the link that was assumed.
//!
//! Times of operations that read host memory are not the learner's business: it
//! learns how long they take on the device, and keeps what it knew of them from
//! when they were there. Otherwise a plan would look worse for what it did, and
//! the next would undo it.
//!
//! Not here: whether it pays (`plan::in_place`).

use std::ops::Range;

use super::{Operation, Streamer};
use crate::learn::{self, Description};
use crate::plan;

/// How much slower than assumed kernels were seen to read.
#[derive(Debug)]
pub(super) struct Rate {
    /// Of late, ns: what was expected, and what it took.
    expected: f64,
    taken: f64,
    samples: u32,
    /// What the last plan reckoned with.
    planned: f64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { expected: 0.0, taken: 0.0, samples: 0, planned: 1.0 }
    }
}

impl Rate {
    /// Times slower than assumed. Never faster: what a use reads is a bound, and
    /// one that is too large looks like a faster link.
    fn slower(&self) -> f64 {
        if self.expected > 0.0 { (self.taken / self.expected).max(1.0) } else { 1.0 }
    }

    /// What a plan that is made now should reckon with.
    pub fn plan(&mut self) -> f64 {
        self.planned = self.slower().max(self.planned);
        self.planned
    }

    /// `true`: it is so much slower than planned that a new plan is due.
    fn record(&mut self, expected: f64, taken: f64) -> bool {
        /// Samples that count, about; and how many there must be first.
        const WINDOW: f64 = 256.0;
        const SAMPLES: u32 = 64;
        const TOO_SLOW: f64 = 1.25;
        self.expected += expected - self.expected / WINDOW;
        self.taken += taken - self.taken / WINDOW;
        self.samples = (self.samples + 1).min(SAMPLES);
        self.samples == SAMPLES && self.slower() > self.planned * TOO_SLOW
    }
}

impl Streamer {
    /// The operations took `ns` of GPU time, all together, stalls not counted.
    pub fn measured(&mut self, operations: Range<Operation>, ns: u64) {
        if operations.start < self.moved_at {
            // Of where things lay before.
            return;
        }
        if self.host_frames == 0 {
            return self.order.measured(operations, ns);
        }
        let rate = self.machine.zero_copy_bytes_per_s.unwrap_or(f64::INFINITY);
        let (mut remote, mut known, mut expected) = (false, true, 0.0);
        for (whole, uses) in self.order.touched(operations.clone()) {
            let (mut read, mut over_link) = (0.0, 0.0);
            for id in uses {
                // Freed since; or named by chance.
                let Some(Some(chunk)) = self.chunks.get(id as usize) else { continue };
                remote |= chunk.on_host > 0;
                match chunk.read_bytes {
                    Some(bytes) => {
                        let share = f64::from(chunk.on_host) / f64::from(chunk.frames);
                        read += bytes as f64;
                        over_link += bytes as f64 * share;
                    }
                    None => known &= chunk.on_host == 0,
                }
            }
            known &= whole;
            expected += (read / self.machine.device_bytes_per_s).max(over_link / rate) * 1e9;
        }
        if !remote {
            return self.order.measured(operations, ns);
        }
        if known && self.in_place.record(expected, ns as f64) {
            self.unplanned_changes += 1;
        }
    }

    /// What `step` of a description can read of its chunks, `uses` among
    /// `chunks`: what the device's memory yields in its time.
    pub(super) fn read_by(&self, step: &learn::Step, uses: &[u32], chunks: &[plan::Chunk]) -> u64 {
        if step.ns > 0 {
            return self.bytes_within(step.ns);
        }
        // Not measured where it lies now: what was known before holds.
        uses.iter().fold(0, |sum: u64, &index| {
            let known = self.chunk(chunks[index as usize].id).read_bytes;
            sum.saturating_add(known.unwrap_or(u64::MAX))
        })
    }

    fn bytes_within(&self, ns: u64) -> u64 {
        (ns as f64 * self.machine.device_bytes_per_s / 1e9) as u64
    }

    /// Remembers what uses of each chunk were seen to read, the largest of each.
    pub(super) fn record_reads(&mut self, description: &Description) {
        let mut reads: Vec<Option<u64>> = vec![Some(0); self.chunks.len()];
        for phase in &description.phases {
            for step in &phase.steps {
                let bytes = (step.ns > 0).then(|| self.bytes_within(step.ns));
                for &id in &phase.uses[step.first_use as usize..][..step.use_count as usize] {
                    if let Some(read) = reads.get_mut(id as usize) {
                        *read = read.zip(bytes).map(|(known, bytes)| known.max(bytes));
                    }
                }
            }
        }
        for (chunk, read) in self.chunks.iter_mut().zip(reads) {
            let Some(chunk) = chunk else { continue };
            let bytes = u64::from(chunk.frames) * self.machine.frame_bytes;
            if let Some(read) = read.filter(|&read| read > 0) {
                chunk.read_bytes = Some(read.min(bytes));
            }
        }
    }
}
