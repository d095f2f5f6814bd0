//! What stands in the way of a change of place: found under the device's lock,
//! waited for without it (`engine::waits`).

use std::time::{Duration, Instant};

use autooffload_core::address_map::ChunkId;

use super::{Copies, Order};
use crate::driver::abi::*;
use crate::engine::account::{WaitReason, What};
use crate::engine::state::hot;
use crate::engine::users::Point;
use crate::engine::waits::Awaited;

impl Order {
    /// Whether nothing queued uses `chunk`, now or `until` then; if so, that is
    /// forgotten. What does is remembered for [`Self::awaited`].
    pub fn are_uses_over(&mut self, chunk: ChunkId, until: Option<Instant>) -> bool {
        let Copies { fence, saved } = self.copies(chunk);
        let uses = self.users.uses(chunk, hot(chunk));
        // The copy to the host waited for the uses before it.
        let mut points = saved.into_iter().chain(uses).chain(fence);
        let left = points.find(|&point| match until {
            None => !self.is_over(point),
            Some(until) => {
                let limit = until.saturating_duration_since(Instant::now());
                !self.await_within(point, limit, self.reason)
            }
        });
        self.unfinished.extend(left);
        if left.is_none() {
            self.forget(chunk);
        }
        left.is_none()
    }

    /// Whether no use of `chunk` is queued and not over; another may come.
    pub fn is_unused(&mut self, chunk: ChunkId) -> bool {
        let uses = self.users.uses(chunk, hot(chunk));
        let left = uses.into_iter().find(|&point| !self.is_over(point));
        self.unfinished.extend(left);
        left.is_none()
    }

    /// Whether the content of `chunk` is there, likewise.
    pub fn content_is_there(&mut self, chunk: ChunkId) -> bool {
        let left = self.copies(chunk).fence.filter(|&fence| !self.users.is_over(fence));
        self.unfinished.extend(left);
        left.is_none()
    }

    /// Nothing was found unfinished.
    pub fn begin_change(&mut self) {
        self.unfinished.clear();
    }

    /// These are to be waited for.
    pub fn is_unfinished(&mut self, points: impl IntoIterator<Item = Point>) {
        self.unfinished.extend(points);
    }

    /// What was found unfinished since [`Self::begin_change`], and is so.
    pub fn awaited(&mut self) -> Awaited {
        let points = std::mem::take(&mut self.unfinished);
        points.into_iter().filter_map(|point| self.mark_behind(point)).collect()
    }

    /// The host waited for some of it.
    pub fn waited(&mut self, reason: WaitReason, took: Duration, outcome: Result<()>) {
        // The program's operations do not take longer for that.
        self.timer.give_up();
        self.stats.waited(reason, took);
        if let Some(recorder) = &mut self.recorder {
            let what = What::HostWait { reason: reason.name(), ns: took.as_nanos() as u64 };
            recorder.moment(self.driver, self.copy_in.stream, what);
        }
        self.note(outcome);
    }
}
