//! Chunks come and go, and how many frames there may be.
//!
//! Not here: where frames come from (`frames`).

use std::ops::Range;

use super::chunk::{self, ChunkState, PartExt};
use super::frames::KEEP_NONE;
use super::{ChunkId, Effect, MemoryOps, Shortage, Streamer};

impl Streamer {
    /// Changes how many frames there may be. Above the new cap nothing is
    /// taken back at once; the next allocations do.
    pub fn set_cap(&mut self, frames: u32) {
        self.cap_frames = frames;
    }

    /// The cap is `frames` from now on, to be met by [`Self::meet_cap`]. Much
    /// more than before is worth a plan.
    pub fn follow_cap(&mut self, frames: u32) {
        const WORTH_ONE_IN: u32 = 16;
        let former = std::mem::replace(&mut self.cap_frames, frames);
        if frames > former + former / WORTH_ONE_IN {
            self.unplanned_changes += 1;
        }
    }

    /// Gives back what a lowered cap no longer allows, as far as that goes
    /// now: what is pinned, or in a launch of another thread, stays. Error:
    /// queued work uses what must go.
    pub fn meet_cap(&mut self, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        let excess = self.live_frames.saturating_sub(self.cap_frames);
        if excess == 0 {
            return Ok(());
        }
        let possible = excess.min(self.attainable(KEEP_NONE, true));
        if possible == 0 {
            return Ok(());
        }
        let surplus = match self.take_frames(possible, KEEP_NONE, true, ops) {
            Ok(surplus) => surplus,
            Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
            Err(_) => {
                let rest = self.free.len().saturating_sub(possible as usize);
                self.free.split_off(rest)
            }
        };
        self.live_frames -= surplus.len() as u32;
        for frame in surplus {
            ops.release_frame(frame);
        }
        Ok(())
    }

    /// Whether [`Self::allocate`] of `frames` would have to evict.
    pub fn would_evict(&self, frames: u32) -> bool {
        frames > self.free.len() as u32 + self.cap_frames.saturating_sub(self.live_frames)
    }

    /// A new chunk `id` of `frames` frames, resident, evicting if it must.
    ///
    /// `watched`: every operation on it will be announced by [`Self::touch`],
    /// so until the first one there is nothing to preserve. Without that, as
    /// long as launches take no notice of us, its content may be anything.
    pub fn allocate(
        &mut self,
        id: ChunkId,
        frames: u32,
        watched: bool,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        self.meet_cap(ops)?;
        let own = self.take_all_it_needs(frames, ops)?;
        if ops.map(id, &own).is_err() {
            self.free.extend(own);
            return Err(self.device_shortage(frames));
        }
        if self.chunks.len() <= id as usize {
            self.chunks.resize_with(id as usize + 1, || None);
        }
        let chunk = ChunkState::new(own, self.operation);
        let place = self.slabs.give(frames);
        self.chunks[id as usize] = Some(ChunkState { undefined: watched, place, ..chunk });
        Ok(())
    }

    /// The program freed `id`. Error: it is used, still, and lives.
    pub fn free(&mut self, id: ChunkId, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        if !ops.retire(id) {
            return Err(Shortage::Unfinished);
        }
        if self.chunk(id).mapped {
            ops.unmap(id);
        }
        self.order.forget(id);
        self.leave_host(id, 0, ops);
        let chunk = self.chunks[id as usize].take().expect("a chunk that lives");
        let streamed = !chunk.resident();
        self.streamed_chunks -= u32::from(streamed);
        if let Some(place) = chunk.place {
            self.slabs.take_back(place, chunk.frames);
        }
        self.free.extend(chunk.own.into_iter().flatten());
        for streamed in chunk.parts.iter().filter(|streamed| streamed.present) {
            streamed.part.slots().for_each(|slot| self.occupants[slot as usize] = None);
        }
        self.unplanned_changes += u64::from(self.plan.is_none() || chunk.planned);
        if streamed {
            // An operation that named it does not come again.
            let frames = |chunk: &ChunkState| if chunk.resident() { 0 } else { chunk.frames };
            let streamed = self.chunks.iter().flatten().map(frames).sum();
            self.largest_operation = self.largest_operation.min(streamed);
        }
        if self.streamed_chunks == 0 && self.host_frames == 0 {
            // Everything fits again: no ring, and nothing held back.
            self.cut_ring(0, ops);
            self.plan = None;
            self.release_free(ops);
        }
        Ok(())
    }

