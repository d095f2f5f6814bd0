//! What is recorded for a trace file, and how it is written down: Chrome's JSON,
//! which Perfetto and `autooffload report` read.
//!
//! Times are the device's own, from the first record on; those that the host
//! knows alone (its waits) begin where the device stood then. Whoever records
//! only puts numbers into a list; text is made by whoever empties it.
//! Not here: how times are read (`device::recorder`), the file.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use autooffload_core::address_map::ChunkId;
use autooffload_core::plan::{Layout, Phase, PhasePlan};
use serde_json::{Value, json};

use super::told::InForce;
use crate::engine::state::{engine, lock};

/// Between two times that the list is emptied; more is counted and lost.
const EVENTS: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// Of `chunks` chunks, `chunk` the first.
    Copy {
        into: bool,
        chunk: ChunkId,
        chunks: usize,
        bytes: usize,
        demanded: bool,
    },
    /// Our kernel looked at so many bytes instead.
    Look {
        chunk: ChunkId,
        bytes: usize,
    },
    /// A launch, for the copy of `chunk`.
    Wait {
        chunk: ChunkId,
        demanded: bool,
    },
    HostWait {
        reason: &'static str,
        ns: u64,
    },
    Memory(Memory),
    /// A plan was carried out.
    Plan,
    /// The device's tracks get their names.
    Begin,
}

/// Bytes, at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    pub resident: u64,
    pub ring: u64,
    pub unused: u64,
    pub in_place: u64,
    pub host: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub device: i32,
    pub start_ns: u64,
    /// `None`: the end was not seen.
    pub ns: Option<u64>,
    pub what: What,
}

#[derive(Default)]
pub struct Trace {
    events: Mutex<Vec<Event>>,
    lost: AtomicU64,
    latest_ns: AtomicU64,
}

/// What has come since the last time.
pub struct Recorded {
    /// JSON, each on one line.
    pub events: Vec<String>,
    /// So many, since the start, are in none.
    pub lost: u64,
    /// The order and the plan of each device.
    pub devices: Vec<Value>,
}

impl Trace {
    pub fn push(&self, event: Event) {
        self.latest_ns.fetch_max(event.start_ns + event.ns.unwrap_or(0), Ordering::Relaxed);
        let mut events = lock(&self.events);
        if events.len() < EVENTS {
            events.push(event);
        } else {
            self.lost(1);
        }
    }

    /// The end of what was recorded, whatever the device.
    pub fn latest_ns(&self) -> u64 {
        self.latest_ns.load(Ordering::Relaxed)
    }

