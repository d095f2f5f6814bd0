//! What a recording says beside the planner's clock: how long steps took in
//! truth, and what our own looks at memory took of the kernels' times.
//!
//! Not here: the file (`recording`), what is made of it (`forecast_recorded`).

use crate::recording::{Order, Recording, Span, Track};
use autooffload_core::plan::Problem;

/// Of one phase, as it was recorded.
pub struct Pace {
    /// A step, in truth.
    pub step_ns: f64,
    /// Kernels alone, as a share of the times that were recorded.
    kernels: f64,
    looks_bytes_per_s: Option<f64>,
}

/// `None`: it cannot be told. There are several phases, or too few steps.
pub fn of(recording: &Recording, order: &Order) -> Option<Pace> {
    let [streamed] = order.streamed[..] else { return None };
    let spans = || {
        let ended = |span: &&Span| span.device == order.device && span.length > 0.0;
        recording.spans.iter().filter(ended)
    };
    let step_ns = step_ns(spans().filter(|span| span.track == Track::In), streamed)?;
    let looks = || spans().filter(|span| span.looked_at > 0);
    let looked_at: u64 = looks().map(|span| span.looked_at).sum();
    let looked_ns: f64 = looks().map(|span| span.length * 1e3).sum();
    let looks_bytes_per_s = (looked_ns > 0.0).then(|| looked_at as f64 / looked_ns * 1e9);
    let recorded: f64 = order.problem.phases[0].steps.iter().map(|step| step.ns as f64).sum();
    // Times of the first steps, which may have been slower than all later ones.
    let kernels = recorded.min(step_ns);
    let looks = looks_bytes_per_s.map_or(0.0, |rate| streamed as f64 / rate * 1e9);
    let alone = (kernels - looks).max(kernels / 4.0);
    Some(Pace { step_ns, kernels: alone / recorded.max(1.0), looks_bytes_per_s })
}

impl Pace {
    /// `problem`, with looks as dear as they were: as long as they last they
    /// take their time from kernels.
    pub fn applied(&self, mut problem: Problem) -> Problem {
        for step in problem.phases.iter_mut().flat_map(|phase| &mut phase.steps) {
            step.ns = (step.ns as f64 * self.kernels) as u64;
        }
        if let Some(rate) = self.looks_bytes_per_s {
            problem.machine.release_ns = 0; // the rate has it in it
            problem.machine.release_bytes_per_s = rate;
            problem.machine.release_gpu_share = 1.0;
        }
        problem
    }
}

/// The time in which `bytes` came, one step's: nothing else tells where the
/// program's steps begin. What slowed one of them down (a new plan, a pause of
/// the program's) is not counted.
fn step_ns<'a>(copies: impl Iterator<Item = &'a Span>, bytes: u64) -> Option<f64> {
    // The last: those before were not under this plan yet.
    const STEPS: usize = 4;
    let mut copies: Vec<_> = copies.collect();
    copies.sort_by(|a, b| b.start.total_cmp(&a.start));
    let (mut seen, mut marks) = (0, Vec::new());
    for copy in copies {
        if bytes > 0 && seen >= marks.len() as u64 * bytes {
            marks.push(copy.start * 1e3);
        }
        seen += copy.bytes;
    }
    let mut steps: Vec<f64> = marks.windows(2).map(|pair| pair[0] - pair[1]).take(STEPS).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 4).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(start: f64, bytes: u64) -> Span {
        Span {
            device: 0,
            track: Track::In,
            start,
            length: 1.0,
            name: String::new(),
            chunk: None,
            bytes,
            looked_at: 0,
            demanded: false,
        }
    }

    #[test]
    fn a_step_lasts_as_long_as_its_bytes_take_to_come() {
        // Three copies a step of 10 µs, and one of 50 µs.
        let begins = [0.0, 10.0, 20.0, 70.0, 80.0, 90.0];
        let copies: Vec<Span> =
            begins.iter().flat_map(|&at| [0.0, 2.0, 7.0].map(|more| copy(at + more, 5))).collect();
        assert_eq!(step_ns(copies.iter(), 15), Some(10_000.0));
        assert_eq!(step_ns(copies[..3].iter(), 15), None, "of one step nothing can be said");
        assert_eq!(step_ns(copies.iter(), 0), None);
    }
}
