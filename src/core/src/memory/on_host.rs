//! Frames of a chunk that are host memory, which kernels read in place: how
//! they come and go.
//!
//! They come with a plan, or with an operation that needs more than the device
//! may hold: what does not fit is read over the link. Slow, but right. It stays
//! there until a plan says otherwise, or it is freed: where one such operation
//! was, there are more, and each way back and forth is as long as reading it
//! once.
//!
//! Not here: what is cheaper there than anywhere else (`plan::in_place`).

use super::chunk::{self, ChunkState};
use super::{ChunkId, Effect, MemoryOps, Shortage, Streamer};

impl Streamer {
    /// After [`Self::touch`] of `touches` answered a shortage of the device's:
    /// moves ends of them to the host until the rest fits. `true`: then ask again.
    ///
    /// Errors: [`Shortage::Device`], of all of them, if the host has no such
    /// memory to give, or what would have to go must stay.
    pub fn fit_by_reading_in_place(
        &mut self,
        touches: &[(ChunkId, Effect)],
        ops: &mut impl MemoryOps,
    ) -> Result<bool, Shortage> {
        let shortage = self.device_shortage_of(touches);
        let mut moved = false;
        loop {
            let excess = self.whole_need(touches).saturating_sub(self.cap_frames);
            if excess == 0 {
                return Ok(moved);
            }
            // Rather what a kernel made, which does not stay for long.
            let largest = touches
                .iter()
                .map(|&(id, _)| id)
                .filter(|&id| !self.chunk(id).pinned && self.chunk(id).device_end() > 0)
                .max_by_key(|&id| {
                    let chunk = self.chunk(id);
                    (chunk.filled_at.is_none(), chunk.device_end())
                });
            let Some(id) = largest else { return Err(shortage) };
            let chunk = self.chunk(id);
            let host = chunk.on_host + excess.min(chunk.device_end());
            match self.end_to_host(id, host, ops) {
                Ok(()) => moved = true,
                Err(wait @ (Shortage::Busy | Shortage::Unfinished)) => return Err(wait),
                Err(Shortage::Host | Shortage::Device { .. }) => return Err(shortage),
            }
        }
    }

    /// The last `host` frames of `id` become host memory, which its next use
    /// fills; it is unmapped now.
    fn end_to_host(
        &mut self,
        id: ChunkId,
        host: u32,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        ops.about_to_evict();
        if ops.is_in_flight(id) {
            return Err(Shortage::Busy);
        }
        self.lift(id, host, ops)?;
        let first = self.chunk(id).frames - host;
        self.free_own(id, |index| index >= first);
        self.enter_host(id, host, ops)
    }

    /// The unmapped `id` keeps at most `host` frames on the host, and loses the
    /// others: their bytes are saved.
    pub(super) fn leave_host(&mut self, id: ChunkId, host: u32, ops: &mut impl MemoryOps) {
        let chunk = self.chunks[id as usize].as_mut().expect("a chunk that lives");
        let end = chunk.frames - host.min(chunk.on_host);
        for index in chunk.device_end()..end {
            let frame = chunk.take_own(index).expect("a frame on the host");
            ops.release_frame(frame);
            chunk.on_host -= 1;
            self.host_frames -= 1;
        }
    }

    /// The last `host` frames of the unmapped `id`, holes so far, become host
    /// memory, which awaits its content.
    pub(super) fn enter_host(
        &mut self,
        id: ChunkId,
        host: u32,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        let chunk = self.chunks[id as usize].as_mut().expect("a chunk that lives");
        while chunk.on_host < host {
            let index = chunk.device_end() - 1;
            debug_assert!(chunk.own[index as usize].is_none());
            let Ok(frame) = ops.create_host_frame() else {
                // What is there already stays, and is used.
                self.host_refused = true;
                return Err(Shortage::Host);
            };
            chunk.own[index as usize] = Some(frame);
            chunk.set_blank(index, true);
            chunk.on_host += 1;
            self.host_frames += 1;
        }
        Ok(())
    }

    /// Everything that `id` has on the host comes to the device when it is
    /// mapped next; it is unmapped now.
    pub(super) fn recall(&mut self, id: ChunkId, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        self.lift(id, 0, ops)?;
        self.leave_host(id, 0, ops);
        Ok(())
    }

    /// Unmaps `id`; what changes between device and host if its last `host`
    /// frames are to be there is saved.
    pub(super) fn lift(
        &mut self,
        id: ChunkId,
        host: u32,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        if self.chunk(id).holds > 0 {
            return Err(Shortage::Busy);
        }
        let crossing = self.chunk(id).crossing(host);
        if !self.chunk(id).mapped && !self.chunk(id).unsaved(crossing.clone()).is_empty() {
            // Nothing can be copied out of what is mapped nowhere.
            self.attach(id, &[(id, Effect::Read)], ops)?;
        }
        if self.chunk(id).mapped {
            self.save(id, crossing, ops)?;
            self.detach(id, ops)?;
        }
        self.moved_at = self.operation;
        self.count_layout_change(id);
        Ok(())
    }

    /// Frames on the host have their content, once filled: another copy of it
    /// in host memory is a waste.
    pub(super) fn drop_second_copies(&mut self, id: ChunkId, ops: &mut impl MemoryOps) {
        let ChunkState { on_host, frames, .. } = *self.chunk(id);
        if on_host == 0 {
            return;
        }
        let hosted = &self.chunk(id).hosted;
        for run in chunk::runs(frames - on_host..frames, |index| hosted[index as usize]) {
            ops.release_host(id, run.clone());
            let chunk = self.chunk_mut(id);
            run.for_each(|index| {
                chunk.hosted[index as usize] = false;
                chunk.saved[index as usize] = false;
            });
        }
    }
}
