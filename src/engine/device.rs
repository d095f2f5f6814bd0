//! One device's machinery: carries out what its [`Streamer`] decides, with
//! two internal streams and events.
//!
//! ```text
//!   program's streams   ...use Y... --e1              e3--> use X
//!   copy out                          e1--> Y to host --e2
//!   copy in                                 e2, e1--> X from host --e3
//! ```
//!
//! `e1`: the last uses of Y (one event per stream). `e2`: Y is safe in host
//! memory. `e3`: X's fence. Every arrow is a wait on the device; the host
//! waits only in [`Machinery::retire`]. Two internal streams, because the link
//! carries both directions at once; copies of one direction stay in order.
//!
//! Everything here is called under the device's lock, with the device's
//! context current unless a stream's handle says which one is meant.
//! A driver error inside an operation that cannot answer one (the context is
//! broken: nothing works any more) is kept and answered by the next `begin`.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::{Effect, FrameId, MemoryOps, Refused, Streamer, Window};
use autooffload_core::plan::{Machine, Place};

use smallvec::SmallVec;

use super::host_store::{HostBuffer, HostStore};
use super::in_place::InPlace;
use super::planning::Planner;
use super::ring_view::RingView;
use super::slabs::Slabs;
use super::stall::StallProbe;
use super::stats::{Stats, WaitReason};
use super::timing::OperationTimer;
use super::{FRAME_BYTES, MAX_DEVICES, hot, inflight, streams};
use crate::driver::Driver;
use crate::driver::abi::*;

/// One device: the decisions and the means.
pub struct Device {
    pub streamer: Streamer,
    pub machinery: Machinery,
    pub planner: Planner,
}

/// By owner: the devices (a bit each) that may access its memory.
pub static PEERS: [AtomicU64; MAX_DEVICES] = [const { AtomicU64::new(0) }; MAX_DEVICES];

/// A stream for certain: the default streams' handles mean another one in each
/// context, the per-thread one's on each thread as well.
#[derive(Clone, Copy, PartialEq, Eq)]
struct User {
    stream: CUstream,
    ctx: CUcontext,
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
struct Use {
    user: User,
    /// Of the user's context.
    event: CUevent,
    /// The copy-out stream waits for it.
    before_copy_out: bool,
}

/// The wait that a use of freshly copied bytes needs.
struct Fence {
    event: CUevent,
    /// Streams whose later work already waits for it.
    waited_by: Vec<User>,
}

/// Host memory of a run of frames of a chunk: small enough that giving it up
/// by whole pieces wastes little, large enough that copies are not cut short.
struct HostPiece {
    frames: Range<u32>,
    buffer: HostBuffer,
    /// Frames that are in no need of it, a bit each from the first on; when
    /// all are, it is freed.
    unneeded: u64,
}

/// Frames of a piece at the most.
const PIECE_FRAMES: u32 = 32;

impl HostPiece {
    /// The bits of those of `frames` that are of this piece.
    fn bits(&self, frames: &Range<u32>) -> u64 {
        let start = frames.start.clamp(self.frames.start, self.frames.end) - self.frames.start;
        let end = frames.end.clamp(self.frames.start, self.frames.end) - self.frames.start;
        (1u64 << end) - (1u64 << start.min(end))
    }
}

/// What the machinery knows of a chunk.
struct Backing {
    base: DevicePtr,
    bytes: usize,
    frames: u32,
    /// The frames that it is mapped to, in order; none while it is not.
    placed: Vec<FrameId>,
    /// Host memory; no two pieces are for the same frame.
    host: Vec<HostPiece>,
    /// Recorded behind the copy that brought the present content.
    fence: Option<Fence>,
    /// Last use on each stream since it was displaced. Residents are covered
    /// by `hot::streams`, but for default streams of contexts other than ours.
    uses: Vec<Use>,
    /// Recorded behind the copy to the host, until somebody waited for it.
    written_back: Option<CUevent>,
    /// The internal streams wait for uses that are forgotten here.
    displaced: bool,
}

impl Backing {
    /// First byte, and number of bytes, of a run of frames; the chunk may end
    /// within its last frame.
    fn span(&self, frames: &Range<u32>) -> (usize, usize) {
        let start = frames.start as usize * FRAME_BYTES;
        let end = (frames.end as usize * FRAME_BYTES).min(self.bytes);
        (start, end - start)
    }

