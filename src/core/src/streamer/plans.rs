//! When a new plan is due, what the planner is told, and how its answer is
//! carried out.

use super::*;
use crate::plan::{Layout, Plan};
use crate::planner::{self, Item, Limits, Operations};

impl Streamer {
    /// Whether a whole iteration has been seen again that the present layout
    /// was not planned for.
    #[inline]
    pub fn plan_due(&self) -> bool {
        !self.ring.is_empty()
            && self.history.len() >= self.next_plan_at
            && self.unplanned_changes > 0
            && self.history.confirmed_period().is_some_and(|period| {
                // A loop that streamed nothing (over the tensors of one
                // chunk, while loading) teaches nothing.
                self.fetched_at + period > self.history.len()
            })
    }

    /// Adopts a plan for the iteration just confirmed. Waits for the chunks it
    /// moves; leaves everything as it was, and answers `false`, when some chunk
    /// is held elsewhere or nothing fits.
    pub fn adopt_plan(&mut self, mechanism: &mut impl Mechanism) -> bool {
        let Some(period) = self.history.confirmed_period() else { return false };
        if self.chunks.iter().flatten().any(|chunk| chunk.holds > 0) {
            return false;
        }
        // The record grows by an iteration between two plans at the least;
        // twice as long after each, so that a restless program is not replanned for ever.
        let pause = period << self.counters.plans.min(8);
        self.next_plan_at = self.history.len() + pause;
        self.counters.plans += 1;
        self.unplanned_changes = 0;
        self.planned_period = Some(period);

        // Reuse within this much of other memory is one use: the ring keeps it.
        let near = self.cap_frames / 8;
        let items = self.items_of_last(period, near);
        let others: u32 = self
            .ids()
            .filter(|&id| !items.iter().any(|item| item.chunk == id))
            .filter(|&id| self.chunk(id).pinned)
            .map(|id| self.chunk(id).frames)
            .sum();
        let available = self.cap_frames.saturating_sub(others);
        let largest_chunk = items.iter().map(|item| item.frames).max().unwrap_or(1);
        let window = match self.window {
            Window::Auto => None,
            Window::Chunks(count) => Some(count.saturating_mul(largest_chunk)),
            Window::Frames(frames) => Some(frames),
        };
        let operations = self.operations_of_last(period, &items);
        let limits = Limits { available, window };
        let Some(plan) = planner::plan(&items, &operations, &limits) else { return false };
        let parts = |id: ChunkId| {
            let found = plan.streamed.iter().find(|&&(streamed, _)| streamed == id);
            let frames = self.chunk(id).frames;
            found.map(|&(_, at)| Part { first: 0, frames, at, lap: plan.ring_frames })
        };
        let layouts = items.iter().map(|item| Layout {
            id: item.chunk,
            frames: item.frames,
            parts: parts(item.chunk).into_iter().collect(),
        });
        let plan = Plan {
            layouts: layouts.collect(),
            shared_frames: plan.ring_frames,
            ..Plan::default()
        };
        self.adopt(&plan, mechanism)
    }

    /// Carries `plan` out: moves what lies elsewhere, and nothing else. Waits
    /// for the chunks it moves; leaves everything as it was, and answers
    /// `false`, when some chunk is held or the plan was made for others.
    pub fn adopt(&mut self, plan: &Plan, mechanism: &mut impl Mechanism) -> bool {
        if self.chunks.iter().flatten().any(|chunk| chunk.holds > 0) || !self.applies(plan) {
            return false;
        }
        // What streamed together before the plan says nothing about it.
        self.largest_operation = 0;
        if self.carry_out(plan, mechanism).is_err() {
            // Whatever is unmapped now is attached again when it is used.
            self.unplanned_changes += 1;
        }
        self.epoch += 1;
        self.ahead = self.history.cursor().unwrap_or(0);
        true
    }

    /// What the operations of the last `period` tokens touched together, as
    /// indices into `items`.
    pub(super) fn operations_of_last(&self, period: u64, items: &[Item]) -> Operations {
        let mut index_of = vec![u32::MAX; self.chunks.len()];
        for (index, item) in items.iter().enumerate() {
            index_of[item.chunk as usize] = index as u32;
        }
        let began = self.history.operation(self.history.len() - period);
        let mut operations = Operations::default();
        let mut present = (began, Vec::new());
        for (operation, chunk) in self.history.touched_since(began) {
            if operation != present.0 {
                operations.push(&present.1);
                present = (operation, Vec::new());
            }
            let index = index_of.get(chunk as usize).copied().unwrap_or(u32::MAX);
            if index != u32::MAX {
                present.1.push(index);
            }
        }
        operations.push(&present.1);
        operations
    }

    /// The chunks of the last `period` tokens, in order of first use.
    ///
    /// A chunk whose uses lie within `near` frames of other chunks counts as
    /// used once, however often it was touched; any other as often as touched.
    pub(super) fn items_of_last(&self, period: u64, near: u32) -> Vec<Item> {
        struct Seen {
            index: usize,
            /// Frames of all chunks first seen before it, and up to its last token.
            first: u32,
            last: u32,
            tokens: u32,
        }
        let mut seen: Vec<Option<Seen>> = Vec::new();
        seen.resize_with(self.chunks.len(), || None);
        let mut items: Vec<Item> = Vec::new();
        let mut volume = 0;
        for position in self.history.len() - period..self.history.len() {
            let Some(id) = self.history.token(position) else { continue };
            let Some(Some(chunk)) = self.chunks.get(id as usize) else { continue };
            if let Some(seen) = &mut seen[id as usize] {
                seen.last = volume;
                seen.tokens += 1;
                continue;
            }
            let index = items.len();
            seen[id as usize] = Some(Seen { index, first: volume, last: volume, tokens: 1 });
            items.push(Item { chunk: id, frames: chunk.frames, uses: 1, pinned: chunk.pinned });
            volume += chunk.frames;
        }
        for seen in seen.iter().flatten() {
            let frames = items[seen.index].frames;
            if seen.last - seen.first > near.max(frames) {
                items[seen.index].uses = seen.tokens;
            }
        }
        // In use all the time, one burst longer than the iteration: no token.
        let began = self.history.operation(self.history.len() - period);
        for id in self.ids().filter(|&id| seen.get(id as usize).is_some_and(Option::is_none)) {
            let chunk = self.chunk(id);
            if chunk.touched_at >= began {
                items.push(Item {
                    chunk: id,
                    frames: chunk.frames,
                    uses: u32::MAX,
                    pinned: chunk.pinned,
                });
            }
        }
        items
    }

