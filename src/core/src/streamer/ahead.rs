//! What is fetched before it is asked for: along the learned order, or, before
//! there is one, in order of birth.
//!
//! Never evicts what is expected earlier, and never waits.

use super::*;

impl Streamer {
    /// Submits the copies that the prediction asks for and the ring has room for.
    pub fn look_ahead(&mut self, mechanism: &mut impl Mechanism) {
        if self.ring.is_empty() {
            return;
        }
        let Some(cursor) = self.history.cursor() else {
            return self.look_ahead_by_birth(mechanism);
        };
        self.ahead = self.ahead.max(cursor);
        while self.ahead < self.history.len() {
            let Some(id) = self.history.token(self.ahead) else { break };
            let living = self.chunks.get(id as usize).and_then(Option::as_ref);
            if living.is_some_and(|chunk| !chunk.resident()) {
                let expected = Some((self.epoch, self.ahead));
                if !self.chunk(id).present() && !self.prefetch(id, cursor, mechanism) {
                    break;
                }
                self.chunk_mut(id).expected = expected;
            }
            self.ahead += 1;
        }
    }

    /// Whether `id`'s content may go under ring frames that others still need.
    pub(super) fn evictable(&self, occupant: ChunkId, cursor: Position) -> bool {
        let chunk = self.chunk(occupant);
        let awaited = chunk
            .expected
            .is_some_and(|(epoch, position)| epoch == self.epoch && position >= cursor);
        // What the present operation touched may well be touched by the next.
        chunk.holds == 0 && !awaited && chunk.touched_at < self.operation
    }

    /// Whether all content on the shared frames of `part` may go.
    fn clear_of_need(&self, part: &Part, evictable: impl Fn(ChunkId) -> bool) -> bool {
        part.slots().filter_map(|slot| self.occupants[slot as usize]).all(|(id, _)| evictable(id))
    }

    /// Submits the copies of the absent parts of `id`, as far as they evict
    /// nothing that is needed. `true`: all of them.
    fn prefetch(&mut self, id: ChunkId, cursor: Position, mechanism: &mut impl Mechanism) -> bool {
        // Attach only where that waits for nothing: when unmapped.
        if !self.chunk(id).mapped
            && !self.attach_ahead(id, |s, occupant| s.evictable(occupant, cursor), mechanism)
        {
            return false;
        }
        for index in 0..self.chunk(id).parts.len() {
            let Streamed { part, present } = self.chunk(id).parts[index];
            if !present
                && (!self.clear_of_need(&part, |occupant| self.evictable(occupant, cursor))
                    || self.fetch(id, index, false, mechanism).is_err())
            {
                return false;
            }
        }
        true
    }

    /// Attaches the unmapped `id` at the ring's cursor, if nothing there is needed.
    fn attach_ahead(
        &mut self,
        id: ChunkId,
        evictable: impl Fn(&Self, ChunkId) -> bool,
        mechanism: &mut impl Mechanism,
    ) -> bool {
        let lap = self.ring.len() as u32;
        if self.chunk(id).shared_frames() > lap {
            return false;
        }
        let mut at = self.ring_cursor;
        let mut parts = Vec::new();
        for hole in self.chunk(id).holes() {
            let frames = hole.end - hole.start;
            let part = Part { first: hole.start, frames, at, lap };
            at = part.slot(frames);
            if !self.clear_of_need(&part, |occupant| evictable(self, occupant)) {
                return false;
            }
            parts.push(part);
        }
        if self.map_with(id, parts, mechanism).is_err() {
            return false;
        }
        self.ring_cursor = at;
        self.counters.layout_changes += 1;
        self.unplanned_changes += 1;
        true
    }

    /// With nothing learned yet, what was allocated after the chunk touched
    /// last is likely to be used next.
    pub(super) fn look_ahead_by_birth(&mut self, mechanism: &mut impl Mechanism) {
        const CHUNKS_AHEAD: usize = 2;
        let Some(last) = self.history.len().checked_sub(1).and_then(|p| self.history.token(p))
        else {
            return;
        };
        let operation = self.operation;
        let next: Vec<ChunkId> = self
            .chunks
            .iter()
            .enumerate()
            .skip(last as usize + 1)
            .filter_map(|(id, chunk)| Some((id as ChunkId, chunk.as_ref()?)))
            .filter(|(_, chunk)| !chunk.resident() && !chunk.undefined)
            .take(CHUNKS_AHEAD)
            .map(|(id, _)| id)
            .collect();
        for id in next {
            if self.chunk(id).present() {
                continue;
            }
            // Recently touched or not yet used: leave it where it is.
            let cold = |streamer: &Self, occupant: ChunkId| {
                let chunk = streamer.chunk(occupant);
                chunk.holds == 0
                    && chunk.touched_at + 4 < operation
                    && chunk.expected.is_none_or(|(epoch, _)| epoch != streamer.epoch)
            };
            if !self.chunk(id).mapped && !self.attach_ahead(id, cold, mechanism) {
                return;
            }
            for index in 0..self.chunk(id).parts.len() {
                let Streamed { part, present } = self.chunk(id).parts[index];
                if !present
                    && (!self.clear_of_need(&part, |occupant| cold(self, occupant))
                        || self.fetch(id, index, false, mechanism).is_err())
                {
                    return;
                }
            }
            let epoch = self.epoch;
            self.chunk_mut(id).expected = Some((epoch, Position::MAX));
        }
    }
}