    /// The pieces of a run of frames, as its host memory divides it: device
    /// address, host address and bytes.
    fn pieces(&self, frames: &Range<u32>) -> SmallVec<[Span; 4]> {
        let meeting = self.host.iter().filter_map(|HostPiece { frames: range, buffer, .. }| {
            let common = range.start.max(frames.start)..range.end.min(frames.end);
            (common.start < common.end).then(|| {
                let (start, bytes) = self.span(&common);
                let within = start - range.start as usize * FRAME_BYTES;
                (self.base + start as u64, buffer.address.wrapping_byte_add(within), bytes)
            })
        });
        let pieces: SmallVec<_> = meeting.collect();
        debug_assert_eq!(
            pieces.iter().map(|&(_, _, bytes)| bytes).sum::<usize>(),
            self.span(frames).1,
            "host memory before a copy"
        );
        pieces
    }

    /// Where a run of frames is in a slab: which, and its first byte. `None`:
    /// some of it has memory of its own.
    fn in_slab(&self, frames: &Range<u32>) -> Option<(usize, usize)> {
        let mut found = None;
        let mut missing = frames.len();
        for HostPiece { frames: range, buffer, .. } in &self.host {
            let common = range.start.max(frames.start)..range.end.min(frames.end);
            if common.is_empty() {
                continue;
            }
            let within = (common.start - range.start) as usize * FRAME_BYTES;
            let before = (common.start - frames.start) as usize * FRAME_BYTES;
            let place = (buffer.slab()?, buffer.address as usize + within - before);
            if found.is_some_and(|found| found != place) {
                return None;
            }
            found = Some(place);
            missing -= common.len();
        }
        found.filter(|_| missing == 0)
    }
}

/// Bytes that one copy moves: device address, host address, how many.
type Span = (DevicePtr, *mut c_void, usize);

/// Frames of chunks, in an order.
type Pieces = [(ChunkId, Range<u32>)];

fn frame_count(pieces: &Pieces) -> u32 {
    pieces.iter().map(|(_, frames)| frames.end - frames.start).sum()
}

/// A physical frame.
struct Frame {
    handle: MemHandle,
    /// It lies in the host, not on the device.
    in_host: bool,
}

/// Host memory that nothing new will use, until what is queued is over.
struct Leaving {
    buffer: HostBuffer,
    /// Recorded on both internal streams when it was given up.
    events: [CUevent; 2],
}

/// Frames, streams, events and copies of one device.
pub struct Machinery {
    driver: &'static Driver,
    host_store: &'static HostStore,
    stats: &'static Stats,
    pub device: Device_,
    pub ctx: CUcontext,
    copy_in: CUstream,
    copy_out: CUstream,
    /// By id; ids of released frames are reused.
    frames: Vec<Frame>,
    unused_ids: Vec<FrameId>,
    slabs: Slabs,
    view: RingView,
    in_place: InPlace,
    leaving: Vec<Leaving>,
    /// Indexed by chunk id.
    backings: Vec<Option<Backing>>,
    /// Events nobody needs any more, by context.
    spare_events: HashMap<usize, Vec<CUevent>>,
    /// Everything queued is known to be over: waits are not needed.
    pub idle: bool,
    /// Rises with every copy and wait that we queue.
    pub queued: u64,
    /// Of the last operation, if it is one of our context.
    pub last_stream: Option<CUstream>,
    /// Why the host waits, should it.
    pub reason: WaitReason,
    /// An error that no operation could answer.
    pub failure: Option<CuResult>,
    /// Bytes of the card that other processes held when we began.
    pub foreign_bytes: Option<u64>,
    /// Timed copy whose rate is read at the next wait: events and bytes.
    probe: Option<(CUevent, CUevent, usize)>,
    /// Copies since the last one that was timed.
    unprobed: u32,
    link_bytes_per_s: Option<f64>,
    stalls: StallProbe,
    timer: OperationTimer,
}

use crate::driver::abi::Device as Device_;

// SAFETY: driver handles may be used from any thread; the pointers to host
// memory are ours alone.
unsafe impl Send for Machinery {}

impl Device {
    /// Sets up `device`, whose context `ctx` is current.
    pub fn new(
        driver: &'static Driver,
        host_store: &'static HostStore,
        stats: &'static Stats,
        device: Device_,
        ctx: CUcontext,
        window: Window,
    ) -> Result<Self> {
        let copy_in = driver.stream_create_nonblocking(0)?;
        let copy_out = driver.stream_create_nonblocking(0)?;
        Ok(Self {
            planner: Planner::default(),
            streamer: Streamer::new(0, window),
            machinery: Machinery {
                driver,
                host_store,
                stats,
                device,
                ctx,
                copy_in,
                copy_out,
                frames: Vec::new(),
                unused_ids: Vec::new(),
                slabs: Slabs::default(),
                view: RingView::default(),
                in_place: InPlace::default(),
                leaving: Vec::new(),
                backings: Vec::new(),
                spare_events: HashMap::new(),
                idle: false,
                queued: 0,
                last_stream: None,
                reason: WaitReason::PlanChange,
                failure: None,
                foreign_bytes: None,
                probe: None,
                unprobed: u32::MAX,
                link_bytes_per_s: None,
                stalls: StallProbe::default(),
                timer: OperationTimer::default(),
            },
        })
    }
}

impl Machinery {
    // --- chunks ------------------------------------------------------------

