//! Knows every use to come: fetches the next missing chunk as soon as one that
//! is needed later can go, and lets go of what is needed last. *Aggressive*
//! prefetching (Cao, Felten, Karlin, Li 1995) with MIN, on whole chunks.
//!
//! Where the link is the narrow place, fetching as early as possible moves
//! more than is needed: what goes for it must come back. So it looks ahead by a
//! horizon, in kernel time, and [`best`] tries several.

use super::cache::{Cache, Merit};
use super::future::{Future, NEVER};
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Outcome, Policy, Setup, run};
use crate::workload::{Nanos, Trace, TraceChunk};
use std::rc::Rc;

pub struct Clairvoyant {
    cache: Cache,
    future: Rc<Future>,
    horizon: Nanos,
}

impl Clairvoyant {
    /// Looks ahead without end.
    pub fn new(trace: &Trace, setup: &Setup) -> Self {
        Self::within(trace, Rc::new(Future::of(trace, &setup.card)), NEVER)
    }

    fn within(trace: &Trace, future: Rc<Future>, horizon: Nanos) -> Self {
        Self { cache: Cache::new(Merit::Needed, Evict::Clean, trace.chunks.len()), future, horizon }
    }
}

/// The outcome with the best of several horizons: the whole future, and shares
/// of the mean iteration's kernel time.
pub fn best(trace: &Trace, setup: &Setup) -> Result<Outcome, Infeasible> {
    const SHARES: [f64; 6] = [0.01, 0.03, 0.1, 0.2, 0.4, 0.8];
    let future = Rc::new(Future::of(trace, &setup.card));
    let marks = trace
        .events
        .iter()
        .filter(|event| matches!(event, crate::workload::Event::Iteration { .. }));
    let iteration = future.compute_ns() as f64 / marks.count().max(1) as f64;
    let horizons = SHARES.iter().map(|share| (share * iteration) as Nanos).chain([NEVER]);
    let mut best: Option<Outcome> = None;
    for horizon in horizons {
        let mut policy = Clairvoyant::within(trace, Rc::clone(&future), horizon);
        let outcome = run(trace, setup, &mut policy)?;
        if best.as_ref().is_none_or(|best| outcome.total_ns < best.total_ns) {
            best = Some(outcome);
        }
    }
    Ok(best.expect("several were tried"))
}

impl Policy for Clairvoyant {
    fn name(&self) -> &'static str {
        "clairvoyant"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        self.cache.begin(gpu, Some(&self.future));
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.cache.freed(gpu, chunk);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        self.cache.demand(gpu, launch, |gpu, chunk, after| {
            gpu.fetch(chunk, gpu.bytes(chunk), after);
        })
    }

    fn after(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        self.cache.used(&self.future, launch.number);
        let end = match self.horizon {
            NEVER => NEVER,
            horizon => self.future.after(launch.number, horizon),
        };
        self.cache.look_ahead(gpu, &self.future, end);
    }
}
