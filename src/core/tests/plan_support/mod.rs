//! What the tests of the planner share. Independent of the planner's code.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod check;
pub mod family;
pub mod optimum;
pub mod problems;

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
        self.next().is_multiple_of(count)
    }
}

/// How many cases a test tries: `usual`, unless `AUTOOFFLOAD_TEST_CASES` asks
/// for more (or fewer).
pub fn cases(usual: u64) -> u64 {
    std::env::var("AUTOOFFLOAD_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Figures, to be shown by rank.
#[derive(Clone, Debug, Default)]
pub struct Spread(std::cell::RefCell<Vec<f64>>);

impl Spread {
    pub fn add(&mut self, value: f64) {
        self.0.get_mut().push(value);
    }

    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub fn mean(&self) -> f64 {
        self.0.borrow().iter().sum::<f64>() / self.len() as f64
    }

    /// The value below which this share of them lies.
    pub fn at(&self, share: f64) -> f64 {
        let mut values = self.0.borrow_mut();
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * share).round() as usize]
    }

    pub fn least(&self) -> f64 {
        self.at(0.0)
    }

    pub fn most(&self) -> f64 {
        self.at(1.0)
    }

    /// The share of them that is at most `bound`.
    pub fn share_up_to(&self, bound: f64) -> f64 {
        self.0.borrow().iter().filter(|&&value| value <= bound).count() as f64 / self.len() as f64
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.len() == 0 {
            return write!(f, "none");
        }
        write!(f, "{} values:", self.len())?;
        for share in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
            write!(f, " {:.0} % {:.4}", 100.0 * share, self.at(share))?;
        }
        Ok(())
    }
}
