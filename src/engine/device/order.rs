//! Who waits for whom: the only place that records uses, waits for them and
//! raises fences.
//!
//! Everything is a [`Point`]: the last uses of a chunk, the copy that brought
//! its content (its *fence*) and the one that saved it. A wait for a point is
//! queued once for each internal stream, and skipped where an earlier wait
//! implies it. Where the host has to wait, it is told for what
//! ([`Order::awaited`]), and waits without the device's lock (`waits`); under the
//! lock it waits only where no mark is to be had, and a little
//! ([`Order::await_within`]).
//!
//! ```text
//!   program's streams   ...use Y... --e1              e3--> use X
//!   copy out                          e1--> Y to host --e2
//!   copy in                                 e2, e1--> X from host --e3
//! ```
//!
//! Called under the device's lock, with the device's context current.
//! Not here: which copies are made (`copies`), which frames change hands
//! (`frames`), how points are kept (`users`).

mod unfinished;

use std::sync::Arc;
use std::time::{Duration, Instant};

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::{Effect, Pending};

use super::recorder::Recorder;
use super::stall::StallProbe;
use super::timing::OperationTimer;
use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::account::{Memory, Stats, WaitReason, What};
use crate::engine::any_capture;
use crate::engine::state::{hot, warn_once};
use crate::engine::users::{Mark, Point, UserId, Users};

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    CopyIn,
    CopyOut,
}

/// An internal stream: what it copies, and what it waits for already.
struct Lane {
    stream: CUstream,
    user: UserId,
    /// By user: the last stretch. 0: none.
    awaited: Vec<u64>,
}

impl Lane {
    fn new(driver: &Driver, users: &Users, ctx: CUcontext, priority: i32) -> Result<Self> {
        let stream = driver.stream_create_nonblocking(priority)?;
        let user = users.add_own(stream, ctx).ok_or(CuResult::OUT_OF_MEMORY)?;
        Ok(Self { stream, user, awaited: Vec::new() })
    }
}

/// The copies of a chunk.
#[derive(Clone, Copy, Default)]
struct Copies {
    /// Behind the copy that brought the present content.
    fence: Option<Point>,
    /// Behind the last copy to the host.
    saved: Option<Point>,
}

pub struct Order {
    driver: &'static Driver,
    stats: &'static Stats,
    users: &'static Users,
    copy_in: Lane,
    copy_out: Lane,
    /// For looks at device memory, each of which the host waits for.
    look: Lane,
    /// Indexed by chunk id.
    copies: Vec<Copies>,
    /// Whose operation is under way.
    asks: Option<UserId>,
    /// Why the host waits, should it.
    pub reason: WaitReason,
    /// An error that no operation could answer.
    pub failure: Option<CuResult>,
    /// What stood in the way of a change of place.
    unfinished: Vec<Point>,
    stalls: StallProbe,
    pub timer: OperationTimer,
    recorder: Option<Box<Recorder>>,
}

impl Order {
    pub fn new(
        driver: &'static Driver,
        stats: &'static Stats,
        users: &'static Users,
        device: Device,
        ctx: CUcontext,
    ) -> Result<Self> {
        users.context_lives(ctx);
        // Our kernel runs on the way out: before the program's, of which there may be many.
        let priority = driver.highest_stream_priority().unwrap_or(0);
        Ok(Self {
            driver,
            stats,
            users,
            copy_in: Lane::new(driver, users, ctx, 0)?,
            copy_out: Lane::new(driver, users, ctx, priority)?,
            look: Lane::new(driver, users, ctx, priority)?,
            copies: Vec::new(),
            asks: None,
            reason: WaitReason::PlanChange,
            failure: None,
            unfinished: Vec::new(),
            stalls: StallProbe::default(),
            timer: OperationTimer::default(),
            recorder: stats.trace.as_ref().map(|to| Box::new(Recorder::new(to, device, ctx))),
        })
    }

    pub fn copy_in(&self) -> CUstream {
        self.copy_in.stream
    }