    /// Announces a chunk before the streamer maps it.
    pub fn add(&mut self, id: ChunkId, base: DevicePtr, bytes: usize, frames: u32) {
        if self.backings.len() <= id as usize {
            self.backings.resize_with(id as usize + 1, || None);
        }
        self.backings[id as usize] = Some(Backing {
            base,
            bytes,
            frames,
            placed: Vec::new(),
            host: Vec::new(),
            fence: None,
            uses: Vec::new(),
            written_back: None,
            displaced: false,
        });
    }

    /// Forgets a chunk that the streamer freed, and gives its host memory and
    /// events back.
    pub fn remove(&mut self, id: ChunkId) {
        let Some(backing) = self.backings[id as usize].take() else { return };
        for last in backing.uses {
            self.spare(last.user.ctx, last.event);
        }
        if let Some(fence) = backing.fence {
            self.spare(self.ctx, fence.event);
        }
        if let Some(event) = backing.written_back {
            self.spare(self.ctx, event);
        }
        for piece in backing.host {
            self.host_store.free(piece.buffer);
        }
        if self.backings.iter().all(Option::is_none) {
            self.free_leaving(true);
            self.release_events();
        }
    }

    fn backing(&mut self, id: ChunkId) -> &mut Backing {
        self.backings[id as usize].as_mut().expect("a chunk that lives")
    }

    /// Gives `accessor` access to the mapped chunk.
    pub fn grant(&mut self, id: ChunkId, accessor: Device_) {
        let backing = self.backing(id);
        let (base, bytes) = (backing.base, backing.frames as usize * FRAME_BYTES);
        if let Err(code) = self.driver.mem_set_access(base, bytes, accessor) {
            log::warn!(
                "device {accessor} gets no access to memory of device {} ({code})",
                self.device
            );
        }
    }

    // --- uses --------------------------------------------------------------

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
        let named = ctx == self.ctx && stream != STREAM_PER_THREAD && !super::any_capture();
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

