//! One phase: an iteration, laid out for following it and for looking ahead.
//!
//! *Landmarks* are the uses that tell where in the iteration we are: those of
//! chunks that come seldom. A chunk used all the time (an activation) is among
//! the uses but is no landmark.
//!
//! A chunk that was freed leaves its uses as holes ([`NO_CHUNK`]), so that
//! positions stay valid.
//! Not here: where in the phase we are (see `track`).

use super::Operation;
use super::record::{Moment, Record, Sum};
use crate::address_map::{ChunkId, NO_CHUNK};

/// Chunks used this often in an iteration mark places if a third of all chunks
/// are used as seldom; else those used twice as often, and so on. Weights are
/// used once or twice; what is used more often is mostly activations.
const LANDMARK_USES: u32 = 2;
const CHUNKS_PER_LANDMARK: usize = 3;
/// As long as there are fewer landmarks than this, more chunks mark places.
const FEW_LANDMARKS: u32 = 8;

/// The chunk that an iteration begins with marks places even if it is used so
/// many times as often as others that do.
const FIRST_USES: u32 = 4;

/// End of a chain.
const END: u32 = u32::MAX;

/// A step of the iteration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PhaseStep {
    pub first_use: u32,
    pub use_count: u32,
    pub operations: u32,
    /// Operations of the iteration before this step.
    pub offset: u32,
    /// GPU time; 0: not measured.
    pub ns: f32,
    /// What `ns` was when the version was raised last.
    pub told: f32,
    /// Measurements that `ns` is made of.
    pub samples: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Landmark {
    pub chunk: ChunkId,
    pub step: u32,
    /// The next landmark of the same chunk.
    next: u32,
    /// Operations since its chunk was used before, in the lap or the one before.
    pub gap: u32,
    /// The lap, counted from 1, in which it was left out last.
    pub skipped_in: u32,
}

/// One chunk of the phase.
#[derive(Clone, Copy, Debug)]
struct Head {
    chunk: ChunkId,
    first_use: u32,
    first_landmark: u32,
}

#[derive(Default)]
pub(super) struct Phase {
    /// Unique for ever; the slot it lives in is not.
    pub serial: u64,
    pub steps: Vec<PhaseStep>,
    pub uses: Vec<ChunkId>,
    /// For every use, the next one of the same chunk.
    next_use: Vec<u32>,
    pub landmarks: Vec<Landmark>,
    /// Landmarks that are no holes.
    pub live_landmarks: u32,
    /// Sorted by chunk.
    heads: Vec<Head>,
    pub operations: u32,
    /// What the stretch that it was laid out from adds up to, and what the
    /// last lap did.
    pub sum: Sum,
    pub last_sum: Sum,
    /// The last jump back in it.
    pub returned: Return,
    /// One whole iteration was followed, or it came back.
    pub confirmed: bool,
    /// The version was not raised for it yet.
    pub untold: bool,
    /// It has not been seen to repeat at once.
    pub once: bool,
    /// The operation before which places in it meant something else.
    pub built_at: Operation,
    /// Laps ended, ever.
    pub laps: u32,
    /// Visits begun.
    pub visits: u32,
    /// When it was visited last, for forgetting the one longest unused.
    pub used_at: Moment,
    pub repeats: u32,
    /// Sum of the differences between `ns` and `told`, and of `told`.
    pub difference: f64,
    pub told: f64,
    /// Operations that have a time, and operations measured since the last check.
    pub timed_operations: u64,
    pub measured_since: u64,
    /// Landmarks changed since the version was raised last, and how many it takes.
    pub unrest: u32,
    /// Uses of chunks that come and go, when that was told last.
    pub erratic_told: usize,
    pub patience: u32,
}

/// A jump back, to a landmark of `chunk`, in step `at`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Return {
    pub chunk: ChunkId,
    pub at: Moment,
    /// Steps since the jump back before, if that was to the same place; else 0.
    pub steps: u64,
}

impl Default for Return {
    fn default() -> Self {
        Self { chunk: NO_CHUNK, at: 0, steps: 0 }
    }
}

/// Per-chunk workspace of [`Phase::build`].
#[derive(Clone, Copy, Default)]
pub(super) struct Scratch {
    round: u32,
    /// Step and operation of the last use, relative to the beginning of the
    /// iteration.
    step: i64,
    operation: i64,
    uses: u32,
    first_use: u32,
    last_use: u32,
    last_landmark: u32,
    first_landmark: u32,
}

/// What [`Phase::build`] asks of the owner of the per-chunk tables.
pub(super) trait Chunks {
    /// Uses of `chunk` before this are another, dead chunk's.
    fn born(&self, chunk: ChunkId) -> Moment;
    /// Comes when it is not expected, and does not when it is.
    fn erratic(&self, chunk: ChunkId) -> bool;
    fn scratch(&mut self, chunk: ChunkId) -> &mut Scratch;
    /// A number never used before.
    fn next_round(&mut self) -> u32;
}

