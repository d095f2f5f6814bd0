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
//! where a plan says so.
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
//! Here: what there is, allocations, and the hot path. Beside it: [`chunk`],
//! [`ring`], [`runs`] (copied at once), [`frames`], [`slabs`] (host memory side
//! by side), [`ahead`] (prefetching), [`idle`] (copies that are in no hurry),
//! [`plans`], [`in_place`] (what reading over the link was seen
//! to take), and [`unpredictable`], for when nothing can be foretold.
//!
//! Nothing here waits, except through [`MemoryOps::retire`], which only
//! changes of place use. Steady streaming uses [`MemoryOps::write_back`],
//! [`MemoryOps::fetch_after_uses`] and [`MemoryOps::fetch`], which queue work.

mod ahead;
mod chunk;
mod frames;
mod idle;
mod in_place;
mod plans;
mod ring;
mod runs;
mod slabs;
mod unpredictable;

use std::ops::Range;

use crate::address_map::ChunkId;
use crate::learn::{Cursor, Operation};
use crate::order::{Named, Order};
use crate::plan::{Machine, Part, Place, Plan};
use chunk::{ChunkState, PartExt, Streamed};
use frames::KEEP_NONE;

/// A physical frame, as the ops numbers it.
pub type FrameId = u32;

/// The device has no frame to give, or the host no memory to keep a chunk in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Why chunks could not be made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// They do not fit, whatever is evicted.
    Device { needed_frames: u32, cap_frames: u32 },
    /// They would fit, but what must go has no host memory to go to.
    Host,
    /// Something that must go is in another thread's launch right now: let
    /// that thread finish, then ask again. Nothing was lost.
    Busy,
}

/// What a [`Streamer`] can do to memory. All operations on one chunk take
/// effect in the order of the calls.
pub trait MemoryOps {
    /// A new physical frame. Called only below the cap.
    fn create_frame(&mut self) -> Result<FrameId, Refused>;
    /// A new frame of host memory, which kernels and copies reach over the link
    /// wherever it is mapped. It takes nothing of the device and does not count
    /// against the cap; it is numbered like any other. Called only if
    /// [`Machine::zero_copy_bytes_per_s`] says that there are such frames.
    fn create_host_frame(&mut self) -> Result<FrameId, Refused>;
    /// Gives up a frame of either kind, which is mapped nowhere.
    fn release_frame(&mut self, frame: FrameId);
    /// Maps the unmapped `chunk` to `frames`, in order. The content is undefined.
    fn map(&mut self, chunk: ChunkId, frames: &[FrameId]) -> Result<(), Refused>;
    /// Unmaps `chunk`, which has retired.
    fn unmap(&mut self, chunk: ChunkId);
    /// Residents are about to lose their frames: launches that believed nothing
    /// would ever move must be over when this returns.
    fn about_to_evict(&mut self);
    /// Makes host memory for `frames` of `chunk`, which have none: at `place`,
    /// which is where the chunk's first frame belongs, if that can be. Slabs
    /// are of [`crate::plan::SLAB_FRAMES`] frames; a number comes back for
    /// another slab once all its chunks are gone.
    fn reserve_host(
        &mut self,
        chunk: ChunkId,
        frames: Range<u32>,
        place: Option<Place>,
    ) -> Result<(), Refused>;
    /// The ring's frames, by slot, from now on: what [`Self::fetch_run`] counts
    /// by. Frames that are no longer among them get another use after this.
    fn ring(&mut self, slots: &[FrameId]);
    /// Gives up the host memory of `frames` of `chunk`, whose content is
    /// elsewhere: once copies that are queued have read or written it.
    fn release_host(&mut self, chunk: ChunkId, frames: Range<u32>);
    /// Queues the copy of `frames` of `chunk` to its host memory, after all uses.
    fn write_back(&mut self, chunk: ChunkId, frames: Range<u32>);
    /// Every later [`Self::fetch`] waits for all uses of `chunk` so far, and
    /// for its write-backs: some of its frames are about to be written.
    fn fetch_after_uses(&mut self, chunk: ChunkId);
    /// Every later [`Self::fetch`] begins when what the program has queued
    /// up to now is over, as far as the stream of its last operation goes.
    fn fetch_after_program(&mut self);
    /// Queues the copy of `frames` of `chunk` from its host memory; with
    /// `content` false nothing is copied, but uses are ordered as if.
    fn fetch(&mut self, chunk: ChunkId, frames: Range<u32>, content: bool, demanded: bool);
    /// [`Self::fetch`] of all of `pieces`, which have content, in one copy if
    /// the host memory is in one piece: in this order they lie on consecutive
    /// slots of the ring, the first from `slot` on.
    fn fetch_run(&mut self, pieces: &[(ChunkId, Range<u32>)], slot: u32, demanded: bool) {
        let _ = slot;
        for (chunk, frames) in pieces {
            self.fetch(*chunk, frames.clone(), true, demanded);
        }
    }
    /// [`Self::write_back`] of all of `pieces`, likewise.
    fn write_back_run(&mut self, pieces: &[(ChunkId, Range<u32>)], slot: u32) {
        let _ = slot;
        for (chunk, frames) in pieces {
            self.write_back(*chunk, frames.clone());
        }
    }
    /// Waits, on the host, until all uses and copies of `chunk` are over.
    fn retire(&mut self, chunk: ChunkId);
}

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
    /// Touched last after a pause.
    last_reused: Option<ChunkId>,
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

