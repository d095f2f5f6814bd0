//! Runs every policy over one trace of the catalogue and prints a table.
//!
//! `cargo run --release -p autooffload-lab --example simulate -- MODEL SHARE LINK_GBS CARD [ITERATIONS]`

use autooffload_core::plan::{Effort, plan};
use autooffload_lab::sim::oracle::oracle;
use autooffload_lab::sim::policies::{Ours, PEERS, Planned, run_peer};
use autooffload_lab::sim::{Infeasible, Outcome, Setup, run};
use autooffload_lab::workload::Trace;
use autooffload_lab::workload::cards::card;
use autooffload_lab::workload::models;
use std::time::Instant;

/// Iterations printed one by one.
const SHOWN: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, usual: &str| {
        arguments.get(index).cloned().unwrap_or_else(|| usual.to_string())
    };
    let name = argument(0, "flux1-dev");
    let share: f64 = argument(1, "0.5").parse().expect("a share");
    let link: f64 = argument(2, "26").parse().expect("GB/s");
    let card = card(&argument(3, "rtx-4090")).expect("a card of the table");
    let iterations: u32 = argument(4, "6").parse().expect("a count");
    let model = models::model(&name).expect("a model of the catalogue");
    let begun = Instant::now();
    let trace = model.trace(iterations);
    println!(
        "{name}: {:.2} GB in {} chunks, {} events, generated in {:.0} ms",
        trace.weight_bytes() as f64 / 1e9,
        trace.chunks.len(),
        trace.events.len(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    let budget = (trace.weight_bytes() as f64 * share) as u64 + trace.activation_bytes;
    let setup = Setup::new(card, link * 1e9, budget);

    println!(
        "{:14} {:>10} {:>10} {:>10} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "policy",
        "first ms",
        "steady ms",
        "total ms",
        "GB in",
        "copy",
        "slot",
        "host",
        "program",
        "release",
        "peak GB",
        "ns/op"
    );
    let begun = Instant::now();
    let oracle = oracle(&trace, &setup);
    let described = begun.elapsed();
    match plan(&oracle.problem, None, Effort::Searched) {
        Ok(plan) => {
            let planning = begun.elapsed() - described;
            let mut policy = Planned::new(&oracle, &plan, &trace.chunks);
            let begun = Instant::now();
            report("planned", &trace, begun, run(&trace, &setup, &mut policy), &setup);
            println!(
                "  described in {:.1} ms, planned in {:.1} ms, {} copies on demand; periods by the plan:",
                described.as_secs_f64() * 1e3,
                planning.as_secs_f64() * 1e3,
                policy.demanded
            );
            for (phase, planned) in oracle.phases.iter().zip(&plan.phases) {
                println!("    phase {phase}: {:.3} ms", planned.period_ns as f64 / 1e6);
            }
        }
        Err(unfit) => println!("planned: {unfit}"),
    }
    let mut ours = Ours::new(&trace, &setup);
    let begun = Instant::now();
    let outcome = run(&trace, &setup, &mut ours);
    report("ours", &trace, begun, outcome.clone(), &setup);
    println!("  {:?}", ours.counters());
    for planned in ours.streamer().plan().iter().flat_map(|plan| &plan.phases) {
        println!(
            "    planned: {:.1} ms, {:.1} of stalls, {:.2} GB in {} copies through {} frames",
            planned.period_ns as f64 / 1e6,
            planned.stall_ns as f64 / 1e6,
            planned.streamed_bytes as f64 / 1e9,
            planned.copies.len(),
            planned.ring_frames
        );
    }
    if let Ok(outcome) = outcome {
        for iteration in outcome.iterations.iter().take(SHOWN) {
            println!(
                "    phase {}: {:.1} ms, {:.2} GB in, {:.2} GB out, {} copies",
                iteration.phase,
                iteration.ns as f64 / 1e6,
                iteration.bytes_in as f64 / 1e9,
                iteration.bytes_out as f64 / 1e9,
                iteration.copies_in
            );
        }
    }
    for name in PEERS {
        let begun = Instant::now();
        report(name, &trace, begun, run_peer(name, &trace, &setup), &setup);
    }
}

fn report(
    name: &str,
    trace: &Trace,
    begun: Instant,
    outcome: Result<Outcome, Infeasible>,
    setup: &Setup,
) {
    let taken = begun.elapsed();
    match outcome {
        Err(infeasible) => println!("{name:14} {}", infeasible.why),
        Ok(outcome) => {
            let last = outcome.iterations[outcome.iterations.len() - 1];
            let steady = outcome.steady_ns(last.phase, 2).unwrap_or(last.ns as f64);
            let stalls = last.stalls;
            let ms = |ns: u64| ns as f64 / 1e6;
            println!(
                "{name:14} {:10.3} {:10.3} {:10.1} {:7.2} {:8.3} {:8.3} {:8.3} {:8.3} {:8.3} {:8.2} {:7.0}{}",
                ms(outcome.iterations[0].ns),
                steady / 1e6,
                ms(outcome.total_ns),
                last.bytes_in as f64 / 1e9,
                ms(stalls.copy_ns),
                ms(stalls.slot_ns),
                ms(stalls.host_ns),
                ms(stalls.program_copy_ns),
                ms(stalls.release_ns),
                outcome.peak_bytes as f64 / 1e9,
                taken.as_nanos() as f64 / trace.events.len() as f64,
                if outcome.over_budget { " OVER BUDGET" } else { "" }
            );
            assert!(outcome.peak_bytes <= setup.budget_bytes || outcome.over_budget);
        }
    }
}
