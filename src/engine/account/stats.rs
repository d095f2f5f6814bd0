//! What the engine counts, and what it says of it.
//!
//! Counters are relaxed atomics, written under a device's lock and read by
//! anybody; no line here makes a CUDA call, so that all of it can be told at
//! exit, when the driver is already gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use autooffload_core::units::format_bytes;
use autooffload_shared::page::Process;
use serde_json::{Value, json};

use super::Trace;

/// The places where the host may wait (design, invariant 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// An address changes its frames, and its last use has not retired.
    PlanChange,
    /// An allocation needs frames of something that must be moved away first.
    Allocation,
    /// A call that blocks in the driver as well: `cuMemFree`, a stream's end.
    Native,
    /// A launch may read through a table of addresses in device memory.
    Look,
}

const REASONS: [(WaitReason, &str); 4] = [
    (WaitReason::PlanChange, "plan_change"),
    (WaitReason::Allocation, "allocation"),
    (WaitReason::Native, "native"),
    (WaitReason::Look, "look"),
];

impl WaitReason {
    pub fn name(self) -> &'static str {
        REASONS[self as usize].1
    }
}

#[derive(Default)]
pub struct Stats {
    /// What is recorded, if that was asked for.
    pub trace: Option<Trace>,
    pub allocations: AtomicU64,
    pub frees: AtomicU64,
    pub managed_bytes: AtomicU64,
    pub managed_peak_bytes: AtomicU64,
    pub budget_bytes: AtomicU64,
    pub resident_bytes: AtomicU64,
    pub ring_bytes: AtomicU64,
    pub frames_bytes: AtomicU64,
    pub frames_peak_bytes: AtomicU64,
    streamed_bytes: AtomicU64,
    fetches: AtomicU64,
    demand_fetches: AtomicU64,
    pub streamed_touches: AtomicU64,
    pub hits: AtomicU64,
    written_back_bytes: AtomicU64,
    write_backs: AtomicU64,
    /// Looked at by our kernel instead of copied back; and what it stored of
    /// that, as far as was seen since.
    compared_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    /// Copies, either way, of several chunks at once; and of how many.
    merged_copies: AtomicU64,
    merged_chunks: AtomicU64,
    pub plans: AtomicU64,
    /// Orders of a former start that were taken up.
    pub recalled: AtomicU64,
    plan_resident_bytes: AtomicU64,
    plan_ring_bytes: AtomicU64,
    pub layout_changes: AtomicU64,
    pub demotions: AtomicU64,
    pub slips: AtomicU64,
    pub kept_resident_bytes: AtomicU64,
    /// Frames in the host, which kernels read in place.
    in_place_bytes: AtomicU64,
    in_place_peak_bytes: AtomicU64,
    pub refused: AtomicU64,
    /// Launches whose buffers were searched for addresses; those that named more
    /// by them; those that could not be looked into.
    looks: AtomicU64,
    looks_found: AtomicU64,
    looks_missed: AtomicU64,
    /// Launches that were watched and waited for.
    verified: AtomicU64,
    /// Operations in a learned iteration, 0 before; streamed bytes and
    /// operations when the present plan began.
    pub period: AtomicU64,
    pub plan_began_bytes: AtomicU64,
    pub plan_began_at: AtomicU64,
    pub operations: AtomicU64,
    link_bytes_per_s: AtomicU64,
    /// Waits of launches for copies, on the device; those sampled, and their sum.
    fence_waits: AtomicU64,
    stall_samples: AtomicU64,
    stall_sampled_ns: AtomicU64,
    waits: [AtomicU64; REASONS.len()],
    waited_ns: [AtomicU64; REASONS.len()],
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, amount: u64) -> u64 {
    counter.fetch_add(amount, Ordering::Relaxed) + amount
}

impl Stats {
    pub fn new(traced: bool) -> Self {
        Self { trace: traced.then(Trace::default), ..Self::default() }
    }

