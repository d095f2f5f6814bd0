//! Physical frames, and where they are mapped.
//!
//! `unmap` waits for nothing: the caller proves that no queued work still uses
//! the address (`order`).

use std::sync::atomic::Ordering;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::{FrameId, Refused};

use super::DeviceBackend;
use crate::driver::abi::*;
use crate::engine::FRAME_BYTES;
use crate::engine::state::{engine, warn_once};

/// A physical frame.
pub(super) struct Frame {
    pub(super) handle: MemHandle,
    /// It lies in the host, not on the device.
    pub(super) in_host: bool,
}

impl DeviceBackend {
    /// A number for a new frame.
    pub(super) fn number(&mut self, frame: Frame) -> FrameId {
        if let Some(id) = self.unused_ids.pop() {
            self.frames[id as usize] = frame;
            return id;
        }
        self.frames.push(frame);
        self.frames.len() as FrameId - 1
    }

    pub(super) fn new_frame(&mut self) -> std::result::Result<FrameId, Refused> {
        let handle = self.driver.mem_create(self.device, FRAME_BYTES).map_err(|_| Refused)?;
        Ok(self.number(Frame { handle, in_host: false }))
    }

    pub(super) fn new_host_frame(&mut self) -> std::result::Result<FrameId, Refused> {
        let store = self.host_store;
        // Memory of the host that the device reaches is page-locked.
        let node = store.pins().then(|| self.in_place.node(self.driver, self.device));
        let node = node.flatten().ok_or(Refused)?;
        // What is on its way out makes room.
        self.free_leaving();
        if !store.take_pinned(FRAME_BYTES) {
            return Err(Refused);
        }
        match self.driver.mem_create_in_host(node, FRAME_BYTES) {
            Ok(handle) => {
                self.stats.in_place_began(FRAME_BYTES);
                Ok(self.number(Frame { handle, in_host: true }))
            }
            Err(code) => {
                store.give_pinned_back(FRAME_BYTES);
                log::debug!("device {}: no more frames in the host ({code})", self.device);
                Err(Refused)
            }
        }
    }

    pub(super) fn give_frame_back(&mut self, frame: FrameId) {
        if let Some(slot) = self.view.slot_of(frame) {
            self.cut_view(slot);
        }
        let Frame { handle, in_host } = self.frames[frame as usize];
        let outcome = self.driver.mem_release(handle);
        self.order.note(outcome);
        self.frames[frame as usize].in_host = false;
        self.unused_ids.push(frame);
        if in_host {
            self.host_store.give_pinned_back(FRAME_BYTES);
            self.stats.in_place_ended(FRAME_BYTES);
        }
    }

    pub(super) fn map_frames(
        &mut self,
        chunk: ChunkId,
        frames: &[FrameId],
    ) -> std::result::Result<(), Refused> {
        let base = self.backing(chunk).base;
        let address = |index: usize| base + (index * FRAME_BYTES) as u64;
        let bytes = frames.len() * FRAME_BYTES;
        for (index, &frame) in frames.iter().enumerate() {
            let handle = self.frames[frame as usize].handle;
            if let Err(code) = self.driver.mem_map(address(index), FRAME_BYTES, handle) {
                warn_once(format!(
                    "mapping device memory failed ({code}): what needs it may run out of memory"
                ));
                if index > 0 {
                    let _ = self.driver.mem_unmap(base, index * FRAME_BYTES);
                }
                return Err(Refused);
            }
        }
        if let Err(code) = self.driver.mem_set_access(base, bytes, self.device) {
            warn_once(format!(
                "granting access to device memory failed ({code}): what needs it may run out of memory"
            ));
            let _ = self.driver.mem_unmap(base, bytes);
            return Err(Refused);
        }
        self.backing(chunk).placed = frames.to_vec();
        let mut peers =
            engine().map_or(0, |engine| engine.peers[self.device as usize].load(Ordering::Relaxed));
        while peers != 0 {
            self.grant(chunk, peers.trailing_zeros() as Device);
            peers &= peers - 1;
        }
        Ok(())
    }

    pub(super) fn unmap_frames(&mut self, chunk: ChunkId) {
        let backing = self.backing(chunk);
        let (base, bytes) = (backing.base, backing.frames as usize * FRAME_BYTES);
        self.backing(chunk).placed.clear();
        self.shut.retain(|&id| id != chunk);
        let outcome = self.driver.mem_unmap(base, bytes);
        self.order.note(outcome);
        self.order.forget(chunk);
    }

    /// Gives `accessor` access to the mapped chunk.
    pub fn grant(&mut self, id: ChunkId, accessor: Device) {
        let backing = self.backing(id);
        let (base, bytes) = (backing.base, backing.frames as usize * FRAME_BYTES);
        if let Err(code) = self.driver.mem_set_access(base, bytes, accessor) {
            warn_once(format!(
                "device {accessor} gets no access to memory of device {} ({code}): copies between them \
                 may fail; if they do, run with AUTOOFFLOAD=0",
                self.device
            ));
        }
    }
}
