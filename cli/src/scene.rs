//! A trace on a card over a link: what it weighs, what no policy can beat, and
//! what a policy does with it. Everything the other files know of simulating.

use autooffload_core::learn::Learner;
use autooffload_core::plan::{self, Effort, Plan};
use autooffload_core::units::format_bytes;
use autooffload_lab::sim::device::Stalls;
use autooffload_lab::sim::oracle::{FRAME_BYTES, Oracle, oracle};
use autooffload_lab::sim::policies::{self, Ours, Planned, Resident};
use autooffload_lab::sim::run::{Infeasible, IterationResult, Outcome, Policy, Setup, Writes, run};
use autooffload_lab::workload::bounds::{self, Limits, Reading, Steps, Work};
use autooffload_lab::workload::cards::{Card, Costs};
use autooffload_lab::workload::models::{self, Model, Options};
use autooffload_lab::workload::{Event, Trace, TraceChunk};

/// Iterations that stand for the steady state: the last of a run. An even
/// number: with guidance two passes make a step.
const WINDOW: usize = 4;

pub struct Scene {
    pub trace: Trace,
    pub card: &'static Card,
    /// Decimal GB/s, which is bytes per nanosecond.
    pub link: f64,
    /// With all of each chunk that a launch names.
    work: Work,
}

/// What no policy can beat, for one iteration (or cycle).
#[derive(Clone, Debug)]
pub struct Bounds {
    /// max(C, D / bandwidth)
    pub b1_ns: f64,
    /// The tighter one; of several phases, the phase-aware one.
    pub b2_ns: f64,
    /// B2 where each copy costs what the model says, and none is larger than
    /// the largest chunk: an explanation, never the yardstick.
    pub with_copies_ns: Option<f64>,
    /// Which kernels bind B2, in words.
    pub binds: Option<String>,
}

/// How a trace's iterations relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every iteration like the one before.
    Periodic,
    /// Phases follow each other; the whole comes round again.
    Phases,
    /// What an iteration touches is chosen anew each time.
    Random,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Periodic => "periodic",
            Kind::Phases => "phases",
            Kind::Random => "random",
        }
    }

    /// Of a trace whose making is not known; `None`: it has no marks.
    pub fn shown_by(trace: &Trace) -> Option<Self> {
        let marks = marks(trace);
        let first = *marks.first()?;
        Some(if marks.iter().all(|phase| *phase == first) { Kind::Periodic } else { Kind::Phases })
    }

    pub fn of(model: &Model) -> Self {
        match model.kind {
            models::Kind::Periodic => Kind::Periodic,
            models::Kind::MacroCycle | models::Kind::Experts => Kind::Phases,
            models::Kind::Random => Kind::Random,
        }
    }
}

/// What a policy did, or why it cannot run here.
pub type Ran = Result<Run, String>;

#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Nanoseconds, from mark to mark.
    pub iterations: Vec<u64>,
    /// In the steady state: of one iteration, or of the whole cycle where
    /// there are phases.
    pub ns: f64,
    /// Per steady iteration (or cycle).
    pub bytes_in: f64,
    pub bytes_out: f64,
    pub copies: f64,
    /// Time without a kernel, by cause.
    pub stalls: Vec<(&'static str, f64)>,
    pub peak_bytes: u64,
    pub phases: Vec<u16>,
    /// What is read in place in the end, over the link.
    pub in_place: Vec<TraceChunk>,
}

/// A stretch of a run that is taken as steady: marks `from..to`, and how many
/// iterations (or cycles) it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    pub from: usize,
    pub to: usize,
    pub cycles: usize,
}

impl Scene {
    pub fn new(trace: Trace, card: &'static Card, link: f64) -> Self {
        let work = Work::new(&trace, card, &Costs::default(), link * 1e9, Reading::Whole);
        Self { trace, card, link, work }
    }

    /// W: what exists of weights at the same time.
    pub fn weights(&self) -> u64 {
        self.trace.weight_bytes()
    }

    /// `resident` bytes for weights, and the activations beside them.
    pub fn setup(&self, resident: u64) -> Setup {
        Setup::new(self.card, self.link * 1e9, resident + self.trace.activation_bytes)
    }

    /// The last cycles where there are several phases, else the last iterations.
    pub fn steady(&self, kind: Kind) -> Steady {
        let marks = marks(&self.trace);
        let to = marks.len();
        if kind == Kind::Phases
            && let [.., before, _] = cycle_starts(&marks)[..]
        {
            return Steady { from: before, to, cycles: 2 };
        }
        let window = if kind == Kind::Random { to / 2 } else { WINDOW.min(to / 2) };
        let cycles = window.clamp(1, to);
        Steady { from: to - cycles, to, cycles }
    }

