//! How long the GPU takes for operations, by groups of them.
//!
//! A group lies between two timed events on one stream. It ends where something
//! else is touched, because the plan is as good as the times of its steps are
//! sharp, and before a wait for a copy, because stalls do not count. Groups are
//! read when they are long past, so reading never waits. What cannot be timed
//! is not: another stream, a capture, another context.
//!
//! Not here: which operations deserve it (the streamer says), stalls (`stall`).

use std::collections::VecDeque;
use std::ops::Range;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::Effect;

use super::timed_events::TimedEvents;
use crate::driver::Driver;
use crate::driver::abi::*;

/// Operations in a group at the most.
const OPERATIONS: u64 = 32;
/// Groups kept until they are over; the oldest are given up first.
const GROUPS: usize = 1024;

struct Group {
    start: CUevent,
    end: CUevent,
    operations: Range<u64>,
}

#[derive(Default)]
pub struct OperationTimer {
    /// Stream, event and first operation of the group under way.
    open: Option<(CUstream, CUevent, u64)>,
    /// Oldest first.
    ended: VecDeque<Group>,
    spare: TimedEvents,
    /// What the operation before touched.
    touched: Vec<ChunkId>,
}

impl OperationTimer {
    /// Before anything is queued for `operation` on `stream`, which touches
    /// `touches`; `waits`: it will be made to wait for a copy. Ends the group
    /// under way if it must.
    pub fn before(
        &mut self,
        driver: &Driver,
        stream: CUstream,
        operation: u64,
        touches: &[(ChunkId, Effect)],
        waits: bool,
    ) {
        let ids = || touches.iter().map(|&(id, _)| id);
        let same = self.touched.iter().copied().eq(ids());
        if !same {
            self.touched.clear();
            self.touched.extend(ids());
        }
        let Some((timed, start, first)) = self.open else { return };
        if timed != stream || operation <= first {
            return self.give_up();
        }
        if same && !waits && operation - first < OPERATIONS {
            return;
        }
        self.open = None;
        let Some(end) = self.spare.record(driver, stream) else {
            return self.spare.give_back([start]);
        };
        self.ended.push_back(Group { start, end, operations: first..operation });
        if self.ended.len() > GROUPS
            && let Some(oldest) = self.ended.pop_front()
        {
            self.spare.give_back([oldest.start, oldest.end]);
        }
    }

    /// After the waits of `operation` were queued, before itself is.
    pub fn after(&mut self, driver: &Driver, stream: CUstream, operation: u64) {
        if self.open.is_none() {
            self.open = self.spare.record(driver, stream).map(|start| (stream, start, operation));
        }
    }

    /// The oldest group that is over, with its time in ns.
    pub fn read(&mut self, driver: &Driver) -> Option<(Range<u64>, u64)> {
        let oldest = self.ended.front()?;
        let ms = driver.event_elapsed_ms(oldest.start, oldest.end).ok()?;
        let group = self.ended.pop_front()?;
        self.spare.give_back([group.start, group.end]);
        Some((group.operations, (f64::from(ms) * 1e6) as u64))
    }

    /// The group under way is not timed.
    pub fn give_up(&mut self) {
        if let Some((_, start, _)) = self.open.take() {
            self.spare.give_back([start]);
        }
    }

    /// Gives the events back.
    pub fn release(&mut self, driver: &Driver) {
        self.give_up();
        self.spare.give_back(self.ended.drain(..).flat_map(|group| [group.start, group.end]));
        self.spare.release(driver);
    }
}
