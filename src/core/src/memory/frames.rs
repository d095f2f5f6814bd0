//! Frames: taking them from the device, from chunks that own some and from the
//! ring, and giving a chunk its own.

use std::ops::Range;

use super::chunk::{ChunkState, PartExt};
use super::{ChunkId, Effect, FrameId, MemoryOps, Operation, Pending, Refused, Shortage, Streamer};

/// Chunks that must not lose their frames now.
pub(super) type Keep<'a> = &'a dyn Fn(ChunkId) -> bool;

/// None.
pub(super) const KEEP_NONE: Keep = &|_| false;

/// Operations for which what was touched while loading may still be in use.
const WARM: Operation = 16;

impl Streamer {
    /// `frames` more were needed, beside what cannot move.
    pub(super) fn device_shortage(&self, frames: u32) -> Shortage {
        let needed_frames = frames.saturating_add(self.immovable_frames(&[]));
        Shortage::Device { needed_frames, cap_frames: self.cap_frames }
    }

    /// All of `touches` was needed at once, beside what cannot move.
    pub(super) fn device_shortage_of(&self, touches: &[(ChunkId, Effect)]) -> Shortage {
        let needed_frames = self.whole_need(touches);
        Shortage::Device { needed_frames, cap_frames: self.cap_frames }
    }

    /// Whether the cap has room for all of `touches` at once.
    pub fn could_fit(&self, touches: &[(ChunkId, Effect)]) -> bool {
        self.whole_need(touches) <= self.cap_frames
    }

    pub(super) fn whole_need(&self, touches: &[(ChunkId, Effect)]) -> u32 {
        let named: u32 = touches.iter().map(|&(id, _)| self.chunk(id).device_end()).sum();
        named + self.immovable_frames(touches)
    }

    /// Frames of pinned chunks that `touches` does not name.
    fn immovable_frames(&self, touches: &[(ChunkId, Effect)]) -> u32 {
        let pinned = self.ids().filter(|&id| {
            self.chunk(id).pinned && touches.iter().all(|&(touched, _)| touched != id)
        });
        pinned.map(|id| self.chunk(id).own_frames()).sum()
    }

    /// [`Self::take_frames`] from everything, the whole ring included if it
    /// does not go otherwise: what fits the cap, fits.
    pub(super) fn take_all_it_needs(
        &mut self,
        count: u32,
        ops: &mut impl MemoryOps,
    ) -> Result<Vec<FrameId>, Shortage> {
        match self.take_frames(count, KEEP_NONE, true, ops) {
            Err(Shortage::Device { .. })
                if count.saturating_add(self.immovable_frames(&[])) <= self.cap_frames =>
            {
                self.evict_all_but(&[], ops)?;
                self.take_frames(count, KEEP_NONE, true, ops)
            }
            other => other,
        }
    }

    /// Everything that may move and that `touches` does not name leaves the
    /// device, and the ring with it.
    pub(super) fn evict_all_but(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let ours = |id: ChunkId| u32::from(touches.iter().any(|&(touched, _)| touched == id));
        let named = |id: ChunkId| ours(id) > 0;
        let on_ring = |chunk: &ChunkState| !chunk.parts.is_empty();
        let candidates: Vec<ChunkId> = self
            .ids()
            .filter(|&id| {
                let chunk = self.chunk(id);
                !chunk.pinned && (on_ring(chunk) || (!named(id) && chunk.own_frames() > 0))
            })
            .collect();
        ops.about_to_evict();
        if candidates.iter().any(|&id| self.chunk(id).holds > ours(id) || ops.is_in_flight(id)) {
            return Err(Shortage::Busy);
        }
        for &id in &candidates {
            // What is mapped nowhere cannot be saved.
            if !self.chunk(id).mapped {
                self.free_saved(id);
            }
        }
        let mapped: Vec<ChunkId> =
            candidates.into_iter().filter(|&id| self.chunk(id).mapped).collect();
        self.evict(&mapped, u32::MAX, ops)?;
        self.cut_ring(0, ops);
        self.unplanned_changes += 1;
        Ok(())
    }

    /// The unmapped `id` loses those of its own frames whose bytes are saved.
    fn free_saved(&mut self, id: ChunkId) {
        let chunk = self.chunk(id);
        let (undefined, saved) = (chunk.undefined, chunk.saved.clone());
        self.free_own(id, |index| undefined || saved[index as usize]);
    }

