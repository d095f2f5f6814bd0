//! The hot path: what an operation touches is made present, and held until it
//! is queued.

use super::{ChunkId, Effect, MemoryOps, Named, Operation, Shortage, Streamer};
use crate::order::Outcome;

/// Operations without a use after which a chunk's next one is another coming:
/// PyTorch keeps several layers in one allocation, and each of them comes back
/// to it within some tens of launches.
pub(super) const LONG_PAUSE: Operation = 64;

impl Streamer {
    /// One operation of the program is about to touch `touches`: makes them
    /// present and holds them. Follow with [`Self::release`] once the
    /// operation was queued, then with [`Self::look_ahead`]. No chunk may be
    /// named twice.
    ///
    /// On an error nothing is held.
    pub fn touch(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let mut named = std::mem::take(&mut self.named);
        named.clear();
        named.extend(touches.iter().map(|&(chunk, _)| Named { chunk, address: 0 }));
        let outcome = self.touch_named(touches, &named, ops);
        self.named = named;
        outcome
    }

    /// The same, where it is known which addresses of these chunks it names.
    pub fn touch_named(
        &mut self,
        touches: &[(ChunkId, Effect)],
        named: &[Named],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        self.hold_present(touches, ops)?;
        match self.order.observe(named) {
            Outcome::Untold => {}
            outcome => self.accuracy.record(outcome == Outcome::Right),
        }
        self.operation = self.order.operations();
        let repeats = self.order.repeats();
        for &(id, effect) in touches {
            self.came(id, repeats);
            self.note_use(id, effect);
        }
        Ok(())
    }

    /// Makes `touches` present and holds them, for a look of our own at them:
    /// the program's next operation may be another. Follow with
    /// [`Self::release`]. On an error nothing is held.
    pub fn bring(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let counted = self.counters;
        self.hold_present(touches, ops)?;
        // Whether they were there is counted at the operation itself.
        self.counters.streamed_touches = counted.streamed_touches;
        self.counters.hits = counted.hits;
        Ok(())
    }

    fn hold_present(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        for &(id, _) in touches {
            self.chunk_mut(id).holds += 1;
        }
        let mut outcome = self.make_present(touches, ops);
        if matches!(outcome, Err(Shortage::Device { .. })) && self.could_fit(touches) {
            outcome = match self.evict_all_but(touches, ops) {
                Ok(()) => self.make_present(touches, ops),
                Err(wait @ (Shortage::Busy | Shortage::Unfinished)) => Err(wait),
                Err(_) => outcome,
            };
        }
        if let Err(shortage) = outcome {
            self.release(touches);
            return Err(match shortage {
                Shortage::Device { .. } => self.device_shortage_of(touches),
                other => other,
            });
        }
        Ok(())
    }

    fn note_use(&mut self, id: ChunkId, effect: Effect) {
        let (operation, fills) = (self.operation, self.fills);
        let chunk = self.chunk_mut(id);
        let pause = operation - std::mem::replace(&mut chunk.touched_at, operation);
        if effect == Effect::Write {
            chunk.written();
        }
        let first = chunk.is_fresh(fills);
        // In use by one operation after the other (activations), it says
        // nothing about where the program is.
        if pause <= 1 || std::mem::take(&mut chunk.filling) {
            return;
        }
        chunk.reuse_count = chunk.reuse_count.saturating_add(1);
        if !first && pause <= LONG_PAUSE {
            chunk.pause = chunk.pause.max(pause);
        } else if fills == 0 || chunk.filled_at.is_some() {
            self.last_reused = Some(id);
        }
    }

    /// The operation was queued: its chunks may move again.
    pub fn release(&mut self, touches: &[(ChunkId, Effect)]) {
        for &(id, _) in touches {
            // Freed meanwhile by another thread: nothing to let go of.
            if let Some(Some(chunk)) = self.chunks.get_mut(id as usize) {
                chunk.holds = chunk.holds.saturating_sub(1);
            }
        }
    }

    fn make_present(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let mut streamed = 0;
        let mut streamed_frames = 0;
        let mut absent = 0;
        for &(id, _) in touches {
            let chunk = self.chunk(id);
            if !chunk.complete() {
                streamed += 1;
                streamed_frames += chunk.shared_frames();
                absent += u64::from(!chunk.present());
            }
        }
        if absent == 0 {
            self.counters.streamed_touches += streamed;
            self.counters.hits += streamed;
            self.largest_operation = self.largest_operation.max(streamed_frames);
            return Ok(());
        }
        self.give_up_predictions(touches, ops)?;
        self.keep_unplanned(touches, ops)?;
        let shared = |&(id, _): &(ChunkId, Effect)| {
            let chunk = self.chunk(id);
            if chunk.resident() { 0 } else { chunk.shared_frames() }
        };
        let streamed_frames = touches.iter().map(shared).sum();
        self.note_held_up(touches, ops);
        self.grow_ring(streamed_frames, touches, ops)?;
        for &(id, _) in touches {
            if !self.chunk(id).mapped {
                self.attach(id, touches, ops)?;
            } else if !self.chunk(id).present()
                && (self.overlaps_any(id, touches) || self.is_behind_held_up(id, ops))
            {
                self.relocate(id, touches, ops)?;
            }
        }
        for &(id, _) in touches {
            self.fill_blanks(id, true, ops);
            for part in 0..self.chunk(id).parts.len() {
                if !self.chunk(id).parts[part].present {
                    self.demand(id, part, ops)?;
                }
            }
        }
        self.counters.streamed_touches += streamed;
        self.counters.hits += streamed - absent;
        self.largest_operation = self.largest_operation.max(streamed_frames);
        Ok(())
    }
}
