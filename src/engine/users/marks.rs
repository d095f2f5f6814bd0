//! Marks: how one is made, found and kept for another use.
//!
//! Not here: whose they are, and what is noted of uses (`users`); when a mark has to
//! be made at once (`ends`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ends::marks_of;
use super::{Event, MARKS_KEPT, Mark, Marks, Point, User, UserId, Users, thread_number};
use crate::driver::abi::*;
use crate::engine::any_capture;
use crate::engine::guards::{ContextGuard, RelaxedCapture};
use crate::engine::state::lock;

impl Users {
    /// Ends the present stretch with a mark. What cannot be marked (the user is
    /// gone, captures, or is another thread's) has been already, or must be
    /// waited for otherwise.
    pub fn mark(&self, user: UserId) -> Result<Point> {
        let slot = self.slot(user);
        let mut marks = lock(&slot.marks);
        self.mark_locked(user, slot, &mut marks)
    }

    pub(super) fn mark_locked(
        &self,
        user: UserId,
        slot: &User,
        marks: &mut Marks,
    ) -> Result<Point> {
        let Some(stream) = marks.stream else { return Err(CuResult::INVALID_CONTEXT) };
        if stream.thread != 0 && stream.thread != thread_number() {
            return Err(CuResult::INVALID_CONTEXT);
        }
        let handle = stream.handle as CUstream;
        let _context = ContextGuard::enter(self.driver, stream.ctx as CUcontext);
        let _relaxed = RelaxedCapture::enter(self.driver);
        if any_capture() && self.driver.stream_is_capturing(handle) != Ok(false) {
            return Err(CuResult::STREAM_CAPTURE_UNSUPPORTED);
        }
        if marks.ended.len() >= MARKS_KEPT.max(2 * marks.left) {
            self.settle(slot, marks);
        }
        let spare = marks_of(&mut lock(&self.spare), stream.ctx).and_then(Vec::pop);
        let mark = match spare {
            Some(mark) => mark,
            None => {
                let event = Event(self.driver.event_create(true)?);
                Arc::new(Mark { event, ctx: stream.ctx })
            }
        };
        // Before the event: what is noted in the new stretch may be behind it.
        let stretch = slot.stretch.fetch_add(1, Ordering::AcqRel);
        if let Err(code) = self.driver.event_record(mark.event(), handle) {
            if let Some(spare) = marks_of(&mut lock(&self.spare), stream.ctx) {
                spare.push(mark);
            }
            return Err(code);
        }
        marks.ended.push_back((stretch, mark));
        Ok(Point { user, stretch })
    }

    /// Drops the marks that are over, but those that somebody waits for just now. All
    /// before one that is over are: so the last is searched for, since each question
    /// is a call on the program's thread.
    fn settle(&self, slot: &User, marks: &mut Marks) {
        let over = slot.over.load(Ordering::Acquire);
        let gone = marks.ended.partition_point(|&(stretch, ref mark)| {
            stretch <= over || self.driver.event_is_over(mark.event.0)
        });
        if let Some(&(stretch, ref last)) = gone.checked_sub(1).and_then(|i| marks.ended.get(i)) {
            slot.over.fetch_max(stretch, Ordering::AcqRel);
            let ctx = last.ctx;
            // Whoever takes one does so under this lock.
            let free = marks.ended.iter().take(gone);
            let free = free.take_while(|(_, mark)| Arc::strong_count(mark) == 1).count();
            let free = marks.ended.drain(..free).map(|(_, mark)| mark);
            // A context that is gone took its events along.
            match marks_of(&mut lock(&self.spare), ctx) {
                Some(spare) => spare.extend(free),
                None => drop(free),
            }
        }
        marks.left = marks.ended.len();
    }

    /// Whether the point is over. Asks the driver, and marks what is unmarked.
    pub fn is_over(&self, point: Point) -> bool {
        if self.known_over(point) {
            return true;
        }
        let slot = self.slot(point.user);
        let mut marks = lock(&slot.marks);
        let _relaxed = RelaxedCapture::enter(self.driver);
        let behind = marks.ended.back().is_some_and(|&(last, _)| last >= point.stretch);
        if !behind
            && marks.stream.is_some()
            && self.mark_locked(point.user, slot, &mut marks).is_err()
        {
            return false;
        }
        self.settle(slot, &mut marks);
        // One that is gone has queued nothing behind its last mark.
        self.known_over(point) || (marks.stream.is_none() && marks.ended.is_empty())
    }

    /// The first mark behind the point, which is made if there is none.
    /// `Ok(None)`: the point is over.
    pub fn mark_behind(&self, point: Point) -> Result<Option<(Point, Arc<Mark>)>> {
        if self.known_over(point) {
            return Ok(None);
        }
        let slot = self.slot(point.user);
        let mut marks = lock(&slot.marks);
        let behind = marks.ended.back().is_some_and(|&(last, _)| last >= point.stretch);
        if !behind && marks.stream.is_some() {
            self.mark_locked(point.user, slot, &mut marks)?;
        }
        let ended = &marks.ended;
        let Some(&(latest, _)) = ended.back() else { return Ok(None) };
        // Each is of a later stretch than the one before, so it is not before this.
        let last = ended.len() - 1;
        let mut index = last.saturating_sub(latest.saturating_sub(point.stretch) as usize);
        // One that is gone has queued nothing behind its last mark.
        while index < last && ended[index].0 < point.stretch {
            index += 1;
        }
        let (stretch, ref mark) = ended[index];
        Ok(Some((Point { user: point.user, stretch }, Arc::clone(mark))))
    }

    /// Later work of `user` waits for the point. `false`: it does already.
    pub fn awaits(&self, user: UserId, point: Point) -> bool {
        let mut marks = lock(&self.slot(user).marks);
        match marks.awaited.iter_mut().find(|known| known.user == point.user) {
            Some(known) if known.stretch >= point.stretch => return false,
            Some(known) => known.stretch = point.stretch,
            None => marks.awaited.push(point),
        }
        true
    }
}
