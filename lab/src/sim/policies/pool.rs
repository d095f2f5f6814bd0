//! Memory counted in bytes, wherever it lies.

use crate::sim::device::Waits;
use std::collections::VecDeque;

/// Free memory, and what must be over before it may be written. The longest
/// free is taken first.
#[derive(Default)]
pub struct Pool {
    pieces: VecDeque<(u64, Waits)>,
    free: u64,
}

impl Pool {
    pub fn new(bytes: u64) -> Self {
        let mut pool = Self::default();
        pool.give(bytes, Waits::NONE);
        pool
    }

    pub fn free(&self) -> u64 {
        self.free
    }

    pub fn give(&mut self, bytes: u64, after: Waits) {
        self.free += bytes;
        if bytes > 0 {
            self.pieces.push_back((bytes, after));
        }
    }

    /// `None`: there is not that much.
    pub fn take(&mut self, bytes: u64) -> Option<Waits> {
        if bytes > self.free {
            return None;
        }
        self.free -= bytes;
        let mut after = Waits::NONE;
        let mut left = bytes;
        while left > 0 {
            let piece = self.pieces.front_mut().expect("as much as is free");
            after.merge(&piece.1);
            let part = left.min(piece.0);
            piece.0 -= part;
            left -= part;
            if piece.0 == 0 {
                self.pieces.pop_front();
            }
        }
        Some(after)
    }
}