    /// R for a share of W, in whole frames.
    pub fn resident_bytes(&self, share: f64) -> u64 {
        (self.weights() as f64 * share) as u64 / FRAME_BYTES * FRAME_BYTES
    }

    pub fn iterations(&self) -> usize {
        marks(&self.trace).len()
    }

    /// C: all kernels of the steady stretch, and what the host adds by waiting
    /// for them; of one iteration (or cycle).
    pub fn compute_ns(&self, steady: Steady) -> f64 {
        self.work.compute_ns(self.work.stretch(steady.from..steady.to)) as f64
            / steady.cycles as f64
    }

    /// With `resident` bytes for weights. `in_place`: of those chunks kernels may
    /// read the part that they need over the link.
    pub fn bounds(
        &self,
        resident: u64,
        steady: Steady,
        kind: Kind,
        in_place: &[TraceChunk],
    ) -> Bounds {
        let limits = Limits::new(resident, self.link * 1e9);
        if in_place.is_empty() {
            return self.bounds_of(&self.work, limits, steady, kind);
        }
        let mut named = vec![false; self.trace.chunks.len()];
        in_place.iter().for_each(|&chunk| named[chunk as usize] = true);
        let reading = Reading::Of(&named);
        let work = Work::new(&self.trace, self.card, &Costs::default(), self.link * 1e9, reading);
        self.bounds_of(&work, Limits { in_place: true, ..limits }, steady, kind)
    }

    fn bounds_of(&self, work: &Work, limits: Limits, steady: Steady, kind: Kind) -> Bounds {
        if kind == Kind::Periodic {
            // The last: all are alike, but for the program's own copies.
            let iteration = work.stretch(steady.to - 1..steady.to);
            let bound = bounds::b2(work, iteration.clone(), &limits);
            let costly = Limits { copy_ns: Costs::default().copy_ns, ..limits };
            let with_copies = bounds::b2(work, iteration.clone(), &costly).ns;
            return Bounds {
                b1_ns: bounds::b1(work, iteration.clone(), &limits) as f64,
                b2_ns: bound.ns as f64,
                with_copies_ns: Some(with_copies as f64),
                binds: bound.binds.map(|steps| self.binding(steps, iteration)),
            };
        }
        let stretch = work.stretch(steady.from..steady.to);
        let b2_ns = bounds::sequence_bound(work, stretch, &limits) as f64 / steady.cycles as f64;
        let compute_ns = self.compute_ns(steady);
        // What one iteration of a random order touches is not W.
        let missing = if kind == Kind::Phases {
            self.weights().saturating_sub(limits.resident_bytes)
        } else {
            0
        };
        let b1_ns = compute_ns.max(missing as f64 / self.link);
        Bounds { b1_ns, b2_ns: b2_ns.max(compute_ns), with_copies_ns: None, binds: None }
    }

    /// The step after which memory is full, and the one before which the rest
    /// must have come, in words.
    fn binding(&self, (p, j): (usize, usize), iteration: Steps) -> String {
        let words = |step: usize| {
            let bytes: u64 = self.work.step_uses(step).iter().map(|(_, bytes)| bytes).sum();
            let ms = self.work.step_ns(step) as f64 / 1e6;
            let number = step - iteration.start;
            format!("step {number} ({} used, {ms:.2} ms)", format_bytes(bytes))
        };
        format!("B2 binds from the end of {} to {}, of {}", words(p), words(j), iteration.len())
    }

    pub fn run(&self, setup: &Setup, policy: &mut dyn Policy, steady: Steady) -> Ran {
        judged(run(&self.trace, setup, policy), setup, steady)
    }

    /// One of the policies that others use.
    pub fn peer(&self, name: &str, setup: &Setup, steady: Steady) -> Ran {
        judged(policies::run_peer(name, &self.trace, setup), setup, steady)
    }

    /// Ours, seeing what the library sees.
    pub fn ours(&self, setup: &Setup, steady: Steady) -> Ran {
        let mut ours = Ours::new(&self.trace, setup);
        let ran = self.run(setup, &mut ours, steady)?;
        let in_place = ours.streamer().plan().map(Plan::read_in_place).unwrap_or_default();
        Ok(Run { in_place, ..ran })
    }

    /// The same where our kernel is not to be had: what a kernel of the program's
    /// received is copied back.
    pub fn ours_copying_back(&self, setup: &Setup, steady: Steady) -> Ran {
        self.ours(&Setup { writes: Writes::CopiedBack, ..*setup }, steady)
    }

    /// With memory enough for everything.
    pub fn resident(&self, steady: Steady) -> Ran {
        self.run(&self.setup(self.weights()), &mut Resident::default(), steady)
    }

    pub fn oracle(&self, setup: &Setup) -> Oracle {
        oracle(&self.trace, setup)
    }

