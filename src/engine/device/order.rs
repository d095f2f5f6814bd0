//! Who used what, and who waits for whom: the only place that records uses,
//! waits for them and raises fences.
//!
//! A use is of a stream of a context. A fence is recorded behind the copy that
//! brought a chunk's content. Waits are queued on the device; the host waits
//! only in [`DeviceBackend::await_uses_on_host`], and where no event is to be had.
//!
//! Not here: which copies are made (`copies`), which frames change hands (`frames`).

use std::time::Instant;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::Effect;

use super::DeviceBackend;
use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::contexts::synchronize_every_device;
use crate::engine::state::hot;
use crate::engine::{any_capture, streams};

/// A stream for certain: the default streams' handles mean another one in each
/// context, the per-thread one's on each thread as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) stream: CUstream,
    pub(super) ctx: CUcontext,
    thread: u64,
}

impl User {
    /// What the calling thread means by `stream`; `ctx`: its current context.
    fn new(stream: CUstream, ctx: CUcontext) -> Self {
        Self { stream, ctx, thread: streams::thread_of(stream) }
    }

    /// A stream that was destroyed: nobody launches on it again.
    fn gone(ctx: CUcontext) -> Self {
        Self { stream: STREAM_PER_THREAD, ctx, thread: u64::MAX }
    }
}

/// The last use of a chunk on one stream.
pub(super) struct Use {
    pub(super) user: User,
    /// Of the user's context.
    pub(super) event: CUevent,
    /// The copy-out stream waits for it.
    before_copy_out: bool,
}

/// The wait that a use of freshly copied bytes needs.
pub(super) struct Fence {
    pub(super) event: CUevent,
    /// Streams whose later work already waits for it.
    waited_by: Vec<User>,
}

impl DeviceBackend {
    /// Later work of `stream` waits for the content of the chunks. `ctx`: the
    /// calling thread's own context, which is current. `timed`: the number of
    /// the operation, if its GPU time is wanted.
    pub fn order_before_use(
        &mut self,
        stream: CUstream,
        ctx: CUcontext,
        touches: &[(ChunkId, Effect)],
        timed: Option<u64>,
    ) {
        let user = User::new(stream, ctx);
        // An event is of a context, as its stream is.
        let named = ctx == self.ctx && stream != STREAM_PER_THREAD && !any_capture();
        let timed = timed.filter(|_| named);
        if let Some(operation) = timed {
            let waits = touches.iter().any(|&(id, _)| {
                let fence = self.backing(id).fence.as_ref();
                fence.is_some_and(|fence| !fence.waited_by.contains(&user))
            });
            self.timer.before(self.driver, stream, operation, touches, waits);
        } else {
            self.timer.give_up();
        }
        for &(id, _) in touches {
            let Some(fence) = &mut self.backing(id).fence else { continue };
            if fence.waited_by.contains(&user) {
                continue;
            }
            fence.waited_by.push(user);
            let event = fence.event;
            let read = self.stalls.before(self.driver, stream);
            let outcome = self.driver.stream_wait_event(stream, event);
            self.stalls.after(self.driver, stream);
            self.stats.fence_wait(read);
            self.note(outcome);
        }
        if let Some(operation) = timed {
            self.timer.after(self.driver, stream, operation);
        }
    }

    /// The operation on `stream` was queued: what comes after in the ring
    /// waits for it. `ctx`: the calling thread's own context, which is current.
    pub fn record_use(
        &mut self,
        stream: CUstream,
        ctx: CUcontext,
        foreign: bool,
        id: ChunkId,
        streamed: bool,
    ) {
        let user = User::new(stream, ctx);
        // From our context, another's default stream cannot be waited for.
        let ours = ctx == self.ctx || stream as usize > STREAM_PER_THREAD as usize;
        if !streamed && ours {
            let index = if foreign { streams::FOREIGN } else { streams::index_of(stream) };
            hot(id).used_on(index);
            return;
        }
        let known = self.backing(id).uses.iter().position(|last| last.user == user);
        let event = match known {
            Some(index) => Some(self.backing(id).uses.swap_remove(index).event),
            None => self.event(ctx),
        };
        if let Some(event) = event
            && self.driver.event_record(event, stream).is_ok()
        {
            self.backing(id).uses.push(Use { user, event, before_copy_out: false });
            return;
        }
        // No event to be had, or a copy on a stream of yet another context.
        self.wait(|driver| driver.stream_synchronize(stream));
        if let Some(event) = event {
            self.spare(ctx, event);
        }
    }

