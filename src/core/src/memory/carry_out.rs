//! Carrying a plan out: what has to move for it, and nothing else.
//!
//! Not here: when that is to happen, and what follows from it (`plans`).

use super::chunk::{ChunkState, PartExt};
use super::{ChunkId, MemoryOps, Shortage, Streamer};
use crate::plan::{self, Plan};

impl Streamer {
    pub(super) fn any_held(&self, ops: &impl MemoryOps) -> bool {
        self.ids().any(|id| self.chunk(id).holds > 0 || ops.is_in_flight(id))
    }

    /// Whether the plan still describes what there is.
    pub fn applies(&self, plan: &Plan) -> bool {
        let mut named = vec![false; self.chunks.len()];
        let exist = plan.layouts.iter().all(|layout| {
            let Some(Some(chunk)) = self.chunks.get(layout.id as usize) else { return false };
            let twice = std::mem::replace(&mut named[layout.id as usize], true);
            let mut after = 0;
            let in_order = layout.parts.iter().all(|part| {
                let begins = part.first >= after;
                after = part.first.saturating_add(part.frames);
                begins
                    && part.frames > 0
                    && part.frames <= part.wrap
                    && part.at < part.wrap
                    && part.reach() <= plan.shared_frames
            });
            let disjoint = || {
                layout.parts.iter().enumerate().all(|(index, part)| {
                    layout.parts[..index].iter().all(|other| !part.meets(other))
                })
            };
            !twice
                && layout.frames == chunk.frames
                && in_order
                && layout.host_frames <= chunk.frames
                && after <= chunk.frames - layout.host_frames
                && disjoint()
                && (!chunk.pinned || (layout.parts.is_empty() && layout.host_frames == 0))
        });
        exist && self.runs_apply(plan)
    }

    /// Changes what differs from `plan`, and nothing else. What comes to lie on
    /// frames of a chunk's own is copied there when its next use is near. On an
    /// error some chunks are unmapped, which their next use mends.
    pub(super) fn carry_out(
        &mut self,
        plan: &Plan,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let mut planned: Vec<Option<&plan::Layout>> = vec![None; self.chunks.len()];
        for layout in &plan.layouts {
            planned[layout.id as usize] = Some(layout);
        }
        // Whether a frame is to be the chunk's own no longer.
        let goes = |layout: &plan::Layout, index: u32| {
            index >= layout.frames - layout.host_frames
                || layout.parts.iter().any(|part| part.names(index))
        };
        // What is not in the plan goes only if the ring no longer reaches it.
        let moving: Vec<ChunkId> = self
            .ids()
            .filter(|&id| self.chunk(id).mapped)
            .filter(|&id| match planned[id as usize] {
                Some(layout) => !self.chunk(id).laid_out_as(&layout.parts, layout.host_frames),
                None => self.chunk(id).parts.iter().any(|s| s.part.reach() > plan.shared_frames),
            })
            .collect();
        // All copies are queued, then all are waited for.
        for &id in &moving {
            let Some(layout) = planned[id as usize] else {
                self.save_everything(id, ops)?;
                ops.fetch_after_uses(id);
                continue;
            };
            for part in 0..self.chunk(id).parts.len() {
                self.clear_part(id, part, ops)?;
            }
            let leaving = |chunk: &ChunkState| {
                let parts = layout.parts.iter().map(PartExt::range);
                parts.chain([chunk.crossing(layout.host_frames)])
            };
            for range in leaving(self.chunk(id)).collect::<Vec<_>>() {
                self.reserve_host(id, range, ops)?;
            }
            for range in leaving(self.chunk(id)).collect::<Vec<_>>() {
                // Those of the range that were shared before are saved by now.
                self.save(id, range, ops)?;
            }
            ops.fetch_after_uses(id);
        }
        if moving.iter().filter(|&&id| !ops.retire(id)).count() > 0 {
            return Err(Shortage::Unfinished);
        }
        for &id in &moving {
            self.unmap(id, ops)?;
            // Without a place in the plan, it would keep what others need.
            let layout = planned[id as usize];
            self.free_own(id, |index| layout.is_none_or(|layout| goes(layout, index)));
            if let Some(layout) = layout {
                self.leave_host(id, layout.host_frames, ops);
            }
            self.chunk_mut(id).expected = None;
            self.counters.moved_frames += u64::from(self.chunk(id).frames);
        }

        let keep = |id: ChunkId| planned[id as usize].is_some();
        let length = self.ring.len() as u32;
        if plan.shared_frames < length {
            self.cut_ring(plan.shared_frames, ops);
        } else {
            let more = self.take_frames(plan.shared_frames - length, &keep, false, ops)?;
            self.extend_ring(more, ops);
        }
        // What lost its place before the plan gets the planned one, too.
        let missing = |chunk: &ChunkState, layout: &plan::Layout| -> u32 {
            let device_end = (layout.frames - layout.host_frames) as usize;
            let holes = chunk.own[..device_end].iter().filter(|own| own.is_none()).count();
            let shared: u32 = layout.parts.iter().map(|part| part.frames).sum();
            holes as u32 - shared
        };
        let mut needed = 0;
        let mut unmapped = Vec::new();
        for layout in &plan.layouts {
            let chunk = self.chunk(layout.id);
            // Kept in vain when mapping failed: not saved, it must stay.
            let stuck = |index: u32| {
                let unsaved = !chunk.undefined && !chunk.saved[index as usize];
                unsaved && chunk.own[index as usize].is_some()
            };
            if chunk.mapped
                || layout.parts.iter().any(|part| part.range().any(stuck))
                || chunk.crossing(layout.host_frames).any(stuck)
            {
                continue;
            }
            self.free_own(layout.id, |index| goes(layout, index));
            self.leave_host(layout.id, layout.host_frames, ops);
            needed += missing(self.chunk(layout.id), layout);
            unmapped.push(layout);
        }
        let mut frames = self.take_frames(needed, &keep, false, ops)?;
        for layout in unmapped {
            let enters = self.chunk(layout.id).on_host < layout.host_frames;
            if let Err(shortage) = self.enter_host(layout.id, layout.host_frames, ops) {
                self.free.extend(frames);
                return Err(shortage);
            }
            let count = missing(self.chunk(layout.id), layout);
            let own = frames.split_off(frames.len() - count as usize);
            let parts = layout.parts.clone();
            if let Err(shortage) = self.map_with(layout.id, parts, own, ops) {
                self.free.extend(frames);
                return Err(shortage);
            }
            if enters {
                // At once: so the host holds two copies of one chunk at a time.
                self.fill_blanks(layout.id, false, ops);
            }
        }
        Ok(())
    }
}
