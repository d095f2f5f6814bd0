//! What is fetched before it is asked for: along the learned order, or, before
//! there is one, in order of birth.
//!
//! Never evicts what is expected earlier, and never waits.

use std::cmp::Ordering;

use super::chunk::{ChunkState, Expected, PartExt, Streamed};
use super::{ChunkId, MemoryOps, Operation, Streamer};
use crate::learn::Upcoming;
use crate::plan::Part;

/// Accesses looked at in one call: a prediction that changed with every
/// operation must not cost a walk along all of it each time.
const ACCESSES_PER_CALL: u32 = 128;
/// Operations looked ahead at the most.
const FAR: u32 = 1 << 14;

/// Chunks fetched in order of birth.
const CHUNKS_AHEAD: usize = 2;

fn first_of<'a>(
    mut chunks: impl Iterator<Item = (ChunkId, &'a ChunkState)>,
) -> [Option<ChunkId>; CHUNKS_AHEAD] {
    std::array::from_fn(|_| chunks.next().map(|(id, _)| id))
}

/// When copies of one look ahead may become ready.
#[derive(Default)]
struct PlannedStart {
    /// Operations until the present access.
    distance: u32,
    /// Where in the predicted order that is.
    at: u64,
    /// The copies submitted from here on wait for the present operation.
    delayed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// Not with this operation yet.
    Later,
    /// Once the present operation is over, and so the next one begins.
    AfterThis,
    Now,
}

impl PlannedStart {
    fn timing(&self, lead: u32) -> Timing {
        match self.distance.cmp(&lead.saturating_add(1)) {
            Ordering::Greater => Timing::Later,
            Ordering::Equal => Timing::AfterThis,
            Ordering::Less => Timing::Now,
        }
    }
}

impl Streamer {
    /// Submits the copies that the prediction asks for and the ring has room for.
    pub fn look_ahead(&mut self, ops: &mut impl MemoryOps) {
        if self.accuracy.too_low() {
            return;
        }
        if self.ring.is_empty() {
            return self.fill_when_idle(ops);
        }
        if self.order.epoch() != self.learned_epoch || self.disturbed {
            self.learned_epoch = self.order.epoch();
            self.start_over();
            self.expect_anew();
        }
        // In a first pass, what is foretold by a few uses alone is mostly wrong.
        let foretold = self.order.version() > 0 || self.order.is_sure();
        let cursor = self.ahead.or_else(|| self.order.ahead()).filter(|_| foretold);
        let Some(mut cursor) = cursor else {
            self.ahead = None;
            return self.look_ahead_by_birth(ops);
        };
        let mut start = PlannedStart::default();
        for _ in 0..ACCESSES_PER_CALL {
            let mut after = cursor;
            let Some(upcoming) = self.order.next(&mut after) else { break };
            if upcoming.distance > FAR {
                break;
            }
            let id = upcoming.chunk;
            let living = self.chunks.get(id as usize).and_then(Option::as_ref);
            if living.is_some_and(|chunk| !chunk.complete()) {
                (start.distance, start.at) = (upcoming.distance, upcoming.at);
                let complete = self.chunk(id).present() || self.prefetch(id, &mut start, ops);
                // What has come of it stays, too.
                self.expect(id, &upcoming);
                if !complete {
                    break;
                }
            }
            cursor = after;
        }
        self.ahead = Some(cursor);
        self.fill_when_idle(ops);
    }

    /// Notes what is expected soon, so that none of it goes for what is expected sooner.
    fn expect_anew(&mut self) {
        let Some(mut cursor) = self.order.ahead() else { return };
        for _ in 0..ACCESSES_PER_CALL {
            let Some(upcoming) = self.order.next(&mut cursor) else { return };
            if self.contains(upcoming.chunk) {
                self.expect(upcoming.chunk, &upcoming);
            }
        }
    }