    /// `stream` is about to be destroyed: its handle may come back as another
    /// stream, which must neither count as ordered nor as the same user.
    pub fn forget_stream(&mut self, stream: CUstream) {
        for backing in self.backings.iter_mut().flatten() {
            if let Some(fence) = &mut backing.fence {
                fence.waited_by.retain(|waited| waited.stream != stream);
            }
            for last in &mut backing.uses {
                if last.user.stream == stream {
                    last.user = User::gone(last.user.ctx);
                }
            }
        }
    }

    /// The copy to the host that comes next waits for all uses of `chunk`.
    pub(super) fn await_uses_before_copy_out(&mut self, chunk: ChunkId) {
        let (driver, copy_out) = (self.driver, self.copy_out);
        let backing = self.backings[chunk as usize].as_mut().expect("a chunk that lives");
        for last in backing.uses.iter_mut().filter(|last| !last.before_copy_out) {
            last.before_copy_out = true;
            if let Err(code) = driver.stream_wait_event(copy_out, last.event) {
                self.failure.get_or_insert(code);
            }
        }
        if let Some(fence) = &backing.fence
            && let Err(code) = driver.stream_wait_event(copy_out, fence.event)
        {
            self.failure.get_or_insert(code);
        }
        self.await_resident_uses(chunk, copy_out);
    }

    pub(super) fn await_uses_before_copy_in(&mut self, chunk: ChunkId) {
        self.queued += 1;
        let copy_in = self.copy_in;
        let backing = self.backing(chunk);
        let uses = std::mem::take(&mut backing.uses);
        let written_back = backing.written_back.take();
        backing.displaced = true;
        for last in uses {
            let outcome = self.driver.stream_wait_event(copy_in, last.event);
            self.note(outcome);
            // The chunk's other parts may have to be written back later.
            if !last.before_copy_out {
                let outcome = self.driver.stream_wait_event(self.copy_out, last.event);
                self.note(outcome);
            }
            self.spare(last.user.ctx, last.event);
        }
        if let Some(event) = written_back {
            let outcome = self.driver.stream_wait_event(copy_in, event);
            self.note(outcome);
            self.spare(self.ctx, event);
        }
        self.await_resident_uses(chunk, copy_in);
    }

    pub(super) fn await_queued_before_copy_in(&mut self) {
        // A stream that cannot be waited for: then copies are ready at once.
        let Some(stream) = self.last_stream.filter(|_| !any_capture()) else { return };
        let Some(event) = self.event(self.ctx) else { return };
        if self.driver.event_record(event, stream).is_ok() {
            let outcome = self.driver.stream_wait_event(self.copy_in, event);
            self.note(outcome);
        }
        self.spare(self.ctx, event);
    }

    /// Makes `waiter` wait, on the device, for every stream in `hot`'s bits.
    pub(super) fn await_resident_uses(&mut self, id: ChunkId, waiter: CUstream) {
        let bits = hot(id).streams();
        if bits == 0 || self.idle {
            return;
        }
        let (streams, unnamed) = streams::named(bits);
        if unnamed {
            self.wait(Driver::ctx_synchronize);
        }
        if bits & (1 << streams::FOREIGN) != 0 {
            self.wait(synchronize_every_device);
        }
        for stream in streams {
            if self.captures(stream) {
                continue;
            }
            // A stream of another context takes no event of ours.
            let event = self.event(self.ctx);
            if let Some(event) = event
                && self.driver.event_record(event, stream).is_ok()
            {
                let outcome = self.driver.stream_wait_event(waiter, event);
                self.note(outcome);
            } else {
                self.wait(|driver| driver.stream_synchronize(stream));
            }
            if let Some(event) = event {
                self.spare(self.ctx, event);
            }
        }
    }

