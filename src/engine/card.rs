//! How much of a card is ours to use: what the driver says is free, what the
//! budget allows, and what this process holds besides.
//!
//! A given budget (`--vram SIZE`) is counted from this process's own bytes, never
//! from what is free: others use the card as well. An automatic one is all that
//! is there but the headroom, so what others take lowers it.
//!
//! Locks: a device's, then its card's. Not here: whose the bytes are
//! (`autooffload_core::unmanaged`), what follows (`allocation`).

use std::sync::atomic::Ordering;

use autooffload_core::config::Limit;
use autooffload_core::memory::Streamer;
pub use autooffload_core::unmanaged::UNKNOWN_BYTES;

use super::FRAME_SHIFT;
use super::device::DeviceBackend;
use super::guards::RelaxedCapture;
use super::state::{Engine, engine, lock};
use crate::driver::abi::*;

/// Frames that may be ours, by what the card says.
pub(super) fn room_on_card(
    engine: &Engine,
    streamer: &Streamer,
    backend: &mut DeviceBackend,
) -> Option<u32> {
    let (free, total) = engine.driver.mem_get_info().ok()?;
    let (free, total) = (free as u64, total as u64);
    let ours = u64::from(streamer.live_frames()) << FRAME_SHIFT;
    let unmanaged = total.saturating_sub(free + ours);
    let own = lock(&engine.unmanaged[backend.device as usize]).own(unmanaged, total);
    backend.card_seen = (total, own, unmanaged - own);
    let config = engine.settings();
    let budget = config.budget_bytes(total, free, ours);
    let (for_frames, reported) = match config.vram {
        // What the driver says is left for us, minus the headroom.
        Limit::Auto => (budget, budget + own),
        Limit::Given(_) => (budget.saturating_sub(own).min(free + ours), budget),
    };
    engine.stats.budget_bytes.store(reported, Ordering::Relaxed);
    Some((for_frames >> FRAME_SHIFT) as u32)
}

/// Makes `call`, a call of the program's that may give device memory back, or
/// take `most` bytes of it: what the card lacks afterwards is this process's.
pub fn watch_card(most: u64, call: impl Fn() -> CuResult) -> CuResult {
    let Some((engine, device)) = watched() else { return call() };
    let look = || {
        let _relaxed = RelaxedCapture::enter(engine.driver);
        let state = lock(&engine.devices[device].state);
        let ours = u64::from(state.as_ref()?.streamer.live_frames()) << FRAME_SHIFT;
        let (free, total) = engine.driver.mem_get_info().ok()?;
        let unmanaged = (total as u64).saturating_sub(free as u64 + ours);
        Some((lock(&engine.unmanaged[device]), unmanaged, total as u64))
    };
    let Some((mut card, unmanaged, total)) = look() else { return call() };
    card.call_begins(unmanaged, total, most);
    drop(card);
    let code = call();
    match look() {
        Some((mut card, unmanaged, _)) => card.call_ends(Some(unmanaged)),
        None => lock(&engine.unmanaged[device]).call_ends(None),
    }
    code
}

/// Where it matters whose the bytes are.
fn watched() -> Option<(&'static Engine, usize)> {
    let engine = engine()?;
    engine.space.get()?;
    if matches!(engine.settings().vram, Limit::Auto) {
        return None;
    }
    let device = usize::try_from(engine.driver.ctx_get_device().ok()?).ok()?;
    engine.unmanaged.get(device).is_some().then_some((engine, device))
}
