//! Captured graphs, and addresses that escape our sight: what they name stays
//! resident for as long as it lives.
//!
//! A replay is not a launch that we could order copies before; until graphs
//! are rewritten at instantiation, their memory does not move. Said once.

use std::sync::atomic::Ordering;

use autooffload_core::memory::Shortage;

use super::account::WaitReason;
use super::device::Device as DeviceState;
use super::state::{Engine, Failure, engine, hot, lock};
use super::{ChunkId, FRAME_SHIFT};
use crate::driver::abi::*;

/// Begins a capture on `stream` by `begin`, the original.
///
/// A stream that captures cannot be marked, and whatever is queued on it
/// becomes part of its graph: all that was used before gets its mark here, so
/// that it can be waited for without a call that a capture forbids. It is told
/// first that there is a capture: what ends from then on is marked as it ends
/// ([`any_capture`]), and what was under way without knowing is over, under the
/// locks that are taken here.
pub fn capture_begins(stream: CUstream, begin: impl FnOnce() -> CuResult) -> CuResult {
    let Some(engine) = engine() else { return begin() };
    engine.captures.fetch_add(1, Ordering::SeqCst);
    let code = if engine.space.get().is_some() {
        for slot in &engine.devices[..engine.device_count.min(engine.devices.len())] {
            drop(lock(&slot.state));
        }
        engine.users.mark_all();
        engine.users.unmarked_while(stream, begin)
    } else {
        begin()
    };
    if !code.is_success() {
        capture_ended();
    }
    code
}

/// One that had begun is over.
pub fn capture_ended() {
    if let Some(engine) = engine() {
        engine.captures.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether any capture is under way, or begins (then the hook asks the driver
/// about the very stream).
#[inline]
pub fn any_capture() -> bool {
    engine().is_some_and(|engine| engine.captures.load(Ordering::SeqCst) > 0)
}

/// A graph that is being captured or built received pointers into `chunks`:
/// they become resident for as long as they live (said once). To be called
/// instead of [`begin`] when the stream is capturing.
pub fn pin_for_graph(chunks: &[ChunkId]) -> Result<()> {
    if !chunks.is_empty()
        && let Some(engine) = engine()
        && !engine.graphs_said.swap(true, Ordering::Relaxed)
    {
        log::warn!(
            "memory named by captured CUDA graphs stays resident: it is not offloaded; switch graphs off \
             in the program if the card is too small"
        );
    }
    for &chunk in chunks {
        pin(chunk, "a captured graph")?;
    }
    Ok(())
}

/// Why the chunk can no longer be moved: an address escaped (IPC, dma-buf,
/// texture, exported handle). `Err`: cannot be made resident.
pub fn pin_for_good(chunk: ChunkId, why: &'static str) -> Result<()> {
    if pin(chunk, why)? {
        log::info!("an allocation stays resident for good: {why}");
    }
    Ok(())
}

/// Whether the chunk stays resident for as long as it lives.
pub fn is_kept(chunk: ChunkId) -> bool {
    hot(chunk).kept.load(Ordering::Relaxed)
}

/// `true`: it could be moved before.
fn pin(chunk: ChunkId, why: &'static str) -> Result<bool> {
    let mut changed = false;
    make_resident(chunk, why, |engine, frames| {
        if !hot(chunk).kept.swap(true, Ordering::Relaxed) {
            changed = true;
            let bytes = u64::from(frames) << FRAME_SHIFT;
            engine.stats.kept_resident_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    })?;
    Ok(changed)
}

/// Pins `chunk`; `note` is told its frames, with the device still locked.
pub(super) fn make_resident(
    chunk: ChunkId,
    why: &str,
    mut note: impl FnMut(&Engine, u32),
) -> Result<()> {
    let Some(engine) = engine() else { return Ok(()) };
    let device = hot(chunk).device();
    let outcome = engine.with_device(device, WaitReason::PlanChange, |state| {
        let DeviceState { streamer, backend, .. } = state;
        if !streamer.contains(chunk) {
            // A word that only looked like an address; freed meanwhile.
            return Ok(());
        }
        streamer.pin(chunk, backend)?;
        // A captured launch cannot wait for an event from outside, nor can one
        // that reaches the chunk through a table.
        if !backend.order.content_is_there(chunk) {
            return Err(Shortage::Unfinished);
        }
        note(engine, streamer.frames_of(chunk));
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(Failure::Driver(code)) => Err(code),
        Err(Failure::Shortage(shortage)) => {
            engine.explain(device, why, shortage);
            Err(CuResult::OUT_OF_MEMORY)
        }
    }
}

/// Makes `stream` wait for another by `wait`, the original: if that one captures,
/// this one joins it, and cannot be marked from then on; if it is held up, so is
/// this one.
pub fn stream_joins(stream: CUstream, wait: impl FnOnce() -> CuResult) -> CuResult {
    let Some(engine) = engine() else { return wait() };
    if engine.users.any_held_up() {
        engine.users.blocks(stream);
    }
    if any_capture() { engine.users.unmarked_while(stream, wait) } else { wait() }
}

/// `stream` was made to wait for another: while any is held up, it may be by that.
pub fn stream_waited(stream: CUstream) {
    if let Some(engine) = engine()
        && engine.users.any_held_up()
    {
        engine.users.blocked(stream);
    }
}

/// `stream` is about to wait for the host or for a word in memory.
pub fn stream_blocks(stream: CUstream) {
    if let Some(engine) = engine() {
        engine.users.blocks(stream);
    }
}

/// It was made to wait.
pub fn stream_blocked(stream: CUstream) {
    if let Some(engine) = engine() {
        engine.users.blocked(stream);
    }
}
