//! How long launches wait for copies, by sampling.
//!
//! Every so many waits, one is put between two timed events; the pair is read
//! when its turn comes again, by then long past, so reading never waits. The
//! sum over all waits is estimated from the samples, and said to be so.

use crate::driver::Driver;
use crate::driver::abi::*;

/// One wait in so many is sampled.
const EVERY: u64 = 4;
/// Pairs in flight; one that has not passed when its turn comes is not read.
const PAIRS: usize = 16;

#[derive(Default)]
pub struct StallProbe {
    pairs: Vec<(CUevent, CUevent)>,
    /// Samples begun.
    begun: u64,
    waits: u64,
    open: Option<usize>,
}

impl StallProbe {
    /// Before the wait is queued on `stream`. Answers a stall read meanwhile, in ns.
    pub fn before(&mut self, driver: &Driver, stream: CUstream) -> Option<u64> {
        self.waits += 1;
        if !self.waits.is_multiple_of(EVERY) {
            return None;
        }
        let slot = self.begun as usize % PAIRS;
        let mut read = None;
        if slot == self.pairs.len() {
            let pair = (driver.event_create(false).ok()?, driver.event_create(false).ok()?);
            self.pairs.push(pair);
        } else if let Ok(ms) = driver.event_elapsed_ms(self.pairs[slot].0, self.pairs[slot].1) {
            read = Some((f64::from(ms) * 1e6) as u64);
        }
        if driver.event_record(self.pairs[slot].0, stream).is_ok() {
            self.open = Some(slot);
            self.begun += 1;
        }
        read
    }

    /// After the wait was queued.
    pub fn after(&mut self, driver: &Driver, stream: CUstream) {
        if let Some(slot) = self.open.take() {
            let _ = driver.event_record(self.pairs[slot].1, stream);
        }
    }

    /// Gives the events back.
    pub fn release(&mut self, driver: &Driver) {
        for (before, after) in self.pairs.drain(..) {
            let _ = driver.event_destroy(before);
            let _ = driver.event_destroy(after);
        }
        self.begun = 0;
    }
}
