//! What a plan made a chunk's own is brought in while the link has nothing
//! else to do, so that a phase that comes later finds it there.
//!
//! How much that is, the plan tells: the link stands still for a part of every
//! iteration of a phase that is bound by its kernels. Of a phase that waits
//! for copies nothing is taken.
//! Not here: what is needed soon is brought in by the look ahead.

use super::{ChunkId, MemoryOps, Operation, Streamer};
use crate::plan::{Machine, PhasePlan, Plan};

/// Frames copied at a time: others wait behind it.
const FRAMES_AT_ONCE: u32 = 8;
/// Part of the time in which the link stands still that may be taken, in
/// percent: the copies of the plan still come in the order in which kernels
/// wait for them, and each through a ring of little room.
const IDLE_PERCENT: u64 = 50;
/// A phase in which kernels wait for longer than this part of an iteration has
/// no time to give.
const STALLS_ONE_IN: u64 = 20;

#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Chunks that may have frames to be filled, the next one last.
    waiting: Vec<ChunkId>,
    /// By phase, as the learner names it: bytes that the link has time for in
    /// each operation.
    pace: Vec<(u64, f64)>,
    credit: f64,
    /// When something was added to that, or will be.
    at: Operation,
}

/// Bytes that the link has time for in one of `operations` operations.
fn pace(phase: &PhasePlan, operations: u64, machine: &Machine) -> f64 {
    if phase.stall_ns * STALLS_ONE_IN > phase.period_ns {
        return 0.0;
    }
    let link_ns = phase.streamed_bytes as f64 * 1e9 / machine.link_bytes_per_s
        + phase.copies.len() as f64 * machine.copy_ns as f64;
    let idle_ns = (phase.period_ns as f64 - link_ns) * IDLE_PERCENT as f64 / 100.0;
    idle_ns.max(0.0) * machine.link_bytes_per_s / 1e9 / operations.max(1) as f64
}

impl Streamer {
    /// `plan` was adopted. `phases`: by phase of the plan, how the learner
    /// names it, and its operations.
    pub(super) fn plan_idle_copies(&mut self, plan: &Plan, phases: &[(u64, u64)]) {
        let known = plan.phases.iter().zip(phases);
        let pace = known
            .map(|(phase, &(name, operations))| (name, pace(phase, operations, &self.machine)))
            .filter(|&(_, bytes)| bytes > 0.0)
            .collect();
        let blank = |id: &ChunkId| self.chunk(*id).blanks > 0 && self.chunk(*id).on_host == 0;
        let ids = plan.layouts.iter().map(|layout| layout.id);
        let waiting = ids.rev().filter(blank).collect();
        // The phase under way has to fill what is its own first.
        let at = self.operation + self.planning.period().unwrap_or(0);
        self.idle = Idle { waiting, pace, credit: 0.0, at };
    }

    /// Fills as much as there has been time for since the last call.
    pub(super) fn fill_when_idle(&mut self, ops: &mut impl MemoryOps) {
        if self.idle.waiting.is_empty() {
            return;
        }
        let Some(passed) = self.operation.checked_sub(self.idle.at) else { return };
        self.idle.at = self.operation;
        let present = self.order.present();
        let pace = self.idle.pace.iter().find(|(name, _)| present == Some(*name));
        let pace = pace.map_or(0.0, |&(_, bytes)| bytes);
        let most = self.machine.backlog_bytes as f64;
        self.idle.credit = (self.idle.credit + passed as f64 * pace).min(most);
        let mut delayed = false;
        while let Some(&id) = self.idle.waiting.last() {
            // It may have been freed, or lost its place since.
            let living = self.chunks.get(id as usize).and_then(Option::as_ref);
            let placed = living.filter(|chunk| chunk.mapped && chunk.on_host == 0);
            let run = placed.and_then(|chunk| chunk.blank_runs().into_iter().next());
            let Some(run) = run else {
                self.idle.waiting.pop();
                continue;
            };
            let run = run.start..run.end.min(run.start + FRAMES_AT_ONCE);
            let bytes = f64::from(run.end - run.start) * self.machine.frame_bytes as f64;
            if self.idle.credit < bytes {
                return;
            }
            self.idle.credit -= bytes;
            // What the present iteration still needs is queued with its own
            // operations, and comes in between.
            if !std::mem::replace(&mut delayed, true) {
                ops.fetch_after_program();
            }
            self.fill(id, run, false, ops);
        }
    }
}
