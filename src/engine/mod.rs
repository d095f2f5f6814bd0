//! Carries plans out: what the hooks ask, and nothing of CUDA's calling
//! conventions.
//!
//! The hooks hand over converted arguments; every function here either serves
//! the request or answers that it is not ours, and then the hook calls the
//! original. Nothing here is called before `cuInit` has succeeded, or in a
//! forked child. After the exit handler ran, threads that still launch are
//! still served: on the driver alone they would run on absent bytes.
//!
//! Flow of one launch: hook → [`chunk_of`] on every parameter word →
//! [`begin`] (chunks present, waits queued on the stream) → original →
//! [`Access`] dropped (last use recorded, next copies submitted).
//!
//! Two regimes. While everything fits, a launch sets a bit per chunk and takes
//! no lock ([`inflight`]). Once anything had to move, a launch that names
//! managed memory takes its device's lock before and after the original,
//! never across it; in between its chunks are held by count.
//!
//! Threads: all of this runs on the program's. One of our own searches for a
//! plan when that takes long ([`planning`]); it touches nothing else.
//!
//! Locks, in this order: one per device (by ordinal), then the address space.
//! The host waits of a plan change or an allocation happen under the device's
//! lock: other threads' launches on that device wait with them.

mod device;
mod graphs;
mod host_store;
mod in_place;
mod inflight;
mod memory;
mod planning;
mod populate;
mod report;
mod ring_view;
mod slabs;
mod stall;
mod stats;
mod stream_ordered;
mod streams;
mod timing;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use autooffload_core::address_map::{AddressMap, Arena};
use autooffload_core::config::{Config, Window as WindowSetting};
use autooffload_core::memory::{Effect, Shortage, Streamer, Window};
use dashmap::DashMap;
use once_cell::sync::OnceCell;
use smallvec::SmallVec;

pub use autooffload_core::address_map::ChunkId;
pub use graphs::{any_capture, capture_count_changed, is_kept, pin_for_good, pin_for_graph};
pub use memory::{
    context_destroyed, context_lost, mem_alloc, mem_free, peer_access_enabled, release_for_retry,
    stream_destroyed,
};
pub use report::{device_total_mem, mem_get_info, stats_json, summary};
pub use stream_ordered::{mem_alloc_async, mem_free_async, pool_trim, pool_usage};

use crate::driver::Driver;
use crate::driver::abi::*;
use device::{Device as DeviceState, Machinery};
use host_store::HostStore;
use inflight::FastLaunch;
use stats::{Stats, WaitReason};

/// The unit of mapping: the granularity of device memory on every card so far.
const FRAME_SHIFT: u32 = 21;
const FRAME_BYTES: usize = 1 << FRAME_SHIFT;
/// Smaller allocations pass through: a frame each would waste more than
/// moving them could win. PyTorch's own segments begin at 2 MiB.
const THRESHOLD_BYTES: usize = 1 << 20;
/// Device address space asked for; halved until the driver has it.
const ARENA_BYTES: usize = 1 << 40;
const ARENA_BYTES_MIN: usize = 1 << 36;
const MAX_DEVICES: usize = 64;

/// What the hooks need to answer queries about a managed address.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub base: DevicePtr,
    /// As the program asked for, bytes.
    pub bytes: usize,
    pub device: Device,
    /// The context the allocation was made in.
    pub ctx: CUcontext,
    /// Of stream-ordered origin (`cuMemAllocAsync`): the pool it came from.
    pub pool: Option<CUmemoryPool>,
}

// SAFETY: the handles in it may be used from any thread.
unsafe impl Send for Allocation {}
// SAFETY: as above; it is plain data.
unsafe impl Sync for Allocation {}

/// Why a chunk is about to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A kernel (or a graph node) received a pointer into it: may read and write all of it.
    Kernel,
    /// A copy or memset reads `bytes` of it.
    CopyFrom { bytes: usize },
    /// A copy from the host writes `bytes` of it.
    HostWrite { bytes: usize },
    /// A device-side copy or memset writes `bytes` of it.
    DeviceWrite { bytes: usize },
}

impl Touch {
    fn effect(self) -> Effect {
        match self {
            Touch::CopyFrom { .. } => Effect::Read,
            _ => Effect::Write,
        }
    }
}

