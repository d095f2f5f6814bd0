//! The order of a program, kept from one start to the next.
//!
//! A program is known by its weights: their sizes, in the order in which they were
//! allocated. Whenever that has changed and a kernel is launched while memory
//! moves, it is asked whether an order is kept for it; then the learner is shown
//! it, before it is told of the launch. The thread that writes the page keeps the
//! order once there is a plan, and again when the order or its times have changed.
//!
//! Files are the user's alone, few, small, and replaced whole. What is damaged or
//! of another version is not used, and replaced when there is something to keep.
//! Not here: the files (`store`), what is in one (`core::recall`).

mod store;

use std::collections::HashMap;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use autooffload_core::memory::Streamer;
use autooffload_core::recall::{decode, signature};

pub(super) use store::Remembered;

use super::device::DeviceBackend;
use super::state::{Engine, hot, lock};
use super::{Allocation, ChunkId};
use crate::driver::abi::DevicePtr;

/// An order that keeps changing is not written more often.
const PAUSE: Duration = Duration::from_secs(10);

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
    let Some(store) = engine.remembered.store(&engine.settings().plans) else { return };
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
    let read = store.read(signature);
    let kept = match read.map(|file| decode(&file, signature)) {
        Ok(Ok(kept)) => kept,
        Ok(Err(why)) => return log::debug!("device {device}: the order kept is not used: {why}"),
        Err(why) => return log::debug!("device {device}: the order kept cannot be read: {why}"),
    };
    // What is shown would count among the operations under way.
    backend.order.timer.give_up();
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
    let Some(store) = engine.remembered.store(&engine.settings().plans) else { return };
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
        store.write(&order);
    }
}
