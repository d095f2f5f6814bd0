//! The state of one device's managed memory, and every decision about it.
//!
//! A [`Streamer`] knows its chunks, its frames and its ring, tells the
//! [`Order`] what is touched, carries out the [`Plan`], and acts through a
//! [`MemoryOps`]: over CUDA in the preloaded library, over a model of memory in
//! the tests.
//!
//! Every frame of a chunk is *its own* or belongs to a *part*: a run of frames
//! that it shares with parts of other chunks, on the ring. A chunk without
//! parts is resident; any other streams. It is mapped, or it is not:
//!
//! ```text
//!            allocate                 demote (write back, retire, unmap)
//!   (none) ------------> resident ------------------------------> unmapped
//!                           ^                                      |   ^
//!                           | promote (map own frames, fetch)      |   |
//!                           |                                      |   |
//!                           +------- own and parts <---------------+   |
//!                                         |      attach (map aliases)  |
//!                                         +----------------------------+
//!                                          detach (write back, retire, unmap)
//! ```
//!
//! The last of its own frames may be host memory, which kernels read in place:
//! where a plan says so, or an operation needs more than the device may hold.
//!
//! Invariants, checked by [`Streamer::check`]:
//! - frames: `live = free + owned + ring`, and `live <= cap`. Frames on the host
//!   are in none of these.
//! - every frame of a mapped chunk is its own or in exactly one part.
//! - a ring frame holds the content of at most one part, and a part is
//!   present exactly if it holds all of its frames.
//! - content is never lost: a frame whose bytes are not on the device is
//!   saved on the host, or its chunk undefined (nothing was ever written to it).
//!   That goes for a *blank*, too: a frame that a plan made the chunk's own, and
//!   that is filled when its next use is near, or the link is idle.
//!
//! Here: what there is. Beside it:
//!
//! ```text
//!   ops            what it acts through
//!   allocations    chunks come and go; the cap
//!   operations     what is touched is made present: the hot path
//!   chunk          one chunk: its frames, and where its bytes are
//!   frames, ring   whose they are; runs: what is copied at once
//!   on_host        those that are host memory
//!   slabs          host memory side by side
//!   ahead, idle    copies before they are needed; those that are in no hurry
//!   plans          when a plan is due, what is asked, what follows from it
//!   carry_out      what has to move for it
//!   in_place       what reading over the link was seen to take
//!   unpredictable  for when nothing can be foretold
//!   view           what somebody who watches is told
//!   invariants     the check of those above
//! ```
//!
//! Nothing here waits. A change of place that queued work stands in the way of
//! ([`MemoryOps::retire`]) is given up as [`Shortage::Unfinished`]: whoever asked
//! waits, without a lock, and asks again. Steady streaming uses [`MemoryOps::write_back`],
//! [`MemoryOps::fetch_after_uses`] and [`MemoryOps::fetch`], which queue work.

mod ahead;
mod allocations;
mod cap;
mod carry_out;
mod chunk;
mod frames;
mod idle;
mod in_place;
mod invariants;
mod on_host;
mod operations;
mod ops;
mod plans;
mod ring;
mod runs;
mod slabs;
mod unpredictable;
mod view;

pub use cap::RecentCaps;
pub use ops::{Effect, FrameId, MemoryOps, Pending, Refused, Shortage};
pub use view::Seen;

use crate::address_map::ChunkId;
use crate::learn::{Cursor, Operation};
use crate::order::{Named, Order};
use crate::plan::{Machine, Plan};
use chunk::ChunkState;

/// Event counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Touches of streamed chunks; of these, present when asked for; fetched late.
    pub streamed_touches: u64,
    pub hits: u64,
    pub demand_fetches: u64,
    /// Fetches that the prediction asked for; of these, held back to their
    /// planned start.
    pub prefetches: u64,
    pub delayed: u64,
    /// Fetches of several parts at once.
    pub merged: u64,
    pub write_backs: u64,
    pub demotions: u64,
    /// Attachments, relocations: changes of the ring's layout off the plan.
    pub layout_changes: u64,
    pub plans: u64,
    /// Frames of the chunks whose layout a plan changed.
    pub moved_frames: u64,
}

/// See the module's text.
pub struct Streamer {
    /// Indexed by `ChunkId`; ids are dense and shared by all devices.
    chunks: Vec<Option<ChunkState>>,
    free: Vec<FrameId>,
    live_frames: u32,
    cap_frames: u32,
    /// Of all chunks, on the host. No more are to be had, if that was refused.
    host_frames: u32,
    host_refused: bool,
    /// No frame went to or from the host since this operation.
    moved_at: Operation,
    in_place: in_place::Rate,
    ring: Vec<FrameId>,
    /// Which part of which chunk has its content on each ring frame.
    occupants: Vec<Option<(ChunkId, u32)>>,
    /// Where the next chunk is attached.
    ring_cursor: u32,
    /// Slots whose content a stream that is held up has yet to use.
    held_up_slots: Vec<u32>,
    slabs: slabs::Slabs,
    order: Order,
    accuracy: unpredictable::Accuracy,
    /// Operations observed when the last one was touched; what is touched now
    /// is touched at this.
    operation: Operation,
    /// How far the look ahead has come, under the prediction of `epoch`.
    ahead: Option<Cursor>,
    /// Prediction number: expectations of an older one are void.
    epoch: u64,
    /// The learner's own number of the same prediction.
    learned_epoch: u64,
    /// Something went that was awaited.
    disturbed: bool,
    window: Window,
    machine: Machine,
    /// Carried out last.
    plan: Option<Plan>,
    planning: plans::Planning,
    idle: idle::Idle,
    /// When something was last fetched.
    fetched_at: Operation,
    /// The layout changed since the last plan, which may not be worth keeping.
    unplanned_changes: u64,
    /// Shared frames of the largest operation since the last plan.
    largest_operation: u32,
    /// How many chunks are not resident.
    streamed_chunks: u32,
    counters: Counters,
    /// Used last for the first time, or after a long pause.
    last_reused: Option<ChunkId>,
    /// Copies from the host that filled chunks.
    fills: u64,
    /// For [`Self::touch`]; kept for its memory.
    named: Vec<Named>,
}