impl Phase {
    /// The iteration made of the remembered steps `from..to`, which is known to
    /// begin with `first`. `None`: nothing in it marks a place.
    pub fn build(
        record: &Record,
        from: Moment,
        to: Moment,
        first: Option<ChunkId>,
        chunks: &mut impl Chunks,
    ) -> Option<Self> {
        if from < record.oldest() || from >= to || to > record.length() {
            return None;
        }
        let sum = record.sum(from, to);
        let mut phase = Phase { patience: 1, sum, last_sum: sum, ..Phase::default() };
        let round = chunks.next_round();
        let mut distinct: Vec<ChunkId> = Vec::new();
        let count = (to - from) as i64;
        let begun = record.entry(from).operation;
        let last = record.entry(to - 1);
        let length = (last.operation + u64::from(last.operations) - begun) as i64;
        // First: where each chunk was used last, as seen from the next lap.
        for at in from..to {
            let step = (at - from) as i64;
            let operation = (record.entry(at).operation - begun) as i64 - length;
            for chunk in record.uses(at) {
                if at < chunks.born(chunk) {
                    continue;
                }
                let scratch = chunks.scratch(chunk);
                if scratch.round != round {
                    *scratch = Scratch {
                        round,
                        first_use: END,
                        last_use: END,
                        first_landmark: END,
                        last_landmark: END,
                        ..Scratch::default()
                    };
                    distinct.push(chunk);
                } else if scratch.step - step == -count - 1 {
                    // Continues its use of the step before.
                    (scratch.step, scratch.operation) = (step - count, operation);
                    continue;
                }
                scratch.uses += 1;
                (scratch.step, scratch.operation) = (step - count, operation);
            }
        }
        let steady = distinct.iter().any(|&chunk| !chunks.erratic(chunk));
        let mut limit = LANDMARK_USES;
        loop {
            let (mut seldom, mut uses) = (0, 0);
            for &chunk in &distinct {
                let count = chunks.scratch(chunk).uses;
                if count <= limit {
                    seldom += 1;
                    uses += count;
                }
            }
            let enough = seldom * CHUNKS_PER_LANDMARK >= distinct.len() && uses >= FEW_LANDMARKS;
            if enough || seldom == distinct.len() {
                break;
            }
            limit *= 2;
        }
        let marks = |scratch: &Scratch, chunk| {
            scratch.uses <= limit || first == Some(chunk) && scratch.uses <= limit * FIRST_USES
        };
        // Then: lay it out.
        let mut offset = 0;
        for at in from..to {
            let step = phase.steps.len() as u32;
            let entry = record.entry(at);
            let first_use = phase.uses.len() as u32;
            for chunk in record.uses(at) {
                if at < chunks.born(chunk) {
                    continue;
                }
                let erratic = steady && chunks.erratic(chunk);
                let index = phase.uses.len() as u32;
                phase.uses.push(chunk);
                phase.next_use.push(END);
                let scratch = chunks.scratch(chunk);
                if scratch.last_use == END {
                    scratch.first_use = index;
                } else {
                    phase.next_use[scratch.last_use as usize] = index;
                }
                scratch.last_use = index;
                let begins = i64::from(step) - scratch.step > 1;
                let operation = (entry.operation - begun) as i64;
                let gap = (operation - scratch.operation) as u32;
                (scratch.step, scratch.operation) = (i64::from(step), operation);
                if begins && marks(scratch, chunk) && !erratic {
                    let landmark = phase.landmarks.len() as u32;
                    phase.landmarks.push(Landmark { chunk, step, next: END, gap, skipped_in: 0 });
                    if scratch.last_landmark == END {
                        scratch.first_landmark = landmark;
                    } else {
                        phase.landmarks[scratch.last_landmark as usize].next = landmark;
                    }
                    scratch.last_landmark = landmark;
                }
            }
            let ns = entry.ns.max(0.0);
            phase.timed_operations += if ns > 0.0 { u64::from(entry.operations) } else { 0 };
            phase.steps.push(PhaseStep {
                first_use,
                use_count: phase.uses.len() as u32 - first_use,
                operations: entry.operations,
                offset,
                ns,
                told: 0.0,
                samples: u8::from(ns > 0.0),
            });
            phase.difference += f64::from(ns);
            offset = offset.saturating_add(entry.operations);
        }
        if phase.landmarks.is_empty() {
            return None;
        }
        phase.operations = offset;
        phase.live_landmarks = phase.landmarks.len() as u32;
        distinct.sort_unstable();
        phase.heads = distinct
            .iter()
            .map(|&chunk| {
                let scratch = chunks.scratch(chunk);
                Head { chunk, first_use: scratch.first_use, first_landmark: scratch.first_landmark }
            })
            .collect();
        Some(phase)
    }

    pub fn footprint(&self) -> usize {
        size_of::<Self>()
            + self.steps.capacity() * size_of::<PhaseStep>()
            + (self.uses.capacity() + self.next_use.capacity()) * size_of::<u32>()
            + self.landmarks.capacity() * size_of::<Landmark>()
            + self.heads.capacity() * size_of::<Head>()
    }