    /// There is room for everything: it comes back to the device for good, and
    /// nothing of it stays on the host. `false`: there is none, or it is there.
    pub fn return_everything(&mut self, ops: &mut impl MemoryOps) -> Result<bool, Shortage> {
        let all: u32 = self.chunks.iter().flatten().map(|chunk| chunk.frames).sum();
        let away = |chunk: &ChunkState| !chunk.complete() || chunk.on_host > 0;
        let absent: Vec<ChunkId> = self.ids().filter(|&id| away(self.chunk(id))).collect();
        if all > self.cap_frames || absent.is_empty() {
            return Ok(false);
        }
        if absent.iter().any(|&id| self.chunk(id).holds > 0) {
            return Err(Shortage::Busy);
        }
        for &id in &absent {
            if self.chunk(id).on_host > 0 {
                self.recall(id, ops)?;
            } else if !self.chunk(id).parts.is_empty() {
                self.detach(id, ops)?;
            }
        }
        self.cut_ring(0, ops);
        for id in absent {
            if !self.chunk(id).resident() {
                self.promote(id, ops)?;
            }
            self.fill_blanks(id, false, ops);
        }
        self.plan = None;
        self.largest_operation = 0;
        let ids: Vec<ChunkId> = self.ids().collect();
        for id in ids {
            self.forget_host_copy(id, ops);
        }
        Ok(true)
    }

    /// Gives up the host memory of `id`, all of whose content is on the device.
    fn forget_host_copy(&mut self, id: ChunkId, ops: &mut impl MemoryOps) {
        let chunk = self.chunk(id);
        let hosted = chunk::runs(0..chunk.frames, |index| chunk.hosted[index as usize]);
        for run in hosted {
            ops.release_host(id, run);
        }
        let chunk = self.chunk_mut(id);
        chunk.hosted.fill(false);
        chunk.saved.fill(false);
    }

    /// A copy from the host fills `addresses` of `id`: weights, until it is freed.
    pub fn filled(&mut self, id: ChunkId, addresses: Range<u64>) {
        self.order.filled(id, addresses);
        self.fills += 1;
        let filled_at = Some(self.fills);
        let chunk = self.chunk_mut(id);
        (chunk.filled_at, chunk.filling) = (filled_at, true);
    }

    /// The program gave up `id`'s content but may reuse the memory.
    pub fn forget_content(&mut self, id: ChunkId) {
        let chunk = self.chunk_mut(id);
        chunk.written();
        chunk.undefined = true;
    }

    /// Gives frames without owner back to the device. Answers how many.
    pub fn release_free(&mut self, ops: &mut impl MemoryOps) -> u32 {
        let count = self.free.len() as u32;
        for frame in self.free.drain(..) {
            ops.release_frame(frame);
        }
        self.live_frames -= count;
        count
    }

    /// Leaves `frames` of the cap unused, evicting if it must: they are of
    /// something that is not managed. The cap is that much lower until it is
    /// set anew. On an error it is what it was.
    pub fn leave_room(&mut self, frames: u32, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        self.meet_cap(ops)?;
        let cap = self.cap_frames;
        let Some(lower) = cap.checked_sub(frames) else {
            return Err(self.device_shortage(frames));
        };
        let excess = self.live_frames.saturating_sub(lower);
        if excess > 0 {
            // Not by way of new frames.
            self.cap_frames = cap.min(self.live_frames);
            let outcome = self.take_all_it_needs(excess, ops);
            self.cap_frames = cap;
            for frame in outcome? {
                self.live_frames -= 1;
                ops.release_frame(frame);
            }
        }
        self.cap_frames = lower;
        Ok(())
    }

    /// Gives up to `frames` frames back to the device, evicting if it must,
    /// and lowers the cap by as much. Answers how many.
    pub fn give_back(&mut self, frames: u32, ops: &mut impl MemoryOps) -> Result<u32, Shortage> {
        // Not by way of new frames.
        self.cap_frames = self.cap_frames.min(self.live_frames);
        let taken = self.take_frames(frames, KEEP_NONE, true, ops)?;
        self.free.extend(taken);
        let given = self.release_free(ops);
        self.cap_frames = self.cap_frames.min(self.live_frames);
        Ok(given)
    }

    /// Makes `id` resident for as long as it lives. `true`: it was not before.
    pub fn pin(&mut self, id: ChunkId, ops: &mut impl MemoryOps) -> Result<bool, Shortage> {
        if self.chunk(id).on_host > 0 {
            self.recall(id, ops)?;
        }
        if !self.chunk(id).resident() {
            // What others need at once has to go on fitting beside it.
            let beside = self.largest_operation;
            let needed_frames = beside.saturating_add(self.whole_need(&[(id, Effect::Read)]));
            self.promote(id, ops).map_err(|shortage| match shortage {
                Shortage::Device { cap_frames, .. } => {
                    Shortage::Device { needed_frames, cap_frames }
                }
                other => other,
            })?;
        }
        // Given frames by a plan, it may still await its bytes.
        self.fill_blanks(id, true, ops);
        Ok(!std::mem::replace(&mut self.chunk_mut(id).pinned, true))
    }

    /// Takes [`Self::pin`] back: `id` may move again.
    pub fn unpin(&mut self, id: ChunkId) {
        self.chunk_mut(id).pinned = false;
    }
}
