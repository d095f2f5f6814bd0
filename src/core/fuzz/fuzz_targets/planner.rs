//! Fuzz target: any small problem to the planner (`targets.rs`).

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::planner(data));
