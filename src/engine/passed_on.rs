//! Device memory that the program gets from the driver itself: why it is not
//! ours, how much it is, and that the budget holds all the same.
//!
//! Such memory cannot move. So that it fits, ours does: a call that asks for it
//! is let through when the budget has room, which evictions make, and answered
//! with out-of-memory when it has none, as a card of that size would.
//!
//! Not counted against the budget: memory in the host, imported and multicast
//! handles, unified memory (the driver moves it), and our own frames.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use autooffload_core::config::Limit;
use autooffload_core::units::format_bytes;
use serde_json::{Map, Value, json};

use super::FRAME_BYTES;
use super::account::WaitReason;
use super::allocation::refresh_cap;
use super::device::Device as DeviceState;
use super::setup::set_up;
use super::state::{Engine, Failure, engine};
use crate::driver::abi::*;

/// Why an allocation is not managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOn {
    /// The library is switched off, or does not run yet.
    Inactive,
    /// Below the size that is worth a frame.
    TooSmall,
    /// No context is current: the driver's own error.
    NoContext,
    /// The driver gives no device address space.
    NoAddressSpace,
    /// The device has no frames of 2 MiB to map, or no stream for us.
    NoFrames,
    /// The driver does not say what kernels take (before CUDA 12.4).
    NoParameters,
    /// It becomes a node of a graph that is being captured.
    Capturing,
    /// From a pool of host memory, or one whose memory can be exported.
    ForeignPool,
    /// The program maps device memory itself (`cuMemCreate`).
    OwnMapping,
}

/// With its name in the statistics, and what the summary says.
const REASONS: [(PassedOn, &str, &str); 9] = [
    (PassedOn::Inactive, "inactive", "asked for before the library was ready"),
    (PassedOn::TooSmall, "too_small", "in allocations below 1 MiB"),
    (PassedOn::NoContext, "no_context", "asked for without a context"),
    (PassedOn::NoAddressSpace, "no_address_space", "for want of device address space"),
    (PassedOn::NoFrames, "no_frames", "on a device without virtual memory of 2 MiB frames"),
    (PassedOn::NoParameters, "no_parameters", "because this driver is older than CUDA 12.4"),
    (PassedOn::Capturing, "capturing", "allocated inside a graph"),
    (PassedOn::ForeignPool, "foreign_pool", "from pools of host or exportable memory"),
    (PassedOn::OwnMapping, "own_mapping", "mapped by the program itself (cuMemCreate)"),
];

/// Calls let through and their bytes, by reason, since the start.
#[derive(Default)]
pub(super) struct Passed {
    calls: [AtomicU64; REASONS.len()],
    bytes: [AtomicU64; REASONS.len()],
    said: AtomicBool,
}

impl Passed {
    fn count(&self, reason: PassedOn, bytes: usize) {
        self.calls[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes[reason as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn some(&self) -> impl Iterator<Item = (&'static str, &'static str, u64, u64)> + '_ {
        REASONS.iter().zip(self.calls.iter().zip(&self.bytes)).filter_map(
            |(&(_, name, text), (calls, bytes))| {
                let calls = calls.load(Ordering::Relaxed);
                (calls > 0).then(|| (name, text, calls, bytes.load(Ordering::Relaxed)))
            },
        )
    }

    pub(super) fn json(&self) -> Value {
        let rows = self.some().map(|(name, text, calls, bytes)| {
            let row = json!({ "calls": calls, "bytes": bytes, "why": text });
            (name.to_string(), row)
        });
        Value::Object(rows.collect::<Map<_, _>>())
    }

    /// "Why is my memory not managed?", in a line; `None`: all of it is.
    pub(super) fn line(&self) -> Option<String> {
        let parts: Vec<String> = self
            .some()
            .map(|(_, text, calls, bytes)| {
                let plural = if calls == 1 { "" } else { "s" };
                format!("{} {text} ({calls} call{plural})", format_bytes(bytes))
            })
            .collect();
        (!parts.is_empty()).then(|| format!("not managed, in all: {}", parts.join("; ")))
    }
}

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
    let code = forward();
    if code.is_success() {
        engine.passed.count(reason, bytes);
    }
    code
}

/// Says once why nothing is managed, where that is for the whole process.
pub(super) fn say_unmanaged(engine: &Engine, why: &str) {
    if !engine.passed.said.swap(true, Ordering::Relaxed) {
        log::warn!("{why}: nothing is managed, and every call goes to the driver as it is");
    }
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
        refresh_cap(engine, streamer, backend);
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
