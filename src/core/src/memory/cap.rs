//! How many frames there may be, when what others take of the card wavers.
//!
//! Less than before counts at once: others need it. More counts when it has
//! been there for some iterations, or memory that comes and goes would change
//! the plan each time. An operation that would fail gets what there is.
//!
//! Pure. Not here: when the card is asked, and what follows.

use std::collections::VecDeque;

use super::Operation;

/// Iterations for which more must have been there.
const ITERATIONS: u64 = 10;
/// Operations in an iteration while none is known.
const UNKNOWN: u64 = 64;
/// Operations between two looks at the least: asking the driver costs about as
/// much as a launch.
const LEAST: u64 = 32;

/// What the card had room for of late.
#[derive(Debug, Default)]
pub struct RecentCaps {
    /// When, and how many frames: rising, the oldest first, none of which is
    /// above a later one.
    minima: VecDeque<(Operation, u32)>,
    /// Of the last look.
    looked: Option<Operation>,
}

impl RecentCaps {
    /// Whether it is time to look again; iterations have `period` operations.
    #[inline]
    pub fn due(&self, now: Operation, period: Option<u64>) -> bool {
        self.looked.is_none_or(|looked| now >= looked + period.unwrap_or(UNKNOWN).max(LEAST))
    }

    /// There is room for `frames`. The answer: how many count.
    pub fn saw(&mut self, frames: u32, now: Operation, period: Option<u64>) -> u32 {
        let period = period.unwrap_or(UNKNOWN).max(LEAST);
        self.looked = Some(now);
        while self.minima.back().is_some_and(|&(_, known)| known >= frames) {
            self.minima.pop_back();
        }
        self.minima.push_back((now, frames));
        while self.minima.len() > 1 && self.minima[1].0 + ITERATIONS * period <= now {
            self.minima.pop_front();
        }
        self.minima[0].1
    }

    /// How many of `frames` that there is room for count now.
    pub fn limit(&self, frames: u32) -> u32 {
        self.minima.front().map_or(frames, |&(_, least)| least.min(frames))
    }

    /// Everything there is counts from now on.
    pub fn forget(&mut self) {
        self.minima.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Option<u64> = Some(100);

    #[test]
    fn less_counts_at_once_and_more_after_ten_iterations() {
        let mut caps = RecentCaps::default();
        assert!(caps.due(0, PERIOD));
        assert_eq!(caps.saw(50, 0, PERIOD), 50);
        assert!(!caps.due(99, PERIOD) && caps.due(100, PERIOD));
        assert_eq!(caps.saw(30, 100, PERIOD), 30);
        for iteration in 2..11 {
            assert_eq!(caps.saw(60, 100 * iteration, PERIOD), 30, "{iteration}");
        }
        for iteration in 11..14 {
            let counts = caps.saw(60, 100 * iteration, PERIOD);
            assert!(counts == 30 || iteration >= 12 && counts == 60, "{iteration}: {counts}");
        }
        caps.saw(20, 1400, PERIOD);
        caps.forget();
        assert_eq!(caps.saw(60, 1500, PERIOD), 60);
    }

    #[test]
    fn what_wavers_changes_once() {
        let mut caps = RecentCaps::default();
        let mut counts: Vec<u32> =
            (0..200).map(|i| caps.saw(if i % 3 == 1 { 40 } else { 48 }, i * 100, PERIOD)).collect();
        assert_eq!(counts[0], 48);
        counts.dedup();
        assert_eq!(counts, [48, 40]);
    }
}
