//! Memory that the device may not touch for now (`AUTOOFFLOAD_VERIFY`). The
//! mappings stay; what is queued there opens the chunk first, so only operations
//! that were not seen to use it meet a fault.

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::Streamer;

use super::DeviceBackend;
use crate::driver::abi::*;
use crate::engine::state::warn_once;

impl DeviceBackend {
    /// Takes the device's access to all that is absent away, and gives access to
    /// what is present again. Waits for the device where anything was absent that
    /// was not shut before: copies of it may be under way.
    ///
    /// Errors: the driver's, of a wait or of giving access.
    pub fn shut_absent(&mut self, streamer: &Streamer) -> Result<()> {
        let (absent, present): (Vec<_>, Vec<_>) =
            self.shut.iter().copied().partition(|&id| streamer.is_absent(id));
        self.shut = absent;
        for id in present {
            self.set_open(id, true)?;
        }
        let new: Vec<ChunkId> = streamer.absent().filter(|id| !self.shut.contains(id)).collect();
        if !new.is_empty() {
            self.driver.ctx_synchronize()?;
        }
        for id in new {
            if let Err(code) = self.set_open(id, false) {
                warn_once(format!(
                    "device {}: this driver does not take access to memory away ({code}): \
                     AUTOOFFLOAD_VERIFY finds nothing here",
                    self.device
                ));
                break;
            }
            self.shut.push(id);
        }
        Ok(())
    }

    /// Before anything of ours, or of the program, uses `chunk`.
    #[inline]
    pub fn open(&mut self, chunk: ChunkId) {
        if !self.shut.is_empty()
            && let Some(at) = self.shut.iter().position(|&id| id == chunk)
        {
            self.shut.swap_remove(at);
            let opened = self.set_open(chunk, true);
            self.order.note(opened);
        }
    }

    /// First byte and bytes of what is shut.
    pub fn what_is_shut(&self) -> impl Iterator<Item = (DevicePtr, usize)> + '_ {
        let backing = |&id: &ChunkId| self.backings[id as usize].as_ref();
        self.shut.iter().filter_map(backing).map(|backing| (backing.base, backing.bytes))
    }

    fn set_open(&mut self, chunk: ChunkId, open: bool) -> Result<()> {
        let (driver, device) = (self.driver, self.device);
        let backing = self.backing(chunk);
        let (base, bytes) = (backing.base, backing.frames as usize * crate::engine::FRAME_BYTES);
        if open {
            return driver.mem_set_access(base, bytes, device);
        }
        driver.mem_deny_access(base, bytes, device)
    }
}