/// What the lock-free path knows of a chunk.
#[derive(Default)]
pub(crate) struct Hot {
    /// The streams that used it while resident; see [`streams`].
    streams: AtomicU64,
    device: AtomicU32,
    /// KiB that copies from the host put into it, until it counts as weights.
    filled_kib: AtomicU32,
    /// Its size, once it counts as weights: copies filled half of it.
    weight_bytes: AtomicU64,
    /// Pinned, by a graph or for good.
    kept: AtomicBool,
}

impl Hot {
    fn used_on(&self, index: u32) {
        let bit = 1 << index;
        // Reading first keeps the line shared: the bit is nearly always set.
        if self.streams.load(Ordering::Relaxed) & bit == 0 {
            self.streams.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    fn forget_uses(&self) {
        self.streams.store(0, Ordering::Relaxed);
    }

    fn device(&self) -> usize {
        self.device.load(Ordering::Relaxed) as usize
    }
}

/// The address space, once the first managed allocation asked for it.
struct Space {
    map: AddressMap,
    hot: Box<[Hot]>,
    addresses: Mutex<Addresses>,
}

struct Addresses {
    arena: Arena,
    unused_ids: Vec<ChunkId>,
    next_id: ChunkId,
}

/// A device, once something was allocated there.
struct Slot {
    state: Mutex<Option<DeviceState>>,
    /// Signalled when a thread let go of its chunks, if one waits for that:
    /// a signal costs a system call even when nobody does.
    released: Condvar,
    /// Those who wait; changed under the lock.
    waiting: AtomicU32,
}

struct Engine {
    driver: &'static Driver,
    config: RwLock<Config>,
    host_store: HostStore,
    stats: Stats,
    allocations: DashMap<ChunkId, Allocation>,
    devices: [Slot; MAX_DEVICES],
    device_count: usize,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();
static SPACE: OnceCell<Space> = OnceCell::new();
static CAPTURES: AtomicI32 = AtomicI32::new(0);

fn engine() -> Option<&'static Engine> {
    ENGINE.get()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock was caught at the hook; the state it left is
    // checked by the next use, not by the poison flag.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the lock-free path knows of the chunk `id`, which lives.
fn hot(id: ChunkId) -> &'static Hot {
    &SPACE.get().expect("chunks exist, so the space does").hot[id as usize]
}

/// Called once, right after the first successful `cuInit`. Starts nothing if
/// `config.enabled` is false; then every other function answers "not ours".
pub fn start(driver: &'static Driver, config: &Config) {
    if !config.enabled {
        return;
    }
    let _ = ENGINE.set(Engine {
        driver,
        config: RwLock::new(config.clone()),
        host_store: HostStore::new(driver, config.pin, config.ram),
        stats: Stats::default(),
        allocations: DashMap::new(),
        devices: [const {
            Slot { state: Mutex::new(None), released: Condvar::new(), waiting: AtomicU32::new(0) }
        }; MAX_DEVICES],
        device_count: driver.device_count().unwrap_or(1).max(1) as usize,
    });
}

/// Takes over the settings that may change while the program runs. A smaller
/// budget is met at once, by evicting.
pub fn reconfigure(config: &Config) {
    let Some(engine) = engine() else { return };
    *engine.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
    for device in 0..engine.device_count.min(MAX_DEVICES) {
        if lock(&engine.devices[device].state).is_none() {
            continue;
        }
        let outcome = engine.with_device(device, WaitReason::PlanChange, |state| {
            let DeviceState { streamer, machinery, .. } = state;
            streamer.set_window(window(config));
            memory::refresh_cap(engine, streamer, machinery);
            let excess = streamer.live_frames().saturating_sub(streamer.cap_frames());
            if excess > 0 {
                streamer.give_back(excess, machinery)?;
                memory::refresh_cap(engine, streamer, machinery);
            }
            Ok(())
        });
        if let Err(Failure::Shortage(shortage)) = outcome {
            engine.explain(device, "a smaller budget", shortage);
        }
    }
}

fn window(config: &Config) -> Window {
    match config.window {
        WindowSetting::Auto => Window::Auto,
        WindowSetting::Chunks(count) => Window::Chunks(count),
        WindowSetting::Bytes(bytes) => Window::Frames((bytes >> FRAME_SHIFT).max(1) as u32),
    }
}

/// Whether memory has begun to move: from then on the original alone does not
/// see every byte.
pub fn memory_moves() -> bool {
    inflight::pressure()
}

/// The chunk that contains `address`. Lock-free, a few nanoseconds; `None` for
/// anything outside the arena and for the guard gaps.
#[inline]
pub fn chunk_of(address: DevicePtr) -> Option<ChunkId> {
    SPACE.get()?.map.owner(address)
}

/// Half-open bounds of the arena, (0, 0) before the first managed allocation.
#[inline]
pub fn arena() -> (DevicePtr, DevicePtr) {
    SPACE.get().map_or((0, 0), |space| space.map.bounds())
}

/// The managed allocation that contains `address`.
pub fn lookup(address: DevicePtr) -> Option<Allocation> {
    let id = chunk_of(address)?;
    let mut allocation = *engine()?.allocations.get(&id)?;
    if let Some((base, bytes)) = stream_ordered::slot_at(id, &allocation, address) {
        allocation.base = base;
        allocation.bytes = bytes as usize;
    }
    (address - allocation.base < allocation.bytes as u64).then_some(allocation)
}

type Touches = SmallVec<[(ChunkId, Effect); 16]>;

/// Makes every chunk of `touches` present and ordered before the next
/// operation on `stream` (effective handle), and holds them until the answer
/// is dropped. Call the original *after* this and drop the answer after it.
///
/// Errors: `OUT_OF_MEMORY` when they cannot all be present at once; the hook
/// returns it to the program and does not call the original.
#[inline]
pub fn begin(stream: CUstream, touches: &[(ChunkId, Touch)]) -> Result<Access> {
    if touches.is_empty() {
        return Ok(Access(Held::Nothing));
    }
    let Some(engine) = engine() else { return Ok(Access(Held::Nothing)) };
    note_fills(engine, touches);
    if let Some(launch) = inflight::enter() {
        let index = streams::index_of(stream);
        // One device: a stream's device is the chunk's. Several: ask.
        let here = if engine.device_count > 1 { current_device(engine) } else { None };
        for &(id, _) in touches {
            let foreign = here.is_some_and(|here| here != hot(id).device());
            hot(id).used_on(if foreign { streams::FOREIGN } else { index });
        }
        return Ok(Access(Held::Fast { _launch: launch }));
    }
    begin_streaming(engine, stream, touches)
}

fn current_device(engine: &Engine) -> Option<usize> {
    engine.driver.ctx_get_device().ok().map(|device| device as usize)
}

fn note_fills(engine: &Engine, touches: &[(ChunkId, Touch)]) {
    for &(id, touch) in touches {
        if let Touch::HostWrite { bytes } = touch {
            report::note_fill(engine, id, bytes);
        }
    }
}

/// The careful path: memory moves, so the streamer decides.
#[cold]
#[inline(never)]
fn begin_streaming(
    engine: &'static Engine,
    stream: CUstream,
    touches: &[(ChunkId, Touch)],
) -> Result<Access> {
    let mut unique: Touches = SmallVec::new();
    for &(id, touch) in touches {
        match unique.iter_mut().find(|(known, _)| *known == id) {
            Some((_, effect)) if touch.effect() == Effect::Write => *effect = Effect::Write,
            Some(_) => {}
            None => unique.push((id, touch.effect())),
        }
    }
    // By device, in the order of the locks.
    unique.sort_by_key(|&(id, _)| hot(id).device());
    let ctx = engine.driver.ctx_get_current()?;
    // One device: every context is of it.
    let here = if engine.device_count > 1 { current_device(engine) } else { None };
    let mut access = Streaming { engine, stream, ctx, here, held: SmallVec::new() };
    let mut rest = &unique[..];
    while let Some(&(first, _)) = rest.first() {
        let device = hot(first).device();
        let count = rest.iter().take_while(|&&(id, _)| hot(id).device() == device).count();
        let (group, others) = rest.split_at(count);
        access.take(device, group)?;
        rest = others;
    }
    Ok(Access(Held::Streaming(access)))
}

/// The chunks of one operation, held. Dropping it records the last use: drop
/// it right after the original returned, whatever it returned.
#[must_use]
pub struct Access(#[allow(dead_code, reason = "held for what dropping it does")] Held);

enum Held {
    Nothing,
    Fast { _launch: FastLaunch },
    Streaming(#[allow(dead_code, reason = "held for what dropping it does")] Streaming),
}

/// An operation on the careful path.
struct Streaming {
    engine: &'static Engine,
    stream: CUstream,
    /// The calling thread's context and its device.
    ctx: CUcontext,
    here: Option<usize>,
    held: SmallVec<[(usize, Touches); 1]>,
}

impl Streaming {
    /// Makes `group`, all of `device`, present and holds it.
    fn take(&mut self, device: usize, group: &[(ChunkId, Effect)]) -> Result<()> {
        let engine = self.engine;
        let mut living = Touches::new();
        let outcome = engine.with_device(device, WaitReason::PlanChange, |state| {
            let DeviceState { streamer, machinery, planner } = state;
            // Not while something captures: what it uses cannot be waited for.
            if !any_capture() && planner.poll(streamer, machinery) {
                engine.publish_streamer(streamer);
                engine.stats.plan_began(streamer.operations(), streamer.period().unwrap_or(0));
                log::debug!("device {device}: adopted a plan: {}", streamer.describe());
            }
            // A word that only looks like an address may name what another
            // thread has freed since.
            living.clear();
            living.extend(group.iter().copied().filter(|&(id, _)| streamer.contains(id)));
            streamer.touch(&living, machinery)?;
            {
                // A default stream is the one of the program's context.
                let foreign = self.ctx != machinery.ctx && !self.ctx.is_null();
                let _context = foreign.then(|| ContextGuard::enter(engine.driver, self.ctx));
                let timed = streamer.wants_times().then(|| streamer.operations() - 1);
                machinery.order_before_use(self.stream, self.ctx, &living, timed);
            }
            // Those that came while the host waited are caught up with.
            for (operations, ns) in std::iter::from_fn(|| machinery.read_times()).take(4) {
                streamer.measured(operations, ns);
            }
            if machinery.failure.is_some() {
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
        for (device, group) in &self.held {
            let slot = &self.engine.devices[*device];
            let mut state = lock(&slot.state);
            let Some(DeviceState { streamer, machinery, .. }) = state.as_mut() else { continue };
            let foreign = self.here.is_some_and(|here| here != *device);
            for &(id, _) in group {
                // Freed by another thread meanwhile: the program's own race.
                if streamer.contains(id) {
                    let streamed = streamer.is_streamed(id);
                    machinery.record_use(self.stream, self.ctx, foreign, id, streamed);
                }
            }
            streamer.release(group);
            let _guard = ContextGuard::enter(self.engine.driver, machinery.ctx);
            let _relaxed = RelaxedCapture::enter(self.engine.driver);
            let named = self.ctx == machinery.ctx && self.stream != STREAM_PER_THREAD;
            machinery.last_stream = named.then_some(self.stream);
            streamer.look_ahead(machinery);
            machinery.last_stream = None;
            self.engine.publish(state.as_ref());
            if slot.waiting.load(Ordering::Relaxed) > 0 {
                slot.released.notify_all();
            }
        }
    }
}

/// Why an operation under a device's lock did not happen.
enum Failure {
    Shortage(Shortage),
    Driver(CuResult),
}

impl From<Shortage> for Failure {
    fn from(shortage: Shortage) -> Self {
        Failure::Shortage(shortage)
    }
}

impl Engine {
    /// Runs `action` on `device` with its context current, again and again
    /// while what it needs is held by other threads' launches.
    fn with_device(
        &self,
        device: usize,
        reason: WaitReason,
        mut action: impl FnMut(&mut DeviceState) -> std::result::Result<(), Shortage>,
    ) -> std::result::Result<(), Failure> {
        let slot = &self.devices[device];
        let mut guard = lock(&slot.state);
        loop {
            let Some(state) = guard.as_mut() else {
                return Err(Failure::Driver(CuResult::INVALID_CONTEXT));
            };
            let _context = ContextGuard::enter(self.driver, state.machinery.ctx);
            let _relaxed = RelaxedCapture::enter(self.driver);
            state.machinery.reason = reason;
            let outcome = action(state);
            if let Some(code) = state.machinery.failure.take() {
                if outcome.is_ok() {
                    log::debug!("answering {code} for an internal call");
                }
                return Err(Failure::Driver(code));
            }
            match outcome {
                Err(Shortage::Busy) => {
                    drop(_relaxed);
                    drop(_context);
                    slot.waiting.fetch_add(1, Ordering::Relaxed);
                    guard = slot.released.wait(guard).unwrap_or_else(PoisonError::into_inner);
                    slot.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                other => {
                    self.publish(Some(state));
                    return other.map_err(Failure::from);
                }
            }
        }
    }

    /// Copies what the reports need out from under the lock.
    fn publish(&self, state: Option<&DeviceState>) {
        if let Some(DeviceState { streamer, .. }) = state {
            self.publish_streamer(streamer);
        }
    }

    fn publish_streamer(&self, streamer: &Streamer) {
        let stats = &self.stats;
        let set = |counter: &AtomicU64, value: u64| counter.store(value, Ordering::Relaxed);
        let counters = streamer.counters();
        let frames = |count: u32| u64::from(count) << FRAME_SHIFT;
        set(&stats.resident_bytes, frames(streamer.resident_frames()));
        set(&stats.ring_bytes, frames(streamer.ring_frames()));
        set(&stats.frames_bytes, frames(streamer.live_frames()));
        stats.frames_peak_bytes.fetch_max(frames(streamer.live_frames()), Ordering::Relaxed);
        set(&stats.streamed_touches, counters.streamed_touches);
        set(&stats.hits, counters.hits);
        set(&stats.plans, counters.plans);
        set(&stats.layout_changes, counters.layout_changes);
        set(&stats.demotions, counters.demotions);
        set(&stats.slips, streamer.slips());
        set(&stats.operations, streamer.operations());
    }

    /// One clear line for a request that could not be met. Programs ask again
    /// after giving up caches: the same complaint is not repeated at once.
    fn explain(&self, device: usize, what: &str, shortage: Shortage) {
        use autooffload_core::units::format_bytes;
        const QUIET: Duration = Duration::from_secs(5);
        static LAST: Mutex<Option<(Instant, std::mem::Discriminant<Shortage>)>> = Mutex::new(None);
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
        let kind = std::mem::discriminant(&shortage);
        let last = lock(&LAST).replace((Instant::now(), kind));
        if last.is_some_and(|(when, known)| known == kind && when.elapsed() < QUIET) {
            return;
        }
        let frames = |count: u32| format_bytes(u64::from(count) << FRAME_SHIFT);
        match shortage {
            Shortage::Device { needed_frames, cap_frames } => log::error!(
                "device {device}: {what} needs {} at once and the budget leaves {} for managed memory: \
                 out of memory. Raise AUTOOFFLOAD_VRAM, or use a smaller batch",
                frames(needed_frames),
                frames(cap_frames),
            ),
            Shortage::Host => log::error!(
                "device {device}: {what} must move memory to the host, where {} more may be used: \
                 out of memory. Raise AUTOOFFLOAD_RAM, or free host memory",
                format_bytes(self.host_store.available()),
            ),
            Shortage::Busy => {}
        }
    }
}

/// Makes a context current for a scope, if it is not already.
struct ContextGuard {
    driver: &'static Driver,
    pushed: bool,
}

impl ContextGuard {
    fn enter(driver: &'static Driver, ctx: CUcontext) -> Self {
        let pushed = driver.ctx_get_current() != Ok(ctx) && driver.ctx_push_current(ctx).is_ok();
        Self { driver, pushed }
    }
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        if self.pushed {
            let _ = self.driver.ctx_pop_current();
        }
    }
}

/// While anything captures, our own calls must not be refused because of it.
struct RelaxedCapture {
    driver: &'static Driver,
    former: Option<std::ffi::c_int>,
}

impl RelaxedCapture {
    fn enter(driver: &'static Driver) -> Self {
        let former = any_capture()
            .then(|| driver.thread_exchange_capture_mode(CAPTURE_MODE_RELAXED).ok())
            .flatten();
        Self { driver, former }
    }
}

impl Drop for RelaxedCapture {
    fn drop(&mut self) {
        if let Some(former) = self.former {
            let _ = self.driver.thread_exchange_capture_mode(former);
        }
    }
}

/// For work of one device that used memory of another: rare, so thorough.
fn synchronize_every_device(driver: &Driver) -> Result<()> {
    let Some(engine) = engine() else { return Ok(()) };
    for device in 0..engine.device_count {
        let device = device as Device;
        // One that nobody uses has nothing queued, and must not be made.
        if driver.primary_ctx_is_active(device) != Ok(true) {
            continue;
        }
        // Retaining answers the primary context without touching locks of ours.
        let ctx = driver.primary_ctx_retain(device)?;
        driver.ctx_push_current(ctx)?;
        let outcome = driver.ctx_synchronize();
        let _ = driver.ctx_pop_current();
        let _ = driver.primary_ctx_release(device);
        outcome?;
    }
    Ok(())
}
