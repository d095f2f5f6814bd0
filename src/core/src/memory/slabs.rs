//! Places in host memory, side by side for small chunks that were born one
//! after the other: what is used together was mostly allocated together, and
//! then one copy can bring several of them (see [`MemoryOps::fetch_run`]).
//!
//! Invariant: the places given and not taken back do not overlap, and none
//! reaches out of its slab.
//!
//! Not here: the memory itself (the ops's, which makes a slab when the
//! first of its chunks needs host memory and frees it with the last).

use crate::plan::{Place, SLAB_FRAMES};

/// Frames of the largest chunk that gets a place: the price of a copy of its
/// own is less than a percent of a larger one's.
const LARGEST: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Slabs {
    /// Chunks in each slab; 0: its number is free.
    chunks: Vec<u32>,
    /// The slab that is being filled, and how far.
    open: Option<(u32, u32)>,
    /// Given back, in slabs where others remain: place and frames.
    holes: Vec<(Place, u32)>,
}

impl Slabs {
    /// A place for a chunk of `frames` frames, behind the one before if that
    /// can be. Large chunks get none.
    pub fn give(&mut self, frames: u32) -> Option<Place> {
        if frames == 0 || frames > LARGEST {
            return None;
        }
        // What was freed and comes again (caches of the program's) gets the
        // same place.
        if let Some(hole) = self.holes.iter().rposition(|&(_, room)| room == frames) {
            let (place, _) = self.holes.remove(hole);
            self.chunks[place.slab as usize] += 1;
            return Some(place);
        }
        let (slab, at) = match self.open {
            Some((slab, at)) if at + frames <= SLAB_FRAMES => (slab, at),
            _ => (self.unused(), 0),
        };
        self.open = Some((slab, at + frames));
        self.chunks[slab as usize] += 1;
        Some(Place { slab, at })
    }

    /// The chunk at `place` is gone.
    pub fn take_back(&mut self, place: Place, frames: u32) {
        let chunks = &mut self.chunks[place.slab as usize];
        *chunks -= 1;
        if *chunks > 0 {
            self.holes.push((place, frames));
            return;
        }
        self.holes.retain(|(hole, _)| hole.slab != place.slab);
        if self.open.is_some_and(|(slab, _)| slab == place.slab) {
            self.open = None;
        }
    }

    /// The lowest number that no slab has.
    fn unused(&mut self) -> u32 {
        let open = self.open.map(|(slab, _)| slab);
        let free = |&slab: &u32| self.chunks[slab as usize] == 0 && Some(slab) != open;
        let slab = (0..self.chunks.len() as u32).find(free);
        slab.unwrap_or_else(|| {
            self.chunks.push(0);
            self.chunks.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_never_overlap_and_births_in_a_row_lie_side_by_side() {
        let mut slabs = Slabs::default();
        let first: Vec<Place> = (0..SLAB_FRAMES).map(|_| slabs.give(1).unwrap()).collect();
        assert!(first.windows(2).all(|pair| pair[1].follows(pair[0], 1)));
        assert_eq!(slabs.give(LARGEST + 1), None);

        let mut living: Vec<(Place, u32)> = Vec::new();
        let mut slabs = Slabs::default();
        let mut random = 1u64;
        for _ in 0..4000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = (random >> 33) as u32;
            if draw.is_multiple_of(5) && !living.is_empty() {
                let (place, frames) = living.swap_remove(draw as usize / 5 % living.len());
                slabs.take_back(place, frames);
            } else if living.len() < 60 {
                let frames = 1 + draw / 5 % LARGEST;
                let place = slabs.give(frames).unwrap();
                assert!(place.at + frames <= SLAB_FRAMES);
                assert!(living.iter().all(|&(other, length)| {
                    other.slab != place.slab
                        || other.at + length <= place.at
                        || place.at + frames <= other.at
                }));
                living.push((place, frames));
            }
        }
        // Nothing is lost for good.
        living.into_iter().for_each(|(place, frames)| slabs.take_back(place, frames));
        assert!(slabs.chunks.iter().all(|&chunks| chunks == 0) && slabs.holes.is_empty());
        assert!(slabs.chunks.len() < 60);
    }
}