    fn expect(&mut self, id: ChunkId, upcoming: &Upcoming) {
        let &Upcoming { at, operation, .. } = upcoming;
        let expected = Expected { epoch: self.epoch, at, operation: Some(operation) };
        self.chunk_mut(id).expected = Some(expected);
    }

    /// `id` is used: is this what it was awaited for?
    pub(super) fn came(&mut self, id: ChunkId, repeats: Option<Operation>) {
        let chunk = self.chunk_mut(id);
        let awaited = chunk.expected.and_then(|expected| expected.operation);
        if awaited.zip(repeats).is_some_and(|(awaited, now)| awaited <= now) {
            chunk.expected = None;
        }
    }

    /// What was expected no longer is; what is, is found out anew.
    pub(super) fn start_over(&mut self) {
        self.epoch += 1;
        self.ahead = None;
        self.disturbed = false;
    }

    /// Whether `id`'s content is there for a use to come.
    pub(super) fn awaited(&self, id: ChunkId) -> bool {
        let expected = self.chunk(id).expected;
        let position = self.order.position();
        expected.is_some_and(|Expected { epoch, at, .. }| epoch == self.epoch && position < at)
    }

    /// Whether `occupant`'s content may go under frames that others need.
    pub(super) fn evictable(&self, occupant: ChunkId) -> bool {
        let chunk = self.chunk(occupant);
        // What the present operation touched may well be touched by the next.
        chunk.holds == 0 && !self.awaited(occupant) && chunk.touched_at < self.operation
    }

    /// Whether all content on the shared frames of `part` may go.
    fn clear_of_need(&self, part: &Part, evictable: impl Fn(&Self, ChunkId) -> bool) -> bool {
        let mut occupants = part.slots().filter_map(|slot| self.occupants[slot as usize]);
        occupants.all(|(id, _)| evictable(self, id))
    }

    /// [`Self::clear_of_need`] for all of `parts`.
    pub(super) fn all_clear_of_need(
        &self,
        parts: &[(ChunkId, u32)],
        evictable: impl Fn(&Self, ChunkId) -> bool,
    ) -> bool {
        let part = |&(id, index): &(ChunkId, u32)| self.chunk(id).parts[index as usize].part;
        parts.iter().map(part).all(|part| self.clear_of_need(&part, &evictable))
    }

    fn prefetch(
        &mut self,
        id: ChunkId,
        start: &mut PlannedStart,
        ops: &mut impl MemoryOps,
    ) -> bool {
        self.prefetch_over(id, Self::evictable, Some(start), ops)
    }

    /// Submits the copies of the absent parts of `id`, as far as it is time
    /// and they evict only what `evictable` allows. `true`: all of them.
    fn prefetch_over(
        &mut self,
        id: ChunkId,
        evictable: impl Fn(&Self, ChunkId) -> bool,
        mut start: Option<&mut PlannedStart>,
        ops: &mut impl MemoryOps,
    ) -> bool {
        // Attach only where that waits for nothing: when unmapped.
        if !self.chunk(id).mapped && !self.attach_ahead(id, &evictable, ops) {
            return false;
        }
        self.fill_blanks(id, false, ops);
        for index in 0..self.chunk(id).parts.len() {
            let Streamed { present, lead, .. } = self.chunk(id).parts[index];
            if present {
                continue;
            }
            let timing = match (lead, &start) {
                (Some(lead), Some(start)) => start.timing(lead),
                _ => Timing::Now,
            };
            if timing == Timing::Later {
                return false;
            }
            let together = self.together(id, index);
            if !self.all_clear_of_need(&together, &evictable) {
                return false;
            }
            if let (Timing::AfterThis, Some(start)) = (timing, &mut start) {
                self.counters.delayed += 1;
                if !std::mem::replace(&mut start.delayed, true) {
                    ops.fetch_after_program();
                }
            }
            let fetched = match together.len() {
                1 => self.fetch(id, index, false, ops),
                _ => self.fetch_together(&together, false, ops),
            };
            if fetched.is_err() {
                return false;
            }
            if let Some(start) = &start {
                // Those that came along are awaited as well, until it is known
                // how long.
                let at = start.at;
                for (other, _) in together {
                    if !self.awaited(other) {
                        let expected = Expected { epoch: self.epoch, at, operation: None };
                        self.chunk_mut(other).expected = Some(expected);
                    }
                }
            }
        }
        true
    }