    /// The GPU time of a group of operations that is over: which, and ns.
    pub fn read_times(&mut self) -> Option<(Range<u64>, u64)> {
        self.timer.read(self.driver)
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

    // --- copies ------------------------------------------------------------

    /// Host memory at `place`, beside that of other chunks, while there is
    /// enough of it for everything.
    fn beside_others(&mut self, place: Place, frames: &Range<u32>) -> Option<HostBuffer> {
        let (host_store, stats) = (self.host_store, self.stats);
        let (used_bytes, ..) = host_store.usage();
        let managed_bytes = stats.managed_bytes.load(Ordering::Relaxed);
        self.slabs.take(host_store, place, frames, managed_bytes.saturating_sub(used_bytes))
    }

    /// Cuts `pieces`, which lie on consecutive slots from `slot` on, into runs
    /// that one copy can move, and tells `each` what that copy is; `None`: a
    /// run of pieces that are copied by themselves.
    fn in_runs(
        &mut self,
        mut pieces: &Pieces,
        mut slot: u32,
        mut each: impl FnMut(&mut Self, &Pieces, Option<Span>),
    ) {
        while !pieces.is_empty() {
            let (run, rest) = pieces.split_at(self.side_by_side(pieces));
            let span = if run.len() > 1 { self.span_of(run, slot) } else { None };
            each(self, run, span);
            slot += frame_count(run);
            pieces = rest;
        }
    }

    /// How many of `pieces`, from the first on, are side by side in a slab; at
    /// least one.
    fn side_by_side(&mut self, pieces: &Pieces) -> usize {
        let mut next = None;
        let neighbours = pieces.iter().take_while(|(chunk, frames)| {
            let bytes = frames.len() * FRAME_BYTES;
            let found = self.backing(*chunk).in_slab(frames);
            let follows = next.is_none() || (found.is_some() && next == Some(found));
            next = Some(found.map(|(slab, address)| (slab, address + bytes)));
            follows
        });
        neighbours.count()
    }

    /// The copy that moves all of `run`, whose host memory is side by side.
    fn span_of(&mut self, run: &Pieces, slot: u32) -> Option<Span> {
        let (first, frames) = run.first()?;
        let (_, host) = self.backing(*first).in_slab(frames)?;
        let mut placed = Vec::with_capacity(frame_count(run) as usize);
        for (chunk, frames) in run {
            let there = &self.backing(*chunk).placed;
            placed.extend(there.get(frames.start as usize..frames.end as usize)?);
        }
        // The last chunk may end within its last frame; before that, what fills
        // up a chunk's last frame is of its slab and its ring frame as well.
        let (last, frames) = run.last()?;
        let (_, last_bytes) = self.backing(*last).span(frames);
        let bytes = (placed.len() - frames.len()) * FRAME_BYTES + last_bytes;
        let handles = &self.frames;
        let handle = |frame: FrameId| handles[frame as usize].handle;
        let base = self.view.address(self.driver, self.device, slot, placed.into_iter(), handle)?;
        self.view.used = true;
        Some((base, host as *mut c_void, bytes))
    }

    /// Unmaps the ring's view from `slot` on.
    fn cut_view(&mut self, slot: usize) {
        if std::mem::take(&mut self.view.used) && !self.idle {
            for stream in [self.copy_in, self.copy_out] {
                self.wait(|driver| driver.stream_synchronize(stream));
            }
        }
        let outcome = self.view.cut(self.driver, slot);
        self.note(outcome);
    }

    /// The copy to the host that comes next waits for all uses of `chunk`.
    fn await_uses_before_copy_out(&mut self, chunk: ChunkId) {
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

    fn copy_to_host(&mut self, (base, host, bytes): Span) {
        // SAFETY: the buffer holds the bytes and lives until the chunks are
        // freed, which waits for this copy; nobody reads it before the event.
        let copied = unsafe { self.driver.memcpy_dtoh_async(host, base, bytes, self.copy_out) };
        self.note(copied);
        self.stats.wrote_back(bytes);
    }

    /// The last copy to the host was `chunk`'s.
    fn note_written_back(&mut self, chunk: ChunkId) {
        let copy_out = self.copy_out;
        let known = self.backing(chunk).written_back.take();
        let Some(event) = known.or_else(|| self.event(self.ctx)) else {
            return self.wait(|driver| driver.stream_synchronize(copy_out));
        };
        let outcome = self.driver.event_record(event, copy_out);
        self.note(outcome);
        self.backing(chunk).written_back = Some(event);
    }

    fn copy_to_device(&mut self, (base, host, bytes): Span, demanded: bool) {
        const PROBE_BYTES: usize = 1 << 20;
        const PROBE_ONE_IN: u32 = 64;
        self.read_probe();
        self.unprobed = self.unprobed.saturating_add(1);
        let probe = self.probe.is_none() && bytes >= PROBE_BYTES && self.unprobed >= PROBE_ONE_IN;
        let start = if probe { self.timed_event() } else { None };
        // SAFETY: the buffer holds the bytes, lives until the chunks are
        // freed, and is written only by copies this stream waited for.
        let copied = unsafe {
            self.driver.memcpy_htod_async(base, host as *const c_void, bytes, self.copy_in)
        };
        if let Some(start) = start
            && let Some(end) = self.timed_event()
        {
            self.probe = Some((start, end, bytes));
            self.unprobed = 0;
        }
        self.note(copied);
        self.stats.streamed(bytes, demanded);
    }

    /// Later uses of `chunk` wait for the last copy to the device.
    fn raise_fence(&mut self, chunk: ChunkId) {
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

    // --- events ------------------------------------------------------------

    /// An event of `ctx`, which is current or ours.
    fn event(&mut self, ctx: CUcontext) -> Option<CUevent> {
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
    fn spare(&mut self, ctx: CUcontext, event: CUevent) {
        self.spare_events.entry(ctx as usize).or_default().push(event);
    }

    fn release_events(&mut self) {
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
    fn note(&mut self, outcome: Result<()>) {
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
    fn wait(&mut self, wait: impl FnOnce(&Driver) -> Result<()>) {
        // The program's operations do not take longer for that.
        self.timer.give_up();
        let began = Instant::now();
        let outcome = wait(self.driver);
        self.stats.waited(self.reason, began.elapsed());
        self.note(outcome);
    }

    /// Whether `stream` captures: then nothing of it can be waited for, nor
    /// need be, because everything before the capture is over (`graphs`).
    fn captures(&self, stream: CUstream) -> bool {
        super::any_capture() && self.driver.stream_is_capturing(stream) != Ok(false)
    }

    /// Makes `waiter` wait, on the device, for every stream in `hot`'s bits.
    fn await_resident_uses(&mut self, id: ChunkId, waiter: CUstream) {
        let bits = hot(id).streams();
        if bits == 0 || self.idle {
            return;
        }
        let (streams, unnamed) = streams::named(bits);
        if unnamed {
            self.wait(Driver::ctx_synchronize);
        }
        if bits & (1 << streams::FOREIGN) != 0 {
            self.wait(super::synchronize_every_device);
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

    /// Reads the probe, if its copy is over.
    fn read_probe(&mut self) {
        let Some((start, end, bytes)) = self.probe else { return };
        let Ok(ms) = self.driver.event_elapsed_ms(start, end) else { return };
        self.probe = None;
        let _ = self.driver.event_destroy(start);
        let _ = self.driver.event_destroy(end);
        if ms > 0.0 {
            let seen = bytes as f64 / f64::from(ms) * 1e3;
            // One copy may have been slowed down by others; none is too fast.
            let known = self.link_bytes_per_s.unwrap_or(seen);
            let rate = if seen > known { seen } else { 0.9 * known + 0.1 * seen };
            self.link_bytes_per_s = Some(rate);
            self.stats.link_rate(rate as u64);
        }
    }

    /// What the planner is to reckon with. Asks the driver, the first time.
    pub fn machine(&mut self) -> Machine {
        let assumed = Machine::default();
        let link_bytes_per_s = self.link_bytes_per_s.unwrap_or(assumed.link_bytes_per_s);
        // Memory of the host that the device reaches is page-locked.
        let (device_bytes_per_s, zero_copy_bytes_per_s) = if self.host_store.pins() {
            self.in_place.rates(self.driver, self.device, link_bytes_per_s)
        } else {
            (f64::INFINITY, None)
        };
        Machine {
            frame_bytes: FRAME_BYTES as u64,
            device_bytes_per_s,
            zero_copy_bytes_per_s,
            link_bytes_per_s,
            // What leaves is copied out: a kernel may have written to it.
            release_bytes_per_s: link_bytes_per_s,
            ..assumed
        }
    }

    /// A number for a new frame.
    fn number(&mut self, frame: Frame) -> FrameId {
        if let Some(id) = self.unused_ids.pop() {
            self.frames[id as usize] = frame;
            return id;
        }
        self.frames.push(frame);
        self.frames.len() as FrameId - 1
    }

    /// Frees `buffer` as soon as the copies that are queued are over.
    fn leave(&mut self, buffer: HostBuffer) {
        let events = [self.copy_in, self.copy_out].map(|stream| {
            let event = self.event(self.ctx)?;
            if self.driver.event_record(event, stream).is_ok() {
                return Some(event);
            }
            self.spare(self.ctx, event);
            None
        });
        let [Some(first), Some(second)] = events else {
            for (event, stream) in events.into_iter().zip([self.copy_in, self.copy_out]) {
                self.wait(|driver| driver.stream_synchronize(stream));
                event.into_iter().for_each(|event| self.spare(self.ctx, event));
            }
            return self.host_store.free(buffer);
        };
        self.leaving.push(Leaving { buffer, events: [first, second] });
    }

    /// Frees what [`Self::leave`] was asked to and nothing uses any more;
    /// `wait`: all of it, once it is so. `true`: something was freed.
    fn free_leaving(&mut self, wait: bool) -> bool {
        let before = self.leaving.len();
        // In the order in which they were given up, which is that of their ends.
        while let Some(Leaving { events, .. }) = self.leaving.first() {
            let events = *events;
            if !events.iter().all(|&event| self.idle || self.driver.event_is_over(event)) {
                if !wait {
                    break;
                }
                for event in events {
                    self.wait(|driver| driver.event_synchronize(event));
                }
            }
            self.host_store.free(self.leaving.remove(0).buffer);
            events.into_iter().for_each(|event| self.spare(self.ctx, event));
        }
        self.leaving.len() < before
    }

    fn timed_event(&mut self) -> Option<CUevent> {
        let event = self.driver.event_create(false).ok()?;
        let _ = self.driver.event_record(event, self.copy_in);
        Some(event)
    }

    /// Forgets everything without a call: the context is being destroyed.
    pub fn abandon(&mut self) {
        for backing in self.backings.drain(..).flatten() {
            for piece in backing.host {
                self.host_store.free(piece.buffer);
            }
        }
        for leaving in self.leaving.drain(..) {
            self.host_store.free(leaving.buffer);
        }
        for _ in self.frames.iter().filter(|frame| frame.in_host) {
            self.host_store.give_pinned_back(FRAME_BYTES);
            self.stats.in_place_ended(FRAME_BYTES);
        }
    }
}

impl MemoryOps for Machinery {
    fn create_frame(&mut self) -> std::result::Result<FrameId, Refused> {
        let handle = self.driver.mem_create(self.device, FRAME_BYTES).map_err(|_| Refused)?;
        Ok(self.number(Frame { handle, in_host: false }))
    }

    fn create_host_frame(&mut self) -> std::result::Result<FrameId, Refused> {
        let node = self.in_place.node(self.driver, self.device).ok_or(Refused)?;
        let store = self.host_store;
        // If need be, what is on its way out makes room.
        let taken = store.take_pinned(FRAME_BYTES)
            || (self.free_leaving(true) && store.take_pinned(FRAME_BYTES));
        if !taken {
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

    fn release_frame(&mut self, frame: FrameId) {
        if let Some(slot) = self.view.slot_of(frame) {
            self.cut_view(slot);
        }
        let Frame { handle, in_host } = self.frames[frame as usize];
        let outcome = self.driver.mem_release(handle);
        self.note(outcome);
        self.frames[frame as usize].in_host = false;
        self.unused_ids.push(frame);
        if in_host {
            self.host_store.give_pinned_back(FRAME_BYTES);
            self.stats.in_place_ended(FRAME_BYTES);
        }
    }

    fn map(&mut self, chunk: ChunkId, frames: &[FrameId]) -> std::result::Result<(), Refused> {
        let base = self.backing(chunk).base;
        let address = |index: usize| base + (index * FRAME_BYTES) as u64;
        let bytes = frames.len() * FRAME_BYTES;
        for (index, &frame) in frames.iter().enumerate() {
            let handle = self.frames[frame as usize].handle;
            if let Err(code) = self.driver.mem_map(address(index), FRAME_BYTES, handle) {
                log::warn!("mapping device memory failed ({code})");
                if index > 0 {
                    let _ = self.driver.mem_unmap(base, index * FRAME_BYTES);
                }
                return Err(Refused);
            }
        }
        if let Err(code) = self.driver.mem_set_access(base, bytes, self.device) {
            log::warn!("granting access to device memory failed ({code})");
            let _ = self.driver.mem_unmap(base, bytes);
            return Err(Refused);
        }
        self.backing(chunk).placed = frames.to_vec();
        let mut peers = PEERS[self.device as usize].load(Ordering::Relaxed);
        while peers != 0 {
            self.grant(chunk, peers.trailing_zeros() as Device_);
            peers &= peers - 1;
        }
        Ok(())
    }

    fn unmap(&mut self, chunk: ChunkId) {
        let backing = self.backing(chunk);
        let (base, bytes) = (backing.base, backing.frames as usize * FRAME_BYTES);
        self.backing(chunk).placed.clear();
        let outcome = self.driver.mem_unmap(base, bytes);
        self.note(outcome);
        hot(chunk).forget_uses();
    }

    fn about_to_evict(&mut self) {
        if !inflight::pressure() {
            log::info!(
                "device {}: the budget is used up; memory is moved to the host and back from here on",
                self.device
            );
        }
        inflight::begin_pressure();
    }

    fn reserve_host(
        &mut self,
        chunk: ChunkId,
        frames: Range<u32>,
        place: Option<Place>,
    ) -> std::result::Result<(), Refused> {
        self.free_leaving(false);
        // Some of it may be left of what was given up in part.
        let mut at = frames.start;
        for piece in &mut self.backing(chunk).host {
            piece.unneeded &= !piece.bits(&frames);
        }
        while at < frames.end {
            let backing = self.backing(chunk);
            if let Some(piece) = backing.host.iter().find(|piece| piece.frames.contains(&at)) {
                at = piece.frames.end;
                continue;
            }
            let next = backing.host.iter().map(|piece| piece.frames.start).filter(|&s| s > at);
            let end = next.min().unwrap_or(frames.end).min(frames.end).min(at + PIECE_FRAMES);
            let (_, bytes) = backing.span(&(at..end));
            let beside = place.and_then(|place| self.beside_others(place, &(at..end)));
            let mut buffer = beside.or_else(|| self.host_store.allocate(bytes));
            if buffer.is_none() && self.free_leaving(true) {
                buffer = self.host_store.allocate(bytes);
            }
            let Some(buffer) = buffer else {
                // What was made for this serves nobody.
                self.release_host(chunk, frames);
                return Err(Refused);
            };
            self.backing(chunk).host.push(HostPiece { frames: at..end, buffer, unneeded: 0 });
            at = end;
        }
        Ok(())
    }

    fn release_host(&mut self, chunk: ChunkId, frames: Range<u32>) {
        self.free_leaving(false);
        let backing = self.backing(chunk);
        for piece in &mut backing.host {
            piece.unneeded |= piece.bits(&frames);
        }
        let gone = |piece: &mut HostPiece| piece.unneeded == piece.bits(&piece.frames);
        let gone: Vec<HostPiece> = backing.host.extract_if(.., gone).collect();
        for piece in gone {
            self.leave(piece.buffer);
        }
    }

    fn ring(&mut self, slots: &[FrameId]) {
        if let Some(slot) = self.view.announce(slots) {
            self.cut_view(slot);
        }
    }

    fn write_back(&mut self, chunk: ChunkId, frames: Range<u32>) {
        self.queued += 1;
        self.await_uses_before_copy_out(chunk);
        for span in self.backing(chunk).pieces(&frames) {
            self.copy_to_host(span);
        }
        self.note_written_back(chunk);
    }

    fn write_back_run(&mut self, pieces: &Pieces, slot: u32) {
        self.in_runs(pieces, slot, |machinery, run, span| {
            let Some(span) = span else {
                return run
                    .iter()
                    .for_each(|(chunk, frames)| machinery.write_back(*chunk, frames.clone()));
            };
            machinery.queued += 1;
            for &(chunk, _) in run {
                machinery.await_uses_before_copy_out(chunk);
            }
            machinery.copy_to_host(span);
            machinery.stats.merged(run.len());
            for &(chunk, _) in run {
                machinery.note_written_back(chunk);
            }
        });
    }

    fn fetch_after_uses(&mut self, chunk: ChunkId) {
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

    fn fetch_after_program(&mut self) {
        // A stream that cannot be waited for: then copies are ready at once.
        let Some(stream) = self.last_stream.filter(|_| !super::any_capture()) else { return };
        let Some(event) = self.event(self.ctx) else { return };
        if self.driver.event_record(event, stream).is_ok() {
            let outcome = self.driver.stream_wait_event(self.copy_in, event);
            self.note(outcome);
        }
        self.spare(self.ctx, event);
    }

    fn fetch(&mut self, chunk: ChunkId, frames: Range<u32>, content: bool, demanded: bool) {
        self.free_leaving(false);
        self.queued += 1;
        let pieces = if content { self.backing(chunk).pieces(&frames) } else { SmallVec::new() };
        for span in pieces {
            self.copy_to_device(span, demanded);
        }
        self.raise_fence(chunk);
    }

    fn fetch_run(&mut self, pieces: &Pieces, slot: u32, demanded: bool) {
        self.in_runs(pieces, slot, |machinery, run, span| {
            let Some(span) = span else {
                return run.iter().for_each(|(chunk, frames)| {
                    machinery.fetch(*chunk, frames.clone(), true, demanded);
                });
            };
            machinery.queued += 1;
            machinery.copy_to_device(span, demanded);
            machinery.stats.merged(run.len());
            for &(chunk, _) in run {
                machinery.raise_fence(chunk);
            }
        });
    }

    fn retire(&mut self, chunk: ChunkId) {
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
                self.wait(super::synchronize_every_device);
            }
            hot(chunk).forget_uses();
        }
    }
}
