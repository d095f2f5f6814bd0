//! Fuzz target: any stream of operations into the learner (`targets.rs`).

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::learner(data));
