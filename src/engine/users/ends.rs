//! What ends a user, and what holds it up: marks that only this moment can make.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Block, FIRST_NAMED, Mark, Marks, Point, Spare, Stream, UserId, Users, thread_number};
use crate::driver::abi::*;
use crate::engine::state::lock;

pub(super) fn marks_of(spare: &mut Spare, ctx: usize) -> Option<&mut Vec<Arc<Mark>>> {
    spare.iter_mut().find(|(of, _)| *of == ctx).map(|(_, marks)| marks)
}

impl Users {
    /// What `stream` does next may wait for something that is not on it: what
    /// was before gets a mark of its own. A default stream of the same context
    /// counts among what streams wait for.
    pub fn blocks(&self, stream: CUstream) {
        let Some(user) = self.known(stream) else { return };
        let _ = self.mark(user);
        let ctx = lock(&self.slot(user).marks).stream.map(|stream| stream.ctx);
        let legacy = ctx.map(|ctx| Stream { handle: STREAM_LEGACY as usize, ctx, thread: 0 });
        if let Some(legacy) = legacy.and_then(|legacy| self.by_stream.get(&legacy).map(|u| *u))
            && legacy != user
        {
            let _ = self.mark(legacy);
        }
    }

    /// `stream` was made to wait for the host or for a word in memory.
    pub fn blocked(&self, stream: CUstream) {
        let Some(user) = self.of(stream) else { return };
        if let Ok(point) = self.mark(user) {
            let blocking = self.driver.stream_is_blocking(stream) == Ok(true);
            let ctx = lock(&self.slot(user).marks).stream.map(|stream| stream.ctx);
            let mut blocks = lock(&self.blocks);
            blocks.retain(|block| block.point.user != user);
            blocks.push(Block { point, legacy_of: ctx.filter(|_| blocking) });
            self.has_blocks.store(true, Ordering::Release);
        }
    }

    /// Whether any user is, as far as can be seen, at a wait that may never end
    /// by itself.
    #[inline]
    pub fn any_held_up(&self) -> bool {
        self.has_blocks.load(Ordering::Acquire) && self.held_up(|_| true)
    }

    /// Whether `user` is: the legacy default stream is with each that it waits for.
    pub fn is_held_up(&self, user: UserId) -> bool {
        if !self.has_blocks.load(Ordering::Acquire) {
            return false;
        }
        let stream = lock(&self.slot(user).marks).stream;
        let legacy = stream.filter(|stream| stream.handle == STREAM_LEGACY as usize);
        let legacy_of = legacy.map(|stream| stream.ctx);
        let waits = |block: &Block| legacy_of.is_some() && block.legacy_of == legacy_of;
        self.held_up(|block| block.point.user == user || waits(block))
    }

    #[cold]
    fn held_up(&self, which: impl Fn(&Block) -> bool) -> bool {
        let mut blocks = lock(&self.blocks);
        blocks.retain(|block| !self.is_over(block.point));
        self.has_blocks.store(!blocks.is_empty(), Ordering::Release);
        blocks.iter().any(which)
    }

    /// Behind what streams have queued that is not over and gets there by itself.
    /// What cannot be marked now (it captures, or is another thread's) has its
    /// mark, and what is behind that is no work of its own.
    pub fn unfinished(&self) -> Vec<Point> {
        let users: Vec<UserId> = self.by_stream.iter().map(|entry| *entry.value()).collect();
        let last = |user| {
            self.mark(user).ok().or_else(|| {
                let stretch = lock(&self.slot(user).marks).ended.back()?.0;
                Some(Point { user, stretch })
            })
        };
        users
            .into_iter()
            .filter_map(last)
            .filter(|&point| !self.is_over(point) && !self.is_held_up(point.user))
            .collect()
    }

    /// A capture is about to begin: nothing of what was before can be marked
    /// then.
    pub fn mark_all(&self) {
        let users: Vec<UserId> = self.by_stream.iter().map(|entry| *entry.value()).collect();
        for user in users {
            let _ = self.mark(user);
        }
    }

