//! The state of one device's managed memory, and every decision about it.
//!
//! A [`Streamer`] knows its chunks, its frames and its ring, follows the
//! access record, and acts through a [`Mechanism`]: over CUDA in the
//! preloaded library, over a model of memory in the tests.
//!
//! A chunk is in one of three places:
//!
//! ```text
//!            allocate                 demote (write back, retire, unmap)
//!   (none) ------------> Resident ------------------------------> Unmapped
//!                           ^                                      |   ^
//!                           | promote (map own frames, fetch)      |   |
//!                           |                                      |   |
//!                           +----------- Ring <--------------------+   |
//!                                         |      attach (map aliases)  |
//!                                         +----------------------------+
//!                                          detach (write back, retire, unmap)
//! ```
//!
//! Invariants, checked by [`Streamer::check`]:
//! - frames: `live = free + owned by residents + ring`, and `live <= cap`.
//! - a ring frame holds the content of at most one chunk, and a chunk in the
//!   ring is present exactly if it holds all of its frames.
//! - content is never lost: a chunk that is not present is undefined (nothing
//!   was ever written to it) or has a valid host copy.
//!
//! Nothing here waits, except through [`Mechanism::retire`], which only
//! changes of place use. Steady streaming uses [`Mechanism::write_back`],
//! [`Mechanism::displace`] and [`Mechanism::fetch`], which queue work.

use crate::address_map::ChunkId;
use crate::history::{History, Position};
use crate::planner::{self, Item, Limits, Operations, Plan};

/// A physical frame, as the mechanism numbers it.
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
pub trait Mechanism {
    /// A new physical frame. Called only below the cap.
    fn create_frame(&mut self) -> Result<FrameId, Refused>;
    fn release_frame(&mut self, frame: FrameId);
    /// Maps the unmapped `chunk` to `frames`, in order. The content is undefined.
    fn map(&mut self, chunk: ChunkId, frames: &[FrameId]) -> Result<(), Refused>;
    /// Unmaps `chunk`, which has retired.
    fn unmap(&mut self, chunk: ChunkId);
    /// Residents are about to lose their frames: launches that believed nothing
    /// would ever move must be over when this returns.
    fn about_to_evict(&mut self);
    /// Makes sure that there is host memory for `chunk`.
    fn reserve_host(&mut self, chunk: ChunkId) -> Result<(), Refused>;
    /// Queues the copy of `chunk` to its host memory, after all its uses.
    fn write_back(&mut self, chunk: ChunkId);
    /// Every later [`Self::fetch`] waits for all uses of `chunk`, and for its
    /// write-back: its frames are about to be written.
    fn displace(&mut self, chunk: ChunkId);
    /// Queues the copy of `chunk` from its host memory; with `content` false
    /// nothing is copied, but uses are ordered as if.
    fn fetch(&mut self, chunk: ChunkId, content: bool, demanded: bool);
    /// Waits, on the host, until all uses and copies of `chunk` are over.
    fn retire(&mut self, chunk: ChunkId);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Resident,
    /// First frame in the ring, and whether the content is there.
    Ring { at: u32, present: bool },
    Unmapped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostCopy {
    Absent,
    /// There is memory, but the device's bytes may be newer.
    Stale,
    /// Equals the chunk's content.
    Valid,
}

#[derive(Debug)]
struct Chunk {
    frames: u32,
    place: Place,
    /// Frames of its own, while resident.
    own: Vec<FrameId>,
    host: HostCopy,
    /// Nothing was ever written to it, or the program gave the content up.
    undefined: bool,
    pinned: bool,
    /// Launches under way, between begin and end, on any thread.
    holds: u32,
    /// Operation that touched it last; its allocation counts as a touch.
    touched_at: u64,
    /// Position of its last token in the record.
    token_at: Position,
    /// Fetched ahead of a use that has not come yet: the position in the
    /// record where it is expected, under the prediction numbered `epoch`.
    expected: Option<(u64, Position)>,
}

impl Chunk {
    fn present(&self) -> bool {
        matches!(self.place, Place::Resident | Place::Ring { present: true, .. })
    }

    /// Its bytes exist only on the device.
    fn dirty(&self) -> bool {
        self.present() && !self.undefined && self.host != HostCopy::Valid
    }
}

/// Event counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Touches of streamed chunks; of these, present when asked for; fetched late.
    pub streamed_touches: u64,
    pub hits: u64,
    pub demand_fetches: u64,
    /// Fetches that the prediction asked for.
    pub prefetches: u64,
    pub write_backs: u64,
    pub demotions: u64,
    /// Attachments, relocations: changes of the ring's layout off the plan.
    pub layout_changes: u64,
    pub plans: u64,
}

