//! Failures on demand: `STANDIN_FAULT=alloc:3:2` makes the third device
//! allocation fail with code 2.

use super::settings::FaultRule;
use crate::abi::{Code, Outcome};
use std::collections::HashMap;

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
        match self.rules.iter().find(|r| r.kind == kind && r.nth == *count) {
            Some(rule) => Err(Code(rule.code)),
            None => Ok(()),
        }
    }
}
