//! The arena's address space: who lives at an address, and where the next
//! allocation goes.
//!
//! [`AddressMap`] answers "whose is this address" from any thread without a
//! lock: one subtraction, one shift, one load. [`Arena`] hands out the
//! addresses, with a guard gap of one frame after every allocation, so that a
//! pointer one past the end of one is never taken for the next.
//! Not here: physical memory (see `memory`), CUDA.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Index of a managed allocation; unique in the process while it lives.
pub type ChunkId = u32;

/// The unit of mapping, as a power of two: the granularity of device memory on
/// every card so far.
pub const FRAME_SHIFT: u32 = 21;

/// No chunk: the table's value for free address space and guard gaps.
pub const NO_CHUNK: ChunkId = u32::MAX;

/// Flat table from frame index in the arena to the chunk that owns it.
pub struct AddressMap {
    base: u64,
    owners: Box<[AtomicU32]>,
}

impl AddressMap {
    /// Covers `[base, base + frames << FRAME_SHIFT)`; nobody lives there yet.
    pub fn new(base: u64, frames: usize) -> Self {
        // All-ones is NO_CHUNK; filled once, 4 bytes a frame.
        let owners = (0..frames).map(|_| AtomicU32::new(NO_CHUNK)).collect();
        Self { base, owners }
    }

    /// The chunk whose frames contain `address`. An address in the tail of a
    /// chunk's last frame, past the bytes asked for, still counts as its own.
    #[inline]
    pub fn owner(&self, address: u64) -> Option<ChunkId> {
        let index = address.wrapping_sub(self.base) >> FRAME_SHIFT;
        let owner = self.owners.get(index as usize)?.load(Ordering::Acquire);
        (owner != NO_CHUNK).then_some(owner)
    }

    /// Half-open bounds of the addresses covered.
    pub fn bounds(&self) -> (u64, u64) {
        (self.base, self.base + ((self.owners.len() as u64) << FRAME_SHIFT))
    }

    /// Makes `chunk` (or [`NO_CHUNK`]) the owner of `frames` frames from
    /// `address`, which is frame-aligned and inside the arena.
    pub fn set(&self, address: u64, frames: u32, chunk: ChunkId) {
        let first = ((address - self.base) >> FRAME_SHIFT) as usize;
        for owner in &self.owners[first..first + frames as usize] {
            owner.store(chunk, Ordering::Release);
        }
    }
}

/// First-fit allocator of arena addresses, in frames.
///
/// First fit keeps addresses low, and with them the part of the table that is
/// touched at all.
pub struct Arena {
    base: u64,
    /// Start → length of every free run, in frames; runs never touch.
    free: BTreeMap<u32, u32>,
}

impl Arena {
    pub fn new(base: u64, frames: u32) -> Self {
        Self { base, free: BTreeMap::from([(0, frames)]) }
    }

    /// An address with `frames` frames and a guard frame behind them to itself.
    pub fn allocate(&mut self, frames: u32) -> Option<u64> {
        let need = frames.checked_add(1)?;
        let (&start, &length) = self.free.iter().find(|&(_, &length)| length >= need)?;
        self.free.remove(&start);
        if length > need {
            self.free.insert(start + need, length - need);
        }
        Some(self.base + (u64::from(start) << FRAME_SHIFT))
    }

    /// Gives back what [`Self::allocate`] answered for the same `frames`.
    pub fn release(&mut self, address: u64, frames: u32) {
        let mut start = ((address - self.base) >> FRAME_SHIFT) as u32;
        let mut length = frames + 1;
        if let Some((&before, &run)) = self.free.range(..start).next_back()
            && before + run == start
        {
            self.free.remove(&before);
            start = before;
            length += run;
        }
        if let Some(run) = self.free.remove(&(start + length)) {
            length += run;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x7000_0000_0000;

    #[test]
    fn neighbours_are_separated_by_a_guard_frame() {
        let map = AddressMap::new(BASE, 16);
        let mut arena = Arena::new(BASE, 16);
        let a = arena.allocate(2).unwrap();
        let b = arena.allocate(1).unwrap();
        map.set(a, 2, 7);
        map.set(b, 1, 8);
        assert_eq!(b - a, 3 << FRAME_SHIFT);
        assert_eq!(map.owner(a + (2 << FRAME_SHIFT) - 1), Some(7));
        assert_eq!(map.owner(a + (2 << FRAME_SHIFT)), None, "one past the end is nobody's");
        assert_eq!(map.owner(b), Some(8));
        assert_eq!(map.owner(BASE - 1), None);
        assert_eq!(map.owner(BASE + (16 << FRAME_SHIFT)), None);
    }

    #[test]
    fn released_runs_merge_until_the_arena_is_whole_again() {
        let mut arena = Arena::new(BASE, 12);
        let runs: Vec<_> = (0..4).map(|_| arena.allocate(2).unwrap()).collect();
        assert_eq!(arena.allocate(1), None);
        for index in [1, 3, 0, 2] {
            arena.release(runs[index], 2);
        }
        assert_eq!(arena.allocate(11), Some(BASE));
    }
}
