//! One operation of the program: its chunks made present, held while the
//! original runs, and its use noted after.
//!
//! Two regimes. While everything fits, a launch notes its use in each chunk and
//! takes no lock (`inflight`, `chunk_bits`). Once anything had to move, a launch
//! that names managed memory takes its device's lock before and after the
//! original, never across it; in between its chunks are held by count.

use std::sync::atomic::Ordering;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::{Effect, Shortage, Streamer};
use autooffload_core::order::Named;
use smallvec::SmallVec;

use super::account::{WaitReason, report};
use super::allocation::{follow_card, take_all_room};
use super::device::{Device as DeviceState, DeviceBackend};
use super::guards::{ContextGuard, RelaxedCapture};
use super::inflight::FastLaunch;
use super::reach::{self, Caller, Launched, Reached};
use super::state::{Engine, Failure, hot, lock};
use super::users::UserId;
use super::verify::{self, Watched};
use super::{Managed, Touch, any_capture, inflight, managed, remembered};
use crate::driver::abi::*;

type Touches = SmallVec<[(ChunkId, Effect); 16]>;
type Names = SmallVec<[Named; 16]>;

/// A chunk that an operation names, by an address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    pub touch: Touch,
    pub address: DevicePtr,
    pub chunk: ChunkId,
}

/// An operation while nothing moves: no lock, no call, nothing to wait for.
pub struct Fast {
    managed: Managed,
    user: UserId,
    stream: CUstream,
    /// Given up after the use was noted.
    _launch: FastLaunch,
}

impl Managed {
    /// Begins an operation on `stream` (effective handle), on `touched`, on the fast
    /// path. Call the original *after* this and [`Fast::end`] right after it, whatever
    /// it answered.
    ///
    /// `None`: [`carefully`].
    #[inline(always)]
    pub fn begin_fast(self, stream: CUstream, touched: &[Touched]) -> Option<Fast> {
        // The very stream may capture; the hook asks the driver then.
        if self.engine.captures.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.enter(stream, touched)
    }

    #[inline(always)]
    fn enter(self, stream: CUstream, touched: &[Touched]) -> Option<Fast> {
        if self.engine.is_broken() {
            return None;
        }
        let launch = inflight::enter(self.engine, touched)?;
        let user = self.engine.users.of(stream)?;
        Some(Fast { managed: self, user, stream, _launch: launch })
    }
}

impl Fast {
    /// The operation was queued, and used `touched`.
    #[inline(always)]
    pub fn end(self, touched: &[Touched]) {
        let Managed { engine: Engine { users, captures, .. }, space } = self.managed;
        let place = users.place_now(self.user);
        for &Touched { chunk, .. } in touched {
            users.note_place(chunk, &space.hot[chunk as usize], place);
        }
        // No other thread can name that stream later; and nobody can mark one that
        // captures, which this may begin to.
        if self.stream == STREAM_PER_THREAD || captures.load(Ordering::SeqCst) > 0 {
            let _ = users.mark(self.user);
        }
    }
}

/// Calls `forward`, an operation on `stream` (effective handle), when every
/// chunk of `touched` is present and ordered before what the stream does next;
/// they are held until it returned. `launched`: what it is, if it is a launch.
///
/// Errors: `OUT_OF_MEMORY` when they cannot all be present at once; `forward`
/// is not called then.
#[cold]
#[inline(never)]
pub fn carefully(
    stream: CUstream,
    touched: &[Touched],
    launched: Option<&Launched>,
    forward: &dyn Fn() -> CuResult,
) -> Result<CuResult> {
    let nothing = touched.is_empty() && launched.is_none();
    let Some(managed) = managed().filter(|_| !nothing) else { return Ok(forward()) };
    let engine = managed.engine;
    if engine.is_broken() {
        return Err(CuResult::UNKNOWN);
    }
    if !inflight::pressure()
        && let Some(fast) = managed.enter(stream, touched)
    {
        let code = forward();
        fast.end(touched);
        return Ok(code);
    }
    let held = begin_streaming(engine, stream, touched, launched)?;
    let code = forward();
    drop(held);
    Ok(code)
}

