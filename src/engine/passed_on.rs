//! Device memory that the program gets from the driver itself, within the
//! budget.
//!
//! Such memory cannot move. So that it fits, ours does: a call that asks for it
//! is let through when the budget has room, which evictions make, and answered
//! with out-of-memory when it has none, as a card of that size would.
//!
//! Not counted against the budget: memory in the host, imported and multicast
//! handles, unified memory (the driver moves it), and our own frames.
//! Not here: why it is the driver's, and how much it is (`account`).

use autooffload_core::config::Limit;
use autooffload_core::units::format_bytes;

use super::FRAME_BYTES;
use super::account::{PassedOn, WaitReason};
use super::allocation::take_all_room;
use super::card::watch_card;
use super::device::Device as DeviceState;
use super::setup::set_up;
use super::state::{Engine, Failure, engine};
use crate::driver::abi::*;

/// Lets `forward`, which asks for `bytes` of device memory on the current
/// context's device, through to the driver: within the budget, and counted.
pub fn pass_on(reason: PassedOn, bytes: usize, forward: impl Fn() -> CuResult) -> CuResult {
    let Some(engine) = engine() else { return forward() };
    let device = match reason {
        PassedOn::TooSmall => engine.driver.ctx_get_device().ok(),
        _ => None,
    };
    pass_on_at(engine, reason, device, bytes, forward)
}

/// The same for a mapping of the program's own, on `device`.
pub fn pass_on_mapping(device: Device, bytes: usize, forward: impl Fn() -> CuResult) -> CuResult {
    let Some(engine) = engine() else { return forward() };
    pass_on_at(engine, PassedOn::OwnMapping, Some(device), bytes, forward)
}

/// `device`: where the budget must have room for it; `None`: nowhere.
fn pass_on_at(
    engine: &'static Engine,
    reason: PassedOn,
    device: Option<Device>,
    bytes: usize,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    if let Some(device) = device
        && !has_room(engine, device, bytes)
    {
        return CuResult::OUT_OF_MEMORY;
    }
    let code = watch_card(bytes.next_multiple_of(FRAME_BYTES) as u64, forward);
    if code.is_success() {
        engine.passed.count(reason, bytes);
    }
    code
}

/// Whether the budget has room for `bytes` more that are not ours. Evicts.
fn has_room(engine: &'static Engine, device: Device, bytes: usize) -> bool {
    let index = device as usize;
    if engine.manages_nothing() {
        return true;
    }
    // Without a context there is nobody to ask; the driver answers for itself.
    let Ok(ctx) = engine.driver.ctx_get_current() else { return true };
    if ctx.is_null() || set_up(engine, device, ctx).is_none() {
        return true;
    }
    let Ok(frames) = u32::try_from(bytes.div_ceil(FRAME_BYTES)) else { return false };
    let outcome = engine.with_device(index, WaitReason::Allocation, |state| {
        let DeviceState { streamer, backend, .. } = state;
        take_all_room(engine, streamer, backend);
        streamer.leave_room(frames, backend)
    });
    match outcome {
        Ok(()) | Err(Failure::Driver(_)) => true,
        Err(Failure::Shortage(shortage)) => {
            // The card itself may have more: an automatic budget has headroom.
            let auto = engine.settings().vram == Limit::Auto;
            if !auto {
                let what = format!("{} that cannot move", format_bytes(bytes as u64));
                engine.explain(index, &what, shortage);
            }
            auto
        }
    }
}
