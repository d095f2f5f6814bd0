//! Says on a terminal what takes long: after two seconds, then each time that
//! it has taken twice as long.
//!
//! Whole lines, no control characters: whatever the program prints stays whole.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::engine::state::lock;

const FIRST: Duration = Duration::from_secs(2);
/// Steps with a longer pause between them are not the same work.
const PAUSE: Duration = Duration::from_secs(1);

/// Work that is done in steps.
#[derive(Default)]
pub struct Progress(Mutex<Option<Burst>>);

#[derive(Clone, Copy)]
struct Burst {
    began: Instant,
    last: Instant,
    amount: u64,
    next: Duration,
}

impl Progress {
    /// A step that began then is over; `amount` of it. `Some`: it is time to say
    /// how much was done in all, and in how long.
    pub fn step(&self, began: Instant, amount: u64) -> Option<(u64, Duration)> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let mut state = lock(&self.0);
        let (burst, due) = after(*state, began, Instant::now(), amount);
        *state = Some(burst);
        due
    }
}

fn after(
    known: Option<Burst>,
    began: Instant,
    now: Instant,
    amount: u64,
) -> (Burst, Option<(u64, Duration)>) {
    let goes_on = known.filter(|burst| began.saturating_duration_since(burst.last) < PAUSE);
    let mut burst = goes_on.unwrap_or(Burst { began, last: now, amount: 0, next: FIRST });
    burst.amount += amount;
    burst.last = now;
    let took = now.saturating_duration_since(burst.began);
    let due = (took >= burst.next).then_some((burst.amount, took));
    while burst.next <= took {
        burst.next *= 2;
    }
    (burst, due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_after_two_seconds_and_then_less_and_less_often() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut known = None;
        let mut said = Vec::new();
        // A hundred steps of 100 ms; then, after a pause, ten more.
        for step in (0..100).chain(120..130) {
            let (burst, due) = after(known, at(step * 100), at(step * 100 + 99), 5);
            known = Some(burst);
            said.extend(due.map(|(amount, took)| (amount, took.as_secs())));
        }
        assert_eq!(said, [(105, 2), (205, 4), (405, 8)]);
    }
}