impl Managed {
    /// A copy from the host is about to write `bytes` of `chunk` from `address` on.
    /// Not while a launch of this thread is in flight: evictors wait for those.
    #[inline(always)]
    pub fn note_fill(self, chunk: ChunkId, address: DevicePtr, bytes: usize) {
        /// Of fewer bytes PyTorch makes no tensor: what the program sends each time.
        const WEIGHT: usize = 512;
        let hot = &self.space.hot[chunk as usize];
        report::note_fill(self.engine, hot, bytes);
        if bytes >= WEIGHT {
            note_weights(self.engine, hot.device(), chunk, address, bytes);
        }
    }
}

#[inline(never)]
fn note_weights(engine: &Engine, device: usize, chunk: ChunkId, address: DevicePtr, bytes: usize) {
    if let Some(state) = lock(&engine.devices[device].state).as_mut()
        && state.streamer.contains(chunk)
    {
        state.streamer.filled(chunk, address..address + bytes as u64);
    }
}

pub(super) fn current_device(engine: &Engine) -> Option<usize> {
    engine.driver.ctx_get_device().ok().map(|device| device as usize)
}

/// Makes what an operation names present: with all the room that there is, and at
/// the last by reading in place what does not fit at once.
fn touch(
    engine: &Engine,
    streamer: &mut Streamer,
    backend: &mut DeviceBackend,
    touches: &[(ChunkId, Effect)],
    named: &[Named],
) -> std::result::Result<(), Shortage> {
    let mut outcome = streamer.touch_named(touches, named, backend);
    if let Err(Shortage::Device { .. }) = outcome {
        // Others may have given memory back since the card was asked.
        take_all_room(engine, streamer, backend);
        outcome = streamer.touch_named(touches, named, backend);
    }
    while let Err(Shortage::Device { needed_frames, cap_frames }) = outcome
        && streamer.fit_by_reading_in_place(touches, backend)?
    {
        backend.say_reads_in_place(needed_frames, cap_frames);
        outcome = streamer.touch_named(touches, named, backend);
    }
    outcome
}

/// Memory moves, so the streamer decides.
fn begin_streaming(
    engine: &'static Engine,
    stream: CUstream,
    touched: &[Touched],
    launched: Option<&Launched>,
) -> Result<Streaming> {
    let ctx = engine.driver.ctx_get_current()?;
    let user = engine.users.of(stream);
    let reached = match launched {
        Some(launched) => reach::beyond(engine, &Caller { user, ctx }, launched, touched)?,
        None => Reached::new(),
    };
    let mut unique: Touches = SmallVec::new();
    let named = touched.iter().map(|&Touched { chunk, touch, .. }| (chunk, touch.effect()));
    for (id, effect) in named.chain(reached.iter().map(|beyond| (beyond.chunk, Effect::Write))) {
        match unique.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) if effect == Effect::Write => *known = Effect::Write,
            Some(_) => {}
            None => unique.push((id, effect)),
        }
    }
    // Pushed one by one: of a few, an iterator costs more.
    let mut named = Names::new();
    for &Touched { chunk, address, .. } in touched {
        named.push(Named { chunk, address });
    }
    for &reach::Beyond { chunk, address, .. } in &reached {
        named.push(Named { chunk, address });
    }
    // By device, in the order of the locks.
    unique.sort_by_key(|&(id, _)| hot(id).device());
    let is_kernel = touched.iter().any(|touched| touched.touch == Touch::Kernel);
    let mut access =
        Streaming { engine, stream, user, ctx, is_kernel, held: SmallVec::new(), watched: None };
    let mut rest = &unique[..];
    while let Some(&(first, _)) = rest.first() {
        let device = hot(first).device();
        let count = rest.iter().take_while(|&&(id, _)| hot(id).device() == device).count();
        let (group, others) = rest.split_at(count);
        access.take(device, group, &named)?;
        rest = others;
    }
    if engine.verifies && (is_kernel || launched.is_some()) {
        access.watched = verify::watch(engine, launched)?;
    }
    Ok(access)
}

/// The chunks of an operation, held. Dropping it notes the use: drop it right
/// after the original returned, whatever it returned.
#[must_use]
struct Streaming {
    engine: &'static Engine,
    stream: CUstream,
    /// `None`: too many to be told apart.
    user: Option<UserId>,
    /// The calling thread's context.
    ctx: CUcontext,
    is_kernel: bool,
    held: SmallVec<[(usize, Touches); 1]>,
    watched: Option<Watched>,
}

