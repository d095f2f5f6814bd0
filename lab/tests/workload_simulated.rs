//! The bounds against the simulator: nothing that it runs beats them, and
//! where everything fits it takes what they say.

use autooffload_lab::sim::Setup;
use autooffload_lab::sim::policies::{PEERS, run_peer};
use autooffload_lab::workload::Trace;
use autooffload_lab::workload::bounds::{
    Limits, Reading, Work, budget_for_share, resident_bytes, sequence_bound,
};
use autooffload_lab::workload::cards::{Costs, card, link};
use autooffload_lab::workload::models::{VARIANTS, model};

/// Time of iterations 1.. by the simulator and by the bound.
fn compare(trace: &Trace, name: &str, share: f64, policy: &str) -> Option<(u64, u64)> {
    let card = card(name).unwrap();
    let bandwidth = link(card.link).unwrap().bytes_per_s;
    let budget = budget_for_share(trace, share);
    let outcome = run_peer(policy, trace, &Setup::new(card, bandwidth, budget)).ok()?;
    assert!(!outcome.over_budget);
    let work = Work::new(trace, card, &Costs::default(), bandwidth, Reading::Whole);
    let limits = Limits::new(resident_bytes(trace, budget), bandwidth);
    let count = outcome.iterations.len();
    assert_eq!(count, work.iterations().count());
    let taken = outcome.iterations[1..].iter().map(|iteration| iteration.ns).sum();
    Some((taken, sequence_bound(&work, work.stretch(1..count), &limits)))
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn what_fits_takes_its_compute_time() {
    for name in ["flux1-dev", "sdxl-unet", "llama3-8b-decode", "tiny-tensors", "wan22-a14b"] {
        let trace = model(name).unwrap().trace(3);
        for card in ["rtx-4090", "h200"] {
            let (taken, bound) = compare(&trace, card, 1.0, "resident").unwrap();
            let ratio = taken as f64 / bound as f64;
            assert!((1.0..1.01).contains(&ratio), "{name} on {card}: {ratio}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn no_policy_beats_the_bound() {
    let mut traces: Vec<Trace> = VARIANTS.iter().map(|variant| variant.trace(8, 3)).collect();
    traces.push(model("sdxl-unet").unwrap().trace(3));
    traces.push(model("mixtral-decode").unwrap().trace(6));
    let mut ran = 0;
    for trace in &traces {
        for share in [0.15, 0.5, 0.85] {
            // Kernels that read over the link are outside what the bound says.
            for name in PEERS.iter().filter(|name| **name != "zero-copy") {
                if let Some((taken, bound)) = compare(trace, "rtx-4090", share, name) {
                    assert!(taken >= bound, "{name}, {} at {share}", trace.name);
                    ran += 1;
                }
            }
        }
    }
    assert!(ran > 50, "{ran}");
}
