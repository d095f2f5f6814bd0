//! How large a saved plan is, and how long it takes to read.
//!
//!     cargo run --release -p autooffload-core --example plan_file [CHUNKS STEPS]

#[path = "../tests/plan_support/mod.rs"]
mod plan_support;

use autooffload_core::plan::file::{decode, encode};
use plan_support::{Random, saved::random_saved};
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let chunks = arguments.next().unwrap_or(10_000);
    let steps = arguments.next().unwrap_or(100_000);
    let saved = random_saved(&mut Random::new(1), chunks, steps, 1);
    let copies: usize = saved.plan.phases.iter().map(|phase| phase.copies.len()).sum();
    let began = Instant::now();
    let file = encode(&saved);
    let written = began.elapsed();
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let began = Instant::now();
        let read = decode(&file, saved.signature).expect("what was written");
        best = best.min(began.elapsed().as_secs_f64());
        assert!(read == saved);
    }
    println!(
        "{chunks} chunks, {steps} steps, {copies} copies: {} KiB, written in {:.1} ms, read and \
         checked in {:.1} ms (best of 20)",
        file.len() >> 10,
        written.as_secs_f64() * 1e3,
        best * 1e3
    );
}