    pub fn copy_out(&self) -> CUstream {
        self.copy_out.stream
    }

    pub fn look(&self) -> CUstream {
        self.look.stream
    }

    /// What is queued there next reads `chunk`.
    pub fn looks_at(&mut self, chunk: ChunkId) {
        self.users.note(chunk, hot(chunk), self.look.user);
    }

    /// Behind what was queued on that stream. `None`: nothing can tell.
    pub fn looked(&mut self) -> Option<Point> {
        self.end_copy(self.look.user)
    }

    /// Whose operation is under way from now on; `None`: nobody's.
    pub fn asks(&mut self, user: Option<UserId>) {
        self.asks = user;
    }

    // --- uses ------------------------------------------------------------------

    /// Later work of `user`, which is `stream`, waits for the content of the
    /// chunks. The stream's context is current. `timed`: the number of the
    /// operation, if its GPU time is wanted.
    pub fn before_use(
        &mut self,
        user: Option<UserId>,
        stream: CUstream,
        touches: &[(ChunkId, Effect)],
        timed: Option<u64>,
    ) {
        let fences = touches.iter().filter_map(|&(id, _)| Some((id, self.copies(id).fence?)));
        let last = fences.max_by_key(|(_, fence)| fence.stretch);
        let wait = last.filter(|&(_, fence)| {
            !self.users.known_over(fence) && user.is_none_or(|user| self.users.awaits(user, fence))
        });
        if let Some(operation) = timed {
            self.timer.before(self.driver, stream, operation, touches, wait.is_some());
        } else {
            self.timer.give_up();
        }
        if let Some((chunk, fence)) = wait
            && let Some((_, mark)) = self.mark_behind(fence)
        {
            let recorded = self.record_begin(stream);
            let read = self.stalls.before(self.driver, stream);
            let outcome = self.driver.stream_wait_event(stream, mark.event());
            self.stalls.after(self.driver, stream);
            if let (Some(start), Some(recorder)) = (recorded, &mut self.recorder) {
                let demanded = recorder.was_demanded(chunk);
                recorder.end(self.driver, stream, Some(start), What::Wait { chunk, demanded });
            }
            self.stats.fence_wait(read);
            self.note(outcome);
        }
        if let Some(operation) = timed {
            self.timer.after(self.driver, stream, operation);
        }
    }

    /// An operation on `stream` was queued, which used `chunks`; `moving`:
    /// some of them may have to go soon, so it gets a mark.
    pub fn after_use(
        &mut self,
        user: Option<UserId>,
        stream: CUstream,
        chunks: impl Iterator<Item = ChunkId>,
        moving: bool,
    ) {
        let Some(user) = user else {
            return self.wait(|driver| driver.stream_synchronize(stream));
        };
        chunks.for_each(|id| self.users.note(id, hot(id), user));
        if (moving || stream == STREAM_PER_THREAD || any_capture())
            && let Err(code) = self.users.mark(user)
            && code != CuResult::STREAM_CAPTURE_UNSUPPORTED
        {
            self.wait(|driver| driver.stream_synchronize(stream));
        }
    }

    /// What is queued up to now may use any of `chunks`: launches were not looked
    /// into while nothing moved, and they may read through tables. What is held
    /// up is not waited for on that suspicion.
    pub fn anything_uses(&mut self, chunks: impl Iterator<Item = ChunkId>) {
        let points = self.users.unfinished();
        for id in chunks {
            points.iter().for_each(|&point| self.users.note_point(id, hot(id), point));
        }
    }

    /// Everything of `chunk` that is queued is over before what `by` does next:
    /// its uses, the copy that brought it, and the one that saved it.
    pub fn await_uses(&mut self, chunk: ChunkId, by: By) {
        let Copies { fence, saved } = self.copies(chunk);
        for point in self.users.uses(chunk, hot(chunk)) {
            self.await_point(point, by);
        }
        for point in fence.into_iter().chain(saved) {
            self.await_point(point, by);
        }
    }