/// See the module's text.
pub struct Streamer {
    /// Indexed by `ChunkId`; ids are dense and shared by all devices.
    chunks: Vec<Option<Chunk>>,
    free: Vec<FrameId>,
    live_frames: u32,
    cap_frames: u32,
    ring: Vec<FrameId>,
    /// Whose content each ring frame holds.
    occupants: Vec<Option<ChunkId>>,
    /// Where the next chunk is attached.
    ring_cursor: u32,
    history: History,
    /// Where the lookahead stands in the record.
    ahead: Position,
    /// Prediction number: expectations of an older one are void.
    epoch: u64,
    operation: u64,
    window: Window,
    /// The layout changed since the last plan, which may not be worth keeping.
    unplanned_changes: u64,
    /// Period for which the present plan was made.
    planned_period: Option<u64>,
    /// Length of the record when something was last fetched.
    fetched_at: Position,
    /// No new plan before the record has this length.
    next_plan_at: Position,
    largest_operation: u32,
    /// How many chunks are not resident.
    streamed_chunks: u32,
    counters: Counters,
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
            ring: Vec::new(),
            occupants: Vec::new(),
            ring_cursor: 0,
            history: History::new(),
            ahead: 0,
            epoch: 0,
            operation: 0,
            window,
            unplanned_changes: 0,
            planned_period: None,
            fetched_at: 0,
            next_plan_at: 0,
            largest_operation: 0,
            streamed_chunks: 0,
            counters: Counters::default(),
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

    /// Frames of the chunks that are resident.
    pub fn resident_frames(&self) -> u32 {
        self.live_frames - self.free.len() as u32 - self.ring.len() as u32
    }

    /// Whether `chunk` streams: it has an alias in the ring, or no place at all.
    pub fn is_streamed(&self, chunk: ChunkId) -> bool {
        self.chunk(chunk).place != Place::Resident
    }

    /// Frames of the smallest ring that serves what was seen so far.
    pub fn smallest_ring(&self) -> u32 {
        self.largest_operation
    }

    /// Length of the learned iteration, in tokens of the record.
    pub fn period(&self) -> Option<u64> {
        self.planned_period
    }

    pub fn slips(&self) -> u64 {
        self.history.slips()
    }

    pub fn contains(&self, id: ChunkId) -> bool {
        self.chunks.get(id as usize).is_some_and(Option::is_some)
    }

    /// The chunks that have an address mapped, content or not.
    pub fn mapped(&self) -> Vec<ChunkId> {
        self.ids().filter(|&id| self.chunk(id).place != Place::Unmapped).collect()
    }

    pub fn frames_of(&self, id: ChunkId) -> u32 {
        self.chunk(id).frames
    }

    /// Tokens recorded so far.
    pub fn record_length(&self) -> Position {
        self.history.len()
    }

    pub fn set_window(&mut self, window: Window) {
        if self.window != window {
            self.window = window;
            self.unplanned_changes += 1;
        }
    }

    /// The present layout in a line, for the log.
    pub fn describe(&self) -> String {
        let streamed = self.chunks.iter().flatten().filter(|c| c.place != Place::Resident).count();
        format!(
            "{} chunks, {streamed} streamed, {} frames resident, {} in the ring, {} free of {}",
            self.ids().count(),
            self.resident_frames(),
            self.ring.len(),
            self.free.len(),
            self.cap_frames,
        )
    }

    fn chunk(&self, id: ChunkId) -> &Chunk {
        self.chunks[id as usize].as_ref().expect("a chunk that lives")
    }

    fn chunk_mut(&mut self, id: ChunkId) -> &mut Chunk {
        self.chunks[id as usize].as_mut().expect("a chunk that lives")
    }

