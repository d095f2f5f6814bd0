//! What a [`super::Streamer`] acts through, and what it is told.
//!
//! Not here: what is done with it, over CUDA (the engine) or over a model of
//! memory (the tests, the laboratory).

use std::ops::Range;

use crate::address_map::ChunkId;
use crate::plan::Place;

/// A physical frame, as the ops numbers it.
pub type FrameId = u32;

/// The device has no frame to give, or the host no memory to keep a chunk in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What of a chunk's uses is not over yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pending {
    #[default]
    Nothing,
    /// A stream has yet to use it, and gets there by itself.
    Uses,
    /// A stream has yet to use it that waits for the host, or for a word in
    /// memory: it may stay so until the program goes on.
    HeldUp,
}

/// Why chunks could not be made present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// They do not fit, whatever is evicted.
    /// `needed_frames`: with everything that cannot move.
    Device { needed_frames: u32, cap_frames: u32 },
    /// They would fit, but what must go has no host memory to go to.
    Host,
    /// Something that must go is in another thread's launch right now: let
    /// that thread finish, then ask again. Nothing was lost.
    Busy,
    /// Queued work still uses what must go ([`MemoryOps::retire`]): let some of
    /// it end, then ask again. Copies that are queued need not be queued twice.
    Unfinished,
}

/// What a [`Streamer`] can do to memory. All operations on one chunk take
/// effect in the order of the calls.
pub trait MemoryOps {
    /// A new physical frame. Called only below the cap.
    fn create_frame(&mut self) -> Result<FrameId, Refused>;
    /// A new frame of host memory, which kernels and copies reach over the link
    /// wherever it is mapped. It takes nothing of the device and does not count
    /// against the cap; it is numbered like any other.
    fn create_host_frame(&mut self) -> Result<FrameId, Refused>;
    /// Gives up a frame of either kind, which is mapped nowhere.
    fn release_frame(&mut self, frame: FrameId);
    /// Maps the unmapped `chunk` to `frames`, in order. The content is undefined.
    fn map(&mut self, chunk: ChunkId, frames: &[FrameId]) -> Result<(), Refused>;
    /// Unmaps `chunk`, which has retired.
    fn unmap(&mut self, chunk: ChunkId);
    /// Residents are about to lose their frames: launches that believe nothing
    /// would ever move begin no more, and those under way are known
    /// ([`Self::is_in_flight`]).
    fn about_to_evict(&mut self);
    /// Whether a launch that began before the first eviction still holds `chunk`.
    fn is_in_flight(&self, chunk: ChunkId) -> bool {
        let _ = chunk;
        false
    }
    /// The program gave up `chunk`'s content, and nobody took the chunk since.
    fn is_dead(&self, chunk: ChunkId) -> bool {
        let _ = chunk;
        false
    }
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
    /// Asked right after its write-back: whether `chunk` is found written each time.
    fn is_rewritten(&self, _chunk: ChunkId) -> bool {
        false
    }
    /// What of the uses of `chunk` is not over: taking frames from others first
    /// spares a wait, and may be the only way not to wait for ever.
    fn pending(&mut self, chunk: ChunkId) -> Pending {
        let _ = chunk;
        Pending::Nothing
    }
    /// Whether [`Self::pending`] answers [`Pending::HeldUp`] for any chunk.
    fn any_held_up(&mut self) -> bool {
        false
    }
    /// Whether all uses and copies of `chunk` are over; then they are forgotten.
    /// If not, it is remembered for whoever waits until some of it is.
    fn retire(&mut self, chunk: ChunkId) -> bool;
}

/// What an operation does to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Reads only (a copy out of it).
    Read,
    /// May write: everything a kernel receives, and copies into it.
    Write,
}
