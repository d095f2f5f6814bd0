//! The ring: the frames that parts share, who has an alias where, whose
//! content is in them now.
//!
//! A shared frame keeps its number, so a part stays where it is when the ring
//! grows, and goes only when the ring no longer reaches it.
//!
//! Not here: where its frames come from (`frames`), and what is fetched before
//! it is asked for (`ahead`).

use std::ops::Range;

use super::chunk::{self, ChunkState, PartExt, Streamed};
use super::{ChunkId, Effect, FrameId, MemoryOps, Pending, Refused, Shortage, Streamer};
use crate::plan::Part;

impl Streamer {
    /// Whether a part of `id` meets one of another chunk of `touches`.
    pub(super) fn overlaps_any(&self, id: ChunkId, touches: &[(ChunkId, Effect)]) -> bool {
        let parts = &self.chunk(id).parts;
        touches.iter().filter(|&&(other, _)| other != id).any(|&(other, _)| {
            let others = &self.chunk(other).parts;
            parts.iter().any(|a| others.iter().any(|b| a.part.meets(&b.part)))
        })
    }

    /// Which slots an operation that touches `touches` had better not wait for.
    pub(super) fn note_held_up(&mut self, touches: &[(ChunkId, Effect)], ops: &mut impl MemoryOps) {
        self.held_up_slots.clear();
        if !ops.any_held_up() {
            return;
        }
        for slot in 0..self.ring.len() as u32 {
            if let Some((id, _)) = self.occupants[slot as usize]
                && touches.iter().all(|&(touched, _)| touched != id)
                && ops.pending(id) == Pending::HeldUp
            {
                self.held_up_slots.push(slot);
            }
        }
    }

    /// Whether `id` shares frames with what a stream that is held up has yet to
    /// use, and need not.
    pub(super) fn is_behind_held_up(&self, id: ChunkId, ops: &mut impl MemoryOps) -> bool {
        let mut slots = self.chunk(id).parts.iter().flat_map(|streamed| streamed.part.slots());
        !self.held_up_slots.is_empty()
            && slots.any(|slot| self.held_up_slots.contains(&slot))
            && ops.pending(id) != Pending::HeldUp
    }

    /// At least `frames` frames in the ring, taken from residents that
    /// `touches` does not name. The first ring is a fraction of the memory.
    pub(super) fn grow_ring(
        &mut self,
        frames: u32,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let present = self.ring.len() as u32;
        let held_up = self.held_up_slots.len() as u32;
        if held_up > 0 && present < frames + held_up {
            // Room beside them, or else what they hold is waited for.
            let keep = |id: ChunkId| touches.iter().any(|&(touched, _)| touched == id);
            match self.take_frames(frames + held_up - present, &keep, false, ops) {
                Ok(taken) => {
                    self.extend_ring(taken, ops);
                    return Ok(());
                }
                Err(wait @ (Shortage::Busy | Shortage::Unfinished)) => return Err(wait),
                Err(Shortage::Device { .. } | Shortage::Host) => self.held_up_slots.clear(),
            }
        }
        if present >= frames {
            return Ok(());
        }
        let comfortable = match (present, &self.plan) {
            (0, None) if !self.accuracy.too_low() => (frames * 2).max(self.cap_frames / 16),
            // The plan does without: this is for what it does not know.
            (0, _) => frames * 2,
            _ => frames,
        };
        let keep = |id: ChunkId| touches.iter().any(|&(touched, _)| touched == id);
        // The wish first; if something in use makes it too much, the need.
        let taken = match self.take_frames(comfortable - present, &keep, false, ops) {
            Err(Shortage::Device { .. } | Shortage::Host) if comfortable > frames => {
                self.take_frames(frames - present, &keep, false, ops)?
            }
            other => other?,
        };
        self.extend_ring(taken, ops);
        Ok(())
    }

    pub(super) fn extend_ring(&mut self, frames: Vec<FrameId>, ops: &mut impl MemoryOps) {
        if frames.is_empty() {
            return;
        }
        self.ring.extend(frames);
        self.occupants.resize(self.ring.len(), None);
        ops.ring(&self.ring);
    }

