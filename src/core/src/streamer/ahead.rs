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
            if living.is_some_and(|chunk| chunk.place != Place::Resident) {
                let expected = Some((self.epoch, self.ahead));
                if !self.chunk(id).present() {
                    if !self.may_prefetch(id, cursor) {
                        break;
                    }
                    // Attach only where that waits for nothing: when unmapped.
                    if self.chunk(id).place == Place::Unmapped
                        && !self.attach_ahead(id, cursor, mechanism)
                    {
                        break;
                    }
                    if self.fetch(id, false, mechanism).is_err() {
                        break;
                    }
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

    pub(super) fn may_prefetch(&self, id: ChunkId, cursor: Position) -> bool {
        let chunk = self.chunk(id);
        let Place::Ring { at, .. } = chunk.place else { return true };
        self.range_evictable(at, chunk.frames, cursor)
    }

    pub(super) fn range_evictable(&self, at: u32, frames: u32, cursor: Position) -> bool {
        self.ring_range(at, frames)
            .filter_map(|index| self.occupants[index])
            .all(|occupant| self.evictable(occupant, cursor))
    }

    /// Attaches the unmapped `id` at the ring's cursor, if nothing there is needed.
    pub(super) fn attach_ahead(
        &mut self,
        id: ChunkId,
        cursor: Position,
        mechanism: &mut impl Mechanism,
    ) -> bool {
        let frames = self.chunk(id).frames;
        let length = self.ring.len() as u32;
        let at = self.ring_cursor;
        if frames > length || !self.range_evictable(at, frames, cursor) {
            return false;
        }
        if self.map_alias(id, at, mechanism).is_err() {
            return false;
        }
        self.ring_cursor = (at + frames) % length;
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
            .filter(|(_, chunk)| chunk.place != Place::Resident && !chunk.undefined)
            .take(CHUNKS_AHEAD)
            .map(|(id, _)| id)
            .collect();
        for id in next {
            if self.chunk(id).present() {
                continue;
            }
            // Recently touched or not yet used: leave it where it is.
            let cold = |occupant: ChunkId| {
                let chunk = self.chunk(occupant);
                chunk.holds == 0
                    && chunk.touched_at + 4 < operation
                    && chunk.expected.is_none_or(|(epoch, _)| epoch != self.epoch)
            };
            let at = match self.chunk(id).place {
                Place::Ring { at, .. } => at,
                _ => self.ring_cursor,
            };
            let frames = self.chunk(id).frames;
            let free = frames <= self.ring.len() as u32
                && self.ring_range(at, frames).filter_map(|i| self.occupants[i]).all(cold);
            if !free
                || (self.chunk(id).place == Place::Unmapped
                    && !self.attach_ahead(id, Position::MAX, mechanism))
                || self.fetch(id, false, mechanism).is_err()
            {
                return;
            }
            let epoch = self.epoch;
            self.chunk_mut(id).expected = Some((epoch, Position::MAX));
        }
    }
}
