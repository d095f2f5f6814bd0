//! Bytes nobody knows: what a kernel without an implementation may have
//! written, directly or through later kernels and copies.
//!
//! Kept as physical ranges (offsets in the memory file), so that it holds
//! through every alias. Changed when work is submitted, in submission order.

use super::space::Space;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Taint {
    /// Disjoint ranges of the memory file, start → end.
    ranges: BTreeMap<u64, u64>,
}

impl Taint {
    /// Whether any byte of the device range is tainted.
    pub fn meets(&self, space: &Space, range: (u64, u64)) -> bool {
        !self.ranges.is_empty() && extents(space, range).any(|(s, e)| self.overlaps(s, e))
    }

    pub fn set(&mut self, space: &Space, range: (u64, u64)) {
        for (mut start, mut end) in extents(space, range) {
            while let Some((&s, &e)) =
                self.ranges.range(..=end).next_back().filter(|&(_, &e)| e >= start)
            {
                self.ranges.remove(&s);
                start = start.min(s);
                end = end.max(e);
            }
            self.ranges.insert(start, end);
        }
    }

    pub fn clear(&mut self, space: &Space, range: (u64, u64)) {
        if self.ranges.is_empty() {
            return;
        }
        for (start, end) in extents(space, range) {
            while let Some((&s, &e)) =
                self.ranges.range(..end).next_back().filter(|&(_, &e)| e > start)
            {
                self.ranges.remove(&s);
                if e > end {
                    self.ranges.insert(end, e);
                }
                if s < start {
                    self.ranges.insert(s, start);
                    break;
                }
            }
        }
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.ranges.range(..end).next_back().is_some_and(|(_, &e)| e > start)
    }
}

/// The physical ranges behind a device range.
pub fn extents(space: &Space, (start, end): (u64, u64)) -> impl Iterator<Item = (u64, u64)> + '_ {
    space.mappings_in(start, end).map(move |(at, mapping)| {
        let from = start.max(at) - at;
        let to = end.min(at + mapping.bytes) - at;
        (mapping.offset + from, mapping.offset + to)
    })
}