    /// To be called after a chunk became resident or ceased to be.
    fn count_streamed(&mut self) {
        let streamed = self.chunks.iter().flatten().filter(|c| c.place != Place::Resident);
        self.streamed_chunks = streamed.count() as u32;
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
    fn meet_cap(&mut self, mechanism: &mut impl Mechanism) {
        let excess = self.live_frames.saturating_sub(self.cap_frames);
        let possible = excess.min(self.attainable(&[], true));
        if possible == 0 {
            return;
        }
        let surplus = self.take_frames(possible, &[], true, mechanism).unwrap_or_else(|_| {
            let rest = self.free.len().saturating_sub(possible as usize);
            self.free.split_off(rest)
        });
        self.live_frames -= surplus.len() as u32;
        for frame in surplus {
            mechanism.release_frame(frame);
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
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        self.meet_cap(mechanism);
        let own = self.take_frames(frames, &[], true, mechanism)?;
        if mechanism.map(id, &own).is_err() {
            self.free.extend(own);
            return Err(self.device_shortage(frames));
        }
        if self.chunks.len() <= id as usize {
            self.chunks.resize_with(id as usize + 1, || None);
        }
        self.chunks[id as usize] = Some(Chunk {
            frames,
            place: Place::Resident,
            own,
            host: HostCopy::Absent,
            undefined: watched,
            pinned: false,
            holds: 0,
            touched_at: self.operation,
            token_at: 0,
            expected: None,
        });
        Ok(())
    }

    /// The program freed `id`. All its uses are over, or queued before a wait
    /// that `mechanism.retire` performs.
    pub fn free(&mut self, id: ChunkId, mechanism: &mut impl Mechanism) {
        mechanism.retire(id);
        let chunk = self.chunk(id);
        if chunk.place != Place::Unmapped {
            mechanism.unmap(id);
        }
        let chunk = self.chunks[id as usize].take().expect("a chunk that lives");
        self.free.extend(chunk.own);
        for occupant in &mut self.occupants {
            if *occupant == Some(id) {
                *occupant = None;
            }
        }
        self.unplanned_changes += 1;
        self.count_streamed();
        if self.streamed_chunks == 0 {
            // Everything fits again: no ring, and nothing held back.
            self.free.append(&mut self.ring);
            self.occupants.clear();
            self.ring_cursor = 0;
            self.release_free(mechanism);
        }
    }

    /// The program gave up `id`'s content but may reuse the memory.
    pub fn forget_content(&mut self, id: ChunkId) {
        let chunk = self.chunk_mut(id);
        chunk.undefined = true;
        if chunk.host == HostCopy::Valid {
            chunk.host = HostCopy::Stale;
        }
    }

    /// Gives frames without owner back to the device. Answers how many.
    pub fn release_free(&mut self, mechanism: &mut impl Mechanism) -> u32 {
        let count = self.free.len() as u32;
        for frame in self.free.drain(..) {
            mechanism.release_frame(frame);
        }
        self.live_frames -= count;
        count
    }

    /// Gives up to `frames` frames back to the device, evicting if it must,
    /// and lowers the cap by as much. Answers how many.
    pub fn give_back(
        &mut self,
        frames: u32,
        mechanism: &mut impl Mechanism,
    ) -> Result<u32, Shortage> {
        // Not by way of new frames.
        self.cap_frames = self.cap_frames.min(self.live_frames);
        let taken = self.take_frames(frames, &[], true, mechanism)?;
        self.free.extend(taken);
        let given = self.release_free(mechanism);
        self.cap_frames = self.cap_frames.min(self.live_frames);
        Ok(given)
    }

    /// Makes `id` resident for as long as it lives. `true`: it was not before.
    pub fn pin(&mut self, id: ChunkId, mechanism: &mut impl Mechanism) -> Result<bool, Shortage> {
        if self.chunk(id).place != Place::Resident {
            self.promote(id, mechanism)?;
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
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        self.operation += 1;
        for &(id, _) in touches {
            self.chunk_mut(id).holds += 1;
        }
        let outcome = self.make_present(touches, mechanism);
        if let Err(shortage) = outcome {
            self.release(touches);
            return Err(shortage);
        }
        for &(id, effect) in touches {
            self.record(id);
            let operation = self.operation;
            let chunk = self.chunk_mut(id);
            chunk.touched_at = operation;
            if effect == Effect::Write {
                chunk.undefined = false;
                if chunk.host == HostCopy::Valid {
                    chunk.host = HostCopy::Stale;
                }
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

    fn record(&mut self, id: ChunkId) {
        let operation = self.operation;
        let streamed = self.is_streamed(id);
        self.history.record_touch(id, operation);
        // One token per burst: consecutive operations on a chunk are one use.
        if self.chunk(id).touched_at + 1 >= operation {
            return;
        }
        // What comes round far more often than streamed chunks do (activations
        // that happen to be streamed) says nothing about where we are.
        let now = self.history.len();
        let interval = now - std::mem::replace(&mut self.chunk_mut(id).token_at, now);
        if !streamed || interval < u64::from(self.streamed_chunks / 4) {
            self.history.record_plain(id, operation);
            return;
        }
        let chunks = &self.chunks;
        let is_streamed = |token: ChunkId| {
            chunks.get(token as usize).and_then(Option::as_ref).is_some_and(|c| c.place != Place::Resident)
        };
        if !self.history.record_landmark(id, operation, is_streamed) {
            self.epoch += 1;
            self.ahead = self.history.cursor().unwrap_or(0);
        }
    }

    fn make_present(
        &mut self,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let mut streamed_frames = 0;
        let mut absent = 0u32;
        for &(id, _) in touches {
            let chunk = self.chunk(id);
            if chunk.place != Place::Resident {
                streamed_frames += chunk.frames;
                absent += u32::from(!chunk.present());
            }
        }
        if streamed_frames == 0 {
            return Ok(());
        }
        let streamed = touches.iter().filter(|(id, _)| self.is_streamed(*id)).count() as u64;
        self.counters.streamed_touches += streamed;
        self.counters.hits += streamed - u64::from(absent);
        if absent == 0 {
            self.largest_operation = self.largest_operation.max(streamed_frames);
            return Ok(());
        }
        self.grow_ring(streamed_frames, touches, mechanism)?;
        for &(id, _) in touches {
            if self.chunk(id).place == Place::Unmapped {
                self.attach(id, touches, mechanism)?;
            } else if !self.chunk(id).present() && self.overlaps_any(id, touches) {
                self.relocate(id, touches, mechanism)?;
            }
        }
        for &(id, _) in touches {
            if !self.chunk(id).present() {
                self.fetch(id, true, mechanism)?;
            }
        }
        self.largest_operation = self.largest_operation.max(streamed_frames);
        Ok(())
    }

    // --- the ring ----------------------------------------------------------

    /// Ring frames of `id`, whose alias begins at `at`.
    fn ring_range(&self, at: u32, frames: u32) -> impl Iterator<Item = usize> + use<> {
        let length = self.ring.len() as u32;
        (0..frames).map(move |index| ((at + index) % length) as usize)
    }

    /// Whether the range `[at, at + frames)` of the ring meets `other`'s.
    fn ranges_meet(&self, at: u32, frames: u32, other: ChunkId) -> bool {
        let Place::Ring { at: other_at, .. } = self.chunk(other).place else { return false };
        let length = self.ring.len() as u32;
        let from = |a: u32, b: u32| (b + length - a) % length;
        from(at, other_at) < frames || from(other_at, at) < self.chunk(other).frames
    }

    fn overlaps_any(&self, id: ChunkId, touches: &[(ChunkId, Effect)]) -> bool {
        let Place::Ring { at, .. } = self.chunk(id).place else { return false };
        let frames = self.chunk(id).frames;
        touches.iter().any(|&(other, _)| other != id && self.ranges_meet(at, frames, other))
    }

    /// At least `frames` frames in the ring, taken from residents that
    /// `touches` does not name. The first ring is a fraction of the memory.
    fn grow_ring(
        &mut self,
        frames: u32,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let present = self.ring.len() as u32;
        if present >= frames {
            return Ok(());
        }
        let comfortable = if present == 0 { (frames * 2).max(self.cap_frames / 4) } else { frames };
        // The wish first; if something in use makes it too much, the need.
        let taken = match self.take_frames(comfortable - present, touches, false, mechanism) {
            Err(Shortage::Device { .. } | Shortage::Host) if comfortable > frames => {
                self.take_frames(frames - present, touches, false, mechanism)?
            }
            other => other?,
        };
        if present > 0 {
            // Chunks that wrapped around the old end must be mapped afresh.
            let wrapped: Vec<ChunkId> = self
                .ids()
                .filter(|&id| {
                    let chunk = self.chunk(id);
                    matches!(chunk.place, Place::Ring { at, .. } if at + chunk.frames > present)
                })
                .collect();
            // Those of the present operation are held once, by it.
            let own = |id: ChunkId| u32::from(touches.iter().any(|&(touched, _)| touched == id));
            if wrapped.iter().any(|&id| self.chunk(id).holds > own(id)) {
                self.free.extend(taken);
                return Err(Shortage::Busy);
            }
            for &id in &wrapped {
                if let Err(shortage) = self.detach(id, mechanism) {
                    self.free.extend(taken);
                    return Err(shortage);
                }
            }
        }
        self.ring.extend(taken);
        self.occupants.resize(self.ring.len(), None);
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Gives the unmapped `id` an alias that meets no other chunk of `touches`.
    fn attach(
        &mut self,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let frames = self.chunk(id).frames;
        let Some(at) = self.find_range(frames, id, touches) else {
            return self.repack(touches, mechanism);
        };
        self.map_alias(id, at, mechanism)?;
        self.ring_cursor = (at + frames) % self.ring.len() as u32;
        self.counters.layout_changes += 1;
        self.unplanned_changes += 1;
        Ok(())
    }

    /// First range from the cursor on that meets no chunk of `touches` but `id`.
    fn find_range(&self, frames: u32, id: ChunkId, touches: &[(ChunkId, Effect)]) -> Option<u32> {
        let length = self.ring.len() as u32;
        (0..length).map(|step| (self.ring_cursor + step) % length).find(|&at| {
            frames <= length
                && touches
                    .iter()
                    .all(|&(other, _)| other == id || !self.ranges_meet(at, frames, other))
        })
    }

    fn map_alias(
        &mut self,
        id: ChunkId,
        at: u32,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        // Host memory exists before a chunk enters the ring: what is fetched
        // can always be evicted.
        if mechanism.reserve_host(id).is_err() {
            return Err(Shortage::Host);
        }
        if self.chunk(id).host == HostCopy::Absent {
            self.chunk_mut(id).host = HostCopy::Stale;
        }
        let frames = self.chunk(id).frames;
        let aliases: Vec<FrameId> =
            self.ring_range(at, frames).map(|index| self.ring[index]).collect();
        if mechanism.map(id, &aliases).is_err() {
            return Err(self.device_shortage(frames));
        }
        self.chunk_mut(id).place = Place::Ring { at, present: false };
        Ok(())
    }

    /// Moves the absent `id` out of the way of the other chunks of `touches`.
    fn relocate(
        &mut self,
        id: ChunkId,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        self.detach(id, mechanism)?;
        self.attach(id, touches, mechanism)
    }

    /// Lays all streamed chunks of `touches` side by side: the last resort
    /// when the gaps between them are too small, though their sum is not.
    fn repack(
        &mut self,
        touches: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        for &(id, _) in touches {
            if matches!(self.chunk(id).place, Place::Ring { .. }) {
                if self.chunk(id).holds > 1 {
                    return Err(Shortage::Busy);
                }
                self.detach(id, mechanism)?;
            }
        }
        let mut at = 0;
        for &(id, _) in touches {
            if self.chunk(id).place == Place::Unmapped {
                self.map_alias(id, at, mechanism)?;
                at += self.chunk(id).frames;
            }
        }
        self.ring_cursor = at % self.ring.len() as u32;
        self.counters.layout_changes += 1;
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Takes `id`'s alias away; its content, if present, goes to the host.
    fn detach(&mut self, id: ChunkId, mechanism: &mut impl Mechanism) -> Result<(), Shortage> {
        self.clear_content(id, mechanism)?;
        mechanism.retire(id);
        mechanism.unmap(id);
        self.chunk_mut(id).place = Place::Unmapped;
        Ok(())
    }

    /// After this the bytes of `id` in the ring may be overwritten.
    fn clear_content(&mut self, id: ChunkId, mechanism: &mut impl Mechanism) -> Result<(), Shortage> {
        let chunk = self.chunk(id);
        let Place::Ring { at, present: true } = chunk.place else { return Ok(()) };
        if chunk.dirty() {
            self.write_back(id, mechanism)?;
        }
        mechanism.displace(id);
        let frames = self.chunk(id).frames;
        for index in self.ring_range(at, frames) {
            self.occupants[index] = None;
        }
        self.chunk_mut(id).place = Place::Ring { at, present: false };
        Ok(())
    }

    fn write_back(&mut self, id: ChunkId, mechanism: &mut impl Mechanism) -> Result<(), Shortage> {
        if mechanism.reserve_host(id).is_err() {
            return Err(Shortage::Host);
        }
        mechanism.write_back(id);
        self.counters.write_backs += 1;
        self.chunk_mut(id).host = HostCopy::Valid;
        Ok(())
    }

    /// Brings the content of the attached, absent `id` into the ring.
    fn fetch(
        &mut self,
        id: ChunkId,
        demanded: bool,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let Place::Ring { at, .. } = self.chunk(id).place else {
            unreachable!("only attached chunks are fetched")
        };
        let frames = self.chunk(id).frames;
        for index in self.ring_range(at, frames) {
            let Some(occupant) = self.occupants[index] else { continue };
            if self.chunk(occupant).holds > 0 {
                return Err(Shortage::Busy);
            }
            self.clear_content(occupant, mechanism)?;
        }
        let content = !self.chunk(id).undefined;
        mechanism.fetch(id, content, demanded);
        self.fetched_at = self.history.len();
        if demanded {
            self.counters.demand_fetches += 1;
        } else {
            self.counters.prefetches += 1;
        }
        for index in self.ring_range(at, frames) {
            self.occupants[index] = Some(id);
        }
        self.chunk_mut(id).place = Place::Ring { at, present: true };
        Ok(())
    }

    // --- frames ------------------------------------------------------------

    fn device_shortage(&self, needed_frames: u32) -> Shortage {
        Shortage::Device { needed_frames, cap_frames: self.cap_frames }
    }

    /// `count` frames without owner: free ones, new ones, those of residents
    /// that `keep` does not name, least recently used first, and last, if
    /// `from_ring`, those of the ring beyond what the largest operation needs.
    fn take_frames(
        &mut self,
        count: u32,
        keep: &[(ChunkId, Effect)],
        from_ring: bool,
        mechanism: &mut impl Mechanism,
    ) -> Result<Vec<FrameId>, Shortage> {
        // Nothing is moved for what cannot be met.
        if count > self.free.len() as u32 && count > self.attainable(keep, from_ring) {
            return Err(self.device_shortage(count));
        }
        let mut busy = false;
        let mut host_full = false;
        while (self.free.len() as u32) < count {
            if self.live_frames < self.cap_frames {
                match mechanism.create_frame() {
                    Ok(frame) => {
                        self.free.push(frame);
                        self.live_frames += 1;
                        continue;
                    }
                    // The card has less than the budget says.
                    Err(Refused) => self.cap_frames = self.live_frames,
                }
            }
            let missing = count - self.free.len() as u32;
            match self.demote_some(missing, keep, mechanism) {
                Ok(()) => continue,
                Err(Shortage::Busy) => busy = true,
                Err(Shortage::Host) => host_full = true,
                Err(Shortage::Device { .. }) => {}
            }
            if from_ring {
                match self.shrink_ring(missing, mechanism) {
                    Ok(()) => continue,
                    Err(Shortage::Busy) => busy = true,
                    Err(Shortage::Host) => host_full = true,
                    Err(Shortage::Device { .. }) => {}
                }
            }
            return Err(if busy {
                Shortage::Busy
            } else if host_full {
                Shortage::Host
            } else {
                self.device_shortage(count)
            });
        }
        Ok(self.free.split_off(self.free.len() - count as usize))
    }

    /// Frames that [`Self::take_frames`] could bring together at the most.
    fn attainable(&self, keep: &[(ChunkId, Effect)], from_ring: bool) -> u32 {
        let kept = |id: ChunkId| keep.iter().any(|&(k, _)| k == id);
        let residents: u32 = self
            .ids()
            .map(|id| (id, self.chunk(id)))
            .filter(|&(id, chunk)| chunk.place == Place::Resident && !chunk.pinned && !kept(id))
            .map(|(_, chunk)| chunk.frames)
            .sum();
        let spare_ring = (self.ring.len() as u32).saturating_sub(self.largest_operation);
        self.free.len() as u32
            + self.cap_frames.saturating_sub(self.live_frames)
            + residents
            + if from_ring { spare_ring } else { 0 }
    }

    /// Demotes least recently used residents until `frames` more are free.
    /// `Ok`: at least one was demoted.
    fn demote_some(
        &mut self,
        frames: u32,
        keep: &[(ChunkId, Effect)],
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let kept = |id: ChunkId| keep.iter().any(|&(k, _)| k == id);
        let mut busy = false;
        let mut candidates: Vec<ChunkId> = self
            .ids()
            .filter(|&id| {
                let chunk = self.chunk(id);
                let movable = chunk.place == Place::Resident && !chunk.pinned && !kept(id);
                busy |= movable && chunk.holds > 0;
                movable && chunk.holds == 0
            })
            .collect();
        candidates.sort_by_key(|&id| (!self.chunk(id).undefined, self.chunk(id).touched_at));
        mechanism.about_to_evict();
        // All copies are queued before the first is waited for.
        let mut victims = Vec::new();
        let mut gained = 0;
        let mut host_full = false;
        for id in candidates {
            if gained >= frames {
                break;
            }
            if self.chunk(id).dirty() && self.write_back(id, mechanism).is_err() {
                host_full = true;
                continue;
            }
            gained += self.chunk(id).frames;
            victims.push(id);
        }
        if victims.is_empty() {
            return Err(if busy {
                Shortage::Busy
            } else if host_full {
                Shortage::Host
            } else {
                self.device_shortage(frames)
            });
        }
        for id in victims {
            mechanism.retire(id);
            mechanism.unmap(id);
            let chunk = self.chunk_mut(id);
            chunk.place = Place::Unmapped;
            let own = std::mem::take(&mut chunk.own);
            self.free.extend(own);
            self.counters.demotions += 1;
            self.unplanned_changes += 1;
        }
        self.count_streamed();
        Ok(())
    }

    /// Takes up to `frames` frames off the end of the ring.
    fn shrink_ring(
        &mut self,
        frames: u32,
        mechanism: &mut impl Mechanism,
    ) -> Result<(), Shortage> {
        let length = self.ring.len() as u32;
        let floor = self.largest_operation;
        if length <= floor {
            return Err(self.device_shortage(frames));
        }
        let shorter = length.saturating_sub(frames).max(floor);
        let affected: Vec<ChunkId> = self
            .ids()
            .filter(|&id| {
                let chunk = self.chunk(id);
                matches!(chunk.place, Place::Ring { at, .. } if at + chunk.frames > shorter)
            })
            .collect();
        if affected.iter().any(|&id| self.chunk(id).holds > 0) {
            return Err(Shortage::Busy);
        }
        for id in affected {
            self.detach(id, mechanism)?;
        }
        self.free.extend(self.ring.drain(shorter as usize..));
        self.occupants.truncate(shorter as usize);
        self.ring_cursor = 0;
        self.unplanned_changes += 1;
        Ok(())
    }

    /// Gives `id` frames of its own, with its content.
    fn promote(&mut self, id: ChunkId, mechanism: &mut impl Mechanism) -> Result<(), Shortage> {
        let frames = self.chunk(id).frames;
        if let Place::Ring { .. } = self.chunk(id).place {
            // Another thread's launch on it is not queued yet, perhaps.
            if self.chunk(id).holds > 0 {
                return Err(Shortage::Busy);
            }
            // Before frames are looked for: the end of the ring may go, and
            // must not be kept by the very chunk that leaves it.
            self.detach(id, mechanism)?;
        }
        let own = self.take_frames(frames, &[], true, mechanism)?;
        if mechanism.map(id, &own).is_err() {
            self.free.extend(own);
            return Err(self.device_shortage(frames));
        }
        let content = !self.chunk(id).undefined;
        mechanism.fetch(id, content, true);
        let chunk = self.chunk_mut(id);
        chunk.own = own;
        chunk.place = Place::Resident;
        self.count_streamed();
        Ok(())
    }

    // --- prediction --------------------------------------------------------

    /// Submits the copies that the prediction asks for and the ring has room for.
    pub fn look_ahead(&mut self, mechanism: &mut impl Mechanism) {
        if self.ring.is_empty() {
            return;
        }
        let Some(cursor) = self.history.cursor() else {
            return self.look_ahead_by_birth(mechanism);
        };
        self.ahead = self.ahead.max(cursor);
        while self.ahead < self.history.len() {
            let Some(id) = self.history.token(self.ahead) else { break };
            let living = self.chunks.get(id as usize).and_then(Option::as_ref);
            if living.is_some_and(|chunk| chunk.place != Place::Resident) {
                let expected = Some((self.epoch, self.ahead));
                if !self.chunk(id).present() {
                    if !self.may_prefetch(id, cursor) {
                        break;
                    }
                    // Attach only where that waits for nothing: when unmapped.
                    if self.chunk(id).place == Place::Unmapped
                        && !self.attach_ahead(id, cursor, mechanism)
                    {
                        break;
                    }
                    if self.fetch(id, false, mechanism).is_err() {
                        break;
                    }
                }
                self.chunk_mut(id).expected = expected;
            }
            self.ahead += 1;
        }
    }

    /// Whether `id`'s content may go under ring frames that others still need.
    fn evictable(&self, occupant: ChunkId, cursor: Position) -> bool {
        let chunk = self.chunk(occupant);
        let awaited = chunk
            .expected
            .is_some_and(|(epoch, position)| epoch == self.epoch && position >= cursor);
        // What the present operation touched may well be touched by the next.
        chunk.holds == 0 && !awaited && chunk.touched_at < self.operation
    }

    fn may_prefetch(&self, id: ChunkId, cursor: Position) -> bool {
        let chunk = self.chunk(id);
        let Place::Ring { at, .. } = chunk.place else { return true };
        self.range_evictable(at, chunk.frames, cursor)
    }

    fn range_evictable(&self, at: u32, frames: u32, cursor: Position) -> bool {
        self.ring_range(at, frames)
            .filter_map(|index| self.occupants[index])
            .all(|occupant| self.evictable(occupant, cursor))
    }

    /// Attaches the unmapped `id` at the ring's cursor, if nothing there is needed.
    fn attach_ahead(
        &mut self,
        id: ChunkId,
        cursor: Position,
        mechanism: &mut impl Mechanism,
    ) -> bool {
        let frames = self.chunk(id).frames;
        let length = self.ring.len() as u32;
        let at = self.ring_cursor;
        if frames > length || !self.range_evictable(at, frames, cursor) {
            return false;
        }
        if self.map_alias(id, at, mechanism).is_err() {
            return false;
        }
        self.ring_cursor = (at + frames) % length;
        self.counters.layout_changes += 1;
        self.unplanned_changes += 1;
        true
    }

    /// With nothing learned yet, what was allocated after the chunk touched
    /// last is likely to be used next.
    fn look_ahead_by_birth(&mut self, mechanism: &mut impl Mechanism) {
        const CHUNKS_AHEAD: usize = 2;
        let Some(last) = self.history.len().checked_sub(1).and_then(|p| self.history.token(p)) else {
            return;
        };
        let operation = self.operation;
        let next: Vec<ChunkId> = self
            .chunks
            .iter()
            .enumerate()
            .skip(last as usize + 1)
            .filter_map(|(id, chunk)| Some((id as ChunkId, chunk.as_ref()?)))
            .filter(|(_, chunk)| chunk.place != Place::Resident && !chunk.undefined)
            .take(CHUNKS_AHEAD)
            .map(|(id, _)| id)
            .collect();
        for id in next {
            if self.chunk(id).present() {
                continue;
            }
            // Recently touched or not yet used: leave it where it is.
            let cold = |occupant: ChunkId| {
                let chunk = self.chunk(occupant);
                chunk.holds == 0
                    && chunk.touched_at + 4 < operation
                    && chunk.expected.is_none_or(|(epoch, _)| epoch != self.epoch)
            };
            let at = match self.chunk(id).place {
                Place::Ring { at, .. } => at,
                _ => self.ring_cursor,
            };
            let frames = self.chunk(id).frames;
            let free = frames <= self.ring.len() as u32
                && self.ring_range(at, frames).filter_map(|i| self.occupants[i]).all(cold);
            if !free
                || (self.chunk(id).place == Place::Unmapped
                    && !self.attach_ahead(id, Position::MAX, mechanism))
                || self.fetch(id, false, mechanism).is_err()
            {
                return;
            }
            let epoch = self.epoch;
            self.chunk_mut(id).expected = Some((epoch, Position::MAX));
        }
    }

    // --- plans -------------------------------------------------------------

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
    fn operations_of_last(&self, period: u64, items: &[Item]) -> Operations {
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
    fn items_of_last(&self, period: u64, near: u32) -> Vec<Item> {
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

    fn carry_out(
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

    // --- invariants --------------------------------------------------------

    /// Panics unless the module's invariants hold. For tests and debug builds.
    pub fn check(&self) {
        let owned: usize = self.chunks.iter().flatten().map(|chunk| chunk.own.len()).sum();
        assert_eq!(self.live_frames as usize, self.free.len() + owned + self.ring.len());
        assert_eq!(self.ring.len(), self.occupants.len());
        let streamed = self.chunks.iter().flatten().filter(|c| c.place != Place::Resident).count();
        assert_eq!(self.streamed_chunks as usize, streamed);
        for id in self.ids() {
            let chunk = self.chunk(id);
            let held = self.occupants.iter().filter(|o| **o == Some(id)).count() as u32;
            match chunk.place {
                Place::Resident => assert_eq!((chunk.own.len() as u32, held), (chunk.frames, 0)),
                Place::Ring { present: true, .. } => assert_eq!(held, chunk.frames),
                Place::Ring { present: false, .. } | Place::Unmapped => assert_eq!(held, 0),
            }
            assert!(
                chunk.present() || chunk.undefined || chunk.host == HostCopy::Valid,
                "chunk {id} lost its content"
            );
        }
    }
}
