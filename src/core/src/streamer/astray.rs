//! What to do while nothing can be foretold.
//!
//! A program that picks its weights by its data (a mixture of experts) has an
//! order, and the order is of no use: what was fetched ahead is the wrong
//! thing. Then the best that is left is to keep what was used last: there is no
//! ring, every chunk that is used gets frames of its own, and whoever was used
//! longest ago gives them. As soon as predictions come true again, the ring
//! comes back with the first chunk that is missing, and a plan after it.

use super::*;

/// How often the learner was right of late.
#[derive(Debug)]
pub(super) struct Foresight {
    /// Share of the operations that were predicted, recent ones counting most.
    right: f32,
    lost: bool,
}

impl Default for Foresight {
    fn default() -> Self {
        Self { right: 1.0, lost: false }
    }
}

impl Foresight {
    /// There was a prediction, and it came true or not.
    pub fn note(&mut self, right: bool) {
        /// Operations that count, about.
        const WINDOW: f32 = 512.0;
        /// Below the one there is no use in it, above the other there is.
        const BAD: f32 = 0.8;
        const GOOD: f32 = 0.95;
        self.right += (f32::from(u8::from(right)) - self.right) / WINDOW;
        self.lost = self.right < if self.lost { GOOD } else { BAD };
    }

    pub fn lost(&self) -> bool {
        self.lost
    }
}

impl Streamer {
    /// Makes `touches` present on frames of their own.
    pub(super) fn keep_what_was_used_last(
        &mut self,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        self.dissolve_ring(touches, mechanism)?;
        for &(id, _) in touches {
            if !self.chunk(id).resident() {
                self.promote(id, mechanism)?;
            }
            self.fill_blanks(id, true, mechanism);
        }
        Ok(())
    }

    /// Unmaps whatever has parts, and frees their frames.
    fn dissolve_ring(
        &mut self,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        if self.ring.is_empty() {
            return Ok(());
        }
        let ours = |id: ChunkId| u32::from(touches.iter().any(|&(touched, _)| touched == id));
        let streamed: Vec<ChunkId> =
            self.ids().filter(|&id| !self.chunk(id).parts.is_empty()).collect();
        if streamed.iter().any(|&id| self.chunk(id).holds > ours(id)) {
            return Err(Shortage::Busy);
        }
        for id in streamed {
            self.detach(id, mechanism)?;
        }
        self.cut_ring(0, mechanism);
        self.plan = None;
        self.unplanned_changes += 1;
        Ok(())
    }
}