/// The user's wish for the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    #[default]
    Auto,
    /// As many of the largest streamed chunks.
    Chunks(u32),
    Frames(u32),
}

impl Streamer {
    pub fn new(cap_frames: u32, window: Window) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            live_frames: 0,
            cap_frames,
            host_frames: 0,
            host_refused: false,
            moved_at: 0,
            in_place: in_place::Rate::default(),
            ring: Vec::new(),
            occupants: Vec::new(),
            ring_cursor: 0,
            held_up_slots: Vec::new(),
            slabs: slabs::Slabs::default(),
            order: Order::default(),
            accuracy: unpredictable::Accuracy::default(),
            operation: 0,
            ahead: None,
            epoch: 0,
            learned_epoch: 0,
            disturbed: false,
            window,
            machine: Machine::default(),
            plan: None,
            planning: plans::Planning::default(),
            idle: idle::Idle::default(),
            fetched_at: 0,
            unplanned_changes: 0,
            largest_operation: 0,
            streamed_chunks: 0,
            counters: Counters::default(),
            last_reused: None,
            fills: 0,
            named: Vec::new(),
        }
    }

    // --- queries -----------------------------------------------------------

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn live_frames(&self) -> u32 {
        self.live_frames
    }

    pub fn cap_frames(&self) -> u32 {
        self.cap_frames
    }

    pub fn ring_frames(&self) -> u32 {
        self.ring.len() as u32
    }

    /// Frames that chunks own.
    pub fn resident_frames(&self) -> u32 {
        self.live_frames - self.free.len() as u32 - self.ring.len() as u32
    }

    /// Frames of host memory that kernels read in place, of all chunks.
    pub fn host_frames(&self) -> u32 {
        self.host_frames
    }

    /// Of one.
    pub fn host_frames_of(&self, id: ChunkId) -> u32 {
        self.chunk(id).on_host
    }

    /// Whether `chunk` streams: it has parts in the ring, or no place at all.
    pub fn is_streamed(&self, chunk: ChunkId) -> bool {
        !self.chunk(chunk).resident()
    }

    /// Frames of the smallest ring that serves what was seen so far.
    pub fn smallest_ring(&self) -> u32 {
        self.largest_operation
    }

    /// Operations in an iteration that the present plan was made for.
    pub fn period(&self) -> Option<u64> {
        self.planning.period()
    }

    /// The present plan was made before times were known.
    pub fn plans_by_guesses(&self) -> bool {
        self.planning.by_guesses()
    }

    /// How often the predicted order turned out to be another.
    pub fn slips(&self) -> u64 {
        self.order.epoch()
    }

    pub fn contains(&self, id: ChunkId) -> bool {
        self.chunks.get(id as usize).is_some_and(Option::is_some)
    }

    /// The chunks that have an address mapped, content or not.
    pub fn mapped(&self) -> Vec<ChunkId> {
        self.ids().filter(|&id| self.chunk(id).mapped).collect()
    }

    pub fn frames_of(&self, id: ChunkId) -> u32 {
        self.chunk(id).frames
    }

    /// Operations observed so far.
    pub fn operations(&self) -> Operation {
        self.order.operations()
    }

    /// Whether the GPU time of the present operation should be measured: until
    /// it is known, then now and again, because measuring costs a little.
    pub fn wants_times(&self) -> bool {
        self.planning.wants_times(self.operation) || self.order.wants_times()
    }

    /// What the planner is to reckon with, from the next plan on. The frames
    /// are not taken from here: they are the cap.
    pub fn set_machine(&mut self, machine: Machine) {
        self.machine = machine;
    }

    pub fn set_window(&mut self, window: Window) {
        if self.window != window {
            self.window = window;
            self.unplanned_changes += 1;
        }
    }

    /// The present layout in a line, for the log.
    pub fn describe(&self) -> String {
        let streamed = self.chunks.iter().flatten().filter(|chunk| !chunk.resident()).count();
        format!(
            "{} chunks, {streamed} streamed, {} frames resident, {} read on the host, \
             {} in the ring, {} free of {}",
            self.ids().count(),
            self.resident_frames(),
            self.host_frames,
            self.ring.len(),
            self.free.len(),
            self.cap_frames,
        )
    }

    fn chunk(&self, id: ChunkId) -> &ChunkState {
        self.chunks[id as usize].as_ref().expect("a chunk that lives")
    }

    fn chunk_mut(&mut self, id: ChunkId) -> &mut ChunkState {
        self.chunks[id as usize].as_mut().expect("a chunk that lives")
    }

    fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.chunks.iter().enumerate().filter(|(_, c)| c.is_some()).map(|(id, _)| id as ChunkId)
    }
}
