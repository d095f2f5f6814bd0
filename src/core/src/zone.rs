//! Stream-ordered memory: who may reuse what was freed, and after whom.
//!
//! Small allocations are slots of a slab (one chunk, one size class); larger
//! ones are chunks of their own, kept when freed. Freed memory carries where
//! it was freed: the same stream reuses it at once, because its own work is in
//! order; another stream first waits for the stream that freed it.
//!
//! Pure: answers what to reuse and what to wait for; a caller that gets `None`
//! brings a new chunk. Not here: frames, events, addresses of chunks.

use std::collections::HashMap;

use crate::address_map::ChunkId;

/// Bytes of a slab, and the smallest chunk.
pub const SLAB_BYTES: u64 = 2 << 20;
/// Larger allocations are chunks of their own.
pub const SLOT_BYTES_MAX: u64 = SLAB_BYTES / 2;
const SLOT_BYTES_MIN: u64 = 512;
const CLASSES: usize = (SLOT_BYTES_MAX.ilog2() - SLOT_BYTES_MIN.ilog2() + 1) as usize;

/// Where memory was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// Nothing queued uses it.
    Long,
    /// After what `user` had queued up to `stretch`; its own later work may use
    /// it at once.
    By { user: u16, stretch: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    address: u64,
    chunk: ChunkId,
    freed: Freed,
}

#[derive(Debug)]
struct Slab {
    base: u64,
    class: usize,
    /// Bit per slot (in words of 64): in use.
    used: Vec<u64>,
    live: u32,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    chunk: ChunkId,
    frames: u32,
    freed: Freed,
}

/// The stream-ordered memory of one pool.
#[derive(Debug, Default)]
pub struct Zone {
    slabs: HashMap<ChunkId, Slab>,
    free_slots: [Vec<Slot>; CLASSES],
    cached: Vec<Cached>,
    /// Bytes in slots and chunks that are in use.
    used_bytes: u64,
    /// Bytes of all slabs and chunks.
    reserved_bytes: u64,
}

/// The size class of a small allocation; `None`: a chunk of its own.
pub fn class_of(bytes: u64) -> Option<usize> {
    (bytes <= SLOT_BYTES_MAX).then(|| {
        let size = bytes.max(SLOT_BYTES_MIN).next_power_of_two();
        (size.ilog2() - SLOT_BYTES_MIN.ilog2()) as usize
    })
}

fn slot_bytes(class: usize) -> u64 {
    SLOT_BYTES_MIN << class
}

/// How good a fit is for `user`: its own first, then what needs no wait.
fn rank(freed: Freed, user: u16) -> u8 {
    match freed {
        Freed::By { user: other, .. } if other == user => 0,
        Freed::Long => 1,
        Freed::By { .. } => 2,
    }
}

/// What the new user has to wait for.
fn wait_for(freed: Freed, user: u16) -> Freed {
    if rank(freed, user) == 0 { Freed::Long } else { freed }
}

impl Zone {
    /// (reserved, used) bytes.
    pub fn usage(&self) -> (u64, u64) {
        (self.reserved_bytes, self.used_bytes)
    }

    /// A free slot of `class` for `user`: address, and what to wait for.
    pub fn take_slot(&mut self, class: usize, user: u16) -> Option<(u64, Freed)> {
        let slots = &mut self.free_slots[class];
        // The last freed is the likeliest to be ours, and warm.
        let newest_own = slots.iter().rposition(|slot| rank(slot.freed, user) == 0);
        let index = newest_own.or_else(|| {
            (0..slots.len()).rev().min_by_key(|&index| rank(slots[index].freed, user))
        })?;
        let slot = slots.swap_remove(index);
        let slab = self.slabs.get_mut(&slot.chunk).expect("a slot's slab lives");
        let number = ((slot.address - slab.base) / slot_bytes(class)) as usize;
        slab.used[number / 64] |= 1 << (number % 64);
        slab.live += 1;
        self.used_bytes += slot_bytes(class);
        Some((slot.address, wait_for(slot.freed, user)))
    }

    /// A new slab for `class`: `chunk`, [`SLAB_BYTES`] from `base` on.
    pub fn add_slab(&mut self, class: usize, chunk: ChunkId, base: u64) {
        let count = SLAB_BYTES / slot_bytes(class);
        let used = vec![0; count.div_ceil(64) as usize];
        self.slabs.insert(chunk, Slab { base, class, used, live: 0 });
        self.reserved_bytes += SLAB_BYTES;
        // Taken from the end: lowest address first.
        let slots = (0..count).rev().map(|number| Slot {
            address: base + number * slot_bytes(class),
            chunk,
            freed: Freed::Long,
        });
        self.free_slots[class].extend(slots);
    }

    /// The slot of the slab `chunk` that contains `address`: base and bytes.
    /// `None`: the chunk is not a slab of ours, or nobody uses the slot.
    pub fn slot_at(&self, chunk: ChunkId, address: u64) -> Option<(u64, u64)> {
        let slab = self.slabs.get(&chunk)?;
        let bytes = slot_bytes(slab.class);
        let number = ((address - slab.base) / bytes) as usize;
        let used = slab.used[number / 64] & (1 << (number % 64)) != 0;
        used.then_some((slab.base + number as u64 * bytes, bytes))
    }

    pub fn is_slab(&self, chunk: ChunkId) -> bool {
        self.slabs.contains_key(&chunk)
    }