    /// Behind the copy that brings the present content of `chunk`.
    pub fn content(&self, chunk: ChunkId) -> Option<Point> {
        self.copies(chunk).fence
    }

    /// What of `chunk` is queued and not over.
    pub fn pending(&self, chunk: ChunkId) -> Pending {
        let uses = self.users.uses(chunk, hot(chunk));
        let left = uses.into_iter().filter(|&point| !self.users.is_over(point));
        left.map(|point| match self.users.is_held_up(point.user) {
            true => Pending::HeldUp,
            false => Pending::Uses,
        })
        .max()
        .unwrap_or_default()
    }

    pub fn any_held_up(&self) -> bool {
        self.users.any_held_up()
    }

    /// Nothing is known of `chunk` any more.
    pub fn forget(&mut self, chunk: ChunkId) {
        self.users.forget_uses(chunk, hot(chunk));
        if let Some(copies) = self.copies.get_mut(chunk as usize) {
            *copies = Copies::default();
        }
    }

    fn copies(&self, chunk: ChunkId) -> Copies {
        self.copies.get(chunk as usize).copied().unwrap_or_default()
    }

    fn copies_mut(&mut self, chunk: ChunkId) -> &mut Copies {
        if self.copies.len() <= chunk as usize {
            self.copies.resize(chunk as usize + 1, Copies::default());
        }
        &mut self.copies[chunk as usize]
    }

    // --- copies ------------------------------------------------------------------

    /// The last copy to the host was that of `chunks`.
    pub fn copied_out(&mut self, chunks: impl Iterator<Item = ChunkId>) {
        let point = self.end_copy(self.copy_out.user);
        chunks.for_each(|id| self.copies_mut(id).saved = point);
    }

    /// The last copy to the device was that of `chunks`: later uses wait for it.
    pub fn copied_in(&mut self, chunks: impl Iterator<Item = ChunkId>) {
        let point = self.end_copy(self.copy_in.user);
        chunks.for_each(|id| self.copies_mut(id).fence = point);
    }

    fn end_copy(&mut self, user: UserId) -> Option<Point> {
        match self.users.mark(user) {
            Ok(point) => Some(point),
            Err(code) => {
                self.note(Err(code));
                None
            }
        }
    }

    /// Where both internal streams have come to.
    pub fn copies_queued(&self) -> [Point; 2] {
        [self.copy_in.user, self.copy_out.user]
            .map(|user| Point { user, stretch: self.users.stretch(user) })
    }

    /// Copies to the device begin when what the operation's stream has queued
    /// is over.
    pub fn copies_follow_last(&mut self) {
        if let Some(user) = self.asks {
            self.await_point(Point { user, stretch: self.users.stretch(user) }, By::CopyIn);
        }
    }

    pub fn is_over(&self, point: Point) -> bool {
        self.users.is_over(point)
    }

    // --- waits -------------------------------------------------------------------

    pub fn await_point(&mut self, point: Point, by: By) {
        let lane = self.lane(by);
        let known = lane.awaited.get(usize::from(point.user));
        if lane.user == point.user || known.is_some_and(|&known| known >= point.stretch) {
            return;
        }
        let stream = lane.stream;
        let Some((behind, mark)) = self.mark_behind(point) else { return };
        let outcome = self.driver.stream_wait_event(stream, mark.event());
        self.note(outcome);
        let awaited = &mut self.lane(by).awaited;
        let user = usize::from(behind.user);
        if awaited.len() <= user {
            awaited.resize(user + 1, 0);
        }
        awaited[user] = behind.stretch;
    }

    fn lane(&mut self, by: By) -> &mut Lane {
        match by {
            By::CopyIn => &mut self.copy_in,
            By::CopyOut => &mut self.copy_out,
        }
    }

    /// The mark behind the point. `None`: it is over, or nothing can tell when.
    fn mark_behind(&mut self, point: Point) -> Option<(Point, Arc<Mark>)> {
        match self.users.mark_behind(point) {
            Ok(behind) => behind,
            Err(code) => {
                self.note(Err(code));
                None
            }
        }
    }

