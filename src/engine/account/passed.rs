//! Why memory is not managed, and how much of it there is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use autooffload_core::units::format_bytes;
use serde_json::{Map, Value, json};

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
pub struct Passed {
    calls: [AtomicU64; REASONS.len()],
    bytes: [AtomicU64; REASONS.len()],
    unmanaged: AtomicBool,
    warned: Mutex<BTreeSet<String>>,
}

impl Passed {
    pub fn count(&self, reason: PassedOn, bytes: usize) {
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

    pub fn json(&self) -> Value {
        let rows = self.some().map(|(name, text, calls, bytes)| {
            let row = json!({ "calls": calls, "bytes": bytes, "why": text });
            (name.to_string(), row)
        });
        Value::Object(rows.collect::<Map<_, _>>())
    }

    /// Says once why nothing is managed, where that is for the whole process.
    pub fn say_unmanaged(&self, why: &str) {
        if !self.unmanaged.swap(true, Ordering::Relaxed) {
            log::warn!("{why}: nothing is managed, and every call goes to the driver as it is");
        }
    }

    /// Says a sentence the first time that it is to be said.
    pub fn warn_once(&self, sentence: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !warned.contains(&sentence) {
            log::warn!("{sentence}");
            warned.insert(sentence);
        }
    }

    /// "Why is my memory not managed?", in a line; `None`: all of it is.
    pub fn line(&self) -> Option<String> {
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
