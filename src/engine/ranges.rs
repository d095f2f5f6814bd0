//! What the program itself wants kept resident, by address: the weights of one
//! model, say, while it works.
//!
//! A set of ranges keeps every chunk that it names, whole, for chunks move as
//! wholes. Sets are counted, so that two may share a chunk. Not here: the C
//! functions (`exports`).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::account::WaitReason;
use super::captures::make_resident;
use super::device::Device as DeviceState;
use super::state::{engine, hot};
use super::{ChunkId, FRAME_BYTES, FRAME_SHIFT, arena, chunk_of};
use crate::driver::abi::*;

/// As C has it (`autooffload.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub address: DevicePtr,
    pub bytes: u64,
}

fn chunks_of(ranges: &[Range]) -> BTreeSet<ChunkId> {
    let (low, high) = arena();
    let inside = |range: &Range| {
        let end = range.address.saturating_add(range.bytes).min(high);
        let first = range.address.max(low);
        // The last byte may lie in one frame more than whole steps reach.
        let last = (end > first).then(|| end - 1);
        (first..end).step_by(FRAME_BYTES).chain(last)
    };
    ranges.iter().flat_map(inside).filter_map(chunk_of).collect()
}

/// Keeps what `ranges` name resident until [`release`] is called for the same
/// ranges. All of it, or on an error nothing.
pub fn keep(ranges: &[Range]) -> Result<()> {
    let mut kept: Vec<ChunkId> = Vec::new();
    for chunk in chunks_of(ranges) {
        let outcome = make_resident(chunk, "memory that the program keeps", |_, _| {
            hot(chunk).keepers.fetch_add(1, Ordering::Relaxed);
            kept.push(chunk);
        });
        if let Err(code) = outcome {
            kept.into_iter().for_each(release_chunk);
            return Err(code);
        }
    }
    Ok(())
}

pub fn release(ranges: &[Range]) {
    chunks_of(ranges).into_iter().for_each(release_chunk);
}

fn release_chunk(chunk: ChunkId) {
    let Some(engine) = engine() else { return };
    let hot = hot(chunk);
    let outcome = engine.with_device(hot.device(), WaitReason::PlanChange, |state| {
        let DeviceState { streamer, .. } = state;
        // Allocated anew since it was kept: then nobody keeps it.
        let held = hot.keepers.load(Ordering::Relaxed);
        if streamer.contains(chunk) && held > 0 {
            hot.keepers.store(held - 1, Ordering::Relaxed);
            if held == 1 && !hot.kept.load(Ordering::Relaxed) {
                streamer.unpin(chunk);
            }
        }
        Ok(())
    });
    if outcome.is_err() {
        log::debug!("memory is no longer kept: its device is gone");
    }
}

/// Where the memory is that `ranges` name.
pub fn ranges_json(ranges: &[Range]) -> Value {
    let (mut allocations, mut bytes, mut resident, mut kept) = (0u64, 0u64, 0u64, 0u64);
    let Some(engine) = engine() else { return json!({}) };
    for chunk in chunks_of(ranges) {
        let hot = hot(chunk);
        let outcome = engine.with_device(hot.device(), WaitReason::PlanChange, |state| {
            if state.streamer.contains(chunk) {
                let size = |frames: u32| u64::from(frames) << FRAME_SHIFT;
                allocations += 1;
                bytes += size(state.streamer.frames_of(chunk));
                resident += size(state.streamer.own_frames_of(chunk));
                kept += u64::from(hot.keepers.load(Ordering::Relaxed) > 0);
            }
            Ok(())
        });
        if outcome.is_err() {
            break;
        }
    }
    json!({ "allocations": allocations, "bytes": bytes, "resident_bytes": resident, "kept": kept })
}
