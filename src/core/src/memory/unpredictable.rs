//! What to do about chunks of which nobody can say when they come.
//!
//! A program that picks its weights by its data (a mixture of experts) has an
//! order in which some things come and others may. What may come is not worth
//! fetching ahead, but worth keeping: what was used in the last iteration more than
//! what was not, and of all that was used the less, the sooner it was, for its
//! next chance is an iteration away. So what is missing gets frames of its own if
//! somebody has some who was not used for an iteration, least recently used first; and
//! otherwise passes through the ring, for whoever made room for it would come
//! again as likely, and sooner.
//!
//! Whose frames go for good needs host memory, and if there is none yet, making
//! it holds the program up for longer than several copies: who has only come
//! once passes through the ring then, who comes again is worth it.
//!
//! That is done for chunks that the plan does not name, with frames of such
//! chunks; and for all, without a plan, as long as predictions fail: when what
//! is fetched ahead is the wrong thing.

use super::chunk::ChunkState;
use super::frames::KEEP_NONE;
use super::{ChunkId, Effect, MemoryOps, Shortage, Streamer};

/// An iteration may be longer than the last one, by one part in so many.
const ITERATION_SLACK: u64 = 16;

/// How often the learner was right of late.
#[derive(Debug)]
pub(super) struct Accuracy {
    /// Share of the operations that were predicted, recent ones counting most.
    right: f32,
    too_low: bool,
    /// The plan was given up for it.
    given_up: bool,
    /// Operations in an iteration, when there was one last. Without one, whoever is
    /// not in use was not used for an iteration.
    iteration: u64,
}

impl Default for Accuracy {
    fn default() -> Self {
        Self { right: 1.0, too_low: false, given_up: false, iteration: 0 }
    }
}

impl Accuracy {
    /// There was a prediction, and it came true or not.
    pub fn record(&mut self, right: bool) {
        /// Operations that count, about.
        const WINDOW: f32 = 512.0;
        /// Below the one there is no use in it, above the other there is.
        const BAD: f32 = 0.8;
        const GOOD: f32 = 0.95;
        self.right += (f32::from(u8::from(right)) - self.right) / WINDOW;
        self.too_low = self.right < if self.too_low { GOOD } else { BAD };
    }

    pub fn too_low(&self) -> bool {
        self.too_low
    }
}

impl Streamer {
    /// While predictions fail: there is no plan, and nothing has a place on the
    /// ring but what passes through.
    pub(super) fn give_up_predictions(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        if !self.accuracy.too_low {
            self.accuracy.given_up = false;
        } else if !self.accuracy.given_up {
            // Not while another thread is in a launch: next time, then.
            match self.dissolve_ring(touches, ops) {
                Ok(()) => {
                    self.accuracy.given_up = true;
                    self.plan = None;
                }
                Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
                Err(_) => {}
            }
            self.unplanned_changes += 1;
            self.start_over();
        }
        Ok(())
    }

    /// Gives those of `touches` that are missing and that no plan names frames
    /// of their own, as far as that is worth it.
    pub(super) fn keep_unplanned(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        if self.plan.is_none() && !self.accuracy.given_up {
            return Ok(());
        }
        self.accuracy.iteration = self.order.lap().unwrap_or(self.accuracy.iteration);
        let iteration = self.accuracy.iteration;
        for &(id, _) in touches {
            let chunk = self.chunk(id);
            // In another thread's launch, too, it cannot be moved.
            if self.is_planned(id) || chunk.present() || chunk.holds > 1 {
                continue;
            }
            let needed = chunk.device_end() - chunk.own_frames();
            let again = self.chunk(id).denied_room;
            let room = self.evict_stale_unplanned(needed, iteration, again, touches, ops)?;
            self.chunk_mut(id).denied_room = !room;
            if !room {
                continue;
            }
            let detached = if self.chunk(id).mapped { self.detach(id, ops) } else { Ok(()) };
            match detached {
                // What fails here is tried, and told of, when the ring is asked.
                Ok(()) => drop(self.attach(id, touches, ops)),
                Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn is_planned(&self, id: ChunkId) -> bool {
        self.plan.is_some() && self.chunk(id).planned
    }

    /// At least `frames` free frames, taken from chunks that no plan names and
    /// that were not used for an iteration, and have host memory, unless `at_any_cost`.
    /// `false`: there are not as many.
    fn evict_stale_unplanned(
        &mut self,
        frames: u32,
        iteration: u64,
        at_any_cost: bool,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<bool, Shortage> {
        let unborn = self.cap_frames.saturating_sub(self.live_frames);
        let missing = frames.saturating_sub(self.free.len() as u32);
        if missing > unborn {
            let missing = missing - unborn;
            let stale = |chunk: &ChunkState| {
                chunk.touched_at + iteration + iteration / ITERATION_SLACK < self.operation
            };
            let roomy = |chunk: &ChunkState| {
                let hosted = &chunk.hosted[..chunk.device_end() as usize];
                chunk.undefined || hosted.iter().all(|&hosted| hosted)
            };
            let mut candidates: Vec<ChunkId> = self
                .ids()
                .filter(|&id| {
                    let chunk = self.chunk(id);
                    self.movable(id, KEEP_NONE)
                        && chunk.holds == 0
                        && !ops.is_in_flight(id)
                        && !self.is_planned(id)
                        && stale(chunk)
                        && (at_any_cost || roomy(chunk))
                        && touches.iter().all(|&(touched, _)| touched != id)
                })
                .collect();
            candidates.sort_by_key(|&id| {
                let chunk = self.chunk(id);
                // Host memory for more chunks than need it would be a waste.
                (!roomy(chunk), chunk.touched_at)
            });
            let attainable: u32 = candidates.iter().map(|&id| self.chunk(id).own_frames()).sum();
            if attainable < missing {
                return Ok(false);
            }
            match self.evict(&candidates, missing, ops) {
                Ok(()) => {}
                Err(Shortage::Unfinished) => return Err(Shortage::Unfinished),
                Err(_) => return Ok(false),
            }
        }
        Ok(match self.take_frames(frames, &|_| true, false, ops) {
            Ok(taken) => {
                self.free.extend(taken);
                true
            }
            Err(_) => false,
        })
    }

    /// Unmaps whatever has parts, and frees their frames.
    fn dissolve_ring(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
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
            self.detach(id, ops)?;
        }
        self.cut_ring(0, ops);
        Ok(())
    }
}
