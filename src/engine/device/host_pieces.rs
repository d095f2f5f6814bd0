//! The host memory of chunks, by pieces: made before something is copied out,
//! freed when nothing queued uses it any more.
//!
//! Not here: where the memory comes from (`host::store`, `host::shared_blocks`).

use std::ops::Range;
use std::sync::atomic::Ordering;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::Refused;
use autooffload_core::plan::Place;

use super::DeviceBackend;
use crate::engine::host::HostBuffer;
use crate::engine::users::Point;

/// Host memory of a run of frames of a chunk: small enough that giving it up
/// by whole pieces wastes little, large enough that copies are not cut short.
pub(super) struct HostPiece {
    pub(super) frames: Range<u32>,
    pub(super) buffer: HostBuffer,
    /// Frames that are in no need of it, a bit each from the first on; when
    /// all are, it is freed.
    unneeded: u64,
}

/// Frames of a piece at the most.
const PIECE_FRAMES: u32 = 32;

impl HostPiece {
    /// The bits of those of `frames` that are of this piece.
    pub(super) fn bits(&self, frames: &Range<u32>) -> u64 {
        let start = frames.start.clamp(self.frames.start, self.frames.end) - self.frames.start;
        let end = frames.end.clamp(self.frames.start, self.frames.end) - self.frames.start;
        (1u64 << end) - (1u64 << start.min(end))
    }
}

/// Host memory that nothing new will use, until what is queued is over.
pub(super) struct Leaving {
    pub(super) buffer: HostBuffer,
    /// Where both internal streams were when it was given up.
    queued: [Point; 2],
}

impl DeviceBackend {
    pub(super) fn reserve_pieces(
        &mut self,
        chunk: ChunkId,
        frames: Range<u32>,
        place: Option<Place>,
    ) -> std::result::Result<(), Refused> {
        self.free_leaving();
        // Some of it may be left of what was given up in part.
        let mut at = frames.start;
        for piece in &mut self.backing(chunk).host {
            piece.unneeded &= !piece.bits(&frames);
        }
        while at < frames.end {
            let backing = self.backing(chunk);
            if let Some(piece) = backing.host.iter().find(|piece| piece.frames.contains(&at)) {
                at = piece.frames.end;
                continue;
            }
            let next = backing.host.iter().map(|piece| piece.frames.start).filter(|&s| s > at);
            let end = next.min().unwrap_or(frames.end).min(frames.end).min(at + PIECE_FRAMES);
            let (_, bytes) = backing.span(&(at..end));
            let beside = place.and_then(|place| self.beside_others(place, &(at..end)));
            let Some(buffer) = beside.or_else(|| self.host_store.allocate(bytes)) else {
                // What was made for this serves nobody.
                self.release_pieces(chunk, frames);
                return Err(Refused);
            };
            self.backing(chunk).host.push(HostPiece { frames: at..end, buffer, unneeded: 0 });
            at = end;
        }
        Ok(())
    }

    pub(super) fn release_pieces(&mut self, chunk: ChunkId, frames: Range<u32>) {
        self.free_leaving();
        let backing = self.backing(chunk);
        for piece in &mut backing.host {
            piece.unneeded |= piece.bits(&frames);
        }
        let gone = |piece: &mut HostPiece| piece.unneeded == piece.bits(&piece.frames);
        let gone: Vec<HostPiece> = backing.host.extract_if(.., gone).collect();
        for piece in gone {
            self.leave(piece.buffer);
        }
    }

    /// Host memory at `place`, beside that of other chunks, while there is
    /// enough of it for everything.
    pub(super) fn beside_others(
        &mut self,
        place: Place,
        frames: &Range<u32>,
    ) -> Option<HostBuffer> {
        let (host_store, stats) = (self.host_store, self.stats);
        let (used_bytes, ..) = host_store.usage();
        let managed_bytes = stats.managed_bytes.load(Ordering::Relaxed);
        self.slabs.take(host_store, place, frames, managed_bytes.saturating_sub(used_bytes))
    }

    /// Frees `buffer` as soon as the copies that are queued are over.
    pub(super) fn leave(&mut self, buffer: HostBuffer) {
        self.leaving.push(Leaving { buffer, queued: self.order.copies_queued() });
    }

    /// Frees what [`Self::leave`] was asked to and nothing uses any more.
    #[inline]
    pub(in crate::engine) fn free_leaving(&mut self) {
        if !self.leaving.is_empty() || self.view.has_former() {
            self.free_some_leaving();
        }
    }

    #[cold]
    fn free_some_leaving(&mut self) {
        let Self { order, view, leaving, .. } = self;
        // In the order in which they were given up, which is that of their ends.
        let is_over = |leaving: &Leaving| leaving.queued.iter().all(|&point| order.is_over(point));
        let over = leaving.iter().take_while(|leaving| is_over(leaving)).count();
        let outcome = view.unmap_former(self.driver, |point| order.is_over(point));
        order.note(outcome);
        for Leaving { buffer, .. } in leaving.drain(..over) {
            self.host_store.free(buffer);
        }
    }

    /// Asks for what is leaving to be waited for, without the lock; `false`: nothing is.
    pub(in crate::engine) fn await_leaving(&mut self) -> bool {
        self.free_leaving();
        let Some(&Leaving { queued, .. }) = self.leaving.first() else { return false };
        self.order.is_unfinished(queued);
        true
    }
}
