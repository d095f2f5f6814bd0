//! Knows every use to come: fetches the next missing chunk as soon as one that
//! is needed later can go, and lets go of what is needed last. *Aggressive*
//! prefetching (Cao, Felten, Karlin, Li 1995) with MIN, on whole chunks.
//!
//! Where the link is the narrow place, fetching as early as possible moves
//! more than is needed: what goes for it must come back. So it looks ahead by a
//! horizon, in kernel time, and [`best`] tries several.

use super::cache::{Merit, PerChunk};
use super::future::{Future, NEVER};
use crate::sim::run::{Infeasible, Outcome, Setup, run};
use crate::workload::{Nanos, Trace};
use std::rc::Rc;

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
        let future = Some((Rc::clone(&future), horizon));
        let mut policy = PerChunk::new("clairvoyant", trace, Merit::Needed, future);
        let outcome = run(trace, setup, &mut policy)?;
        if best.as_ref().is_none_or(|best| outcome.total_ns < best.total_ns) {
            best = Some(outcome);
        }
    }
    Ok(best.expect("several were tried"))
}
