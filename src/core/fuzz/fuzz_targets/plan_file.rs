//! Fuzz target: any bytes as a saved plan (`targets.rs`).

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::plan_file(data));