    /// The layout of `id` changed, off the plan.
    pub(super) fn count_layout_change(&mut self, id: ChunkId) {
        self.counters.layout_changes += 1;
        // What the plan does not know cannot spoil it.
        self.unplanned_changes += u64::from(self.plan.is_none() || self.chunk(id).planned);
    }

    /// Maps the unmapped `id`, its holes on frames that nobody else wants, or
    /// else on shared frames that meet no other chunk of `touches`.
    pub(super) fn attach(
        &mut self,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let missing = self.chunk(id).shared_frames();
        if missing <= self.free.len() as u32 {
            let fresh = self.free.split_off(self.free.len() - missing as usize);
            self.map_with(id, Vec::new(), fresh, ops)?;
            self.count_layout_change(id);
            return Ok(());
        }
        let mut taken = vec![false; self.ring.len()];
        for &(other, _) in touches.iter().filter(|&&(other, _)| other != id) {
            for slot in self.chunk(other).parts.iter().flat_map(|streamed| streamed.part.slots()) {
                taken[slot as usize] = true;
            }
        }
        for &slot in &self.held_up_slots {
            taken[slot as usize] = true;
        }
        let mut cursor = self.ring_cursor;
        let mut parts = Vec::new();
        for hole in self.chunk(id).holes() {
            let frames = hole.end - hole.start;
            let Some(at) = self.coldest_run(&taken, cursor, frames) else {
                return self.repack(touches, ops);
            };
            let part = Part { first: hole.start, frames, at, wrap: taken.len() as u32 };
            part.slots().for_each(|slot| taken[slot as usize] = true);
            cursor = part.slot(frames);
            parts.push(part);
        }
        self.map_with(id, parts, Vec::new(), ops)?;
        self.ring_cursor = cursor;
        self.count_layout_change(id);
        Ok(())
    }

    /// A run of `frames` slots that are not `taken`: the one whose content was
    /// used, or is awaited, the longest ago; of equals the first from `cursor` on.
    fn coldest_run(&self, taken: &[bool], cursor: u32, frames: u32) -> Option<u32> {
        let length = taken.len() as u32;
        let heat = |slot: u32| {
            let occupant = self.occupants[slot as usize].map(|(id, _)| id);
            occupant.map_or(0, |id| {
                let ChunkState { touched_at, guessed_at, .. } = *self.chunk(id);
                let used = touched_at.max(guessed_at.unwrap_or(0));
                if self.awaited(id) { self.operation } else { used }
            })
        };
        // Where a run may begin: somewhere that something ends.
        let edge = |slot: &u32| {
            let before = (slot + length - 1) % length;
            *slot == cursor
                || taken[before as usize] != taken[*slot as usize]
                || self.occupants[before as usize] != self.occupants[*slot as usize]
        };
        let starts = (0..length).map(|step| (cursor + step) % length).filter(edge);
        let mut best = None;
        for start in starts {
            let mut slots = (0..frames).map(|step| (start + step) % length);
            if frames > length || slots.clone().any(|slot| taken[slot as usize]) {
                continue;
            }
            let hottest = slots.try_fold(0, |hottest, slot| {
                let heat = heat(slot).max(hottest);
                if best.is_some_and(|(least, _)| least <= heat) { None } else { Some(heat) }
            });
            if let Some(heat) = hottest {
                best = Some((heat, start));
            }
        }
        // A run may be found between edges where none begins at one.
        best.map(|(_, start)| start).or_else(|| find_run(taken, cursor, frames))
    }

