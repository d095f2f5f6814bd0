//! The ring: which frames stream, who has an alias where, whose content is in
//! them now.
//!
//! Not here: where its frames come from (`frames`), and what is fetched before
//! it is asked for (`ahead`).

use super::*;

impl Streamer {
    /// Ring frames of `id`, whose alias begins at `at`.
    pub(super) fn ring_range(&self, at: u32, frames: u32) -> impl Iterator<Item = usize> + use<> {
        let length = self.ring.len() as u32;
        (0..frames).map(move |index| ((at + index) % length) as usize)
    }

    /// Whether the range `[at, at + frames)` of the ring meets `other`'s.
    pub(super) fn ranges_meet(&self, at: u32, frames: u32, other: ChunkId) -> bool {
        let Place::Ring { at: other_at, .. } = self.chunk(other).place else { return false };
        let length = self.ring.len() as u32;
        let from = |a: u32, b: u32| (b + length - a) % length;
        from(at, other_at) < frames || from(other_at, at) < self.chunk(other).frames
    }

    pub(super) fn overlaps_any(&self, id: ChunkId, touches: &[(ChunkId, Effect)]) -> bool {
        let Place::Ring { at, .. } = self.chunk(id).place else { return false };
        let frames = self.chunk(id).frames;
        touches.iter().any(|&(other, _)| other != id && self.ranges_meet(at, frames, other))
    }

