//! All state of the engine: the address space, the devices, the captures under
//! way, what peers may access, the zones of stream-ordered memory, the
//! settings; and how a device's part of it is taken.
//!
//! Locks, in this order: the list of small allocations, one per device (by
//! ordinal), its card's, the zones, the address space; the settings are read under any of
//! them. Nobody waits for the device under a lock, but where `device::order` says
//! so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use autooffload_core::address_map::{AddressMap, Arena, ChunkId};
use autooffload_core::config::{Config, Window as WindowSetting};
use autooffload_core::memory::{Shortage, Streamer, Window};
use autooffload_core::unmanaged::Unmanaged;
use autooffload_core::zone::Zone;
use dashmap::DashMap;
use once_cell::sync::OnceCell;

use super::account::{Passed, Publisher, Stats, Told, WaitReason};
use super::chunk_bits::Hot;
use super::device::Device as DeviceState;
use super::flights::Flights;
use super::guards::{ContextGuard, RelaxedCapture};
use super::host::HostStore;
use super::reach::{Reader, Seen};
use super::remembered::Remembered;
use super::small::Small;
use super::users::Users;
use super::waits::{Awaited, Waits};
use super::{Allocation, FRAME_SHIFT, MAX_DEVICES, allocation};
use crate::driver::Driver;
use crate::driver::abi::*;

/// The address space, once the first managed allocation asked for it.
pub(super) struct Space {
    pub(super) map: AddressMap,
    pub(super) hot: Box<[Hot]>,
    pub(super) addresses: Mutex<Addresses>,
}

pub(super) struct Addresses {
    pub(super) arena: Arena,
    pub(super) unused_ids: Vec<ChunkId>,
    pub(super) next_id: ChunkId,
}

/// A device, once something was allocated there.
pub(super) struct Slot {
    pub(super) state: Mutex<Option<DeviceState>>,
    /// Signalled when a thread let go of its chunks, if one waits for that:
    /// a signal costs a system call even when nobody does.
    pub(super) released: Condvar,
    /// Those who wait; changed under the lock.
    pub(super) waiting: AtomicU32,
}

/// Everything that the engine knows, in one place.
pub(super) struct Engine {
    pub(super) driver: &'static Driver,
    pub(super) config: RwLock<Config>,
    pub(super) host_store: HostStore,
    pub(super) stats: Stats,
    pub(super) allocations: DashMap<ChunkId, Allocation>,
    pub(super) devices: [Slot; MAX_DEVICES],
    pub(super) device_count: usize,
    /// What this process holds of each besides.
    pub(super) unmanaged: [Mutex<Unmanaged>; MAX_DEVICES],
    /// Reserved when it is first needed; see `setup`.
    pub(super) space: OnceCell<Space>,
    /// The driver gives no address space: nothing can be managed.
    pub(super) no_space: AtomicBool,
    /// Every launch is watched.
    pub(super) verifies: bool,
    /// The driver does not say what kernels take: nothing can be managed.
    pub(super) no_parameters: bool,
    /// What was let through.
    pub(super) passed: Passed,
    /// What others are told, once memory moves.
    pub(super) publisher: Publisher,
    /// What plans came to, and what was said of it.
    pub(super) told: Told,
    pub(super) users: Users,
    /// Small allocations that are the driver's.
    pub(super) small: Small,
    /// What was seen of kernels that name small ranges.
    pub(super) readers: DashMap<Reader, Seen>,
    /// Launches that take no lock, and those among them that were under way when
    /// memory began to move and name too many chunks to count them.
    pub(super) flights: Flights,
    pub(super) all_in_flight: AtomicU32,
    /// Threads that wait for the device.
    pub(super) waits: Waits,
    /// Captures under way, anywhere in the process.
    pub(super) captures: AtomicI32,
    /// By owner: the devices (a bit each) that may access its memory.
    pub(super) peers: [AtomicU64; MAX_DEVICES],
    /// Bytes of the frames of all allocations, by device.
    pub(super) managed_bytes: [AtomicU64; MAX_DEVICES],
    /// Bytes of weights on each device.
    pub(super) weight_bytes: [AtomicU64; MAX_DEVICES],
    /// Changes with what is weights.
    pub(super) weights_version: AtomicU64,
    /// Orders of former starts.
    pub(super) remembered: Remembered,
    /// Stream-ordered memory, by device and pool (0: the device's current pool).
    pub(super) zones: Mutex<HashMap<(Device, usize), Zone>>,
    /// It was said that captured memory stays resident.
    pub(super) graphs_said: AtomicBool,
    /// A panic was caught in the middle of something: what it left cannot be
    /// relied on.
    broken: AtomicBool,
    /// What was last refused, and when: it is not repeated at once.
    complaint: Mutex<Option<(Instant, std::mem::Discriminant<Shortage>)>>,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

pub(super) fn engine() -> Option<&'static Engine> {
    ENGINE.get()
}