    pub fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

/// Takes what was recorded. `all`: what the device has not timed, too. `None`:
/// nothing is recorded in this process.
pub fn recorded(all: bool) -> Option<Recorded> {
    let engine = engine()?;
    let trace = engine.stats.trace.as_ref()?;
    if all {
        // A thread that is gone may have held the lock; then its records are, too.
        for slot in &engine.devices {
            if let Ok(mut state) = slot.state.try_lock()
                && let Some(state) = state.as_mut()
            {
                state.backend.order.end_trace();
            }
        }
    }
    let events = std::mem::take(&mut *lock(&trace.events));
    let devices = engine.told.in_force();
    Some(Recorded {
        events: events.iter().flat_map(lines).collect(),
        lost: trace.lost.load(Ordering::Relaxed),
        devices: devices.iter().map(|(device, in_force)| order_json(*device, in_force)).collect(),
    })
}

/// The tracks, in the order in which they are shown.
const TRACKS: [&str; 4] = ["copies in", "copies out", "launches that waited", "host waits"];

fn lines(event: &Event) -> Vec<String> {
    let Event { device, start_ns, ns, what } = *event;
    let ts = start_ns as f64 / 1e3;
    let span = |tid: usize, name: String, args: Value| {
        let dur = ns.unwrap_or(0) as f64 / 1e3;
        let mut event = json!({"ph": "X", "name": name, "pid": device, "tid": tid, "ts": ts,
            "dur": dur, "args": args});
        if ns.is_none() {
            event["args"]["end"] = json!("not seen");
        }
        event
    };
    let event = match what {
        What::Begin => return beginning(device),
        What::Copy { into, chunk, chunks, bytes, demanded } => {
            let name = match chunks {
                1 => format!("chunk {chunk}"),
                _ => format!("chunk {chunk} and {} more", chunks - 1),
            };
            let args = match into {
                true => json!({"bytes": bytes, "chunk": chunk, "demanded": demanded}),
                false => json!({"bytes": bytes, "chunk": chunk}),
            };
            span(usize::from(!into), name, args)
        }
        What::Look { chunk, bytes } => {
            span(1, format!("look at chunk {chunk}"), json!({"looked_at": bytes, "chunk": chunk}))
        }
        What::Wait { chunk, demanded } => {
            let why = if demanded { "fetched on demand" } else { "copy ahead not over" };
            span(2, why.to_string(), json!({"chunk": chunk, "demanded": demanded}))
        }
        What::HostWait { reason, ns } => json!({"ph": "X", "name": reason, "pid": device, "tid": 3,
            "ts": ts, "dur": ns as f64 / 1e3, "args": {}}),
        What::Memory(Memory { resident, ring, unused, in_place, host }) => json!({
            "ph": "C", "name": "memory", "pid": device, "ts": ts, "args": {"resident": resident,
            "ring": ring, "unused": unused, "in_place": in_place, "host": host}}),
        What::Plan => json!({"ph": "i", "s": "p", "name": "plan", "pid": device, "tid": 0,
            "ts": ts, "args": {}}),
    };
    vec![event.to_string()]
}

fn beginning(device: i32) -> Vec<String> {
    let name = format!("autooffload {}, device {device}", env!("CARGO_PKG_VERSION"));
    let named = |kind: &str, tid: usize, name: &str| {
        json!({"ph": "M", "name": kind, "pid": device, "tid": tid, "args": {"name": name}})
            .to_string()
    };
    let tracks = TRACKS.iter().enumerate().map(|(tid, track)| named("thread_name", tid, track));
    std::iter::once(named("process_name", 0, &name)).chain(tracks).collect()
}

/// The order of uses as the planner was told it, and the plan, so that others can
/// ask what another card would do.
fn order_json(device: usize, in_force: &InForce) -> Value {
    let InForce { problem, plan, measured } = in_force;
    let machine = &problem.machine;
    let layout = |layout: &Layout| {
        json!([layout.id, layout.frames, layout.own_frames(), layout.host_frames])
    };
    let phase = |(phase, planned): (&Phase, &PhasePlan)| {
        let step = |step: &autooffload_core::plan::Step| {
            let read = (step.read_bytes != u64::MAX).then_some(step.read_bytes);
            json!([step.ns, read, step.link_ns, phase.touches(step)])
        };
        json!({
            "repeats": phase.repeats,
            "visits": phase.visits,
            "steps": phase.steps.iter().map(step).collect::<Vec<_>>(),
            "period_ns": planned.period_ns,
            "stall_ns": planned.stall_ns,
            "streamed_bytes": planned.streamed_bytes,
            "ring_frames": planned.ring_frames,
        })
    };
    json!({
        "device": device,
        "measured": measured,
        "machine": {
            "frames": machine.frames,
            "frame_bytes": machine.frame_bytes,
            "link_bytes_per_s": machine.link_bytes_per_s,
            "copy_ns": machine.copy_ns,
            "release_ns": machine.release_ns,
            "release_bytes_per_s": machine.release_bytes_per_s,
            "release_gpu_share": machine.release_gpu_share,
            "backlog_bytes": machine.backlog_bytes,
            "device_bytes_per_s": machine.device_bytes_per_s,
            "zero_copy_bytes_per_s": machine.zero_copy_bytes_per_s,
        },
        "shared_frames": plan.shared_frames,
        // Chunk, its frames, those of its own, those that are read in place.
        "chunks": plan.layouts.iter().map(layout).collect::<Vec<_>>(),
        "pinned": problem.chunks.iter().map(|chunk| chunk.pinned).collect::<Vec<_>>(),
        "phases": problem.phases.iter().zip(&plan.phases).map(phase).collect::<Vec<_>>(),
    })
}