/// What an operation does to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reads only (a copy out of it).
    Read,
    /// May write: everything a kernel receives, and copies into it.
    Write,
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

    // --- allocations -------------------------------------------------------

    /// Changes how many frames there may be. Above the new cap nothing is
    /// taken back at once; the next allocations do.
    pub fn set_cap(&mut self, frames: u32) {
        self.cap_frames = frames;
    }

    /// Gives back what a lowered cap no longer allows, as far as that goes
    /// now: what is pinned, or in a launch of another thread, stays.
    fn meet_cap(&mut self, ops: &mut impl MemoryOps) {
        let excess = self.live_frames.saturating_sub(self.cap_frames);
        let possible = excess.min(self.attainable(KEEP_NONE, true));
        if possible == 0 {
            return;
        }
        let surplus = self.take_frames(possible, KEEP_NONE, true, ops).unwrap_or_else(|_| {
            let rest = self.free.len().saturating_sub(possible as usize);
            self.free.split_off(rest)
        });
        self.live_frames -= surplus.len() as u32;
        for frame in surplus {
            ops.release_frame(frame);
        }
    }

    /// Whether [`Self::allocate`] of `frames` would have to evict.
    pub fn would_evict(&self, frames: u32) -> bool {
        frames > self.free.len() as u32 + self.cap_frames.saturating_sub(self.live_frames)
    }

    /// A new chunk `id` of `frames` frames, resident, evicting if it must.
    ///
    /// `watched`: every operation on it will be announced by [`Self::touch`],
    /// so until the first one there is nothing to preserve. Without that, as
    /// long as launches take no notice of us, its content may be anything.
    pub fn allocate(
        &mut self,
        id: ChunkId,
        frames: u32,
        watched: bool,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        self.meet_cap(ops);
        let own = self.take_frames(frames, KEEP_NONE, true, ops)?;
        if ops.map(id, &own).is_err() {
            self.free.extend(own);
            return Err(self.device_shortage(frames));
        }
        if self.chunks.len() <= id as usize {
            self.chunks.resize_with(id as usize + 1, || None);
        }
        let chunk = ChunkState::new(own, self.operation);
        let place = self.slabs.give(frames);
        self.chunks[id as usize] = Some(ChunkState { undefined: watched, place, ..chunk });
        Ok(())
    }

    /// The program freed `id`. All its uses are over, or queued before a wait
    /// that `ops.retire` performs.
    pub fn free(&mut self, id: ChunkId, ops: &mut impl MemoryOps) {
        ops.retire(id);
        if self.chunk(id).mapped {
            ops.unmap(id);
        }
        self.order.forget(id);
        self.leave_host(id, 0, ops);
        let chunk = self.chunks[id as usize].take().expect("a chunk that lives");
        self.streamed_chunks -= u32::from(!chunk.resident());
        if let Some(place) = chunk.place {
            self.slabs.take_back(place, chunk.frames);
        }
        self.free.extend(chunk.own.into_iter().flatten());
        for streamed in chunk.parts.iter().filter(|streamed| streamed.present) {
            streamed.part.slots().for_each(|slot| self.occupants[slot as usize] = None);
        }
        self.unplanned_changes += u64::from(self.plan.is_none() || chunk.planned);
        if self.streamed_chunks == 0 && self.host_frames == 0 {
            // Everything fits again: no ring, and nothing held back.
            self.cut_ring(0, ops);
            self.plan = None;
            self.release_free(ops);
        }
    }

    /// A copy from the host fills `addresses` of `id`: weights, until it is freed.
    pub fn filled(&mut self, id: ChunkId, addresses: Range<u64>) {
        self.order.filled(id, addresses);
    }

    /// The program gave up `id`'s content but may reuse the memory.
    pub fn forget_content(&mut self, id: ChunkId) {
        let chunk = self.chunk_mut(id);
        chunk.written();
        chunk.undefined = true;
    }

    /// Gives frames without owner back to the device. Answers how many.
    pub fn release_free(&mut self, ops: &mut impl MemoryOps) -> u32 {
        let count = self.free.len() as u32;
        for frame in self.free.drain(..) {
            ops.release_frame(frame);
        }
        self.live_frames -= count;
        count
    }

    /// Gives up to `frames` frames back to the device, evicting if it must,
    /// and lowers the cap by as much. Answers how many.
    pub fn give_back(&mut self, frames: u32, ops: &mut impl MemoryOps) -> Result<u32, Shortage> {
        // Not by way of new frames.
        self.cap_frames = self.cap_frames.min(self.live_frames);
        let taken = self.take_frames(frames, KEEP_NONE, true, ops)?;
        self.free.extend(taken);
        let given = self.release_free(ops);
        self.cap_frames = self.cap_frames.min(self.live_frames);
        Ok(given)
    }

    /// Makes `id` resident for as long as it lives. `true`: it was not before.
    pub fn pin(&mut self, id: ChunkId, ops: &mut impl MemoryOps) -> Result<bool, Shortage> {
        if self.chunk(id).on_host > 0 {
            self.recall(id, ops)?;
        }
        if !self.chunk(id).resident() {
            self.promote(id, ops)?;
        }
        Ok(!std::mem::replace(&mut self.chunk_mut(id).pinned, true))
    }

    // --- the hot path ------------------------------------------------------

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
        for &(id, _) in touches {
            self.chunk_mut(id).holds += 1;
        }
        let outcome = self.make_present(touches, ops);
        if let Err(shortage) = outcome {
            self.release(touches);
            return Err(shortage);
        }
        // A choice that nobody foretold says nothing about what was foretold.
        let predicted = self.order.ahead().is_some();
        let chosen = self.order.any_erratic(named);
        let epoch = self.order.epoch();
        let followed = self.order.observe(named);
        if predicted && (!chosen || self.order.epoch() != epoch) {
            self.accuracy.record(followed);
        }
        self.operation = self.order.operations();
        for &(id, effect) in touches {
            let operation = self.operation;
            let chunk = self.chunk_mut(id);
            let before = std::mem::replace(&mut chunk.touched_at, operation);
            if effect == Effect::Write {
                chunk.written();
            }
            // In use by one operation after the other (activations), it says
            // nothing about where the program is.
            if before + 1 < operation {
                chunk.reuse_count = chunk.reuse_count.saturating_add(1);
                self.last_reused = Some(id);
            }
        }
        Ok(())
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
        self.counters.streamed_touches += streamed;
        self.counters.hits += streamed - absent;
        if absent == 0 {
            self.largest_operation = self.largest_operation.max(streamed_frames);
            return Ok(());
        }
        self.give_up_predictions(touches, ops);
        self.keep_unplanned(touches, ops);
        let shared = |&(id, _): &(ChunkId, Effect)| {
            let chunk = self.chunk(id);
            if chunk.resident() { 0 } else { chunk.shared_frames() }
        };
        let streamed_frames = touches.iter().map(shared).sum();
        self.grow_ring(streamed_frames, touches, ops)?;
        for &(id, _) in touches {
            if !self.chunk(id).mapped {
                self.attach(id, touches, ops)?;
            } else if !self.chunk(id).present() && self.overlaps_any(id, touches) {
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
        self.largest_operation = self.largest_operation.max(streamed_frames);
        Ok(())
    }

    // --- invariants --------------------------------------------------------

    /// Panics unless the module's invariants hold. For tests and debug builds.
    pub fn check(&self) {
        let owned: u32 = self.chunks.iter().flatten().map(ChunkState::own_frames).sum();
        assert_eq!(self.live_frames, self.free.len() as u32 + owned + self.ring.len() as u32);
        assert_eq!(self.ring.len(), self.occupants.len());
        let streamed = self.chunks.iter().flatten().filter(|chunk| !chunk.resident()).count();
        assert_eq!(self.streamed_chunks as usize, streamed);
        let host: u32 = self.chunks.iter().flatten().map(|chunk| chunk.on_host).sum();
        assert_eq!(self.host_frames, host);
        let mut occupied = 0;
        for id in self.ids() {
            let chunk = self.chunk(id);
            assert!(chunk.mapped || chunk.parts.is_empty());
            assert!(chunk.own[chunk.device_end() as usize..].iter().all(Option::is_some));
            assert!(chunk.on_host == 0 || !chunk.pinned, "chunk {id}");
            let blanks = chunk.blank.iter().filter(|&&blank| blank).count() as u32;
            assert_eq!(chunk.blanks, blanks, "chunk {id}");
            let mut homes: Vec<u32> =
                chunk.own.iter().map(|own| u32::from(own.is_some())).collect();
            for (number, Streamed { part, present, .. }) in chunk.parts.iter().enumerate() {
                part.range().for_each(|index| homes[index as usize] += 1);
                for slot in part.slots() {
                    let held = self.occupants[slot as usize] == Some((id, number as u32));
                    assert_eq!(held, *present, "chunk {id}, part {number}");
                    occupied += u32::from(held);
                }
            }
            assert!(!chunk.mapped || homes.iter().all(|&count| count == 1), "chunk {id}");
            for index in 0..chunk.frames {
                assert!(
                    chunk.undefined || chunk.saved[index as usize] || chunk.holds_content(index),
                    "chunk {id} lost frame {index}"
                );
            }
        }
        let occupants = self.occupants.iter().flatten().count() as u32;
        assert_eq!(occupants, occupied);
    }
}