    /// At least `frames` frames in the ring, taken from residents that
    /// `touches` does not name. The first ring is a fraction of the memory.
    pub(super) fn grow_ring(
        &mut self,
        frames: u32,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let present = self.ring.len() as u32;
        if present >= frames {
            return Ok(());
        }
        let comfortable = if present == 0 { (frames * 2).max(self.cap_frames / 4) } else { frames };
        // The wish first; if something in use makes it too much, the need.
        let taken = match self.take_frames(comfortable - present, touches, false, mechanism) {
            Err(Shortage::Device { .. } | Shortage::Host) if comfortable > frames => {
                self.take_frames(frames - present, touches, false, mechanism)?
            }
            other => other?,
        };
        if present > 0 {
            // Chunks that wrapped around the old end must be mapped afresh.
            let wrapped: Vec<ChunkId> = self
                .ids()
                .filter(|&id| {
                    let chunk = self.chunk(id);
                    matches!(chunk.place, Place::Ring { at, .. } if at + chunk.frames > present)
                })
                .collect();
            // Those of the present operation are held once, by it.
            let own = |id: ChunkId| u32::from(touches.iter().any(|&(touched, _)| touched == id));
            if wrapped.iter().any(|&id| self.chunk(id).holds > own(id)) {
                self.free.extend(taken);
                return Err(Shortage::Busy);
            }
            for &id in &wrapped {
                if let Err(shortage) = self.detach(id, mechanism) {
                    self.free.extend(taken);
                    return Err(shortage);
                }
            }
        }
        self.ring.extend(taken);
        self.occupants.resize(self.ring.len(), None);
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Gives the unmapped `id` an alias that meets no other chunk of `touches`.
    pub(super) fn attach(
        &mut self,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let frames = self.chunk(id).frames;
        let Some(at) = self.find_range(frames, id, touches) else {
            return self.repack(touches, mechanism);
        };
        self.map_alias(id, at, mechanism)?;
        self.ring_cursor = (at + frames) % self.ring.len() as u32;
        self.counters.layout_changes += 1;
        self.unplanned_changes += 1;
        Ok(())
    }

    /// First range from the cursor on that meets no chunk of `touches` but `id`.
    pub(super) fn find_range(
        &self,
        frames: u32,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
    ) -> Option<u32> {
        let length = self.ring.len() as u32;
        (0..length).map(|step| (self.ring_cursor + step) % length).find(|&at| {
            frames <= length
                && touches
                    .iter()
                    .all(|&(other, _)| other == id || !self.ranges_meet(at, frames, other))
        })
    }

    pub(super) fn map_alias(
        &mut self,
        id: ChunkId,
        at: u32,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        // Host memory exists before a chunk enters the ring: what is fetched
        // can always be evicted.
        if mechanism.reserve_host(id).is_err() {
            return Err(Shortage::Host);
        }
        if self.chunk(id).host == HostCopy::Absent {
            self.chunk_mut(id).host = HostCopy::Stale;
        }
        let frames = self.chunk(id).frames;
        let aliases: Vec<FrameId> =
            self.ring_range(at, frames).map(|index| self.ring[index]).collect();
        if mechanism.map(id, &aliases).is_err() {
            return Err(self.device_shortage(frames));
        }
        self.chunk_mut(id).place = Place::Ring { at, present: false };
        Ok(())
    }

    /// Moves the absent `id` out of the way of the other chunks of `touches`.
    pub(super) fn relocate(
        &mut self,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        self.detach(id, mechanism)?;
        self.attach(id, touches, mechanism)
    }

    /// Lays all streamed chunks of `touches` side by side: the last resort
    /// when the gaps between them are too small, though their sum is not.
    pub(super) fn repack(
        &mut self,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        for &(id, _) in touches {
            if matches!(self.chunk(id).place, Place::Ring { .. }) {
                if self.chunk(id).holds > 1 {
                    return Err(Shortage::Busy);
                }
                self.detach(id, mechanism)?;
            }
        }
        let mut at = 0;
        for &(id, _) in touches {
            if self.chunk(id).place == Place::Unmapped {
                self.map_alias(id, at, mechanism)?;
                at += self.chunk(id).frames;
            }
        }
        self.ring_cursor = at % self.ring.len() as u32;
        self.counters.layout_changes += 1;
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Takes `id`'s alias away; its content, if present, goes to the host.
    pub(super) fn detach(
        &mut self,
        id: ChunkId,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        self.clear_content(id, mechanism)?;
        mechanism.retire(id);
        mechanism.unmap(id);
        self.chunk_mut(id).place = Place::Unmapped;
        Ok(())
    }

    /// After this the bytes of `id` in the ring may be overwritten.
    pub(super) fn clear_content(
        &mut self,
        id: ChunkId,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let chunk = self.chunk(id);
        let Place::Ring { at, present: true } = chunk.place else { return Ok(()) };
        if chunk.dirty() {
            self.write_back(id, mechanism)?;
        }
        mechanism.displace(id);
        let frames = self.chunk(id).frames;
        for index in self.ring_range(at, frames) {
            self.occupants[index] = None;
        }
        self.chunk_mut(id).place = Place::Ring { at, present: false };
        Ok(())
    }

    pub(super) fn write_back(
        &mut self,
        id: ChunkId,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        if mechanism.reserve_host(id).is_err() {
            return Err(Shortage::Host);
        }
        mechanism.write_back(id);
        self.counters.write_backs += 1;
        self.chunk_mut(id).host = HostCopy::Valid;
        Ok(())
    }

    /// Brings the content of the attached, absent `id` into the ring.
    pub(super) fn fetch(
        &mut self,
        id: ChunkId,
        demanded: bool,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let Place::Ring { at, .. } = self.chunk(id).place else {
            unreachable!("only attached chunks are fetched")
        };
        let frames = self.chunk(id).frames;
        for index in self.ring_range(at, frames) {
            let Some(occupant) = self.occupants[index] else { continue };
            if self.chunk(occupant).holds > 0 {
                return Err(Shortage::Busy);
            }
            self.clear_content(occupant, mechanism)?;
        }
        let content = !self.chunk(id).undefined;
        mechanism.fetch(id, content, demanded);
        self.fetched_at = self.history.len();
        if demanded {
            self.counters.demand_fetches += 1;
        } else {
            self.counters.prefetches += 1;
        }
        for index in self.ring_range(at, frames) {
            self.occupants[index] = Some(id);
        }
        self.chunk_mut(id).place = Place::Ring { at, present: true };
        Ok(())
    }
}