    /// A plan made with everything known, and carried out by one who knows the
    /// position in the order.
    pub fn planned(&self, setup: &Setup, steady: Steady) -> Result<(Plan, Ran), String> {
        let known = self.oracle(setup);
        let plan = plan::plan(&known.problem, None, Effort::Searched).map_err(|u| u.to_string())?;
        let ran = self.carried_out(setup, &known, &plan, steady);
        Ok((plan, ran))
    }

    pub fn carried_out(&self, setup: &Setup, known: &Oracle, plan: &Plan, steady: Steady) -> Ran {
        self.run(setup, &mut Planned::new(known, plan, &self.trace.chunks), steady)
    }
}

/// How many iterations the learner sees before it describes the present phase
/// as it does at the end of the run, durations aside; one pass over everything
/// comes first, as when a program loads its weights.
pub fn described_after(trace: &Trace) -> usize {
    let mut learner = Learner::new();
    (0..trace.chunks.len() as u32).for_each(|chunk| {
        learner.observe(&[chunk]);
    });
    let order = |learner: &Learner| {
        let known = learner.describe();
        let phase = known.present.map(|present| &known.phases[present]);
        phase.map(|phase| {
            let steps = phase.steps.iter();
            let counts: Vec<_> = steps.map(|step| (step.use_count, step.operations)).collect();
            (counts, phase.uses.clone())
        })
    };
    // Of every mark, and the end: what was known there.
    let mut known = Vec::new();
    let mut chunks = Vec::new();
    for event in &trace.events {
        match event {
            Event::Iteration { .. } => known.push(order(&learner)),
            Event::Launch(launch) if launch.use_count > 0 => {
                chunks.clear();
                chunks.extend(trace.touches(launch).iter().map(|used| used.chunk));
                learner.observe(&chunks);
            }
            _ => {}
        }
    }
    known.push(order(&learner));
    let last = known.len() - 1;
    (0..=last)
        .rev()
        .take_while(|&mark| known[mark].is_some() && known[mark] == known[last])
        .last()
        .unwrap_or(usize::MAX)
}

/// A trace of `model` that is long enough for the steady state, and no longer.
pub fn steady_trace(model: &Model) -> Trace {
    let (iterations, runs) = match model.kind {
        models::Kind::Periodic => (12, 1),
        models::Kind::MacroCycle | models::Kind::Experts => (0, 4),
        models::Kind::Random => (24, 1),
    };
    model.generate(&Options { iterations, runs, ..Options::default() })
}

/// Of each mark, the phase.
fn marks(trace: &Trace) -> Vec<u16> {
    let phase = |event: &Event| match event {
        Event::Iteration { phase } => Some(*phase),
        _ => None,
    };
    trace.events.iter().filter_map(phase).collect()
}

/// Where the first phase begins anew.
fn cycle_starts(marks: &[u16]) -> Vec<usize> {
    let begins = |&at: &usize| marks[at] == marks[0] && (at == 0 || marks[at - 1] != marks[0]);
    (0..marks.len()).filter(begins).collect()
}

fn judged(ran: Result<Outcome, Infeasible>, setup: &Setup, steady: Steady) -> Ran {
    let outcome = ran.map_err(|why| why.why)?;
    if outcome.over_budget {
        return Err(format!(
            "it held {} bytes where {} are allowed",
            outcome.peak_bytes, setup.budget_bytes
        ));
    }
    Ok(run_of(&outcome, steady))
}

fn run_of(outcome: &Outcome, steady: Steady) -> Run {
    let stretch = &outcome.iterations[steady.from..steady.to];
    let mean = |of: &dyn Fn(&IterationResult) -> u64| {
        stretch.iter().map(of).sum::<u64>() as f64 / steady.cycles as f64
    };
    let cause = |of: fn(&Stalls) -> u64| mean(&|iteration| of(&iteration.stalls));
    Run {
        iterations: outcome.iterations.iter().map(|iteration| iteration.ns).collect(),
        phases: outcome.iterations.iter().map(|iteration| iteration.phase).collect(),
        ns: mean(&|iteration| iteration.ns),
        bytes_in: mean(&|iteration| iteration.bytes_in),
        bytes_out: mean(&|iteration| iteration.bytes_out),
        copies: mean(&|iteration| iteration.copies_in),
        stalls: vec![
            ("for copies in flight", cause(|stalls| stalls.copy_ns)),
            ("for frames or a planned start", cause(|stalls| stalls.slot_ns)),
            ("for the host", cause(|stalls| stalls.host_ns)),
            ("for the program's own copies", cause(|stalls| stalls.program_copy_ns)),
            ("for our look at what was written", cause(|stalls| stalls.release_ns)),
        ],
        peak_bytes: outcome.peak_bytes,
        in_place: Vec::new(),
    }
}