/// Says a sentence the first time that it is to be said.
pub(super) fn warn_once(sentence: String) {
    match engine() {
        Some(engine) => engine.passed.warn_once(sentence),
        None => log::warn!("{sentence}"),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock was caught at the hook, which says so (`broken`).
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the lock-free path knows of the chunk `id`, which lives.
pub(super) fn hot(id: ChunkId) -> &'static Hot {
    &space().expect("chunks exist, so the space does").hot[id as usize]
}

/// The address space, once something was allocated there.
#[inline]
pub(super) fn space() -> Option<&'static Space> {
    engine()?.space.get()
}

/// Called once, right after the first successful `cuInit`. Starts nothing if
/// `config.enabled` is false; then every other function answers "not ours".
/// `traced`: what happens is recorded.
pub fn start(driver: &'static Driver, config: &Config, traced: bool) {
    if !config.enabled {
        return;
    }
    let _ = ENGINE.set(Engine {
        driver,
        config: RwLock::new(config.clone()),
        host_store: HostStore::new(driver, config.pin, config.ram),
        stats: Stats::new(traced),
        allocations: DashMap::new(),
        devices: [const {
            Slot { state: Mutex::new(None), released: Condvar::new(), waiting: AtomicU32::new(0) }
        }; MAX_DEVICES],
        device_count: driver.device_count().unwrap_or(1).max(1) as usize,
        unmanaged: std::array::from_fn(|_| Mutex::default()),
        space: OnceCell::new(),
        no_space: AtomicBool::new(false),
        verifies: config.verify,
        no_parameters: !driver.tells_parameters(),
        passed: Passed::default(),
        publisher: Publisher::default(),
        told: Told::default(),
        users: Users::new(driver, driver.device_count().unwrap_or(1) > 1),
        small: Small::default(),
        readers: DashMap::new(),
        flights: Flights::default(),
        all_in_flight: AtomicU32::new(0),
        waits: Waits::default(),
        captures: AtomicI32::new(0),
        peers: [const { AtomicU64::new(0) }; MAX_DEVICES],
        managed_bytes: [const { AtomicU64::new(0) }; MAX_DEVICES],
        weight_bytes: [const { AtomicU64::new(0) }; MAX_DEVICES],
        weights_version: AtomicU64::new(0),
        remembered: Remembered::default(),
        zones: Mutex::default(),
        graphs_said: AtomicBool::new(false),
        broken: AtomicBool::new(false),
        complaint: Mutex::new(None),
    });
}

/// A panic was caught in a hook. `true`: that is news, and managed memory can no
/// longer be relied on.
pub fn panicked() -> bool {
    engine().is_some_and(|engine| {
        engine.space.get().is_some() && !engine.broken.swap(true, Ordering::Relaxed)
    })
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
            let DeviceState { streamer, backend, .. } = state;
            streamer.set_window(window(config));
            allocation::take_all_room(engine, streamer, backend);
            let excess = streamer.live_frames().saturating_sub(streamer.cap_frames());
            if excess > 0 {
                streamer.give_back(excess, backend)?;
                allocation::take_all_room(engine, streamer, backend);
            }
            // A larger one may have room for all.
            streamer.return_everything(backend)?;
            Ok(())
        });
        engine.give_host_memory_back(device);
        if let Err(Failure::Shortage(shortage)) = outcome {
            engine.explain(device, "a smaller budget", shortage);
        }
    }
}

pub(super) fn window(config: &Config) -> Window {
    match config.window {
        WindowSetting::Auto => Window::Auto,
        WindowSetting::Chunks(count) => Window::Chunks(count),
        WindowSetting::Bytes(bytes) => Window::Frames((bytes >> FRAME_SHIFT).max(1) as u32),
    }
}

/// Why an operation under a device's lock did not happen.
pub(super) enum Failure {
    Shortage(Shortage),
    Driver(CuResult),
}

impl From<Shortage> for Failure {
    fn from(shortage: Shortage) -> Self {
        Failure::Shortage(shortage)
    }
}

impl Engine {
    pub(super) fn settings(&self) -> std::sync::RwLockReadGuard<'_, Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the driver lacks what managing any memory would take.
    pub(super) fn manages_nothing(&self) -> bool {
        self.no_parameters || self.no_space.load(Ordering::Relaxed)
    }

