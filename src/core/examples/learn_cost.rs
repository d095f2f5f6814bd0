//! What learning costs per access.
//!
//! Run with `cargo run --release -p autooffload-core --example learn_cost`.

use autooffload_core::address_map::ChunkId;
use autooffload_core::learn::Learner;
use std::time::Instant;

/// `layers` layers of one weight each, with activations and `between`
/// operations on activations alone.
fn program(layers: u32, between: u32) -> Vec<Vec<ChunkId>> {
    let mut operations = Vec::new();
    for layer in 0..layers {
        let activation = |index: u32| layers + (layer + index) % 7;
        operations.push(vec![layer, activation(0), activation(1)]);
        for index in 0..between {
            operations.push(vec![activation(index), activation(index + 1)]);
        }
    }
    operations
}

fn main() {
    println!("layers operations  learning   steady   with a walk of 64  measured  describe");
    for (layers, between) in [(57, 12), (1_000, 9), (10_000, 9)] {
        let operations = program(layers, between);
        let accesses: usize = operations.iter().map(Vec::len).sum();
        let mut learner = Learner::new();
        let pass = |learner: &mut Learner, walk: bool| {
            let start = Instant::now();
            let mut named = 0u64;
            for (index, chunks) in operations.iter().enumerate() {
                learner.observe(chunks);
                if walk && index % 64 == 0 {
                    let Some(mut cursor) = learner.ahead() else { continue };
                    for _ in 0..128 {
                        let Some(next) = learner.next(&mut cursor) else { break };
                        named += u64::from(next.chunk);
                    }
                }
            }
            std::hint::black_box(named);
            start.elapsed().as_nanos() as f64 / accesses as f64
        };
        let learning = (pass(&mut learner, false) + pass(&mut learner, false)) / 2.0;
        pass(&mut learner, false);
        let steady = (0..5).map(|_| pass(&mut learner, false)).fold(f64::MAX, f64::min);
        let walking = (0..5).map(|_| pass(&mut learner, true)).fold(f64::MAX, f64::min);
        let start = Instant::now();
        let end = learner.operations();
        let first = end - operations.len() as u64;
        for group in (first..end).step_by(32) {
            learner.measured(group..(group + 32).min(end), 1_000_000);
        }
        let measured = start.elapsed().as_nanos() as f64 / operations.len() as f64;
        let start = Instant::now();
        let description = learner.describe();
        let describe = start.elapsed().as_secs_f64() * 1e3;
        println!(
            "{layers:6} {:10}  {learning:5.1} ns {steady:5.1} ns {walking:15.1} ns {measured:6.1} ns {describe:6.2} ms  ({} phases, {} steps)",
            operations.len(),
            description.phases.len(),
            description.phases.iter().map(|phase| phase.steps.len()).sum::<usize>(),
        );
    }
}