    /// Frees the slot at `address`. `false`: nobody uses a slot that begins there.
    pub fn give_slot(&mut self, chunk: ChunkId, address: u64, freed: Freed) -> bool {
        if self.slot_at(chunk, address).is_none_or(|(base, _)| base != address) {
            return false;
        }
        let slab = self.slabs.get_mut(&chunk).expect("just found");
        let number = ((address - slab.base) / slot_bytes(slab.class)) as usize;
        slab.used[number / 64] &= !(1 << (number % 64));
        slab.live -= 1;
        self.used_bytes -= slot_bytes(slab.class);
        self.free_slots[slab.class].push(Slot { address, chunk, freed });
        true
    }

    /// A freed chunk of at least `frames` frames, and at most `most`.
    pub fn take_chunk(&mut self, frames: u32, most: u32, user: u16) -> Option<(ChunkId, Freed)> {
        let fits = |cached: &Cached| (frames..=most).contains(&cached.frames);
        let (index, _) = self
            .cached
            .iter()
            .enumerate()
            .filter(|(_, cached)| fits(cached))
            .min_by_key(|(_, cached)| (cached.frames, rank(cached.freed, user)))?;
        let cached = self.cached.swap_remove(index);
        self.used_bytes += u64::from(cached.frames) * SLAB_BYTES;
        Some((cached.chunk, wait_for(cached.freed, user)))
    }

    /// A new chunk of `frames` frames is in use.
    pub fn add_chunk(&mut self, frames: u32) {
        self.reserved_bytes += u64::from(frames) * SLAB_BYTES;
        self.used_bytes += u64::from(frames) * SLAB_BYTES;
    }

    /// Keeps the freed `chunk` for the next taker.
    pub fn give_chunk(&mut self, chunk: ChunkId, frames: u32, freed: Freed) {
        self.used_bytes -= u64::from(frames) * SLAB_BYTES;
        self.cached.push(Cached { chunk, frames, freed });
    }

    /// Whether `chunk` is kept, freed already.
    pub fn is_cached(&self, chunk: ChunkId) -> bool {
        self.cached.iter().any(|cached| cached.chunk == chunk)
    }

    /// Takes out everything that nobody uses, to be given back to the device,
    /// until at most `keep_bytes` are reserved.
    pub fn drain(&mut self, keep_bytes: u64) -> Vec<ChunkId> {
        let mut gone = Vec::new();
        while self.reserved_bytes > keep_bytes {
            let Some(cached) = self.cached.pop() else { break };
            self.reserved_bytes -= u64::from(cached.frames) * SLAB_BYTES;
            gone.push(cached.chunk);
        }
        let empty: Vec<ChunkId> =
            self.slabs.iter().filter(|(_, slab)| slab.live == 0).map(|(&chunk, _)| chunk).collect();
        for chunk in empty {
            if self.reserved_bytes <= keep_bytes {
                break;
            }
            let slab = self.slabs.remove(&chunk).expect("just listed");
            self.free_slots[slab.class].retain(|slot| slot.chunk != chunk);
            self.reserved_bytes -= SLAB_BYTES;
            gone.push(chunk);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u16 = 10;
    const B: u16 = 20;

    fn by(user: u16) -> Freed {
        Freed::By { user, stretch: 7 }
    }

    #[test]
    fn classes_cover_every_small_size() {
        assert_eq!(class_of(1), Some(0));
        assert_eq!(class_of(512), Some(0));
        assert_eq!(class_of(513), Some(1));
        assert_eq!(class_of(SLOT_BYTES_MAX), Some(CLASSES - 1));
        assert_eq!(class_of(SLOT_BYTES_MAX + 1), None);
    }

    #[test]
    fn the_same_stream_reuses_at_once_another_waits() {
        let mut zone = Zone::default();
        let class = class_of(SLOT_BYTES_MAX).unwrap();
        assert_eq!(zone.take_slot(class, A), None);
        zone.add_slab(class, 1, 0x4000_0000);
        let (first, wait) = zone.take_slot(class, A).unwrap();
        assert_eq!((first, wait), (0x4000_0000, Freed::Long));
        let (second, _) = zone.take_slot(class, B).unwrap();
        assert_eq!(zone.take_slot(class, A), None);
        assert!(zone.give_slot(1, first, by(A)));
        assert!(!zone.give_slot(1, first, by(A)), "freed twice");
        assert!(zone.give_slot(1, second, by(B)));
        assert_eq!(zone.take_slot(class, B), Some((second, Freed::Long)));
        assert_eq!(zone.take_slot(class, B), Some((first, by(A))));
    }

    #[test]
    fn freed_chunks_are_kept_until_drained() {
        let mut zone = Zone::default();
        zone.add_chunk(4);
        zone.add_chunk(8);
        assert_eq!(zone.usage(), (12 * SLAB_BYTES, 12 * SLAB_BYTES));
        zone.give_chunk(7, 4, by(A));
        zone.give_chunk(8, 8, by(A));
        assert_eq!(zone.take_chunk(3, 4, B), Some((7, by(A))));
        assert_eq!(zone.take_chunk(3, 4, B), None);
        assert_eq!(zone.drain(0), [8]);
        assert_eq!(zone.usage(), (4 * SLAB_BYTES, 4 * SLAB_BYTES));
    }

    #[test]
    fn a_slab_goes_when_its_last_slot_is_free() {
        let mut zone = Zone::default();
        zone.add_slab(0, 3, 0);
        let (slot, _) = zone.take_slot(0, A).unwrap();
        assert!(zone.drain(0).is_empty());
        assert_eq!(zone.slot_at(3, slot + 100), Some((slot, 512)));
        zone.give_slot(3, slot, by(A));
        assert_eq!(zone.slot_at(3, slot), None);
        assert_eq!(zone.drain(0), [3]);
        assert_eq!(zone.take_slot(0, A), None);
        assert_eq!(zone.usage(), (0, 0));
    }
}