    /// `count` frames without owner: free ones, new ones, those of owners
    /// that `keep` does not name, least recently used first, and last, if
    /// `from_ring`, those of the ring beyond what the largest operation needs.
    pub(super) fn take_frames(
        &mut self,
        count: u32,
        keep: Keep,
        from_ring: bool,
        ops: &mut impl MemoryOps,
    ) -> Result<Vec<FrameId>, Shortage> {
        // Nothing is moved for what cannot be met.
        if count > self.free.len() as u32 && count > self.attainable(keep, from_ring) {
            return Err(self.device_shortage(count));
        }
        let mut busy = false;
        let mut host_full = false;
        while (self.free.len() as u32) < count {
            if self.live_frames < self.cap_frames {
                match ops.create_frame() {
                    Ok(frame) => {
                        self.free.push(frame);
                        self.live_frames += 1;
                        continue;
                    }
                    // The card has less than the budget says.
                    Err(Refused) => self.cap_frames = self.live_frames,
                }
            }
            let missing = count - self.free.len() as u32;
            match self.demote_some(missing, keep, ops) {
                Ok(()) => continue,
                Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
                Err(Shortage::Busy) => busy = true,
                Err(Shortage::Host) => host_full = true,
                Err(Shortage::Device { .. }) => {}
            }
            if from_ring {
                match self.shrink_ring(missing, ops) {
                    Ok(()) => continue,
                    Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
                    Err(Shortage::Busy) => busy = true,
                    Err(Shortage::Host) => host_full = true,
                    Err(Shortage::Device { .. }) => {}
                }
            }
            return Err(if busy {
                Shortage::Busy
            } else if host_full {
                Shortage::Host
            } else {
                self.device_shortage(count)
            });
        }
        Ok(self.free.split_off(self.free.len() - count as usize))
    }

    /// Whether `id` could lose its frames, if no launch held it.
    pub(super) fn movable(&self, id: ChunkId, keep: Keep) -> bool {
        let chunk = self.chunk(id);
        chunk.mapped && !chunk.pinned && chunk.own_frames() > 0 && !keep(id)
    }

    /// Frames that [`Self::take_frames`] could bring together at the most.
    pub(super) fn attainable(&self, keep: Keep, from_ring: bool) -> u32 {
        let owned: u32 = self
            .ids()
            .filter(|&id| self.movable(id, keep))
            .map(|id| self.chunk(id).own_frames())
            .sum();
        let spare_ring = (self.ring.len() as u32).saturating_sub(self.largest_operation);
        self.free.len() as u32
            + self.cap_frames.saturating_sub(self.live_frames)
            + owned
            + if from_ring { spare_ring } else { 0 }
    }

    /// Takes the frames of the least recently used owners until `frames` more
    /// are free; while loading, of those filled last. `Ok`: at least one lost
    /// them.
    pub(super) fn demote_some(
        &mut self,
        frames: u32,
        keep: Keep,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let mut busy = false;
        if self.ids().any(|id| self.movable(id, keep)) {
            ops.about_to_evict();
        }
        let mut candidates: Vec<ChunkId> = self
            .ids()
            .filter(|&id| {
                let movable = self.movable(id, keep);
                let held = self.chunk(id).holds > 0 || ops.is_in_flight(id);
                busy |= movable && held;
                movable && !held
            })
            .collect();
        for &id in &candidates {
            if ops.is_dead(id) {
                self.forget_content(id);
            }
        }
        let loading = self.is_loading();
        candidates.sort_by_key(|&id| {
            let ChunkState { undefined, touched_at, .. } = *self.chunk(id);
            // What is filled first will be used first.
            let last_filled = loading && touched_at + WARM < self.operation;
            let rank = if last_filled { Operation::MAX - touched_at } else { touched_at };
            (!undefined, !last_filled, rank)
        });
        let candidates = self.least_pending(&candidates, frames, ops);
        let before = self.free.len();
        let evicted = self.evict(&candidates, frames, ops);
        if self.free.len() > before {
            return Ok(());
        }
        Err(match evicted {
            Err(Shortage::Unfinished) => Shortage::Unfinished,
            _ if busy => Shortage::Busy,
            Err(Shortage::Host) => Shortage::Host,
            _ => self.device_shortage(frames),
        })
    }

    /// Those of `candidates` to take `frames` frames from, in their order: with
    /// nothing left to wait for, if that is enough; else with what gets there
    /// by itself; else all.
    fn least_pending(
        &self,
        candidates: &[ChunkId],
        frames: u32,
        ops: &mut impl MemoryOps,
    ) -> Vec<ChunkId> {
        let (mut first, mut uses, mut held_up) = (Vec::new(), Vec::new(), Vec::new());
        let mut gained = 0;
        for &id in candidates {
            // Enough: the others are not asked about, but stay, for some may
            // have no host memory to go to.
            let pending = if gained < frames { ops.pending(id) } else { Pending::Nothing };
            match pending {
                Pending::Nothing => {
                    gained += self.chunk(id).own_frames();
                    first.push(id);
                }
                Pending::Uses => uses.push(id),
                Pending::HeldUp => held_up.push(id),
            }
        }
        [first, uses, held_up].concat()
    }

    /// Chunks were filled, and none was used again since.
    fn is_loading(&self) -> bool {
        const FILLED: u32 = 1;
        self.chunks.iter().flatten().all(|chunk| chunk.reuse_count <= FILLED)
    }