    /// Attaches the unmapped `id` at the ring's cursor, if nothing there is needed.
    fn attach_ahead(
        &mut self,
        id: ChunkId,
        evictable: impl Fn(&Self, ChunkId) -> bool,
        ops: &mut impl MemoryOps,
    ) -> bool {
        let wrap = self.ring.len() as u32;
        if self.chunk(id).shared_frames() > wrap {
            return false;
        }
        let mut at = self.ring_cursor;
        let mut parts = Vec::new();
        for hole in self.chunk(id).holes() {
            let frames = hole.end - hole.start;
            let part = Part { first: hole.start, frames, at, wrap };
            at = part.slot(frames);
            if !self.clear_of_need(&part, &evictable) {
                return false;
            }
            parts.push(part);
        }
        if self.map_with(id, parts, Vec::new(), ops).is_err() {
            return false;
        }
        self.ring_cursor = at;
        self.count_layout_change(id);
        true
    }

    /// With nothing learned yet, what was allocated after the chunk touched
    /// last is likely to be used next.
    fn look_ahead_by_birth(&mut self, ops: &mut impl MemoryOps) {
        /// Operations for which a chunk is left where it is: after a use, and
        /// before one that may never come.
        const WARM: Operation = 4;
        /// While it is not known yet how soon an allocation of many tensors comes again.
        const WARM_FIRST: Operation = 16;
        const FEW: u32 = 4;
        const PATIENCE: Operation = 64;
        /// Comings of a chunk, its filling included, after which its order of
        /// birth has told what it can.
        const NEW: u32 = 2;
        let Some(last) = self.last_reused else { return };
        let known = |chunk: &ChunkState| self.order.version() > 0 && chunk.reuse_count > NEW;
        if self.chunks[last as usize].as_ref().is_none_or(known) {
            return;
        }
        let fills = self.fills;
        let given_up =
            |chunk: &ChunkState| chunk.guessed_at.is_some_and(|at| at + PATIENCE < self.operation);
        let absent = |from: usize| {
            let living = self.chunks.iter().enumerate().skip(from);
            living
                .filter_map(|(id, chunk)| Some((id as ChunkId, chunk.as_ref()?)))
                .filter(|(_, chunk)| !chunk.complete() && !chunk.undefined)
        };
        let unused =
            absent(0).filter(|(_, chunk)| fills > 0 && chunk.is_fresh(fills) && !given_up(chunk));
        let mut next = first_of(unused);
        if next[0].is_none() {
            next = first_of(absent(last as usize + 1));
        }
        for id in next.into_iter().flatten() {
            if self.chunk(id).present() {
                continue;
            }
            let cold = |streamer: &Self, occupant: ChunkId| {
                let chunk = streamer.chunk(occupant);
                let guessed = chunk.guessed_at.is_some_and(|at| {
                    chunk.touched_at <= at && streamer.operation <= at + PATIENCE
                });
                let few = fills > 0 && chunk.reuse_count < FEW;
                let warm = if few { WARM_FIRST } else { WARM };
                streamer.evictable(occupant)
                    && chunk.touched_at + warm.max(2 * chunk.pause) < streamer.operation
                    && !guessed
                    && occupant != last
                    && !next.contains(&Some(occupant))
            };
            if !self.prefetch_over(id, cold, None, ops) {
                return;
            }
            self.chunk_mut(id).guessed_at = Some(self.operation);
        }
    }
}
