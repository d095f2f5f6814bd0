//! Streamed uses: launches that read what was copied in for them.
//!
//! Per 2 MiB frame of device addresses, the latest large asynchronous copy
//! from pinned memory that no launch has reached yet. A launch consumes those
//! of every allocation it reaches, as one use per allocation; the use is a
//! *hit* if each copy was submitted at least one launch earlier and ends, on
//! the model clock, no later than the launch could have started.

use super::space::FRAME;
use std::collections::BTreeMap;

/// Copies below this are a program's own small traffic.
pub const STREAMED_BYTES: u64 = 1 << 20;

struct Pending {
    /// Launches submitted before the copy was.
    launches: u64,
    end_ns: u64,
}

#[derive(Default)]
pub struct Uses {
    pending: BTreeMap<u64, Pending>,
    pub uses: u64,
    pub hits: u64,
}

impl Uses {
    pub fn copied(&mut self, start: u64, end: u64, launches: u64, end_ns: u64) {
        for frame in start / FRAME..end.div_ceil(FRAME) {
            self.pending.insert(frame, Pending { launches, end_ns });
        }
    }

    /// A launch, after `launches` others, reaches `[start, end)`; it could
    /// have started at `could_start`.
    pub fn launched(&mut self, start: u64, end: u64, launches: u64, could_start: u64) {
        if self.pending.is_empty() {
            return;
        }
        let frames: Vec<u64> =
            self.pending.range(start / FRAME..end.div_ceil(FRAME)).map(|(&f, _)| f).collect();
        if frames.is_empty() {
            return;
        }
        let mut hit = true;
        for frame in frames {
            if let Some(copy) = self.pending.remove(&frame) {
                hit &= copy.launches < launches && copy.end_ns <= could_start;
            }
        }
        self.uses += 1;
        self.hits += u64::from(hit);
    }

    /// The addresses are gone; so are copies into them.
    pub fn forget(&mut self, start: u64, end: u64) {
        let frames: Vec<u64> =
            self.pending.range(start / FRAME..end.div_ceil(FRAME)).map(|(&f, _)| f).collect();
        for frame in frames {
            self.pending.remove(&frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_needs_a_launch_between_and_time() {
        let mut uses = Uses::default();
        uses.copied(0, FRAME, 3, 100);
        uses.launched(0, FRAME, 3, 200);
        assert_eq!((uses.uses, uses.hits), (1, 0));
        uses.copied(0, 2 * FRAME, 3, 100);
        uses.launched(0, 2 * FRAME, 4, 200);
        assert_eq!((uses.uses, uses.hits), (2, 1));
        uses.copied(0, FRAME, 3, 300);
        uses.launched(0, FRAME, 5, 200);
        uses.launched(0, FRAME, 6, 400);
        assert_eq!((uses.uses, uses.hits), (3, 1));
    }
}