    /// Bytes of managed memory, and the budget.
    pub fn managed_and_budget(&self) -> (u64, u64) {
        (get(&self.managed_bytes), get(&self.budget_bytes))
    }

    pub fn allocated(&self, bytes: usize) {
        add(&self.allocations, 1);
        let now = add(&self.managed_bytes, bytes as u64);
        self.managed_peak_bytes.fetch_max(now, Ordering::Relaxed);
    }

    pub fn freed(&self, bytes: usize) {
        add(&self.frees, 1);
        self.managed_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub fn streamed(&self, bytes: usize, demanded: bool) {
        add(&self.streamed_bytes, bytes as u64);
        add(&self.fetches, 1);
        add(&self.demand_fetches, u64::from(demanded));
    }

    pub fn wrote_back(&self, bytes: usize) {
        add(&self.written_back_bytes, bytes as u64);
        add(&self.write_backs, 1);
    }

    pub fn compared(&self, bytes: usize) {
        add(&self.compared_bytes, bytes as u64);
    }

    pub fn stored(&self, bytes: u64) {
        add(&self.stored_bytes, bytes);
    }

    /// A launch was looked into; `found`: it reaches more than it names.
    pub fn looked(&self, found: bool) {
        add(&self.looks, 1);
        add(&self.looks_found, u64::from(found));
    }

    pub fn look_missed(&self) {
        add(&self.looks_missed, 1);
    }

    pub fn verified(&self) {
        add(&self.verified, 1);
    }

    /// One copy, counted already, was that of `chunks` chunks.
    pub fn merged(&self, chunks: usize) {
        add(&self.merged_copies, 1);
        add(&self.merged_chunks, chunks as u64);
    }

    /// `bytes` more lie in the host for kernels to read in place.
    pub fn in_place_began(&self, bytes: usize) {
        let now = add(&self.in_place_bytes, bytes as u64);
        self.in_place_peak_bytes.fetch_max(now, Ordering::Relaxed);
    }

    pub fn in_place_ended(&self, bytes: usize) {
        self.in_place_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub fn waited(&self, reason: WaitReason, time: Duration) {
        add(&self.waits[reason as usize], 1);
        add(&self.waited_ns[reason as usize], time.as_nanos() as u64);
    }

    pub fn link_rate(&self, bytes_per_s: u64) {
        self.link_bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// A launch was made to wait for a copy; `stall_ns`: a sample read meanwhile.
    pub fn fence_wait(&self, stall_ns: Option<u64>) {
        add(&self.fence_waits, 1);
        if let Some(ns) = stall_ns {
            add(&self.stall_samples, 1);
            add(&self.stall_sampled_ns, ns);
        }
    }

    /// Estimated time that launches waited for copies; `None` without samples.
    fn stall_ns(&self) -> Option<u64> {
        let samples = get(&self.stall_samples);
        let sum = u128::from(get(&self.stall_sampled_ns)) * u128::from(get(&self.fence_waits));
        (samples > 0).then(|| (sum / u128::from(samples)) as u64)
    }

    /// A plan was adopted: what it keeps and streams with is what the summary
    /// tells, not what is left when the program has freed everything.
    pub fn plan_began(&self, operations: u64, period: u64) {
        self.plan_resident_bytes.store(get(&self.resident_bytes), Ordering::Relaxed);
        self.plan_ring_bytes.store(get(&self.ring_bytes), Ordering::Relaxed);
        self.period.store(period, Ordering::Relaxed);
        self.plan_began_at.store(operations, Ordering::Relaxed);
        self.plan_began_bytes.store(get(&self.streamed_bytes), Ordering::Relaxed);
    }

    /// Bytes streamed in one learned iteration, on the average since the plan.
    fn streamed_per_iteration(&self) -> Option<u64> {
        let period = get(&self.period);
        let operations = get(&self.operations).checked_sub(get(&self.plan_began_at))?;
        let bytes = get(&self.streamed_bytes) - get(&self.plan_began_bytes);
        (period > 0 && operations >= period)
            .then(|| (u128::from(bytes) * u128::from(period) / u128::from(operations)) as u64)
    }

    /// Puts what is counted here into a page's words.
    pub fn tell(&self, process: &mut Process, host: (u64, u64, u64)) {
        use WaitReason::{Allocation, Native, PlanChange};
        let waits = |reason: WaitReason| get(&self.waits[reason as usize]);
        let waited = |reason: WaitReason| get(&self.waited_ns[reason as usize]);
        *process = Process {
            operations: get(&self.operations),
            budget_bytes: get(&self.budget_bytes),
            frames_bytes: get(&self.frames_bytes),
            host_bytes: host.0,
            pinned_bytes: host.1,
            in_place_bytes: get(&self.in_place_bytes),
            streamed_bytes: get(&self.streamed_bytes),
            written_back_bytes: get(&self.written_back_bytes),
            link_bytes_per_s: get(&self.link_bytes_per_s),
            demand_fetches: get(&self.demand_fetches),
            streamed_uses: get(&self.streamed_touches),
            hits: get(&self.hits),
            plans: get(&self.plans),
            slips: get(&self.slips),
            stall_ns: self.stall_ns().unwrap_or(0),
            plan_change_waits: waits(PlanChange),
            plan_change_ns: waited(PlanChange),
            allocation_waits: waits(Allocation),
            allocation_ns: waited(Allocation),
            native_waits: waits(Native),
            native_ns: waited(Native),
            ..*process
        };
    }

    pub fn json(&self, host: (u64, u64, u64)) -> Value {
        let waits: serde_json::Map<String, Value> = REASONS
            .iter()
            .map(|&(reason, name)| {
                let index = reason as usize;
                let wait = json!({
                    "count": get(&self.waits[index]),
                    "ns": get(&self.waited_ns[index]),
                });
                (name.to_string(), wait)
            })
            .collect();
        json!({
            "managed": {
                "allocations": get(&self.allocations),
                "frees": get(&self.frees),
                "bytes": get(&self.managed_bytes),
                "peak_bytes": get(&self.managed_peak_bytes),
            },
            "device": {
                "budget_bytes": get(&self.budget_bytes),
                "frames_bytes": get(&self.frames_bytes),
                "frames_peak_bytes": get(&self.frames_peak_bytes),
                "resident_bytes": get(&self.resident_bytes),
                "ring_bytes": get(&self.ring_bytes),
                "kept_resident_bytes": get(&self.kept_resident_bytes),
            },
            "host": {
                "bytes": host.0,
                "pinned_bytes": host.1,
                "peak_bytes": host.2,
                "in_place_bytes": get(&self.in_place_bytes),
                "in_place_peak_bytes": get(&self.in_place_peak_bytes),
            },
            "streaming": {
                "streamed_bytes": get(&self.streamed_bytes),
                "streamed_bytes_per_iteration": self.streamed_per_iteration(),
                "fetches": get(&self.fetches),
                "demand_fetches": get(&self.demand_fetches),
                "touches": get(&self.streamed_touches),
                "hits": get(&self.hits),
                "written_back_bytes": get(&self.written_back_bytes),
                "write_backs": get(&self.write_backs),
                "compared_bytes": get(&self.compared_bytes),
                "stored_bytes": get(&self.stored_bytes),
                "merged_copies": get(&self.merged_copies),
                "merged_chunks": get(&self.merged_chunks),
                "link_bytes_per_s": get(&self.link_bytes_per_s),
                "stall_ns_estimated": self.stall_ns(),
                "stall_samples": get(&self.stall_samples),
            },
            "plan": {
                "plans": get(&self.plans),
                "recalled": get(&self.recalled),
                "resident_bytes": get(&self.plan_resident_bytes),
                "ring_bytes": get(&self.plan_ring_bytes),
                "period": get(&self.period),
                "layout_changes": get(&self.layout_changes),
                "demotions": get(&self.demotions),
                "slips": get(&self.slips),
            },
            "waits": waits,
            "looks": {
                "launches": get(&self.looks),
                "found": get(&self.looks_found),
                "missed": get(&self.looks_missed),
            },
            "verified_launches": get(&self.verified),
            "refused": get(&self.refused),
        })
    }

    /// The summary at exit; empty when nothing was managed. `all`: nothing
    /// but what is managed was asked for.
    pub fn summary(&self, host: (u64, u64, u64), all: bool) -> Vec<String> {
        let bytes = |counter: &AtomicU64| format_bytes(get(counter));
        if get(&self.allocations) == 0 {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "version {}: managed {} at most, budget {}, device frames {} at most",
            env!("CARGO_PKG_VERSION"),
            bytes(&self.managed_peak_bytes),
            bytes(&self.budget_bytes),
            bytes(&self.frames_peak_bytes),
        )];
        if get(&self.streamed_bytes) == 0 && get(&self.written_back_bytes) == 0 {
            let what = if all { "everything" } else { "what is managed" };
            lines.push(format!("{what} fitted: nothing was copied or evicted"));
            // Who keeps to a share of the card gives up without asking the driver.
            if get(&self.frames_peak_bytes) > get(&self.budget_bytes) / 4 * 3 {
                lines.push(String::from(
                    "if the program ran out of memory all the same, it keeps to a share of the \
                     card (torch.cuda.set_per_process_memory_fraction): take that out of it, or \
                     set AUTOOFFLOAD_REPORT=enlarged",
                ));
            }
            return lines;
        }
        let touches = get(&self.streamed_touches);
        let rate = match get(&self.link_bytes_per_s) {
            0 => "not measured".to_string(),
            rate => format!("{}/s", format_bytes(rate)),
        };
        lines.push(format!(
            "planned {} resident and a ring of {}, host copies {} at most; streamed {} in all{}, written back {}; link {rate}",
            bytes(&self.plan_resident_bytes),
            bytes(&self.plan_ring_bytes),
            format_bytes(host.2),
            bytes(&self.streamed_bytes),
            self.streamed_per_iteration()
                .map_or(String::new(), |bytes| format!(", {} an iteration", format_bytes(bytes))),
            bytes(&self.written_back_bytes),
        ));
        if get(&self.compared_bytes) > 0 {
            lines.push(format!(
                "looked at {} for writes instead of copying them back: {} had been written",
                bytes(&self.compared_bytes),
                bytes(&self.stored_bytes),
            ));
        }
        if get(&self.merged_copies) > 0 {
            lines.push(format!(
                "merged {} copies of neighbours into {}",
                get(&self.merged_chunks),
                get(&self.merged_copies),
            ));
        }
        lines.push(format!(
            "{touches} streamed uses: {} present when launched ({:.1} %), {} fetched on demand; \
             {} plans, {} slips off the learned order",
            get(&self.hits),
            100.0 * get(&self.hits) as f64 / touches.max(1) as f64,
            get(&self.demand_fetches),
            get(&self.plans),
            get(&self.slips),
        ));
        if get(&self.in_place_peak_bytes) > 0 {
            lines.push(format!(
                "read in place, over the link: {} of host memory at most",
                bytes(&self.in_place_peak_bytes),
            ));
        }
        let waits: Vec<String> = REASONS
            .iter()
            .map(|&(reason, name)| {
                let index = reason as usize;
                let ms = get(&self.waited_ns[index]) as f64 / 1e6;
                format!("{} for {} ({ms:.0} ms)", get(&self.waits[index]), name.replace('_', " "))
            })
            .collect();
        let stall = self.stall_ns().map_or("not measured".to_string(), |ns| {
            format!("{:.0} ms, from {} samples", ns as f64 / 1e6, get(&self.stall_samples))
        });
        if get(&self.verified) > 0 {
            lines.push(format!("verify: {} launches were watched", get(&self.verified)));
        }
        lines.push(format!("launches stalled: {stall}; host waits: {}", waits.join(", ")));
        lines
    }
}
