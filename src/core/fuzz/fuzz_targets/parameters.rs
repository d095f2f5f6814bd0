//! Fuzz target: any bytes as a kernel's parameters (`targets.rs`).

#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::parameters(data));
