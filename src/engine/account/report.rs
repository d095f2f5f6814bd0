//! What the program and the user are told: free memory, statistics, summary.
//!
//! Weights weigh nothing in "free": they can be evicted. A chunk that copies
//! from the host mostly filled holds weights; everything else is taken for
//! memory that the program needs on the card.

use autooffload_core::config::{Limit, Report};
use autooffload_core::units::Size;

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::chunk_bits::Hot;
use super::super::operation::current_device;
use super::super::state::{Engine, engine, hot, lock};
use super::super::{ChunkId, FRAME_SHIFT};
use crate::driver::abi::*;

/// A copy from the host is to put `bytes` into the chunk.
#[inline(always)]
pub(in crate::engine) fn note_fill(engine: &Engine, hot: &Hot, bytes: usize) {
    if hot.weight_bytes.load(Ordering::Relaxed) != 0 {
        return;
    }
    let bytes = bytes as u64;
    let filled = hot.filled_bytes.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    let size = hot.bytes.load(Ordering::Relaxed);
    if filled >= size / 2
        && hot.weight_bytes.compare_exchange(0, size, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        engine.weight_bytes[hot.device()].fetch_add(size, Ordering::Relaxed);
        engine.weights_version.fetch_add(1, Ordering::Relaxed);
    }
}

/// The chunk is gone, and its weights with it.
pub(in crate::engine) fn forget_fill(engine: &Engine, id: ChunkId) {
    let hot = hot(id);
    let bytes = hot.weight_bytes.swap(0, Ordering::Relaxed);
    engine.weight_bytes[hot.device()].fetch_sub(bytes, Ordering::Relaxed);
    engine.weights_version.fetch_add(u64::from(bytes > 0), Ordering::Relaxed);
}

/// What `cuMemGetInfo` reports on the current context's device, given the
/// driver's own answer: (free, total) bytes.
pub fn mem_get_info(free: usize, total: usize) -> (usize, usize) {
    let Some(engine) = engine().filter(|engine| !engine.manages_nothing()) else {
        return (free, total);
    };
    let Some(device) = current_device(engine) else { return (free, total) };
    let guard = lock(&engine.devices[device].state);
    let (live, ring) = guard
        .as_ref()
        .map_or((0, 0), |state| (state.streamer.live_frames(), state.streamer.smallest_ring()));
    drop(guard);
    let config = engine.config.read().unwrap_or_else(PoisonError::into_inner);
    let frames_bytes = u64::from(live) << FRAME_SHIFT;
    let weights = engine.weight_bytes[device].load(Ordering::Relaxed);
    let managed = engine.managed_bytes[device].load(Ordering::Relaxed);
    let kept = managed.saturating_sub(weights);
    let (free, total) = (free as u64, total as u64);
    let unmanaged = total.saturating_sub(free + frames_bytes);
    let budget = config.budget_bytes(total, free, frames_bytes);
    let (budget, for_frames) = match config.vram {
        Limit::Auto => (total - config.headroom_bytes(total).min(total), budget),
        Limit::Given(_) => {
            let own = lock(&engine.unmanaged[device]).own(unmanaged, total);
            (budget, budget.saturating_sub(own).min(free + frames_bytes))
        }
    };
    let ring = u64::from(ring) << FRAME_SHIFT;
    let answer = for_frames.saturating_sub(kept + ring);
    if config.report == Report::Enlarged {
        let host = engine.host_store.available();
        return ((answer + host) as usize, (budget + host) as usize);
    }
    let total = if config.vram == Limit::Auto { total } else { budget };
    (answer.min(total) as usize, total as usize)
}

/// What `cuDeviceTotalMem` reports, given the driver's own answer.
pub fn device_total_mem(device: Device, total: usize) -> usize {
    let _ = device;
    let Some(engine) = engine().filter(|engine| !engine.manages_nothing()) else { return total };
    let config = engine.config.read().unwrap_or_else(PoisonError::into_inner);
    let budget = match config.vram {
        Limit::Auto => total as u64,
        Limit::Given(Size::Bytes(bytes)) => bytes.min(total as u64),
        Limit::Given(Size::Percent(_)) => config.budget_bytes(total as u64, total as u64, 0),
    };
    if config.report == Report::Enlarged {
        return (budget + engine.host_store.available()) as usize;
    }
    budget as usize
}

/// The statistics as a JSON object; makes no CUDA call.
pub fn stats_json() -> serde_json::Value {
    engine().map_or_else(
        || serde_json::json!({}),
        |engine| {
            let mut all = engine.stats.json(engine.host_store.usage());
            all["not_managed"] = engine.passed.json();
            all["outlook"] = engine.told.json();
            all
        },
    )
}

/// The process ends, in order: what others know it by goes.
pub fn ends() {
    if let Some(engine) = engine() {
        engine.publisher.end();
    }
}

/// The lines of the summary at exit; empty when the program asked for nothing.
pub fn summary() -> Vec<String> {
    engine().map_or_else(Vec::new, |engine| {
        let passed = engine.passed.line();
        let mut lines = engine.stats.summary(engine.host_store.usage(), passed.is_none());
        lines.extend(passed);
        lines
    })
}
