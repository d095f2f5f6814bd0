//! Frames: taking them from the device, from residents and from the ring, and
//! giving a chunk its own.

use super::*;

impl Streamer {
    pub(super) fn device_shortage(&self, needed_frames: u32) -> Shortage {
        Shortage::Device { needed_frames, cap_frames: self.cap_frames }
    }

    /// `count` frames without owner: free ones, new ones, those of residents
    /// that `keep` does not name, least recently used first, and last, if
    /// `from_ring`, those of the ring beyond what the largest operation needs.
    pub(super) fn take_frames(
        &mut self,
        count: u32,
        keep: &[(ChunkId, Effect)],
        from_ring: bool,
        mechanism: &mut impl Mechanism,
    ) -> Result<Vec<FrameId>, Shortage> {
        // Nothing is moved for what cannot be met.
        if count > self.free.len() as u32 && count > self.attainable(keep, from_ring) {
            return Err(self.device_shortage(count));
        }
        let mut busy = false;
        let mut host_full = false;
        while (self.free.len() as u32) < count {
            if self.live_frames < self.cap_frames {
                match mechanism.create_frame() {
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
            match self.demote_some(missing, keep, mechanism) {
                Ok(()) => continue,
                Err(Shortage::Busy) => busy = true,
                Err(Shortage::Host) => host_full = true,
                Err(Shortage::Device { .. }) => {}
            }
            if from_ring {
                match self.shrink_ring(missing, mechanism) {
                    Ok(()) => continue,
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

    /// Frames that [`Self::take_frames`] could bring together at the most.
    pub(super) fn attainable(&self, keep: &[(ChunkId, Effect)], from_ring: bool) -> u32 {
        let kept = |id: ChunkId| keep.iter().any(|&(k, _)| k == id);
        let residents: u32 = self
            .ids()
            .map(|id| (id, self.chunk(id)))
            .filter(|&(id, chunk)| chunk.place == Place::Resident && !chunk.pinned && !kept(id))
            .map(|(_, chunk)| chunk.frames)
            .sum();
        let spare_ring = (self.ring.len() as u32).saturating_sub(self.largest_operation);
        self.free.len() as u32
            + self.cap_frames.saturating_sub(self.live_frames)
            + residents
            + if from_ring { spare_ring } else { 0 }
    }

    /// Demotes least recently used residents until `frames` more are free.
    /// `Ok`: at least one was demoted.
    pub(super) fn demote_some(
        &mut self,
        frames: u32,
        keep: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let kept = |id: ChunkId| keep.iter().any(|&(k, _)| k == id);
        let mut busy = false;
        let mut candidates: Vec<ChunkId> = self
            .ids()
            .filter(|&id| {
                let chunk = self.chunk(id);
                let movable = chunk.place == Place::Resident && !chunk.pinned && !kept(id);
                busy |= movable && chunk.holds > 0;
                movable && chunk.holds == 0
            })
            .collect();
        candidates.sort_by_key(|&id| (!self.chunk(id).undefined, self.chunk(id).touched_at));
        mechanism.about_to_evict();
        // All copies are queued before the first is waited for.
        let mut victims = Vec::new();
        let mut gained = 0;
        let mut host_full = false;
        for id in candidates {
            if gained >= frames {
                break;
            }
            if self.chunk(id).dirty() && self.write_back(id, mechanism).is_err() {
                host_full = true;
                continue;
            }
            gained += self.chunk(id).frames;
            victims.push(id);
        }
        if victims.is_empty() {
            return Err(if busy {
                Shortage::Busy
            } else if host_full {
                Shortage::Host
            } else {
                self.device_shortage(frames)
            });
        }
        for id in victims {
            mechanism.retire(id);
            mechanism.unmap(id);
            let chunk = self.chunk_mut(id);
            chunk.place = Place::Unmapped;
            let own = std::mem::take(&mut chunk.own);
            self.free.extend(own);
            self.counters.demotions += 1;
            self.unplanned_changes += 1;
        }
        self.count_streamed();
        Ok(())
    }

    /// Takes up to `frames` frames off the end of the ring.
    pub(super) fn shrink_ring(
        &mut self,
        frames: u32,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let length = self.ring.len() as u32;
        let floor = self.largest_operation;
        if length <= floor {
            return Err(self.device_shortage(frames));
        }
        let shorter = length.saturating_sub(frames).max(floor);
        let affected: Vec<ChunkId> = self
            .ids()
            .filter(|&id| {
                let chunk = self.chunk(id);
                matches!(chunk.place, Place::Ring { at, .. } if at + chunk.frames > shorter)
            })
            .collect();
        if affected.iter().any(|&id| self.chunk(id).holds > 0) {
            return Err(Shortage::Busy);
        }
        for id in affected {
            self.detach(id, mechanism)?;
        }
        self.free.extend(self.ring.drain(shorter as usize..));
        self.occupants.truncate(shorter as usize);
        self.ring_cursor = 0;
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Gives `id` frames of its own, with its content.
    pub(super) fn promote(
        &mut self,
        id: ChunkId,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let frames = self.chunk(id).frames;
        if let Place::Ring { .. } = self.chunk(id).place {
            // Another thread's launch on it is not queued yet, perhaps.
            if self.chunk(id).holds > 0 {
                return Err(Shortage::Busy);
            }
            // Before frames are looked for: the end of the ring may go, and
            // must not be kept by the very chunk that leaves it.
            self.detach(id, mechanism)?;
        }
        let own = self.take_frames(frames, &[], true, mechanism)?;
        if mechanism.map(id, &own).is_err() {
            self.free.extend(own);
            return Err(self.device_shortage(frames));
        }
        let content = !self.chunk(id).undefined;
        mechanism.fetch(id, content, true);
        let chunk = self.chunk_mut(id);
        chunk.own = own;
        chunk.place = Place::Resident;
        self.count_streamed();
        Ok(())
    }
}
