//! What a plan comes to, in the figures that people ask for: what stays, what
//! streams, how long a step takes, and what more memory would save.
//!
//! Not here: how the plan is found.

use std::fmt::Write;

use super::{Effort, Nanos, Plan, Problem, plan};
use crate::units::{format_bytes, format_ns};

/// More memory than there is, in the question "what would it save?".
pub const MORE_BYTES: u64 = 1 << 30;

/// One plan, seen from outside. A *step* is an iteration of the phase in which
/// the program spends the most time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Of everything that was planned, whatever its phase.
    pub planned_bytes: u64,
    /// Of these: on the device for good, and in the host for kernels to read.
    pub resident_bytes: u64,
    pub in_place_bytes: u64,
    pub ring_bytes: u64,
    pub phases: u32,
    /// The phase that the rest is about.
    pub phase: u32,
    pub streamed_bytes: u64,
    pub link_bytes_per_s: f64,
    pub compute_ns: Nanos,
    /// No order of copies is faster.
    pub bound_ns: Nanos,
    pub expected_ns: Nanos,
}

impl Outlook {
    /// `None`: the plan is not that of the problem, or there is nothing in it.
    pub fn of(problem: &Problem, plan: &Plan) -> Option<Self> {
        if plan.layouts.len() != problem.chunks.len() || plan.phases.len() != problem.phases.len() {
            return None;
        }
        let all = problem.phases.iter().zip(&plan.phases).enumerate();
        let time = |repeats: u32, ns: Nanos| u64::from(repeats.max(1)).saturating_mul(ns);
        let (index, (phase, planned)) =
            all.max_by_key(|(_, (phase, planned))| time(phase.repeats, planned.period_ns))?;
        let machine = &problem.machine;
        let bytes = |frames: u32| u64::from(frames) * machine.frame_bytes;
        let mut used = phase.uses.clone();
        used.sort_unstable();
        used.dedup();
        let used: u32 = used.iter().map(|&chunk| problem.chunks[chunk as usize].frames).sum();
        let host = plan.layouts.iter().map(|layout| layout.host_frames).sum();
        let compute_ns = phase.steps.iter().map(|step| step.ns).sum();
        let missing = bytes(used.saturating_sub(machine.frames)) as f64;
        let link_ns = (missing / machine.link_bytes_per_s * 1e9) as Nanos;
        Some(Self {
            planned_bytes: bytes(problem.chunks.iter().map(|chunk| chunk.frames).sum()),
            resident_bytes: bytes(plan.resident_frames()),
            in_place_bytes: bytes(host),
            ring_bytes: bytes(plan.shared_frames),
            phases: plan.phases.len() as u32,
            phase: index as u32,
            streamed_bytes: planned.streamed_bytes,
            link_bytes_per_s: machine.link_bytes_per_s,
            compute_ns,
            // What is read in place does not have to come over the link whole.
            bound_ns: compute_ns.max(link_ns).min(planned.period_ns),
            expected_ns: planned.period_ns,
        })
    }

    /// In a line; `saved_ns`: of a step, by [`MORE_BYTES`].
    pub fn line(&self, saved_ns: Option<Nanos>) -> String {
        let mut line = format!(
            "{} of {} stay on the card, ",
            format_bytes(self.resident_bytes),
            format_bytes(self.planned_bytes),
        );
        if self.in_place_bytes > 0 {
            let _ = write!(line, "{} are read in place, ", format_bytes(self.in_place_bytes));
        }
        let _ = write!(
            line,
            "{} stream per step at {}/s: at best {} a step, expected {}",
            format_bytes(self.streamed_bytes),
            format_bytes(self.link_bytes_per_s as u64),
            format_ns(self.bound_ns as f64),
            format_ns(self.expected_ns as f64),
        );
        if self.phases > 1 {
            let _ = write!(line, " (in the longest of {} phases)", self.phases);
        }
        if let Some(ns) = saved_ns {
            let more = format_bytes(MORE_BYTES);
            let _ = match ns * 1000 >= self.expected_ns.max(1) {
                true => write!(line, "; {more} more VRAM would save {}", format_ns(ns as f64)),
                false => write!(line, "; {more} more VRAM would save nothing"),
            };
        }
        line
    }
}

/// What a step would take with `more` bytes of device memory: of the same phase
/// as `known`. `None`: there is no plan.
pub fn with_more(problem: &Problem, known: &Outlook, more: u64) -> Option<Nanos> {
    let mut problem = problem.clone();
    let frames = u32::try_from(more / problem.machine.frame_bytes).ok()?;
    problem.machine.frames = problem.machine.frames.saturating_add(frames);
    let found = plan(&problem, None, Effort::Searched).ok()?;
    found.phases.get(known.phase as usize).map(|phase| phase.period_ns)
}