    /// Maps the unmapped `id`: `parts` of its holes on the ring, the others to
    /// `fresh`, which become its own, still without content.
    pub(super) fn map_with(
        &mut self,
        id: ChunkId,
        parts: Vec<Part>,
        fresh: Vec<FrameId>,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let outcome = self.try_map(id, &parts, &fresh, ops);
        if outcome.is_err() {
            self.free.extend(fresh);
            return outcome;
        }
        self.streamed_chunks -= u32::from(parts.is_empty());
        let chunk = self.chunk_mut(id);
        let streamed = |&part: &Part| Streamed { part, present: false, lead: None, run: None };
        chunk.parts = parts.iter().map(streamed).collect();
        chunk.mapped = true;
        let mut fresh = fresh.into_iter();
        for index in 0..chunk.frames {
            let shared = parts.iter().any(|part| part.names(index));
            if chunk.own[index as usize].is_none() && !shared {
                chunk.own[index as usize] = fresh.next();
                chunk.set_blank(index, true);
            }
        }
        Ok(())
    }

    fn try_map(
        &mut self,
        id: ChunkId,
        parts: &[Part],
        fresh: &[FrameId],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        // Host memory exists before a part enters the ring: what is fetched
        // can always be evicted.
        for part in parts {
            self.reserve_host(id, part.range(), ops)?;
        }
        let mut frames = self.chunk(id).own.clone();
        for part in parts {
            for (index, slot) in part.range().zip(part.slots()) {
                debug_assert!(frames[index as usize].is_none());
                frames[index as usize] = Some(self.ring[slot as usize]);
            }
        }
        let mut fresh = fresh.iter().copied();
        let frames: Vec<FrameId> = frames
            .into_iter()
            .map(|frame| frame.or_else(|| fresh.next()).expect("a frame for every hole"))
            .collect();
        debug_assert!(fresh.next().is_none());
        ops.map(id, &frames).map_err(|Refused| self.device_shortage(frames.len() as u32))
    }

    /// Moves the absent `id` out of the way of the other chunks of `touches`.
    pub(super) fn relocate(
        &mut self,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        self.detach(id, ops)?;
        self.attach(id, touches, ops)
    }

    /// Lays what all chunks of `touches` share side by side: the last resort
    /// when the gaps between them are too small, though their sum is not.
    pub(super) fn repack(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        for &(id, _) in touches {
            if !self.chunk(id).parts.is_empty() {
                if self.chunk(id).holds > 1 {
                    return Err(Shortage::Busy);
                }
                self.detach(id, ops)?;
            }
        }
        let wrap = self.ring.len() as u32;
        let mut at = 0;
        for &(id, _) in touches {
            if self.chunk(id).mapped {
                continue;
            }
            let mut parts = Vec::new();
            for hole in self.chunk(id).holes() {
                let frames = hole.end - hole.start;
                if at + frames > wrap {
                    return Err(self.device_shortage(at + frames));
                }
                parts.push(Part { first: hole.start, frames, at, wrap });
                at += frames;
            }
            self.map_with(id, parts, Vec::new(), ops)?;
            self.count_layout_change(id);
        }
        self.ring_cursor = at.checked_rem(wrap).unwrap_or(0);
        Ok(())
    }

    /// Unmaps `id`. Its parts go, their content, if present, to the host; what
    /// frames it has of its own, it keeps.
    pub(super) fn detach(&mut self, id: ChunkId, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        for part in 0..self.chunk(id).parts.len() {
            self.clear_part(id, part, ops)?;
        }
        self.unmap(id, ops)
    }

    /// Unmaps `id`, whose parts are absent, if its uses are over.
    pub(super) fn unmap(&mut self, id: ChunkId, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        if !ops.retire(id) {
            return Err(Shortage::Unfinished);
        }
        ops.unmap(id);
        self.streamed_chunks += u32::from(self.chunk(id).resident());
        let chunk = self.chunk_mut(id);
        chunk.mapped = false;
        chunk.parts.clear();
        Ok(())
    }

    /// After this the shared frames of a part may be overwritten.
    pub(super) fn clear_part(
        &mut self,
        id: ChunkId,
        index: usize,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let Streamed { part, present, .. } = self.chunk(id).parts[index];
        if !present {
            return Ok(());
        }
        self.save(id, part.range(), ops)?;
        self.disturbed |= self.awaited(id);
        ops.fetch_after_uses(id);
        for slot in part.slots() {
            self.occupants[slot as usize] = None;
        }
        self.chunk_mut(id).parts[index].present = false;
        Ok(())
    }