    /// After a panic calls that touch managed memory fail: what they would run
    /// on is not known.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Runs `action` on `device` with its context current, again and again
    /// while what it needs is held by other threads' launches, or used by work
    /// that is queued. Both are waited for without the lock.
    pub(super) fn with_device(
        &self,
        device: usize,
        reason: WaitReason,
        mut action: impl FnMut(&mut DeviceState) -> std::result::Result<(), Shortage>,
    ) -> std::result::Result<(), Failure> {
        /// Waits after which others are kept from using what is to go, a little
        /// longer each time: they may queue more and more of it. They are never
        /// kept for good: what it waits for may be theirs to end.
        const FAIR: u32 = 64;
        let patience = |waits: u32| {
            let doubled = waits.checked_sub(FAIR)?;
            Some(Duration::from_millis(1 << doubled.min(10)))
        };
        let slot = &self.devices[device];
        let mut guard = lock(&slot.state);
        if self.is_broken() {
            return Err(Failure::Driver(CuResult::UNKNOWN));
        }
        let mut waits = 0;
        loop {
            let Some(state) = guard.as_mut() else {
                return Err(Failure::Driver(CuResult::INVALID_CONTEXT));
            };
            let _context = ContextGuard::enter(self.driver, state.backend.ctx);
            let _relaxed = RelaxedCapture::enter(self.driver);
            state.backend.order.reason = reason;
            state.backend.order.begin_change();
            state.backend.waits_until = patience(waits).map(|patience| Instant::now() + patience);
            let watched = self.watch_change(device, reason);
            let outcome = action(state);
            drop(watched);
            state.backend.waits_until = None;
            let outcome = match outcome {
                // What is on its way out makes room there.
                Err(Shortage::Host) if state.backend.await_leaving() => Err(Shortage::Unfinished),
                other => other,
            };
            let awaited = match outcome {
                Err(Shortage::Unfinished) => state.backend.order.awaited(),
                _ => Awaited::new(),
            };
            if let Some(code) = state.backend.order.failure.take() {
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
                Err(Shortage::Unfinished) => {
                    waits += 1;
                    if awaited.is_empty() {
                        continue; // over meanwhile
                    }
                    drop(guard);
                    let (took, ended) = self.wait_for_any(device, reason, &awaited);
                    guard = lock(&slot.state);
                    if let Some(state) = guard.as_mut() {
                        state.backend.order.waited(reason, took, ended);
                    }
                }
                other => {
                    state.record_memory();
                    self.publish(Some(state));
                    return other.map_err(Failure::from);
                }
            }
        }
    }

    /// Gives up the host memory that nothing will use any more, once nothing does:
    /// where nothing moves from now on, nobody else would ask. Not while that may
    /// not end by itself.
    pub(super) fn give_host_memory_back(&self, device: usize) {
        if self.users.any_held_up() {
            return;
        }
        let _ = self.with_device(device, WaitReason::Native, |state| {
            if state.backend.await_leaving() {
                return Err(Shortage::Unfinished);
            }
            state.backend.free_unneeded();
            Ok(())
        });
    }

    /// Copies what the reports need out from under the lock.
    pub(super) fn publish(&self, state: Option<&DeviceState>) {
        if let Some(DeviceState { streamer, .. }) = state {
            self.publish_streamer(streamer);
        }
    }

    pub(super) fn publish_streamer(&self, streamer: &Streamer) {
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
    pub(super) fn explain(&self, device: usize, what: &str, shortage: Shortage) {
        use autooffload_core::units::format_bytes;
        const QUIET: Duration = Duration::from_secs(5);
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
        let kind = std::mem::discriminant(&shortage);
        let last = lock(&self.complaint).replace((Instant::now(), kind));
        if last.is_some_and(|(when, known)| known == kind && when.elapsed() < QUIET) {
            return;
        }
        let frames = |count: u32| format_bytes(u64::from(count) << FRAME_SHIFT);
        match shortage {
            Shortage::Device { needed_frames, cap_frames } => log::error!(
                "device {device}: {what} needs {} at once and the budget leaves {} for managed memory: \
                 out of memory (cuBLAS may call it CUBLAS_STATUS_EXECUTION_FAILED). Raise \
                 AUTOOFFLOAD_VRAM, or use a smaller batch; with expandable_segments:True, which \
                 PyTorch advises, nothing could be offloaded",
                frames(needed_frames),
                frames(cap_frames),
            ),
            Shortage::Host => log::error!(
                "device {device}: {what} must move memory to the host, where {} more may be used: \
                 out of memory. Raise AUTOOFFLOAD_RAM, or free host memory",
                format_bytes(self.host_store.available()),
            ),
            Shortage::Busy | Shortage::Unfinished => {}
        }
    }
}