    /// Whether the plan still describes what there is.
    fn applies(&self, plan: &Plan) -> bool {
        let mut named = vec![false; self.chunks.len()];
        plan.layouts.iter().all(|layout| {
            let Some(Some(chunk)) = self.chunks.get(layout.id as usize) else { return false };
            let twice = std::mem::replace(&mut named[layout.id as usize], true);
            let mut after = 0;
            let in_order = layout.parts.iter().all(|part| {
                let begins = part.first >= after;
                after = part.first.saturating_add(part.frames);
                begins
                    && part.frames > 0
                    && part.frames <= part.lap
                    && part.at < part.lap
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
                && after <= chunk.frames
                && disjoint()
                && (layout.parts.is_empty() || !chunk.pinned)
        })
    }

    /// Changes what differs from `plan`, and nothing else. On an error some
    /// chunks are unmapped, which their next use mends.
    fn carry_out(
        &mut self,
        plan: &Plan,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let mut planned: Vec<Option<&[Part]>> = vec![None; self.chunks.len()];
        for layout in &plan.layouts {
            planned[layout.id as usize] = Some(&layout.parts);
        }
        let becomes_shared = |parts: &[Part], index: u32| parts.iter().any(|p| p.names(index));
        // What is not in the plan goes only if the ring no longer reaches it.
        let moving: Vec<ChunkId> = self
            .ids()
            .filter(|&id| self.chunk(id).mapped)
            .filter(|&id| match planned[id as usize] {
                Some(parts) => !self.chunk(id).laid_out_as(parts),
                None => self.chunk(id).parts.iter().any(|s| s.part.reach() > plan.shared_frames),
            })
            .collect();
        // All copies are queued, then all are waited for.
        for &id in &moving {
            for part in 0..self.chunk(id).parts.len() {
                self.clear_part(id, part, mechanism)?;
            }
            for part in planned[id as usize].unwrap_or_default() {
                // Those of the range that were shared before are saved by now.
                self.save(id, part.range(), mechanism)?;
            }
            mechanism.displace(id);
        }
        for &id in &moving {
            self.unmap(id, mechanism);
            let parts = planned[id as usize].unwrap_or_default();
            self.free_own(id, |index| becomes_shared(parts, index));
            self.chunk_mut(id).expected = None;
            self.counters.moved_frames += u64::from(self.chunk(id).frames);
        }

        let keep = |id: ChunkId| planned[id as usize].is_some();
        let length = self.ring.len() as u32;
        if plan.shared_frames < length {
            self.cut_ring(plan.shared_frames);
        } else {
            let more = self.take_frames(plan.shared_frames - length, &keep, false, mechanism)?;
            self.ring.extend(more);
            self.occupants.resize(self.ring.len(), None);
        }
        // What lost its place before the plan gets the planned one, too.
        let missing = |chunk: &Chunk, parts: &[Part]| -> u32 {
            let shared: u32 = parts.iter().map(|part| part.frames).sum();
            chunk.shared_frames() - shared
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
            if chunk.mapped || layout.parts.iter().any(|part| part.range().any(stuck)) {
                continue;
            }
            self.free_own(layout.id, |index| becomes_shared(&layout.parts, index));
            needed += missing(self.chunk(layout.id), &layout.parts);
            unmapped.push(layout);
        }
        let mut frames = self.take_frames(needed, &keep, false, mechanism)?;
        for layout in unmapped {
            let count = missing(self.chunk(layout.id), &layout.parts);
            let own = frames.split_off(frames.len() - count as usize);
            if let Err(shortage) = self.settle(layout, own, mechanism) {
                self.free.extend(frames);
                return Err(shortage);
            }
        }
        Ok(())
    }

    /// Maps an unmapped chunk as planned; `fresh`: the frames that become its own.
    fn settle(
        &mut self,
        layout: &Layout,
        fresh: Vec<FrameId>,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let id = layout.id;
        let gained: Vec<Range<u32>> = self.chunk(id).holes();
        let shared = |index: u32| layout.parts.iter().any(|part| part.names(index));
        let gained: Vec<Range<u32>> = gained
            .into_iter()
            .flat_map(|hole| chunk::runs(hole, |index| !shared(index)))
            .collect();
        let mut fresh = fresh.into_iter();
        for index in gained.iter().cloned().flatten() {
            self.chunk_mut(id).own[index as usize] = fresh.next();
        }
        debug_assert!(fresh.next().is_none());
        if let Err(shortage) = self.map_with(id, layout.parts.clone(), mechanism) {
            // What has no content yet is not the chunk's.
            self.free_own(id, |index| gained.iter().any(|run| run.contains(&index)));
            return Err(shortage);
        }
        let content = !self.chunk(id).undefined;
        for run in gained {
            mechanism.fetch(id, run, content, true);
        }
        Ok(())
    }
}
