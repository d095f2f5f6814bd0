//! What happened lately, step by step.
//!
//! Two rings: of steps, and of what they touch. The oldest is overwritten.
//! Steps are numbered from 0 for ever; a number outlives its step.
//!
//! Invariant: the uses of every step from [`Record::oldest`] on are still there.
//! Not here: what it means.

use super::Operation;
use crate::address_map::ChunkId;

/// Number of a step of the record.
pub(super) type Moment = u64;

/// Steps remembered. A longer iteration is not learned.
pub(super) const STEPS: usize = 1 << 17;
/// Uses remembered: four per step if there are as many steps.
pub(super) const USES: usize = 1 << 19;
/// Of an operation that touches more, only as many are recorded.
pub(super) const MOST_USES: usize = 1 << 12;

/// No place known.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Operations in a row that touched the same.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Uses, and what they add up to, before this step.
    first_use: u64,
    before: u64,
    pub operation: Operation,
    use_count: u32,
    pub operations: u32,
    /// GPU time of all its operations; negative until measured.
    pub ns: f32,
    /// Which step of which phase it repeated: [`NOWHERE`], or see `times`.
    pub place: u32,
}

impl Entry {
    /// The operation after its last.
    pub fn end(&self) -> Operation {
        self.operation + u64::from(self.operations)
    }
}

#[derive(Default)]
pub(super) struct Record {
    entries: Vec<Entry>,
    uses: Vec<ChunkId>,
    /// The uses of the last step.
    last: Vec<ChunkId>,
    length: Moment,
    used: u64,
    /// Sum over all steps of a hash of what they touched, in order.
    sum: u64,
    oldest: Moment,
}

/// What a stretch of the record adds up to: equal for equal stretches, and for
/// those of the same steps in another order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub hash: u64,
    pub steps: u64,
    pub uses: u64,
    pub operations: u64,
}

impl Record {
    /// Steps ever recorded.
    pub fn length(&self) -> Moment {
        self.length
    }

    /// The first step that is still remembered.
    pub fn oldest(&self) -> Moment {
        self.oldest
    }

    /// The operation touches what the last step touched: it is part of it.
    /// `false`: it is not, and nothing was recorded.
    #[inline]
    pub fn extend(&mut self, chunks: &[ChunkId]) -> bool {
        if self.length == 0 || chunks != self.last {
            return false;
        }
        self.entry_mut(self.length - 1).operations += 1;
        true
    }

    /// A step begins with `operation`.
    pub fn push(&mut self, operation: Operation, chunks: &[ChunkId]) {
        self.last.clear();
        self.last.extend_from_slice(chunks);
        let entry = Entry {
            first_use: self.used,
            before: self.sum,
            operation,
            use_count: chunks.len() as u32,
            operations: 1,
            ns: -1.0,
            place: NOWHERE,
        };
        put(&mut self.entries, self.length, entry, STEPS);
        self.length += 1;
        self.sum = self.sum.wrapping_add(hash(chunks));
        for &chunk in chunks {
            put(&mut self.uses, self.used, chunk, USES);
            self.used += 1;
        }
        self.oldest = self.oldest.max(self.length.saturating_sub(STEPS as u64));
        while self.entry(self.oldest).first_use + (USES as u64) < self.used {
            self.oldest += 1;
        }
    }

    /// `at` is remembered.
    pub fn entry(&self, at: Moment) -> &Entry {
        debug_assert!(at < self.length && self.length - at <= STEPS as u64);
        &self.entries[at as usize % STEPS]
    }

    pub fn entry_mut(&mut self, at: Moment) -> &mut Entry {
        &mut self.entries[at as usize % STEPS]
    }

    /// What the remembered step `at` touched.
    pub fn uses(&self, at: Moment) -> impl Iterator<Item = ChunkId> + '_ {
        let entry = self.entry(at);
        (entry.first_use..entry.first_use + u64::from(entry.use_count))
            .map(|index| self.uses[index as usize % USES])
    }

    pub fn footprint(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + (self.uses.capacity() + self.last.capacity()) * size_of::<ChunkId>()
    }

    /// What the remembered steps `from..to` add up to.
    pub fn sum(&self, from: Moment, to: Moment) -> Sum {
        let at = |moment: Moment| {
            if moment == self.length {
                let end = moment.checked_sub(1).map_or(0, |last| self.entry(last).end());
                (self.sum, self.used, end)
            } else {
                let entry = self.entry(moment);
                (entry.before, entry.first_use, entry.operation)
            }
        };
        let (to_end, start) = (at(to), at(from));
        Sum {
            hash: to_end.0.wrapping_sub(start.0),
            steps: to - from,
            uses: to_end.1 - start.1,
            operations: to_end.2 - start.2,
        }
    }

    /// The remembered step that `operation` belongs to.
    pub fn find(&self, operation: Operation) -> Option<Moment> {
        let (mut low, mut high) = (self.oldest, self.length);
        if low == high || self.entry(low).operation > operation {
            return None;
        }
        // The last entry that begins at or before `operation`.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.entry(middle).operation <= operation {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

fn hash(chunks: &[ChunkId]) -> u64 {
    // Multiplicative hashing (Knuth, TAOCP 3, 6.4), once per chunk and once more.
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = chunks
        .iter()
        .fold(1u64, |hash, &chunk| (hash ^ u64::from(chunk)).wrapping_mul(FACTOR).rotate_left(29));
    mixed.wrapping_mul(FACTOR)
}

/// Writes a ring that grows to `capacity` before it turns.
fn put<T>(ring: &mut Vec<T>, index: u64, value: T, capacity: usize) {
    let slot = index as usize % capacity;
    if slot < ring.len() {
        ring[slot] = value;
    } else {
        ring.push(value);
    }
}
