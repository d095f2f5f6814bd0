//! What the lock-free path knows of a chunk: by whom it was used last.
//!
//! A *place* is a user in the upper 16 bits and a stretch in the others (see
//! `users`); 0 is none. A user's place only ever moves on.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::users::UserId;

/// Users of a chunk that need no lock.
const PLACES: usize = 4;

/// Of a place; a program does not get to the end of them.
pub const STRETCH_BITS: u32 = 48;

#[derive(Default)]
pub struct Hot {
    places: [AtomicU64; PLACES],
    /// There are more users, in a list.
    more: AtomicBool,
    /// Launches that began before anything moved and hold it, still.
    pub in_flight: AtomicU32,
    /// Pinned, by a graph or for good.
    pub kept: AtomicBool,
    /// So many sets of ranges that the program keeps resident name it (`ranges`).
    pub keepers: AtomicU32,
    /// Freed in stream order, and not given out again since.
    pub dead: AtomicBool,
    /// Of stream-ordered origin: there may be several allocations in it.
    pub pooled: AtomicBool,
    pub device: AtomicU32,
    /// Its size, bytes.
    pub bytes: AtomicU64,
    /// Bytes that copies from the host put into it, until it counts as weights.
    pub filled_bytes: AtomicU64,
    /// Its size, once it counts as weights: copies filled half of it.
    pub weight_bytes: AtomicU64,
}

impl Hot {
    pub fn device(&self) -> usize {
        self.device.load(Ordering::Relaxed) as usize
    }

    /// Notes a use at `place`. `over`: whether a place needs no more waiting.
    /// `false`: there is no room.
    #[inline(always)]
    pub fn note(&self, place: u64, over: impl Fn(u64) -> bool) -> bool {
        // Reading first keeps the line shared: it is nearly always there.
        self.places[0].load(Ordering::Relaxed) == place || self.note_elsewhere(place, over)
    }

    #[inline(never)]
    fn note_elsewhere(&self, place: u64, over: impl Fn(u64) -> bool) -> bool {
        for known in &self.places {
            let mut held = known.load(Ordering::Relaxed);
            while held >> STRETCH_BITS == place >> STRETCH_BITS {
                if held >= place {
                    return true;
                }
                match known.compare_exchange(held, place, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return true,
                    Err(other) => held = other,
                }
            }
        }
        for known in &self.places {
            let held = known.load(Ordering::Relaxed);
            if (held == 0 || over(held))
                && known.compare_exchange(held, place, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return true;
            }
        }
        false
    }

    pub fn places(&self) -> impl Iterator<Item = u64> + '_ {
        self.places.iter().map(|place| place.load(Ordering::Acquire)).filter(|&place| place != 0)
    }

    /// Forgets the uses of those users that `which` chooses.
    pub fn forget(&self, which: impl Fn(UserId) -> bool) {
        for known in &self.places {
            let held = known.load(Ordering::Relaxed);
            if held != 0 && which((held >> STRETCH_BITS) as UserId) {
                let _ = known.compare_exchange(held, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    pub fn has_more(&self) -> bool {
        self.more.load(Ordering::Acquire)
    }

    pub fn set_more(&self, more: bool) {
        self.more.store(more, Ordering::Release);
    }
}
