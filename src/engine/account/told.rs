//! What is said while the program runs: that memory got short, and what the plan
//! comes to. While everything fits, nothing is.
//!
//! Said through the log under [`TARGET`], at the level of warnings: who wants
//! silence asks for `error` or `off`.
//! Not here: complaints (where they arise), the summary at exit (`report`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use autooffload_core::plan::outlook::{MORE_BYTES, Outlook, with_more};
use autooffload_core::plan::{Nanos, Plan, Problem};
use autooffload_core::units::format_bytes;
use serde_json::{Value, json};

use super::Stats;
use crate::engine::state::lock;
use crate::engine::threads::spawn;

/// Lines of this target are printed without their level.
const TARGET: &str = "autooffload::told";
/// Plans of a device that are told of, at the most.
const LINES: u32 = 8;

/// A plan that was carried out, and the problem that it solves.
pub struct InForce {
    pub problem: Arc<Problem>,
    pub plan: Plan,
    /// The times in it were measured, not guessed.
    pub measured: bool,
}

/// By device.
#[derive(Default)]
pub struct Told(Mutex<BTreeMap<usize, Known>>);

struct Known {
    in_force: Arc<InForce>,
    /// Of that plan, once it is known; and what [`MORE_BYTES`] would save.
    outlook: Option<(Outlook, Option<Nanos>)>,
    /// What the last line was about: bytes planned, and frames for them.
    said: Option<(u64, u32)>,
    lines: u32,
}

impl Told {
    /// A plan of `device` is in force from now on. Works out what that means,
    /// and says so, in a thread of its own: it plans once more.
    pub fn plan_stands(&'static self, device: usize, in_force: InForce) {
        let in_force = Arc::new(in_force);
        {
            let mut all = lock(&self.0);
            let known = all.entry(device).or_insert_with(|| Known {
                in_force: in_force.clone(),
                outlook: None,
                said: None,
                lines: 0,
            });
            known.in_force = in_force.clone();
        }
        if !in_force.measured {
            return;
        }
        let body = move || self.work_out(device, &in_force);
        if let Err(why) = spawn("autooffload-told", body) {
            log::debug!("no thread to work out what a plan comes to: {why}");
        }
    }

    fn work_out(&self, device: usize, in_force: &Arc<InForce>) {
        let InForce { problem, plan, .. } = &**in_force;
        let Some(outlook) = Outlook::of(problem, plan) else { return };
        let about = (outlook.planned_bytes, problem.machine.frames);
        let saved = with_more(problem, &outlook, MORE_BYTES)
            .map(|ns| outlook.expected_ns.saturating_sub(ns));
        let mut all = lock(&self.0);
        let Some(known) = all.get_mut(&device) else { return };
        if !Arc::ptr_eq(&known.in_force, in_force) {
            return; // Another plan has followed.
        }
        // Of a loop beside what has to move there is nothing to tell.
        let moves = outlook.streamed_bytes + outlook.in_place_bytes > 0;
        let is_news = known.said.is_none_or(|said| is_other(said, about));
        if moves && is_news && known.lines < LINES {
            known.said = Some(about);
            known.lines += 1;
            log::warn!(target: TARGET, "device {device}: {}", outlook.line(saved));
        }
        known.outlook = Some((outlook, saved));
    }

    /// The plans in force, by device.
    pub fn in_force(&self) -> Vec<(usize, Arc<InForce>)> {
        lock(&self.0).iter().map(|(&device, known)| (device, known.in_force.clone())).collect()
    }

    /// What they come to, by device; empty until one is known.
    pub fn json(&self) -> Value {
        let all = lock(&self.0);
        let rows = all.iter().filter_map(|(device, known)| {
            let (outlook, saved) = known.outlook?;
            Some((device.to_string(), outlook_json(&outlook, saved)))
        });
        Value::Object(rows.collect())
    }
}

/// Another model, or another budget: by more than a tenth.
fn is_other(said: (u64, u32), now: (u64, u32)) -> bool {
    let far = |a: u64, b: u64| a.abs_diff(b) * 10 > a.max(b);
    far(said.0, now.0) || far(said.1.into(), now.1.into())
}

fn outlook_json(outlook: &Outlook, saved: Option<Nanos>) -> Value {
    json!({
        "planned_bytes": outlook.planned_bytes,
        "resident_bytes": outlook.resident_bytes,
        "in_place_bytes": outlook.in_place_bytes,
        "ring_bytes": outlook.ring_bytes,
        "phases": outlook.phases,
        "streamed_bytes_per_step": outlook.streamed_bytes,
        "link_bytes_per_s": outlook.link_bytes_per_s as u64,
        "compute_ns": outlook.compute_ns,
        "bound_ns": outlook.bound_ns,
        "expected_ns": outlook.expected_ns,
        "saved_by_gib_ns": saved,
    })
}

/// What takes long, on a terminal.
pub fn locking(bytes: u64, took: Duration) {
    let (done, took) = (format_bytes(bytes), took.as_secs());
    log::warn!(target: TARGET, "page-locking host memory: {done} so far, after {took} s");
}

pub fn planning(uses: u64, took: Duration) {
    let took = took.as_secs();
    log::warn!(target: TARGET, "looking for a plan for {uses} uses of weights, after {took} s");
}

/// Memory gets short for the first time. `host_bytes` of host memory may be used,
/// page-locked or not.
pub fn memory_is_short(
    device: i32,
    stats: &Stats,
    (host_bytes, page_locked): (u64, bool),
    link: Option<f64>,
) {
    let (managed, budget) = stats.managed_and_budget();
    let rate = link
        .map_or("not measured yet".to_string(), |rate| format!("{}/s", format_bytes(rate as u64)));
    let kind = if page_locked { "page-locked" } else { "pageable" };
    log::warn!(
        target: TARGET,
        "device {device}: memory is short: {} are managed, the budget is {}; what does not fit \
         moves to host memory ({kind}, up to {}) and back; link {rate}",
        format_bytes(managed),
        format_bytes(budget),
        format_bytes(host_bytes),
    );
}
