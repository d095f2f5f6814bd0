//! Learns, from the stream of operations alone, in which order chunks come.
//!
//! ```text
//!   operation -> uses       every use, in order; which of them are marks
//!                predict    what comes next, and how sure that is
//!
//!             -> record     what happened lately, step by step
//!                follow     where in which phase we are
//!                surprise   what was not expected: noise, a skip, another
//!                  |        phase, or nothing known
//!                laps       what the end of a lap says about the phase
//!                phases     the known phases: made, and forgotten
//!                  |
//!                  +-> track      a place in a phase, and the lap so far
//!                  +-> phase      one iteration, laid out for following it
//!                  +-> discover   a period nobody told us about
//!                  +-> visits     which phase comes after which
//!   GPU times  -> times     of groups of operations, spread over steps
//! ```
//!
//! Two that learn, side by side: `predict` says what comes next, by one rule; the
//! phases say what an iteration is, for whoever plans one.
//!
//! The stream is cut into *visits* of *phases*. A phase is one iteration: it
//! begins with the first chunk that came back, and is known for steady when it
//! was followed once to its end. A stretch between two phases that does not
//! repeat at once (a text encoder, a decoder) is a phase of one lap, described
//! once it has come back. If only the same part of it comes back (of the order
//! in which all weights were loaded, what one model uses), that part is the
//! phase. *Landmarks*, uses of chunks that come seldom, tell where in a lap we
//! are; everything else is described, but neither advances nor
//! disturbs the position: activations move between iterations, weights do not.
//!
//! Invariants:
//! - memory is bounded: [`record::STEPS`] and [`record::USES`], [`PHASES`]
//!   phases of together [`PHASE_STEPS`] steps and [`PHASE_USES`] uses, 256
//!   visits, 16,384 chains, and a fixed amount per chunk id below [`CHUNKS`].
//! - an operation that was foretold costs no allocation, once the log is full, and
//!   one comparison with what came last at the most.
//! - nothing names a chunk that was forgotten.
//! - the same calls give the same answers.
//!
//! Not here: what to do about a prediction (see `memory`), plans.

mod discover;
mod follow;
mod laps;
mod phase;
mod phases;
mod predict;
mod record;
mod surprise;
mod times;
mod track;
mod uses;
mod visits;

pub use predict::{Cursor, Outcome};
pub use uses::Kind;

use crate::address_map::{ChunkId, NO_CHUNK};
use discover::{Chains, Voters};
use phase::{Chunks, Scratch};
use record::{Moment, Record};
use std::ops::Range;
use track::{Recent, Track};
use visits::Visits;

/// A duration or virtual time.
pub type Nanos = u64;

/// Operations are numbered from 0, in the order in which they are observed.
pub type Operation = u64;

/// Phases known at a time; the one longest unused goes first. A bit each in
/// [`Known`].
const PHASES: usize = 64;
/// Steps, and uses, of all phases together.
const PHASE_STEPS: usize = 1 << 19;
const PHASE_USES: usize = 1 << 21;
/// Chunks with larger ids are not learned.
const CHUNKS: usize = 1 << 20;

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
    /// Visits, the one under way included.
    pub visits: u32,
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
    /// Where in the predicted order: once [`Learner::position`] is there, it came, or
    /// was left out.
    pub at: u64,
    /// See [`Learner::repeats`].
    pub operation: Operation,
}

/// What is remembered of one chunk.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The step that touched it last, plus 1; 0: none did.
    touched: Moment,
    /// The operation with which that step began.
    touched_by: Operation,
    /// Uses before this step are another chunk's, since freed.
    born: Moment,
    /// Phases, by slot, in which it marks places, and in which it is only used.
    marks: u64,
    uses: u64,
    /// The lap in which it last came unexpectedly; see `laps::lap_stamp`.
    missed_in: u32,
    /// Rises when it comes unexpectedly or fails to come, falls when it comes
    /// as expected.
    erratic: u8,
    scratch: Scratch,
}

/// From here on a chunk is neither predicted nor described, and marks no
/// place: an expert that a router picks.
const ERRATIC: u8 = 8;
const MOST_ERRATIC: u8 = 20;

impl Known {
    fn blame(&mut self, by: u8) {
        self.erratic = (self.erratic + by).min(MOST_ERRATIC);
    }

    fn clear(&mut self, by: u8) {
        self.erratic = self.erratic.saturating_sub(by);
    }
}

#[derive(Default)]
struct KnownChunks {
    chunks: Vec<Known>,
    round: u32,
}

impl Chunks for KnownChunks {
    fn born(&self, chunk: ChunkId) -> Moment {
        // Not in the table: not learned.
        self.chunks.get(chunk as usize).map_or(Moment::MAX, |known| known.born)
    }

    fn erratic(&self, chunk: ChunkId) -> bool {
        self.chunks.get(chunk as usize).is_some_and(|known| known.erratic >= ERRATIC)
    }

    fn scratch(&mut self, chunk: ChunkId) -> &mut Scratch {
        &mut self.chunks[chunk as usize].scratch
    }