impl Streaming {
    /// Makes `group`, all of `device`, present and holds it; `named`: what the
    /// operation names, on any device.
    fn take(&mut self, device: usize, group: &[(ChunkId, Effect)], named: &[Named]) -> Result<()> {
        let engine = self.engine;
        let mut living = Touches::new();
        let mut names = Names::new();
        let outcome = engine.with_device(device, WaitReason::PlanChange, |state| {
            let DeviceState { streamer, backend, planner } = state;
            backend.order.asks(self.user);
            // Not while something captures or is held up: what it uses cannot be
            // waited for.
            let settled = !any_capture() && !engine.users.any_held_up();
            if settled {
                follow_card(engine, streamer, backend);
                backend.free_leaving();
            }
            if self.is_kernel && remembered::is_news(engine, backend) {
                remembered::recall(engine, device, streamer, backend);
            }
            if settled {
                streamer.meet_cap(backend)?;
            }
            if settled && planner.poll(streamer, backend)? {
                engine.publish_streamer(streamer);
                engine.stats.plan_began(streamer.operations(), streamer.period().unwrap_or(0));
                backend.order.record_plan();
                if let Some(in_force) = planner.in_force(streamer) {
                    engine.told.plan_stands(device, in_force);
                }
                log::debug!("device {device}: adopted a plan: {}", streamer.describe());
            }
            // A word that only looks like an address may name what another
            // thread has freed since.
            living.clear();
            for &(id, effect) in group {
                if streamer.contains(id) {
                    living.push((id, effect));
                }
            }
            names.clear();
            for &name in named {
                if living.iter().any(|&(id, _)| id == name.chunk) {
                    names.push(name);
                }
            }
            touch(engine, streamer, backend, &living, &names)?;
            living.iter().for_each(|&(id, _)| backend.open(id));
            {
                // A default stream is the one of the program's context.
                let foreign = self.ctx != backend.ctx && !self.ctx.is_null();
                let _context = foreign.then(|| ContextGuard::enter(engine.driver, self.ctx));
                // An event is of a context, as its stream is.
                let can_time = self.ctx == backend.ctx && backend.order.can_time(self.stream);
                let timed = (can_time && streamer.wants_times()).then(|| streamer.operations() - 1);
                backend.order.before_use(self.user, self.stream, &living, timed);
            }
            // Those that came while the host waited are caught up with.
            for (operations, ns) in std::iter::from_fn(|| backend.order.read_times()).take(4) {
                streamer.measured(operations, ns);
            }
            if backend.order.failure.is_some() {
                // Answered as an error: then nothing is held.
                streamer.release(&living);
            }
            Ok(())
        });
        match outcome {
            Ok(()) => {
                self.held.push((device, living));
                Ok(())
            }
            Err(Failure::Driver(code)) => Err(code),
            Err(Failure::Shortage(shortage)) => {
                engine.explain(device, "an operation", shortage);
                Err(CuResult::OUT_OF_MEMORY)
            }
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(watched) = self.watched.take() {
            watched.check(self.engine);
        }
        for (device, group) in &self.held {
            let slot = &self.engine.devices[*device];
            let mut state = lock(&slot.state);
            let Some(DeviceState { streamer, backend, .. }) = state.as_mut() else { continue };
            {
                let foreign = self.ctx != backend.ctx && !self.ctx.is_null();
                let _context = foreign.then(|| ContextGuard::enter(self.engine.driver, self.ctx));
                // Freed by another thread meanwhile: the program's own race.
                let living = || group.iter().map(|&(id, _)| id).filter(|&id| streamer.contains(id));
                let moving = living().any(|id| streamer.is_streamed(id));
                backend.order.after_use(self.user, self.stream, living(), moving);
            }
            streamer.release(group);
            let _guard = ContextGuard::enter(self.engine.driver, backend.ctx);
            let _relaxed = RelaxedCapture::enter(self.engine.driver);
            backend.order.asks(self.user);
            // Copies ahead could queue up behind what does not end by itself.
            if !self.engine.users.any_held_up() {
                streamer.look_ahead(backend);
            }
            backend.order.asks(None);
            if let Some(state) = state.as_mut() {
                state.record_memory();
            }
            self.engine.publish(state.as_ref());
            if slot.waiting.load(Ordering::Relaxed) > 0 {
                slot.released.notify_all();
            }
        }
    }
}
