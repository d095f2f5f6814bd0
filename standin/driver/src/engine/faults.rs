//! Failures on demand: `STANDIN_FAULT=alloc:3:2` makes the third device
//! allocation fail with code 2, `cuMemMap:5+:2` every call of `cuMemMap` from
//! the fifth on.

use super::settings::{self, FaultRule};
use crate::abi::{Code, Outcome};
use std::collections::HashMap;
use std::sync::OnceLock;

/// The `nth` call of the entry point `name`: fails if a rule names it.
pub fn check_call(name: &str, nth: u64) -> Outcome {
    // Read apart from the device's settings: entry points are called before it is there.
    static BY_NAME: OnceLock<Vec<FaultRule>> = OnceLock::new();
    let rules = BY_NAME.get_or_init(|| {
        let mut rules = settings::faults_from_env();
        rules.retain(|rule| rule.kind.starts_with("cu"));
        rules
    });
    found(rules, name, nth)
}

fn found(rules: &[FaultRule], kind: &str, nth: u64) -> Outcome {
    match rules.iter().find(|rule| rule.kind == kind && rule.names(nth)) {
        Some(rule) => Err(Code(rule.code)),
        None => Ok(()),
    }
}

#[derive(Default)]
pub struct Faults {
    rules: Vec<FaultRule>,
    calls: HashMap<&'static str, u64>,
}

impl Faults {
    pub fn new(rules: Vec<FaultRule>) -> Faults {
        Faults { rules, calls: HashMap::new() }
    }

    /// Counts a call of `kind` and fails if a rule names this one.
    pub fn check(&mut self, kind: &'static str) -> Outcome {
        if self.rules.is_empty() {
            return Ok(());
        }
        let count = self.calls.entry(kind).or_insert(0);
        *count += 1;
        found(&self.rules, kind, *count)
    }
}
