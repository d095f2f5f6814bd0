//! When a new plan is due, what the planner is told, and how its answer is
//! carried out.

use super::*;
use crate::planner::{self, Item, Limits, Operations, Plan};

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
        // What streamed together before the plan says nothing about it.
        self.largest_operation = 0;
        if self.carry_out(&plan, mechanism).is_err() {
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

    pub(super) fn carry_out(
        &mut self,
        plan: &Plan,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        // Everything that changes place goes to the host first: all copies
        // are queued, then all are waited for.
        let stays = |id: ChunkId| plan.resident.contains(&id);
        let moving: Vec<ChunkId> = self
            .ids()
            .filter(|&id| match self.chunk(id).place {
                Place::Resident => !stays(id) && !self.chunk(id).pinned,
                Place::Ring { .. } => true,
                Place::Unmapped => false,
            })
            .collect();
        for &id in &moving {
            if self.chunk(id).dirty() {
                self.write_back(id, mechanism)?;
            }
            mechanism.displace(id);
        }
        for &id in &moving {
            mechanism.retire(id);
            mechanism.unmap(id);
            let chunk = self.chunk_mut(id);
            chunk.place = Place::Unmapped;
            chunk.expected = None;
            let own = std::mem::take(&mut chunk.own);
            self.free.extend(own);
        }
        self.free.append(&mut self.ring);
        self.occupants.clear();
        self.ring_cursor = 0;
        self.count_streamed();

        for &id in &plan.resident {
            if self.chunk(id).place == Place::Unmapped {
                self.promote(id, mechanism)?;
            }
        }
        let ring = self.take_frames(plan.ring_frames, &[], false, mechanism)?;
        self.ring = ring;
        self.occupants = vec![None; self.ring.len()];
        for &(id, at) in &plan.streamed {
            self.map_alias(id, at, mechanism)?;
        }
        Ok(())
    }
}
