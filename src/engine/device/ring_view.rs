//! A second mapping of the ring's frames, in the order of its slots: there,
//! chunks that lie on consecutive slots are contiguous, so one copy fills them
//! all, or brings all of them to the host.
//!
//! - What is written here is read at the chunks' own addresses only behind the
//!   copy's event, and the other way round: aliases are ordered by events
//!   (docs/design.md, "Map once, copy often").
//! - A frame is taken out when it leaves the ring, for a mapping keeps its memory;
//!   while copies through here are queued, all of the view is given up, unmapped
//!   when they are over, and mapped anew elsewhere. It happens when the ring
//!   changes, so with a plan.
//! - Invariant: `mapped` is a prefix of `slots`.
//!
//! A mapping takes no device memory. The view is reserved outside of the arena,
//! so no search for addresses takes it for managed memory; it is mapped with
//! the first copy that needs it, because many programs have none.

use autooffload_core::memory::FrameId;

use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::FRAME_BYTES;
use crate::engine::users::Point;

/// A view that was given up.
struct Former {
    base: DevicePtr,
    frames: usize,
    /// Behind the copies through it.
    queued: [Point; 2],
}

#[derive(Default)]
pub struct RingView {
    base: Option<DevicePtr>,
    /// Frames that fit behind `base`.
    room: usize,
    /// The ring's frames, by slot.
    slots: Vec<FrameId>,
    /// Those that are mapped.
    mapped: Vec<FrameId>,
    /// Copies through here may be queued.
    pub used: bool,
    /// The driver refused: there is no view.
    refused: bool,
    former: Vec<Former>,
    /// Where former ones were.
    unused: Vec<DevicePtr>,
}

impl RingView {
    /// The ring's frames from now on. Answers from which slot on mappings
    /// are to be given up first.
    pub fn announce(&mut self, slots: &[FrameId]) -> Option<usize> {
        self.slots.clear();
        self.slots.extend_from_slice(slots);
        let kept = self.mapped.iter().zip(slots).take_while(|(a, b)| a == b).count();
        (kept < self.mapped.len()).then_some(kept)
    }

    /// The slot of a frame that is mapped.
    pub fn slot_of(&self, frame: FrameId) -> Option<usize> {
        self.mapped.iter().position(|&mapped| mapped == frame)
    }

    /// Gives up the mappings from `slot` on, or all of them where copies through
    /// here may be `queued`.
    pub fn give_up(
        &mut self,
        driver: &Driver,
        slot: usize,
        queued: Option<[Point; 2]>,
    ) -> Result<()> {
        let Some(queued) = queued else { return self.cut(driver, slot) };
        if let Some(base) = self.base.take() {
            self.former.push(Former { base, frames: self.mapped.len(), queued });
        }
        self.mapped.clear();
        self.used = false;
        Ok(())
    }

    #[inline]
    pub fn has_former(&self) -> bool {
        !self.former.is_empty()
    }

    /// Unmaps the former views through which no copy is queued any more.
    pub fn unmap_former(&mut self, driver: &Driver, is_over: impl Fn(Point) -> bool) -> Result<()> {
        let mut outcome = Ok(());
        let over = |former: &mut Former| former.queued.iter().all(|&point| is_over(point));
        for Former { base, frames, .. } in self.former.extract_if(.., over) {
            outcome = outcome.and(driver.mem_unmap(base, frames * FRAME_BYTES));
            self.unused.push(base);
        }
        outcome
    }

    /// Unmaps the slots from `slot` on, which no queued copy uses.
    fn cut(&mut self, driver: &Driver, slot: usize) -> Result<()> {
        let gone = self.mapped.len() - slot;
        self.mapped.truncate(slot);
        let Some(base) = self.base.filter(|_| gone > 0) else { return Ok(()) };
        driver.mem_unmap(base + (slot * FRAME_BYTES) as u64, gone * FRAME_BYTES)
    }

    /// The address of `frames`, if they lie on consecutive slots from `slot`
    /// on and the driver gives a view. `handle`: a frame's.
    pub fn address(
        &mut self,
        driver: &Driver,
        device: Device,
        slot: u32,
        frames: impl ExactSizeIterator<Item = FrameId>,
        handle: impl Fn(FrameId) -> MemHandle,
    ) -> Option<DevicePtr> {
        let range = slot as usize..slot as usize + frames.len();
        let there = self.slots.get(range.clone())?;
        if !there.iter().copied().eq(frames) {
            return None;
        }
        if range.end > self.mapped.len() && !self.map(driver, device, handle) {
            return None;
        }
        Some(self.base? + (range.start * FRAME_BYTES) as u64)
    }

    /// Maps all slots. `false`: the driver refuses.
    #[cold]
    fn map(
        &mut self,
        driver: &Driver,
        device: Device,
        handle: impl Fn(FrameId) -> MemHandle,
    ) -> bool {
        if self.refused {
            return false;
        }
        let outcome = self.try_map(driver, device, handle);
        if let Err(code) = outcome {
            log::warn!(
                "device {device}: no second mapping of the ring ({code}): small neighbours are \
                 copied one by one"
            );
            self.refused = true;
        }
        outcome.is_ok()
    }

    fn try_map(
        &mut self,
        driver: &Driver,
        device: Device,
        handle: impl Fn(FrameId) -> MemHandle,
    ) -> Result<()> {
        let base = match self.base.or_else(|| self.unused.pop()) {
            Some(base) => *self.base.insert(base),
            None => {
                // No ring is larger than the card.
                let (_, total) = driver.mem_get_info()?;
                self.room = total.div_ceil(FRAME_BYTES);
                *self.base.insert(driver.mem_address_reserve(self.room * FRAME_BYTES, FRAME_BYTES)?)
            }
        };
        if self.slots.len() > self.room {
            return Err(CuResult::INVALID_VALUE);
        }
        let first = self.mapped.len();
        let address = |slot: usize| base + (slot * FRAME_BYTES) as u64;
        let outcome = self.slots[first..].iter().try_for_each(|&frame| {
            driver.mem_map(address(self.mapped.len()), FRAME_BYTES, handle(frame))?;
            self.mapped.push(frame);
            Ok(())
        });
        let bytes = (self.mapped.len() - first) * FRAME_BYTES;
        let outcome = outcome.and_then(|()| driver.mem_set_access(address(first), bytes, device));
        if outcome.is_err() {
            let _ = self.cut(driver, first);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_where_it_is_stays_mapped() {
        let mut view = RingView { mapped: vec![4, 7, 9], ..RingView::default() };
        assert_eq!(view.announce(&[4, 7, 9, 2]), None);
        assert_eq!(view.announce(&[4, 7]), Some(2));
        assert_eq!(view.announce(&[4, 8, 9]), Some(1));
        assert_eq!(view.announce(&[]), Some(0));
        assert_eq!(view.slot_of(9), Some(2));
        view.mapped.truncate(1);
        assert_eq!((view.slot_of(9), view.announce(&[5])), (None, Some(0)));
    }
}