    /// Queues the copies to the host of those of the frames `range`, all
    /// present, whose bytes are not there yet.
    pub(super) fn save(
        &mut self,
        id: ChunkId,
        range: Range<u32>,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let unsaved = self.chunk(id).unsaved(range);
        for run in &unsaved {
            self.reserve_host(id, run.clone(), ops)?;
        }
        for run in unsaved {
            ops.write_back(id, run.clone());
            self.counters.write_backs += 1;
            let chunk = self.chunk_mut(id);
            chunk.saved[run.start as usize..run.end as usize].fill(true);
            let new = ops.is_rewritten(id) && !std::mem::replace(&mut chunk.rewritten, true);
            self.unplanned_changes += u64::from(new);
        }
        Ok(())
    }

    pub(super) fn reserve_host(
        &mut self,
        id: ChunkId,
        range: Range<u32>,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let ChunkState { hosted, place, .. } = self.chunk(id);
        let place = *place;
        for run in chunk::runs(range, |index| !hosted[index as usize]) {
            ops.reserve_host(id, run.clone(), place).map_err(|Refused| Shortage::Host)?;
            self.chunk_mut(id).hosted[run.start as usize..run.end as usize].fill(true);
        }
        Ok(())
    }

    pub(super) fn count_fetch(&mut self, demanded: bool) {
        self.fetched_at = self.operation;
        if demanded {
            self.counters.demand_fetches += 1;
        } else {
            self.counters.prefetches += 1;
        }
    }

    /// [`Self::fetch`] for an operation that needs it now, with whatever else
    /// of its run may come.
    pub(super) fn demand(
        &mut self,
        id: ChunkId,
        index: usize,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let together = self.together(id, index);
        if together.len() > 1 && self.all_clear_of_need(&together, Self::evictable) {
            return self.fetch_together(&together, true, ops);
        }
        self.fetch(id, index, true, ops)
    }

    /// Brings the content of an absent part of the mapped `id` onto its frames.
    pub(super) fn fetch(
        &mut self,
        id: ChunkId,
        index: usize,
        demanded: bool,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let part = self.chunk(id).parts[index].part;
        for slot in part.slots() {
            let Some((occupant, part)) = self.occupants[slot as usize] else { continue };
            if self.chunk(occupant).holds > 0 {
                return Err(Shortage::Busy);
            }
            self.clear_part(occupant, part as usize, ops)?;
        }
        let content = !self.chunk(id).undefined;
        ops.fetch(id, part.range(), content, demanded);
        self.count_fetch(demanded);
        for slot in part.slots() {
            self.occupants[slot as usize] = Some((id, index as u32));
        }
        self.chunk_mut(id).parts[index].present = true;
        Ok(())
    }
}

/// First run of `frames` frames, from `cursor` on and around the end, of which
/// none is taken.
fn find_run(taken: &[bool], cursor: u32, frames: u32) -> Option<u32> {
    let length = taken.len() as u32;
    if frames > length {
        return None;
    }
    let mut free = 0;
    // Around once, and on by the length of a run that begins at the very end.
    for step in 0..length + frames - 1 {
        let slot = (cursor + step) % length;
        free = if taken[slot as usize] { 0 } else { free + 1 };
        if free == frames {
            return Some((cursor + step + 1 - frames) % length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::find_run;

    #[test]
    fn a_run_is_found_wherever_there_is_one() {
        for pattern in 0..1u32 << 10 {
            for length in 1..=10usize {
                let taken: Vec<bool> = (0..length).map(|bit| pattern >> bit & 1 == 1).collect();
                for frames in 1..=length {
                    for cursor in 0..length {
                        let free = |&at: &usize| (0..frames).all(|i| !taken[(at + i) % length]);
                        let first = (0..length).map(|i| (cursor + i) % length).find(free);
                        let found = find_run(&taken, cursor as u32, frames as u32);
                        assert_eq!(found, first.map(|at| at as u32));
                    }
                }
            }
        }
    }
}