    fn next_round(&mut self) -> u32 {
        self.round += 1;
        self.round
    }
}

/// See the module's text.
pub struct Learner {
    operations: Operation,
    version: u64,
    predictor: predict::Predictor,
    record: Record,
    known: KnownChunks,
    phases: [Option<Box<phase::Phase>>; PHASES],
    /// Phases ever made.
    serials: u64,
    visits: Visits,
    voters: Voters,
    chains: Chains,
    /// Of chains.
    chain_voters: Voters,
    recent: Recent,
    /// Where we are. `None`: nowhere known.
    track: Option<Track>,
    /// Where we were, if `track` is a phase that is expected to begin now but
    /// has not been seen to.
    crossed: Option<Track>,
    /// Where we were when we got lost in the middle of a lap.
    interrupted: Option<Track>,
    /// Since when nothing known was followed. `None`: something is.
    lost_since: Option<Moment>,
    /// What came back while nothing known was followed, oldest first.
    courses: Vec<phases::Course>,
    /// The last step that touched, unexpectedly, something not touched just
    /// before.
    rare_at: Moment,
    /// No candidate is tried before this step; see `phases`.
    rest_until: Moment,
}

impl Default for Learner {
    fn default() -> Self {
        Self::new()
    }
}

impl Learner {
    pub fn new() -> Self {
        Self {
            operations: 0,
            version: 0,
            predictor: predict::Predictor::default(),
            record: Record::default(),
            known: KnownChunks::default(),
            phases: std::array::from_fn(|_| None),
            serials: 0,
            visits: Visits::default(),
            voters: Voters::default(),
            chains: Chains::default(),
            chain_voters: Voters::default(),
            recent: Recent::default(),
            track: None,
            crossed: None,
            interrupted: None,
            lost_since: Some(0),
            courses: Vec::new(),
            rare_at: 0,
            rest_until: 0,
        }
    }

    /// The next operation touches `chunks`, none named twice. Answers how that
    /// compares with what was foretold.
    #[inline]
    pub fn observe(&mut self, chunks: &[ChunkId]) -> Outcome {
        let known = chunks.iter().copied().filter(|&chunk| (chunk as usize) < CHUNKS);
        let outcome = self.predictor.observe(known);
        let operation = self.operations;
        self.operations += 1;
        if self.record.extend(chunks) {
            self.linger();
        } else {
            self.step(operation, &chunks[..chunks.len().min(record::MOST_USES)]);
        }
        outcome
    }

    /// What `chunk` stands for; a weight, unless this is said.
    pub fn set_kind(&mut self, chunk: ChunkId, kind: Kind) {
        if (chunk as usize) < CHUNKS {
            self.predictor.set_kind(chunk, kind);
        }
    }

    /// The first access to come, if anything is predicted.
    pub fn ahead(&self) -> Option<Cursor> {
        self.predictor.ahead()
    }

    /// Whether what is predicted has been right for long.
    pub fn is_sure(&self) -> bool {
        self.predictor.is_sure()
    }

