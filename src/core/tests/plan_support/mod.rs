//! What the tests of the planner share. Independent of the planner's code.

#![allow(dead_code)] // each test binary uses its part

pub mod optimum;
pub mod saved;

/// SplitMix64: the same seed gives the same cases everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of `low..=high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.next() % count == 0
    }
}

/// How many cases a test tries: `usual`, unless `AUTOOFFLOAD_TEST_CASES` asks
/// for more (or fewer).
pub fn cases(usual: u64) -> u64 {
    std::env::var("AUTOOFFLOAD_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}
