//! What somebody who watches is told. Nothing here changes anything.

use super::{ChunkId, Streamer};
use crate::recall::Remembered;

/// One chunk, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: ChunkId,
    pub frames: u32,
    /// Of these, on the device and its own.
    pub own_frames: u32,
    /// Its content is on the device, all of it.
    pub present: bool,
    /// Operations from the last one to the one that uses it next, where that is foretold.
    pub next_use: Option<u32>,
}

impl Streamer {
    /// The `count` largest chunks, the largest first.
    pub fn largest(&self, count: usize) -> Vec<Seen> {
        /// Uses to come that are looked through.
        const AHEAD: usize = 2048;
        let mut found: Vec<Seen> = self
            .ids()
            .map(|id| {
                let chunk = self.chunk(id);
                let (frames, own_frames) = (chunk.frames, chunk.own_frames());
                Seen { id, frames, own_frames, present: chunk.present(), next_use: None }
            })
            .collect();
        found.sort_by_key(|seen| (std::cmp::Reverse(seen.frames), seen.id));
        found.truncate(count);
        let Some(mut cursor) = self.order.ahead() else { return found };
        for _ in 0..AHEAD {
            let Some(next) = self.order.next(&mut cursor) else { break };
            if let Some(seen) = found.iter_mut().find(|seen| seen.id == next.chunk) {
                seen.next_use.get_or_insert(next.distance);
            }
            if found.iter().all(|seen| seen.next_use.is_some()) {
                break;
            }
        }
        found
    }

    /// Chunks whose content is elsewhere, in full or in part.
    pub fn absent(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.ids().filter(|&id| self.is_absent(id))
    }

    /// See [`absent`](Self::absent); `false` for what has no addresses now.
    pub fn is_absent(&self, id: ChunkId) -> bool {
        self.contains(id) && self.chunk(id).mapped && !self.chunk(id).present()
    }

    /// A number that changes with the order, once there is a plan: from then on it
    /// is worth keeping.
    pub fn order_version(&self) -> Option<u64> {
        self.plan.is_some().then(|| self.order.version())
    }

    /// See [`Order::remember`](crate::order::Order::remember).
    pub fn remember(
        &self,
        signature: u64,
        number: impl Fn(ChunkId) -> Option<(u32, u64)>,
    ) -> Remembered {
        self.order.remember(signature, number)
    }

    /// Frames of the device that are the chunk's own.
    pub fn own_frames_of(&self, id: ChunkId) -> u32 {
        self.chunk(id).own_frames()
    }

    /// Frames that belong to nothing now.
    pub fn free_frames(&self) -> u32 {
        self.free.len() as u32
    }

    /// How many chunks there are, and how many of them stream.
    pub fn chunk_counts(&self) -> (u32, u32) {
        (self.ids().count() as u32, self.streamed_chunks)
    }

    /// The phase under way, counted from 0, and how many are known.
    pub fn phase(&self) -> (Option<usize>, usize) {
        let known = self.order.described();
        let present = self.order.present();
        (known.iter().position(|&name| Some(name) == present), known.len())
    }

    /// Of an iteration of the phase under way, by the plan in force: its time, how
    /// much of that no kernel runs, and the bytes that come in.
    pub fn planned_iteration(&self) -> Option<(u64, u64, u64)> {
        let plan = self.plan.as_ref()?;
        let at = self.planning.phase_of_plan(self.order.present()).unwrap_or(0);
        let phase = plan.phases.get(at)?;
        Some((phase.period_ns, phase.stall_ns, phase.streamed_bytes))
    }
}