    /// Panics unless it is consistent.
    pub fn check(&self) {
        let live = self.landmarks.iter().filter(|landmark| landmark.chunk != NO_CHUNK).count();
        assert_eq!(live, self.live_landmarks as usize);
        assert!(live > 0);
        let mut offset = 0;
        for step in &self.steps {
            assert_eq!(step.offset, offset);
            assert!(step.operations > 0);
            offset += step.operations;
        }
        assert_eq!(offset, self.operations);
        for landmark in &self.landmarks {
            assert!(
                landmark.chunk == NO_CHUNK || self.uses_of(landmark.step).contains(&landmark.chunk)
            );
        }
        assert!(self.landmarks.is_sorted_by_key(|landmark| landmark.step));
    }

    /// Every chunk that was not forgotten, in order of id, and whether it
    /// marks places.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkId, bool)> + '_ {
        self.heads
            .iter()
            .filter(|head| head.first_use != END)
            .map(|head| (head.chunk, head.first_landmark != END))
    }

    fn head(&self, chunk: ChunkId) -> Option<usize> {
        self.heads.binary_search_by_key(&chunk, |head| head.chunk).ok()
    }

    /// The landmarks of `chunk`, by index.
    pub fn places(&self, chunk: ChunkId) -> impl Iterator<Item = u32> + '_ {
        let first = self.head(chunk).map_or(END, |head| self.heads[head].first_landmark);
        std::iter::successors((first != END).then_some(first), |&at| {
            let next = self.landmarks[at as usize].next;
            (next != END).then_some(next)
        })
    }

    /// Removes every use of `chunk`.
    pub fn forget(&mut self, chunk: ChunkId) {
        let Some(position) = self.head(chunk) else { return };
        let head = self.heads[position];
        let mut at = head.first_use;
        while at != END {
            self.uses[at as usize] = NO_CHUNK;
            at = self.next_use[at as usize];
        }
        let mut at = head.first_landmark;
        while at != END {
            let landmark = &mut self.landmarks[at as usize];
            landmark.chunk = NO_CHUNK;
            self.live_landmarks -= 1;
            at = landmark.next;
        }
        // The head stays, so that the order does: it leads to holes only.
        self.heads[position].first_use = END;
        self.heads[position].first_landmark = END;
    }

    /// The first landmark at or after `index` that is no hole, and whether
    /// that is in the next lap. There is one.
    pub fn settle(&self, mut index: u32) -> (u32, bool) {
        let mut wrapped = false;
        loop {
            match self.landmarks.get(index as usize) {
                None => {
                    debug_assert!(!wrapped, "a phase without landmarks");
                    (index, wrapped) = (0, true);
                }
                Some(landmark) if landmark.chunk == NO_CHUNK => index += 1,
                Some(_) => return (index, wrapped),
            }
        }
    }

    /// The landmark before `index`, round the end if need be.
    pub fn before(&self, index: u32) -> u32 {
        if index == 0 { self.count() - 1 } else { index - 1 }
    }

    /// Landmarks, holes included.
    pub fn count(&self) -> u32 {
        self.landmarks.len() as u32
    }

    /// The step of landmark `index`. Visits remember landmarks by index, and
    /// the phase may have changed since: then its beginning.
    pub fn step_of(&self, index: u32) -> u32 {
        self.landmarks.get(index as usize).map_or(0, |landmark| landmark.step)
    }

    /// Operations of the iteration before `step`, which may be one past the last.
    pub fn offset(&self, step: u32) -> u32 {
        self.steps.get(step as usize).map_or(self.operations, |step| step.offset)
    }

    /// What the steps before `step`, which may be one past the last, add up to.
    pub fn sum_before(&self, step: u32) -> Sum {
        let uses = self.steps.get(step as usize).map_or(self.uses.len() as u32, |s| s.first_use);
        Sum {
            hash: 0,
            steps: u64::from(step),
            uses: u64::from(uses),
            operations: u64::from(self.offset(step)),
        }
    }

    pub fn uses_of(&self, step: u32) -> &[ChunkId] {
        let step = self.steps[step as usize];
        &self.uses[step.first_use as usize..][..step.use_count as usize]
    }

    /// Whether the same landmarks come in the same order.
    pub fn same_order(&self, other: &Self) -> bool {
        self.count() == other.count()
            && self.landmarks.iter().zip(&other.landmarks).all(|(a, b)| a.chunk == b.chunk)
    }

    /// No candidate any more.
    pub fn known(&self) -> bool {
        self.confirmed || self.once
    }

    /// It is described: not where it is entered again and again and hardly ever
    /// followed to its end, for then it is none.
    pub fn told(&self) -> bool {
        const VISITS: u32 = 8;
        self.confirmed && (self.visits < VISITS || self.laps * 4 >= self.visits)
    }

    /// It came once, and nothing is known of it but that.
    pub fn is_stretch(&self) -> bool {
        self.once && !self.confirmed
    }

    /// Chunks that mark places.
    pub fn marking(&self) -> u32 {
        self.heads.iter().filter(|head| head.first_landmark != END).count() as u32
    }

    /// Whether times are known for nearly all of it.
    pub fn timed(&self) -> bool {
        self.timed_operations * 10 >= u64::from(self.operations) * 9
    }

    /// As an operation count.
    pub fn length(&self) -> Operation {
        u64::from(self.operations)
    }
}