    pub(super) fn await_uses_on_host(&mut self, chunk: ChunkId) {
        let ctx = self.ctx;
        let backing = self.backing(chunk);
        let uses = std::mem::take(&mut backing.uses);
        let fence = backing.fence.take();
        let written_back = backing.written_back.take();
        let displaced = std::mem::take(&mut backing.displaced);
        let events = uses
            .iter()
            .map(|last| (last.user.ctx, last.event))
            .chain(fence.map(|fence| (ctx, fence.event)))
            .chain(written_back.map(|event| (ctx, event)));
        for (ctx, event) in events {
            if !self.idle {
                self.wait(|driver| driver.event_synchronize(event));
            }
            self.spare(ctx, event);
        }
        if self.idle {
            hot(chunk).forget_uses();
            self.read_probe();
            return;
        }
        if displaced {
            let copy_in = self.copy_in;
            self.wait(|driver| driver.stream_synchronize(copy_in));
            self.read_probe();
        }
        let bits = hot(chunk).streams();
        if bits != 0 {
            let (streams, unnamed) = streams::named(bits);
            if unnamed {
                self.wait(Driver::ctx_synchronize);
            } else {
                for stream in streams {
                    if !self.captures(stream) {
                        self.wait(|driver| driver.stream_synchronize(stream));
                    }
                }
            }
            if bits & (1 << streams::FOREIGN) != 0 {
                self.wait(synchronize_every_device);
            }
            hot(chunk).forget_uses();
        }
    }

    /// Later uses of `chunk` wait for the last copy to the device.
    pub(super) fn raise_fence(&mut self, chunk: ChunkId) {
        let copy_in = self.copy_in;
        let known = self.backing(chunk).fence.take().map(|fence| (fence.event, fence.waited_by));
        let (event, mut waited_by) = match known {
            Some(known) => known,
            None => match self.event(self.ctx) {
                Some(event) => (event, Vec::new()),
                None => return self.wait(|driver| driver.stream_synchronize(copy_in)),
            },
        };
        waited_by.clear();
        let outcome = self.driver.event_record(event, copy_in);
        self.note(outcome);
        self.backing(chunk).fence = Some(Fence { event, waited_by });
    }

    /// The last copy to the host was `chunk`'s.
    pub(super) fn note_written_back(&mut self, chunk: ChunkId) {
        let copy_out = self.copy_out;
        let known = self.backing(chunk).written_back.take();
        let Some(event) = known.or_else(|| self.event(self.ctx)) else {
            return self.wait(|driver| driver.stream_synchronize(copy_out));
        };
        let outcome = self.driver.event_record(event, copy_out);
        self.note(outcome);
        self.backing(chunk).written_back = Some(event);
    }

    /// An event of `ctx`, which is current or ours.
    pub(super) fn event(&mut self, ctx: CUcontext) -> Option<CUevent> {
        if let Some(event) = self.spare_events.get_mut(&(ctx as usize)).and_then(Vec::pop) {
            return Some(event);
        }
        match self.driver.event_create(true) {
            Ok(event) => Some(event),
            Err(code) => {
                self.note(Err(code));
                None
            }
        }
    }

    /// `event` may be recorded anew: whoever waits for it has said so already.
    pub(super) fn spare(&mut self, ctx: CUcontext, event: CUevent) {
        self.spare_events.entry(ctx as usize).or_default().push(event);
    }

    pub(super) fn release_events(&mut self) {
        self.stalls.release(self.driver);
        self.timer.release(self.driver);
        let probe = self.probe.take();
        let timed = probe.iter().flat_map(|&(start, end, _)| [start, end]);
        for event in self.spare_events.drain().flat_map(|(_, events)| events).chain(timed) {
            // A context that is gone took its events along.
            let _ = self.driver.event_destroy(event);
        }
    }

    /// Keeps the first error; only a broken context gives one here.
    pub(super) fn note(&mut self, outcome: Result<()>) {
        if let Err(code) = outcome
            && self.failure.is_none()
        {
            if code != CuResult::DEINITIALIZED {
                log::error!("the driver answered {code} to an internal call");
            }
            self.failure = Some(code);
        }
    }

    /// Waits on the host for `wait`, counted.
    pub(super) fn wait(&mut self, wait: impl FnOnce(&Driver) -> Result<()>) {
        // The program's operations do not take longer for that.
        self.timer.give_up();
        let began = Instant::now();
        let outcome = wait(self.driver);
        self.stats.waited(self.reason, began.elapsed());
        self.note(outcome);
    }

    /// Whether `stream` captures: then nothing of it can be waited for, nor
    /// need be, because everything before the capture is over (`graphs`).
    pub(super) fn captures(&self, stream: CUstream) -> bool {
        any_capture() && self.driver.stream_is_capturing(stream) != Ok(false)
    }
}