    /// Takes the frames of `candidates`, which are mapped and not held, one
    /// after the other until `frames` more are free. Error: some are still used,
    /// or had no host memory to go to.
    pub(super) fn evict(
        &mut self,
        candidates: &[ChunkId],
        frames: u32,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        // All copies are queued before the first is waited for.
        let mut victims = Vec::new();
        let mut gained = 0;
        let mut outcome = Ok(());
        for &id in candidates {
            if gained >= frames {
                break;
            }
            if let Err(shortage) = self.save_everything(id, ops) {
                outcome = Err(shortage);
                continue;
            }
            gained += self.chunk(id).own_frames();
            victims.push(id);
        }
        for id in victims {
            if let Err(shortage) = self.unmap(id, ops) {
                outcome = Err(shortage);
                continue;
            }
            self.free_own(id, |_| true);
            self.counters.demotions += 1;
            self.count_layout_change(id);
        }
        outcome
    }

    /// Afterwards the mapped `id` has no part present, and all its bytes are
    /// saved, or on their way, but for those in frames that are host memory.
    pub(super) fn save_everything(
        &mut self,
        id: ChunkId,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        for part in 0..self.chunk(id).parts.len() {
            self.clear_part(id, part, ops)?;
        }
        let end = self.chunk(id).device_end();
        self.save(id, 0..end, ops)
    }

    /// The unmapped `id` loses those of its frames on the device that `which`
    /// chooses by index: their bytes are saved, and all their uses over.
    pub(super) fn free_own(&mut self, id: ChunkId, which: impl Fn(u32) -> bool) {
        let chunk = self.chunks[id as usize].as_mut().expect("a chunk that lives");
        for index in (0..chunk.device_end()).filter(|&index| which(index)) {
            self.free.extend(chunk.take_own(index));
        }
    }

    /// Takes up to `frames` frames off the end of the ring.
    pub(super) fn shrink_ring(
        &mut self,
        frames: u32,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let length = self.ring.len() as u32;
        let floor = self.largest_operation;
        if length <= floor {
            return Err(self.device_shortage(frames));
        }
        let shorter = length.saturating_sub(frames).max(floor);
        let affected: Vec<ChunkId> = self
            .ids()
            .filter(|&id| self.chunk(id).parts.iter().any(|s| s.part.reach() > shorter))
            .collect();
        if affected.iter().any(|&id| self.chunk(id).holds > 0) {
            return Err(Shortage::Busy);
        }
        for id in affected {
            self.detach(id, ops)?;
        }
        self.cut_ring(shorter, ops);
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Frees the frames of the ring from `length` on, where no part is.
    pub(super) fn cut_ring(&mut self, length: u32, ops: &mut impl MemoryOps) {
        debug_assert!(self.occupants[length as usize..].iter().all(Option::is_none));
        let gone = self.ring.split_off(length as usize);
        if !gone.is_empty() {
            ops.ring(&self.ring);
        }
        self.free.extend(gone);
        self.occupants.truncate(length as usize);
        if self.ring_cursor >= length {
            self.ring_cursor = 0;
        }
    }

    /// Gives `id` frames of its own, with its content. What it has on the host
    /// stays there.
    pub(super) fn promote(
        &mut self,
        id: ChunkId,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        if self.chunk(id).mapped {
            // Another thread's launch on it is not queued yet, perhaps.
            if self.chunk(id).holds > 0 {
                return Err(Shortage::Busy);
            }
            // Before frames are looked for: the end of the ring may go, and
            // must not be kept by the very chunk that leaves it.
            self.detach(id, ops)?;
        }
        let count = self.chunk(id).device_end() - self.chunk(id).own_frames();
        let outcome = self
            .take_frames(count, KEEP_NONE, true, ops)
            .and_then(|frames| self.map_with(id, Vec::new(), frames, ops));
        if outcome.is_err() && self.chunk(id).own_frames() > 0 {
            // Mapped, it can be evicted.
            let _ = self.attach(id, &[(id, Effect::Read)], ops);
        }
        outcome?;
        self.fill_blanks(id, true, ops);
        Ok(())
    }

    /// Brings the content of those of `id`'s own frames that have none yet.
    pub(super) fn fill_blanks(&mut self, id: ChunkId, demanded: bool, ops: &mut impl MemoryOps) {
        if self.chunk(id).blanks == 0 {
            return;
        }
        for run in self.chunk(id).blank_runs() {
            self.fill(id, run, demanded, ops);
        }
        self.drop_second_copies(id, ops);
    }

    /// Brings the content of `frames`, all of them blank.
    pub(super) fn fill(
        &mut self,
        id: ChunkId,
        frames: Range<u32>,
        demanded: bool,
        ops: &mut impl MemoryOps,
    ) {
        let content = !self.chunk(id).undefined;
        ops.fetch(id, frames.clone(), content, demanded);
        frames.for_each(|index| self.chunk_mut(id).set_blank(index, false));
        self.count_fetch(demanded);
    }
}