    /// The access at `cursor`, which moves on to the next: over the end of the
    /// iteration into its repetition. `None`: nothing is predicted further. A cursor
    /// that was overtaken continues from the present.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Upcoming> {
        self.predictor.next(cursor)
    }

    /// Where the last operation stands in the predicted order: what was to come up to
    /// [`Upcoming::at`] this place came. Starts anew with each epoch.
    pub fn position(&self) -> u64 {
        self.predictor.position()
    }

    /// The operation of the past that the last one repeats, as far as that can be told:
    /// a chunk that is used when this is [`Upcoming::operation`] was used as predicted.
    pub fn repeats(&self) -> Option<Operation> {
        self.predictor.repeats()
    }

    /// The operations took `ns` of GPU time, all together, stalls not counted.
    /// Arrives late; operations that were forgotten since are ignored.
    pub fn measured(&mut self, operations: Range<Operation>, ns: Nanos) {
        self.spread(operations, ns);
    }

    /// What the steps touched that `operations` belong to, as far as they are
    /// remembered, and whether all of a step's operations are among them.
    pub fn touched(
        &self,
        operations: Range<Operation>,
    ) -> impl Iterator<Item = (bool, impl Iterator<Item = ChunkId> + '_)> + '_ {
        let first = self.record.find(operations.start).unwrap_or(self.record.length());
        let moments = first..self.record.length();
        let end = operations.end;
        let begins = move |&at: &Moment| self.record.entry(at).operation < end;
        moments.take_while(begins).map(move |at| {
            let entry = self.record.entry(at);
            let whole = entry.operation >= operations.start && entry.end() <= end;
            (whole, self.record.uses(at))
        })
    }

    /// `chunk` was freed: its id may come to mean something else. Phases that
    /// used it are kept, without it.
    pub fn forget(&mut self, chunk: ChunkId) {
        self.predictor.forget(chunk);
        let now = self.record.length();
        let Some(known) = self.known.chunks.get_mut(chunk as usize) else { return };
        let phases = known.marks | known.uses;
        let scratch = known.scratch;
        *known = Known { born: now, scratch, ..Known::default() };
        self.recent.forget(chunk);
        if phases == 0 {
            return;
        }
        for slot in bits(phases) {
            let phase = self.phases[slot].as_mut().expect("a phase that the chunk knows");
            phase.forget(chunk);
            if phase.live_landmarks == 0 {
                self.drop_phase(slot);
            }
        }
        self.settle();
    }

    /// Operations observed so far.
    pub fn operations(&self) -> Operation {
        self.operations
    }

    /// Changes whenever what was predicted no longer holds: after a slip.
    pub fn epoch(&self) -> u64 {
        self.predictor.epoch()
    }

    /// Whether the GPU time of what goes on now is worth measuring: it is a
    /// phase, and not yet known how long its steps take.
    pub fn wants_times(&self) -> bool {
        /// Laps in which that may be found out; measuring is not free.
        const LAPS: u32 = 8;
        /// Operations of a stretch that may become a phase.
        const STRETCH: Operation = 1 << 12;
        let Some(track) = &self.track else {
            let since = self.lost_since.filter(|&since| since >= self.record.oldest());
            return since.is_some_and(|since| self.record.length() - since < STRETCH);
        };
        let phase = self.phase(track.slot);
        phase.known() && phase.laps < LAPS && !phase.timed()
    }

    /// Operations in an iteration of the phase under way, once that is described.
    pub fn lap(&self) -> Option<u64> {
        let phase = self.phase(self.track.as_ref()?.slot);
        phase.confirmed.then(|| phase.length())
    }

    /// Rises when [`Self::describe`] would answer something that deserves a
    /// new plan: a phase became steady, returned for the first time, or
    /// changed for good; or times have changed by more than a tenth.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Bytes of memory held: bounded, see the module's text.
    pub fn footprint(&self) -> usize {
        let phases: usize = self.phases.iter().flatten().map(|phase| phase.footprint()).sum();
        size_of::<Self>()
            + self.predictor.footprint()
            + self.record.footprint()
            + self.known.chunks.capacity() * size_of::<Known>()
            + self.visits.footprint()
            + self.chains.footprint()
            + phases
    }

    /// Panics unless the module's invariants hold. For tests and debug builds.
    pub fn check(&self) {
        let live = || self.phases.iter().enumerate().filter_map(|(s, p)| Some((s, p.as_deref()?)));
        assert!(live().map(|(_, phase)| phase.steps.len()).sum::<usize>() <= PHASE_STEPS);
        assert!(live().map(|(_, phase)| phase.uses.len()).sum::<usize>() <= PHASE_USES);
        for (slot, phase) in live() {
            phase.check();
            for (chunk, marks) in phase.chunks() {
                let known = &self.known.chunks[chunk as usize];
                assert!(known.uses & 1 << slot != 0, "phase {slot} unknown to its chunk {chunk}");
                assert_eq!(known.marks & 1 << slot != 0, marks, "phase {slot}, chunk {chunk}");
            }
        }
        for known in &self.known.chunks {
            for slot in bits(known.uses | known.marks) {
                assert!(self.phases[slot].is_some(), "a chunk knows of no phase {slot}");
            }
        }
        for track in [&self.track, &self.crossed, &self.interrupted].into_iter().flatten() {
            assert!(self.phases[track.slot].is_some());
        }
        if let Some(track) = &self.track {
            track.check(self.phase(track.slot));
        } else {
            assert!(self.crossed.is_none());
        }
    }

    pub fn describe(&self) -> Description {
        let present = self.track.as_ref().map(|track| track.slot);
        let mut description = Description::default();
        for (slot, phase) in self.phases.iter().enumerate() {
            let Some(phase) = phase.as_deref().filter(|phase| phase.told()) else { continue };
            if present == Some(slot) {
                description.present = Some(description.phases.len());
            }
            description.phases.push(self.describe_phase(phase));
        }
        description
    }

    /// The phases that [`Self::describe`] answers, by numbers of their own,
    /// which stay while they are described anew.
    pub fn described(&self) -> Vec<u64> {
        let phases = self.phases.iter().flatten().filter(|phase| phase.told());
        phases.map(|phase| phase.serial).collect()
    }

    /// The number of the phase that the last operations belong to.
    pub fn present(&self) -> Option<u64> {
        self.track.as_ref().map(|track| self.phase(track.slot).serial)
    }

    fn describe_phase(&self, phase: &phase::Phase) -> Phase {
        let (repeats, visits) = (phase.repeats.max(1), phase.visits);
        let mut described = Phase { repeats, visits, ..Phase::default() };
        let certain = |chunk| chunk != NO_CHUNK && !self.known.erratic(chunk);
        for (index, step) in phase.steps.iter().enumerate() {
            let first_use = described.uses.len() as u32;
            let uses = phase.uses_of(index as u32);
            described.uses.extend(uses.iter().filter(|&&chunk| certain(chunk)));
            described.steps.push(Step {
                first_use,
                use_count: described.uses.len() as u32 - first_use,
                operations: step.operations,
                ns: step.ns as Nanos,
            });
        }
        described
    }
}

/// The set bits of `mask`, lowest first.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(bit)
    })
}
