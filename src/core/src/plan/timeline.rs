//! How long an iteration takes under a schedule: the planner's own clock.
//!
//! One compute stream, one copy engine, copies in a fixed order. A copy starts
//! when the engine is free and the frames it overwrites have been released; a
//! step starts when the one before has ended and its copies have arrived:
//!
//! ```text
//!   copy_j  ends at  max(copy_{j-1}, released_j) + cost_j
//!   step_g  starts at max(start_{g-1} + compute between, its last copy)
//! ```
//!
//! A maximum of sums in the order of issue, so one pass per iteration is
//! exact: `sim` gives the same times for such schedules, which a test asserts.
//! Only steps that need a copy are looked at; between them compute runs on.
//! Where kernels read over the link themselves, the engine stands still for as
//! long, wherever in between it was.

use super::{Machine, Nanos};

/// A schedule of one iteration, repeated for ever.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// In the order of the engine, which is that of `group`.
    pub copies: Vec<Timed>,
    /// Compute time before each step that needs a copy, rising.
    pub groups: Vec<Nanos>,
    pub compute_ns: Nanos,
    /// Of the time before each group, and of all, in which kernels read over
    /// the link, so that no copy does.
    pub link: Vec<Nanos>,
    pub link_ns: Nanos,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    pub bytes: u64,
    /// Index of the group that needs it.
    pub group: u32,
    /// The step whose end releases its frames, told from the group before it:
    /// `u32::MAX`: nothing was there.
    pub release_group: u32,
    /// Compute time from that group's start to the release.
    pub release_after: Nanos,
    /// Of the iteration before.
    pub release_before: bool,
    /// From the end of the use to the release, whatever the compute speed.
    pub release_latency: Nanos,
    /// The kernel that is next by then, behind which a fingerprint of what was
    /// there may have to wait.
    pub release_turn: Nanos,
}

/// A deviation from what was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub compute: f64,
    pub link: f64,
    /// Added to every release, ns.
    pub lag: f64,
    /// How much of its turn each release waits for.
    pub turns: f64,
}

pub(super) const NOMINAL: Scenario = Scenario { compute: 1.0, link: 1.0, lag: 0.0, turns: 0.0 };

/// Times of the steady iteration, from the start of its first step.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    pub period: f64,
    /// Start of each group, and start of each copy.
    pub groups: Vec<f64>,
    pub copies: Vec<f64>,
}

/// Scratch memory, so that a search does not allocate.
#[derive(Default)]
pub(super) struct Clock {
    before: Vec<f64>,
    now: Vec<f64>,
}

impl Clock {
    /// Length of the steady iteration, ns.
    pub fn period(&mut self, schedule: &Schedule, machine: &Machine, scenario: Scenario) -> f64 {
        self.run(schedule, machine, scenario, None)
    }

    /// The steady iteration in full.
    pub fn times(&mut self, schedule: &Schedule, machine: &Machine) -> Times {
        let mut times = Times {
            groups: vec![0.0; schedule.groups.len()],
            copies: vec![0.0; schedule.copies.len()],
            ..Times::default()
        };
        times.period = self.run(schedule, machine, NOMINAL, Some(&mut times));
        times
    }

    fn run(
        &mut self,
        schedule: &Schedule,
        machine: &Machine,
        scenario: Scenario,
        mut times: Option<&mut Times>,
    ) -> f64 {
        let nominal = schedule.compute_ns as f64;
        // What releases take from kernels, as if each kernel gave its share.
        let taken: u64 = schedule.copies.iter().map(|copy| copy.release_latency).sum();
        let slower = 1.0 + machine.release_gpu_share * taken as f64 / nominal.max(1.0);
        let scenario = Scenario { compute: scenario.compute * slower, ..scenario };
        let compute = nominal * scenario.compute;
        let (Some(&first), Some(&last)) = (schedule.groups.first(), schedule.groups.last()) else {
            return compute;
        };
        let per_byte = 1e9 / (machine.link_bytes_per_s * scenario.link);
        let overhead = machine.copy_ns as f64;
        let groups = schedule.groups.len();
        self.before.clear();
        self.before.resize(groups, f64::NEG_INFINITY);
        self.now.clear();
        self.now.resize(groups, 0.0);
        let around = (schedule.compute_ns - last + first) as f64 * scenario.compute;
        let link_around = schedule.link_ns - schedule.link[groups - 1] + schedule.link[0];
        let mut engine = 0.0_f64;
        let mut previous_period = 0.0;
        // The start is an empty ring; it is forgotten after a few iterations.
        const ITERATIONS: usize = 12;
        const CONVERGED: f64 = 2e-4;
        for iteration in 0..ITERATIONS {
            let mut copies = schedule.copies.iter().enumerate().peekable();
            for group in 0..groups {
                let link = if group > 0 {
                    schedule.link[group] - schedule.link[group - 1]
                } else {
                    link_around
                };
                if iteration > 0 || group > 0 {
                    engine += link as f64 / scenario.link;
                }
                let mut start = if group > 0 {
                    let between = schedule.groups[group] - schedule.groups[group - 1];
                    self.now[group - 1] + between as f64 * scenario.compute
                } else if iteration > 0 {
                    self.before[groups - 1] + around
                } else {
                    0.0
                };
                while let Some((index, copy)) =
                    copies.next_if(|(_, copy)| copy.group as usize == group)
                {
                    if copy.release_group != u32::MAX {
                        let starts = if copy.release_before { &self.before } else { &self.now };
                        let released = starts[copy.release_group as usize]
                            + copy.release_after as f64 * scenario.compute
                            + copy.release_latency as f64
                            + copy.release_turn as f64 * scenario.turns
                            + scenario.lag;
                        engine = engine.max(released);
                    }
                    if let Some(times) = times.as_deref_mut() {
                        times.copies[index] = engine;
                    }
                    engine += overhead + copy.bytes as f64 * per_byte;
                    start = start.max(engine);
                }
                self.now[group] = start;
            }
            let period = self.now[0] - self.before[0];
            let converged = iteration > 2 && (period - previous_period).abs() <= period * CONVERGED;
            previous_period = period;
            if let Some(times) = times.as_deref_mut() {
                let origin = self.now[0] - first as f64;
                times.groups.clear();
                times.groups.extend(self.now.iter().map(|start| start - origin));
                times.copies.iter_mut().for_each(|start| *start -= origin);
            }
            if converged {
                break;
            }
            std::mem::swap(&mut self.before, &mut self.now);
        }
        previous_period.max(compute)
    }
}
