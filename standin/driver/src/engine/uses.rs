//! Streamed uses: launches that read what was copied in for them.
//!
//! Per 2 MiB frame of device memory, whatever address it was written at, the
//! latest large asynchronous copy from pinned memory that no launch has reached
//! yet. A launch consumes those of every allocation it reaches, as one use per
//! allocation; the use is a *hit* if each copy was submitted at least one launch
//! earlier and ends, on the model clock, no later than the launch could have
//! started.
//!
//! Ranges are physical: offsets in the memory file.

use super::space::FRAME;
use std::collections::BTreeMap;

/// Copies below this are a program's own small traffic.
pub const STREAMED_BYTES: u64 = 1 << 20;

struct Pending {
    /// Device address at which the copy began.
    address: u64,
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
    /// A copy to `address`, which is `ranges`, after `launches` launches, ends
    /// at `end_ns`.
    pub fn copied(
        &mut self,
        address: u64,
        ranges: impl Iterator<Item = (u64, u64)>,
        launches: u64,
        end_ns: u64,
    ) {
        for (start, end) in ranges {
            for frame in start / FRAME..end.div_ceil(FRAME) {
                self.pending.insert(frame, Pending { address, launches, end_ns });
            }
        }
    }

    /// A launch, after `launches` others, reaches `ranges`, which are one
    /// allocation's; it could have started at `could_start`.
    pub fn launched(
        &mut self,
        ranges: impl Iterator<Item = (u64, u64)>,
        launches: u64,
        could_start: u64,
    ) {
        if self.pending.is_empty() {
            return;
        }
        let frames = self.frames_in(ranges);
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
        self.pending.retain(|_, copy| !(start..end).contains(&copy.address));
    }

    fn frames_in(&self, ranges: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
        let pending = |(start, end): (u64, u64)| {
            self.pending.range(start / FRAME..end.div_ceil(FRAME)).map(|(&frame, _)| frame)
        };
        ranges.flat_map(pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_needs_a_launch_between_and_time() {
        let mut uses = Uses::default();
        let frames =
            |range: std::ops::Range<u64>| std::iter::once((range.start * FRAME, range.end * FRAME));
        uses.copied(0, frames(0..1), 3, 100);
        uses.launched(frames(0..1), 3, 200);
        assert_eq!((uses.uses, uses.hits), (1, 0));
        uses.copied(0, frames(0..2), 3, 100);
        uses.launched(frames(0..2), 4, 200);
        assert_eq!((uses.uses, uses.hits), (2, 1));
        uses.copied(0, frames(0..1), 3, 300);
        uses.launched(frames(0..1), 5, 200);
        uses.launched(frames(0..1), 6, 400);
        assert_eq!((uses.uses, uses.hits), (3, 1));
        // An allocation of scattered frames is one use.
        uses.copied(0, frames(4..5).chain(frames(8..9)), 6, 400);
        uses.launched(frames(8..9).chain(frames(4..5)), 8, 500);
        assert_eq!((uses.uses, uses.hits), (4, 2));
        uses.copied(7 * FRAME, frames(2..3), 8, 500);
        uses.forget(6 * FRAME, 8 * FRAME);
        uses.launched(frames(2..3), 10, 900);
        assert_eq!(uses.uses, 4);
    }
}
