//! The account: what the device did, as JSON.
//!
//! Counters live here; figures of other rooms are read when it is written.
//! Written at exit to `STANDIN_ACCOUNT` and on request through
//! `standin_account_json`. Each cuProfilerStart/Stop appends a snapshot of
//! everything to `marks`, so that a program can bracket a steady stretch.

use super::gpu::{Gpu, State};
use super::stream::StreamKind;
use crate::exports;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Sentences of violations that are kept; all are counted.
const KEPT_SENTENCES: usize = 20;

#[derive(Default)]
pub struct Account {
    /// Kernels launched on a stream; those of graphs are counted apart.
    pub launches: u64,
    pub graph_launches: u64,
    pub graph_kernels: u64,
    pub h2d_bytes: u64,
    pub d2h_bytes: u64,
    pub d2d_bytes: u64,
    /// What kernels are taken to have read and written in the host's memory.
    pub in_place_bytes: u64,
    pub blocking_calls: u64,
    pub query_polls: u64,
    /// Calls that waited for their context because they may (a setting).
    pub implied_waits: u64,
    pub pinned_bytes: u64,
    pub pinned_peak_bytes: u64,
    /// Time by which event waits delayed launches.
    pub stall_ns: u64,
    pub violations: u64,
    pub sentences: Vec<String>,
    /// Launches of kernels without an implementation, by name.
    pub unknown_kernels: BTreeMap<String, u64>,
    pub marks: Vec<Value>,
}

impl Account {
    /// Records that the program did what no GPU promises to survive.
    pub fn violation(&mut self, sentence: String) {
        eprintln!("standin: violation: {sentence}");
        self.violations += 1;
        if self.sentences.len() < KEPT_SENTENCES {
            self.sentences.push(sentence);
        }
    }

    /// Kernels submitted so far, by launch or graph.
    pub fn kernels(&self) -> u64 {
        self.launches + self.graph_kernels
    }

    pub fn pinned(&mut self, bytes: u64) {
        self.pinned_bytes += bytes;
        self.pinned_peak_bytes = self.pinned_peak_bytes.max(self.pinned_bytes);
    }
}

/// Everything but the marks.
pub fn snapshot(gpu: &Gpu, state: &State) -> Map<String, Value> {
    let calls: Map<String, Value> = exports::EXPORTS
        .iter()
        .map(|e| (e.name, e.calls.load(Ordering::Relaxed)))
        .filter(|&(_, n)| n > 0)
        .map(|(name, n)| (name.to_string(), json!(n)))
        .collect();
    let account = &state.account;
    let streams = state.streams.values().filter(|s| s.kind == StreamKind::Ordinary).count();
    let busy: Vec<Value> = state
        .clock
        .busy_ns()
        .iter()
        .map(|[h2d, d2h, compute]| json!({"h2d_ns": h2d, "d2h_ns": d2h, "compute_ns": compute}))
        .collect();
    let mappings = gpu.space().mapping_count();
    let fields = json!({
        "calls": calls,
        "launches": account.launches,
        "graph_launches": account.graph_launches,
        "graph_kernels": account.graph_kernels,
        "h2d_bytes": account.h2d_bytes,
        "d2h_bytes": account.d2h_bytes,
        "d2d_bytes": account.d2d_bytes,
        "in_place_bytes": account.in_place_bytes,
        "blocking_calls": account.blocking_calls,
        "query_polls": account.query_polls,
        "implied_waits": account.implied_waits,
        "capacity_bytes": state.memory.capacity,
        "device_bytes": state.memory.used.iter().sum::<u64>(),
        "device_peak_bytes": state.memory.peak.iter().sum::<u64>(),
        "device_bytes_by_device": state.memory.used,
        "device_peak_bytes_by_device": state.memory.peak,
        "host_located_bytes": state.memory.host_used,
        "host_located_peak_bytes": state.memory.host_peak,
        "handles": state.memory.handles.len(),
        "mappings": mappings,
        "pinned_bytes": account.pinned_bytes,
        "pinned_peak_bytes": account.pinned_peak_bytes,
        "events": state.events.len(),
        "streams": streams,
        "streamed_uses": state.uses.uses,
        "streamed_hits": state.uses.hits,
        "stall_ns": account.stall_ns,
        "violations": account.violations,
        "violation_sentences": account.sentences,
        "unknown_kernels": account.unknown_kernels,
        "host_ns": state.clock.host_ns,
        "clock_ns": state.clock.host_ns.max(state.clock.device_ns),
        "engines": busy,
    });
    match fields {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Appends a snapshot under `label`.
pub fn mark(gpu: &Gpu, state: &mut State, label: &str) {
    let mut fields = snapshot(gpu, state);
    fields.insert("label".into(), json!(label));
    state.account.marks.push(Value::Object(fields));
}

/// The whole account as text.
pub fn json(gpu: &Gpu, state: &State) -> String {
    let mut fields = snapshot(gpu, state);
    fields.insert("device".into(), json!("standin"));
    fields.insert("marks".into(), json!(state.account.marks));
    Value::Object(fields).to_string()
}

/// Writes the account where `STANDIN_ACCOUNT` says.
pub fn write(gpu: &Gpu, state: &State) {
    let Some(path) = &gpu.settings.account else { return };
    let path = path.replace("%p", &std::process::id().to_string());
    if let Err(error) = std::fs::write(&path, json(gpu, state) + "\n") {
        eprintln!("standin: cannot write {path}: {error}");
    }
}
