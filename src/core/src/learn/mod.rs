//! Learns, from the stream of operations alone, in which order chunks come.
//! (Being written: the interface first.)

use crate::address_map::ChunkId;
use std::ops::Range;

/// A duration or virtual time.
pub type Nanos = u64;

/// Operations are numbered from 0, in the order in which they are observed.
pub type Operation = u64;

/// What is known of the order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    pub phases: Vec<Phase>,
    /// The phase that the last operations belong to.
    pub present: Option<usize>,
}

/// Iterations over the same set, in the same order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phase {
    /// One iteration. An operation that touches what the one before touched is
    /// part of the same step.
    pub steps: Vec<Step>,
    /// What the steps touch, one after the other.
    pub uses: Vec<ChunkId>,
    /// Iterations per visit: of the last complete visit, or so far.
    pub repeats: u32,
}

/// One or more operations of an iteration that touch the same chunks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// `uses[first_use..][..use_count]` of the phase, each chunk once.
    pub first_use: u32,
    pub use_count: u32,
    /// Operations that it stands for.
    pub operations: u32,
    /// GPU time, 0 until measured.
    pub ns: Nanos,
}

/// An access to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upcoming {
    pub chunk: ChunkId,
    /// Operations from the last one observed to the one that will touch it: 1
    /// is the very next.
    pub distance: u32,
}

/// Where a look ahead stands. Void once [`Learner::epoch`] has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Private to this module.
    _at: u64,
}

/// See the module's text.
#[derive(Default)]
pub struct Learner {}

impl Learner {
    /// The next operation touches `chunks`, none named twice. Answers whether
    /// it was the predicted one.
    pub fn observe(&mut self, chunks: &[ChunkId]) -> bool {
        let _ = chunks;
        todo!()
    }

    /// The operations took `ns` of GPU time, all together, stalls not counted.
    /// Arrives late; operations that were forgotten since are ignored.
    pub fn measured(&mut self, operations: Range<Operation>, ns: Nanos) {
        let _ = (operations, ns);
        todo!()
    }

    /// Operations observed so far.
    pub fn operations(&self) -> Operation {
        todo!()
    }

    /// Changes whenever what was predicted no longer holds: after a slip.
    pub fn epoch(&self) -> u64 {
        todo!()
    }

    /// The first access to come, if anything is predicted.
    pub fn ahead(&self) -> Option<Cursor> {
        todo!()
    }

    /// The access at `cursor`, which moves on to the next: over the end of the
    /// iteration into its repetition, and into the next phase where that is
    /// known. `None`: nothing is predicted further.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Upcoming> {
        let _ = cursor;
        todo!()
    }

    /// Rises when [`Self::describe`] would answer something that deserves a
    /// new plan: a phase became steady or returned, or times have changed by more than a tenth.
    pub fn version(&self) -> u64 {
        todo!()
    }

    pub fn describe(&self) -> Description {
        todo!()
    }
}