    /// Waits on the host for `wait`, counted.
    pub fn wait(&mut self, wait: impl FnOnce(&Driver) -> Result<()>) {
        let began = Instant::now();
        let outcome = wait(self.driver);
        self.waited(self.reason, began.elapsed(), outcome);
    }

    /// Waits on the host for the point, but no longer than `limit`: it may
    /// depend on something that comes only after this. `false`: it is not over.
    pub fn await_within(&mut self, point: Point, limit: Duration, reason: WaitReason) -> bool {
        /// What most looks take; after that the processor is lent to others.
        const SPIN: Duration = Duration::from_micros(50);
        if self.users.is_over(point) {
            return true;
        }
        self.timer.give_up();
        let began = Instant::now();
        let over = loop {
            let waited = began.elapsed();
            if self.users.is_over(point) {
                break true;
            }
            if waited > limit {
                break false;
            }
            if waited < SPIN {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(SPIN);
            }
        };
        self.waited(reason, began.elapsed(), Ok(()));
        over
    }

    /// Keeps the first error; only a broken context gives one here.
    pub fn note(&mut self, outcome: Result<()>) {
        if let Err(code) = outcome
            && self.failure.is_none()
        {
            if code != CuResult::DEINITIALIZED {
                warn_once(format!(
                    "the driver answered {code} to a call of ours: the program's call fails with it"
                ));
            }
            self.failure = Some(code);
        }
    }

    // --- times, and the end ----------------------------------------------------------

    /// The GPU time of a group of operations that is over: which, and ns.
    pub fn read_times(&mut self) -> Option<(std::ops::Range<u64>, u64)> {
        self.timer.read(self.driver)
    }

    /// Whether an operation on `stream` of the thread's context can be timed.
    pub fn can_time(&self, stream: CUstream) -> bool {
        stream != STREAM_PER_THREAD && !any_capture()
    }

    // --- the trace --------------------------------------------------------------------

    pub fn is_traced(&self) -> bool {
        self.recorder.is_some()
    }

    /// An internal copy, or a look, is queued between this and [`Self::record_copy_end`].
    pub fn record_copy_begin(&mut self, by: By) -> Option<CUevent> {
        let stream = if by == By::CopyIn { self.copy_in.stream } else { self.copy_out.stream };
        self.recorder.as_mut()?.begin(self.driver, stream)
    }

    pub fn record_copy_end(&mut self, by: By, start: Option<CUevent>, what: What) {
        let stream = if by == By::CopyIn { self.copy_in.stream } else { self.copy_out.stream };
        if let Some(recorder) = &mut self.recorder {
            recorder.end(self.driver, stream, start, what);
        }
    }

    /// On a stream of the program's: only where an event of ours may be.
    fn record_begin(&mut self, stream: CUstream) -> Option<CUevent> {
        let recorder = self.recorder.as_mut()?;
        let may = stream != STREAM_PER_THREAD && !any_capture() && recorder.is_of(self.driver);
        may.then(|| recorder.begin(self.driver, stream)).flatten()
    }

    pub fn record_memory(&mut self, memory: Memory) {
        if let Some(recorder) = &mut self.recorder {
            recorder.memory(self.driver, self.copy_in.stream, memory);
        }
    }

    pub fn record_plan(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.moment(self.driver, self.copy_in.stream, What::Plan);
        }
    }

    /// The program ends. No call to the driver.
    pub fn end_trace(&mut self) {
        self.recorder.iter_mut().for_each(|recorder| recorder.finish());
    }

    /// The context is gone, and its events with it.
    pub fn forget_events(&mut self) {
        self.stalls = StallProbe::default();
        self.timer = OperationTimer::default();
        self.recorder = None;
        self.copies.clear();
    }

    /// Gives the events back that nobody needs.
    pub fn release_events(&mut self) {
        self.stalls.release(self.driver);
        self.timer.release(self.driver);
        if let Some(recorder) = &mut self.recorder {
            recorder.release(self.driver);
        }
        self.users.release_events();
    }
}