    /// Calls `call`, after which `stream` may capture: until then it is marked, and
    /// while it is called nobody else marks it. Whether a stream captures is asked
    /// and its mark recorded under the same locks ([`Self::mark`]), so that no mark
    /// of ours gets into a graph. Nor is the legacy default stream marked, of which
    /// that would spoil the capture. `call` must not come back to us.
    pub fn unmarked_while(&self, stream: CUstream, call: impl FnOnce() -> CuResult) -> CuResult {
        let own = self.known(stream);
        let ctx = own.and_then(|user| lock(&self.slot(user).marks).stream).map(|own| own.ctx);
        let ctx = ctx.or_else(|| Some(self.driver.stream_get_ctx(stream).ok()? as usize));
        let legacy = ctx.map(|ctx| Stream { handle: STREAM_LEGACY as usize, ctx, thread: 0 });
        let legacy = legacy.and_then(|legacy| self.by_stream.get(&legacy).map(|user| *user));
        let mut users: Vec<UserId> = own.into_iter().chain(legacy).collect();
        // In one order, so that two who do this do not wait for each other.
        users.sort_unstable();
        users.dedup();
        let mut all: Vec<_> =
            users.iter().map(|&user| (user, lock(&self.slot(user).marks))).collect();
        for (user, marks) in &mut all {
            let _ = self.mark_locked(*user, self.slot(*user), marks);
        }
        call()
    }

    /// The user of `stream`, if it used anything.
    fn known(&self, stream: CUstream) -> Option<UserId> {
        let handle = (stream as usize).max(STREAM_LEGACY as usize);
        let named = handle >= FIRST_NAMED;
        let thread = if handle == STREAM_PER_THREAD as usize { thread_number() } else { 0 };
        let ctx = if named { 0 as _ } else { self.driver.ctx_get_current().ok()? };
        let key = Stream { handle, ctx: ctx as usize, thread };
        self.by_stream.get(&key).map(|user| *user)
    }

    /// `stream` is about to be destroyed; its handle may come back as another.
    pub fn stream_ends(&self, stream: CUstream) {
        if (stream as usize) < FIRST_NAMED {
            return;
        }
        let Some(user) = self.known(stream) else { return };
        // What a capturing stream used before is marked already.
        if let Err(code) = self.mark(user)
            && code != CuResult::STREAM_CAPTURE_UNSUPPORTED
            && self.driver.stream_synchronize(stream).is_ok()
        {
            self.set_over(Point { user, stretch: self.stretch(user) });
        }
        self.by_stream.remove(&Stream { handle: stream as usize, ctx: 0, thread: 0 });
        self.generation.fetch_add(1, Ordering::Release);
        lock(&self.slot(user).marks).stream = None;
        lock(&self.numbers).gone.push(user);
    }

    /// A thread ended: each use on its default streams has a mark.
    pub(super) fn thread_ends(&self, thread: u64) {
        let mut ended = Vec::new();
        self.by_stream.retain(|stream, user| {
            let ends = stream.thread == thread;
            if ends {
                ended.push(*user);
            }
            !ends
        });
        for &user in &ended {
            lock(&self.slot(user).marks).stream = None;
        }
        lock(&self.numbers).gone.extend(ended);
    }

    /// The stretches of users of `ctx` that end now: to be told to [`Self::are_over`] once everything queued is over.
    pub fn end_stretches(&self, ctx: CUcontext) -> Vec<Point> {
        let users: Vec<UserId> = self.by_stream.iter().map(|entry| *entry.value()).collect();
        users
            .into_iter()
            .filter(|&user| {
                let stream = lock(&self.slot(user).marks).stream;
                stream.is_some_and(|stream| stream.ctx == ctx as usize)
            })
            .map(|user| {
                let stretch = self.slot(user).stretch.fetch_add(1, Ordering::AcqRel);
                Point { user, stretch }
            })
            .collect()
    }

    pub fn are_over(&self, points: &[Point]) {
        points.iter().for_each(|&point| self.set_over(point));
    }

    /// `ctx` is about to end, and everything queued in it is over.
    pub fn context_ends(&self, ctx: CUcontext) {
        let points = self.end_stretches(ctx);
        self.are_over(&points);
        let ended: Vec<UserId> = points.iter().map(|point| point.user).collect();
        self.by_stream.retain(|_, user| !ended.contains(user));
        self.generation.fetch_add(1, Ordering::Release);
        for &user in &ended {
            *lock(&self.slot(user).marks) = Marks::default();
        }
        lock(&self.numbers).gone.extend(ended);
        // Gone with their context; held marks are not kept either.
        lock(&self.spare).retain(|&(of, _)| of != ctx as usize);
    }

    /// Marks are kept for `ctx` from now on.
    pub fn context_lives(&self, ctx: CUcontext) {
        let mut spare = lock(&self.spare);
        if marks_of(&mut spare, ctx as usize).is_none() {
            spare.push((ctx as usize, Vec::new()));
        }
    }

    /// Gives the events back that no mark uses.
    pub fn release_events(&self) {
        let spare = lock(&self.spare).iter_mut().flat_map(|(_, of)| std::mem::take(of)).collect();
        let marks: Vec<Arc<Mark>> = spare;
        for mark in marks {
            let _ = self.driver.event_destroy(mark.event());
        }
    }
}
