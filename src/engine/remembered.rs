//! The order of a program, kept from one start to the next.
//!
//! A program is known by its weights: their sizes, in the order in which they were
//! allocated. Whenever that has changed and a kernel is launched while memory
//! moves, it is asked whether an order is kept for it; then the learner is shown
//! it, before it is told of the launch. The thread that writes the page keeps the
//! order once there is a plan by measured times, and when the order has changed.
//!
//! Files are the user's alone, few, small, and replaced whole. What is damaged or
//! of another version is not used, and replaced when there is something to keep.
//! Not here: what is in a file (`core::recall`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use autooffload_core::config::Plans;
use autooffload_core::memory::Streamer;
use autooffload_core::recall::{self, MAX_BYTES, decode, signature};
use autooffload_shared::private::{self, Directory};
use once_cell::sync::OnceCell;

use super::device::DeviceBackend;
use super::state::{Engine, hot, lock};
use super::{Allocation, ChunkId};
use crate::driver::abi::DevicePtr;

/// Files that are kept; the oldest go.
const FILES: usize = 64;
const SUFFIX: &str = ".order";
/// An order that keeps changing is not written more often.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Remembered(OnceCell<Option<Store>>);

struct Store {
    directory: Directory,
    /// What there was at the start, and was not recalled yet.
    known: Mutex<HashSet<u64>>,
}

impl Remembered {
    /// Opened when it is first asked for.
    fn store(&self, engine: &Engine) -> Option<&Store> {
        self.0
            .get_or_init(|| {
                let opened = match &engine.settings().plans {
                    Plans::Off => return None,
                    Plans::Auto => private::cache()
                        .and_then(|cache| Directory::make(&cache.path().join("orders"))),
                    Plans::In(folder) => Directory::make(folder.as_ref()),
                };
                let store = opened.and_then(Store::new);
                store.inspect_err(|why| log::debug!("no order of a program is kept: {why}")).ok()
            })
            .as_ref()
    }
}

impl Store {
    fn new(directory: Directory) -> std::io::Result<Self> {
        let of_name = |name: String| u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok();
        let known = directory.names()?.into_iter().filter_map(of_name).collect();
        Ok(Self { directory, known: Mutex::new(known) })
    }

    /// Removes what was written longest ago.
    fn prune(&self) {
        let Ok(names) = self.directory.names() else { return };
        let written = |name: &String| {
            self.directory.open_private(name, false).ok()?.metadata().ok()?.modified().ok()
        };
        let mut files: Vec<_> = names
            .into_iter()
            .filter(|name| name.ends_with(SUFFIX))
            .map(|name| (written(&name), name))
            .collect();
        files.sort();
        let over = files.len().saturating_sub(FILES);
        for (_, name) in &files[..over] {
            let _ = self.directory.remove(name);
        }
    }
}

fn name_of(signature: u64) -> String {
    format!("{signature:016x}{SUFFIX}")
}

/// The weights of `device`, as they were allocated: ids, first bytes, sizes.
fn weights(engine: &Engine, device: usize) -> Vec<(ChunkId, DevicePtr, u64)> {
    let is_weights = |id: ChunkId, allocation: &Allocation| {
        allocation.device as usize == device && hot(id).weight_bytes.load(Ordering::Relaxed) > 0
    };
    let mut found: Vec<_> = engine
        .allocations
        .iter()
        .filter(|entry| is_weights(*entry.key(), entry))
        .map(|entry| (entry.number, *entry.key(), entry.base, entry.bytes as u64))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id, base, bytes)| (id, base, bytes)).collect()
}

/// Whether [`recall`] has anything to ask. Before every launch while memory moves.
#[inline]
pub(super) fn is_news(engine: &Engine, backend: &DeviceBackend) -> bool {
    backend.asked_for != Some(engine.weights_version.load(Ordering::Relaxed))
}

/// Recalls the order of the weights that there are, if one is kept.
#[cold]
pub(super) fn recall(
    engine: &Engine,
    device: usize,
    streamer: &mut Streamer,
    backend: &mut DeviceBackend,
) {
    backend.asked_for = Some(engine.weights_version.load(Ordering::Relaxed));
    let Some(store) = engine.remembered.store(engine) else { return };
    let mut known = lock(&store.known);
    if known.is_empty() {
        return;
    }
    let weights = weights(engine, device);
    let signature = signature(weights.iter().map(|&(_, _, bytes)| bytes));
    if !known.remove(&signature) {
        return;
    }
    drop(known);
    let read = store.directory.read(&name_of(signature), MAX_BYTES as u64);
    let kept = match read.map(|file| decode(&file, signature)) {
        Ok(Ok(kept)) => kept,
        Ok(Err(why)) => return log::debug!("device {device}: the order kept is not used: {why}"),
        Err(why) => return log::debug!("device {device}: the order kept cannot be read: {why}"),
    };
    streamer.recall_order(&kept, |number| {
        let &(id, base, _) = weights.get(number as usize)?;
        Some((id, base))
    });
    engine.stats.recalled.fetch_add(1, Ordering::Relaxed);
    log::debug!(
        "device {device}: the order of these {} weights is known from a former start",
        weights.len()
    );
}

/// Keeps what is worth it, of every device that is not busy.
pub(super) fn keep(engine: &Engine) {
    let Some(store) = engine.remembered.store(engine) else { return };
    for (device, slot) in engine.devices.iter().enumerate().take(engine.device_count) {
        let mut guard = match slot.state.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Poisoned(_)) => return,
        };
        let Some(state) = guard.as_mut() else { continue };
        let Some(version) = state.streamer.order_version() else { continue };
        let kept = state.backend.kept;
        if kept.is_some_and(|(known, when)| known == version || when.elapsed() < PAUSE) {
            continue;
        }
        state.backend.kept = Some((version, Instant::now()));
        let weights = weights(engine, device);
        let signature = signature(weights.iter().map(|&(_, _, bytes)| bytes));
        let numbers: HashMap<ChunkId, (u32, DevicePtr)> =
            (0..).zip(&weights).map(|(number, &(id, base, _))| (id, (number, base))).collect();
        let order = state.streamer.remember(signature, |chunk| numbers.get(&chunk).copied());
        drop(guard);
        write(store, &order);
    }
}

fn write(store: &Store, order: &recall::Remembered) {
    if order.phases.iter().flatten().all(|step| step.uses.is_empty()) {
        return;
    }
    let Some(file) = order.encode() else { return };
    match store.directory.replace(&name_of(order.signature), &file) {
        Ok(()) => store.prune(),
        Err(why) => log::debug!("the order of this program is not kept: {why}"),
    }
}
