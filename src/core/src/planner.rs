//! Which chunks stay, which stream, and where in the ring.
//!
//! Pure: the same uses, sizes and budget give the same [`Plan`]. Until
//! compute times are measured, bytes in order of use stand in for time: what
//! pays is a fixed resident set whose streamed remainder is spread evenly.
//! Invariant: `frames(resident) + ring_frames <= available`.
//! Not here: carrying a plan out (see `streamer`).

use crate::address_map::ChunkId;

/// A chunk as the planner sees it, in order of its first use in an iteration.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub chunk: ChunkId,
    pub frames: u32,
    /// Times per iteration that it would have to be fetched if streamed.
    pub uses: u32,
    /// Must stay where it is: captured in a graph, or its address escaped.
    pub pinned: bool,
}

/// Which items (by index) each operation of the iteration touches together.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    items: Vec<u32>,
    ends: Vec<u32>,
}

impl Operations {
    /// Adds an operation, unless it touches what the last one touched.
    pub fn push(&mut self, items: &[u32]) {
        let last_end = self.ends.last().copied().unwrap_or(0) as usize;
        let last_start = self.ends.len().checked_sub(2).map_or(0, |i| self.ends[i] as usize);
        if self.ends.is_empty() || self.items[last_start..last_end] != *items {
            self.items.extend_from_slice(items);
            self.ends.push(self.items.len() as u32);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.items[start as usize..end as usize])
    }

    /// Frames of the largest set of streamed items that one operation touches:
    /// the least a ring must hold.
    fn largest_streamed(&self, items: &[Item], streams: impl Fn(usize) -> bool) -> u32 {
        let frames =
            |&item: &u32| if streams(item as usize) { items[item as usize].frames } else { 0 };
        self.iter().map(|operation| operation.iter().map(frames).sum()).max().unwrap_or(0)
    }
}

/// Sizes that bound the plan, in frames.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For residents and ring together.
    pub available: u32,
    /// The user's wish for the ring, if any.
    pub window: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub resident: Vec<ChunkId>,
    /// Chunk and its first frame in the ring, in order of use. A chunk that
    /// reaches past the end of the ring continues at its start.
    pub streamed: Vec<(ChunkId, u32)>,
    pub ring_frames: u32,
}

/// Plans one iteration. `None`: not even the pinned chunks and a ring for the
/// largest operation fit.
pub fn plan(items: &[Item], operations: &Operations, limits: &Limits) -> Option<Plan> {
    let frames_of = |chosen: &dyn Fn(usize) -> bool| {
        items
            .iter()
            .enumerate()
            .filter(|(i, _)| chosen(*i))
            .map(|(_, item)| item.frames)
            .sum::<u32>()
    };
    if frames_of(&|_| true) <= limits.available {
        let resident = items.iter().map(|item| item.chunk).collect();
        return Some(Plan { resident, ..Plan::default() });
    }
    let mut resident: Vec<bool> = items.iter().map(|item| item.pinned).collect();

    // Most copies saved per frame first: tier by tier of uses per iteration,
    // whole tiers while they fit beside the ring that the rest needs, then a
    // part of one, spread evenly over the order of use.
    let mut tiers: Vec<u32> = items.iter().map(|item| item.uses).collect();
    tiers.sort_unstable_by(|a, b| b.cmp(a));
    tiers.dedup();
    let mut ring = 0;
    for tier in tiers {
        let in_tier = |index: usize| items[index].uses == tier && !items[index].pinned;
        let room = limits.available.checked_sub(frames_of(&|index| resident[index]))?;
        let need = operations.largest_streamed(items, |index| !resident[index] && !in_tier(index));
        let tier_frames = frames_of(&|index| in_tier(index) && !resident[index]);
        let leaves_some = (0..items.len()).any(|index| !resident[index] && !in_tier(index));
        if leaves_some && tier_frames + need.max(1) <= room {
            (0..items.len())
                .filter(|&index| in_tier(index))
                .for_each(|index| resident[index] = true);
            continue;
        }
        // A few large chunks in constant use (activations between weights):
        // each that stays may make the ring that the others need smaller.
        const FEW: usize = 16;
        let members: Vec<usize> =
            (0..items.len()).filter(|&index| in_tier(index) && !resident[index]).collect();
        if tier > 1 && members.len() <= FEW {
            for index in members {
                let need = operations.largest_streamed(items, |i| !resident[i] && i != index);
                let taken = frames_of(&|i| resident[i]) + items[index].frames;
                resident[index] = taken + need.max(1) <= limits.available;
            }
            continue;
        }
        let streams = |index: usize| !resident[index];
        let largest_item =
            (0..items.len()).filter(|&index| streams(index)).map(|index| items[index].frames).max();
        let need = operations.largest_streamed(items, streams).max(largest_item.unwrap_or(1));
        if need > room {
            return None;
        }
        let comfortable = (largest_item.unwrap_or(1) * 4).clamp(room / 8, (room / 2).max(1));
        ring = limits.window.unwrap_or(comfortable).clamp(need, room);
        spread(items, &mut resident, in_tier, room - ring);
        break;
    }

    let streamed_items = || items.iter().zip(&resident).filter(|(_, r)| !**r).map(|(item, _)| item);
    let streamed_frames = frames_of(&|index| !resident[index]);
    let need = operations.largest_streamed(items, |index| !resident[index]);
    let largest_item = streamed_items().map(|item| item.frames).max().unwrap_or(1);
    // What the residents could not use goes to the ring first; then whole laps:
    // the seam between two iterations looks like any other place of the ring.
    let unused = limits.available - frames_of(&|index| resident[index]) - ring;
    let ring = (ring + unused).min(streamed_frames);
    if ring < largest_item.max(need) {
        return None;
    }
    let even = streamed_frames.div_ceil(streamed_frames.div_ceil(ring));
    let ring = if even >= largest_item.max(need) { even } else { ring };
    let mut at = 0;
    let streamed = streamed_items()
        .map(|item| {
            let offset = at % ring;
            at += item.frames;
            (item.chunk, offset)
        })
        .collect();
    let chosen = items.iter().zip(&resident).filter(|(_, r)| **r).map(|(item, _)| item.chunk);
    Some(Plan { resident: chosen.collect(), streamed, ring_frames: ring })
}

/// Makes items of a tier resident, `room` frames in all, evenly over the order
/// of use (error diffusion).
fn spread(items: &[Item], resident: &mut [bool], in_tier: impl Fn(usize) -> bool, room: u32) {
    let total: u64 = (0..items.len())
        .filter(|&i| in_tier(i) && !resident[i])
        .map(|i| u64::from(items[i].frames))
        .sum();
    let share = u64::from(room);
    let mut room = room;
    let mut credit = 0;
    for index in 0..items.len() {
        if !in_tier(index) || resident[index] {
            continue;
        }
        // In units of frames × total, so that nothing is rounded.
        let frames = items[index].frames;
        credit += u64::from(frames) * share;
        if credit >= u64::from(frames) * total && frames <= room {
            credit -= u64::from(frames) * total;
            room -= frames;
            resident[index] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: u32, frames: u32) -> Vec<Item> {
        (0..count).map(|chunk| Item { chunk, frames, uses: 1, pinned: false }).collect()
    }

    fn alone(items: &[Item]) -> Operations {
        let mut operations = Operations::default();
        (0..items.len() as u32).for_each(|index| operations.push(&[index]));
        operations
    }

    fn check(items: &[Item], limits: &Limits) -> Plan {
        let plan = plan(items, &alone(items), limits).unwrap();
        let frames =
            |chunk: &ChunkId| items.iter().find(|item| item.chunk == *chunk).unwrap().frames;
        let resident: u32 = plan.resident.iter().map(frames).sum();
        assert!(resident + plan.ring_frames <= limits.available, "{plan:?}");
        assert_eq!(plan.resident.len() + plan.streamed.len(), items.len());
        for (chunk, offset) in &plan.streamed {
            assert!(*offset < plan.ring_frames && frames(chunk) <= plan.ring_frames);
        }
        plan
    }

    #[test]
    fn everything_stays_when_everything_fits() {
        let limits = Limits { available: 40, window: None };
        let plan = check(&items(10, 4), &limits);
        assert_eq!((plan.resident.len(), plan.ring_frames), (10, 0));
    }

    #[test]
    fn residents_are_spread_over_the_order_of_use() {
        let limits = Limits { available: 200, window: None };
        let plan = check(&items(100, 4), &limits);
        assert!(plan.resident.len() >= 30);
        let longest_gap = plan.resident.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest_gap <= 4, "{:?}", plan.resident);
    }

    #[test]
    fn what_is_used_often_stays_first() {
        let mut list = items(100, 4);
        list[42].uses = 2;
        list[77].uses = 50;
        let limits = Limits { available: 40, window: None };
        let plan = check(&list, &limits);
        assert!(plan.resident.contains(&42) && plan.resident.contains(&77));
    }

    #[test]
    fn pinned_chunks_stay_and_too_many_of_them_do_not_fit() {
        let mut list = items(10, 4);
        for item in &mut list[..5] {
            item.pinned = true;
        }
        let limits = Limits { available: 26, window: None };
        let plan = check(&list, &limits);
        assert!((0..5).all(|chunk| plan.resident.contains(&chunk)));
        for available in 0..24 {
            assert_eq!(super::plan(&list, &alone(&list), &Limits { available, ..limits }), None);
        }
    }

    #[test]
    fn a_budget_from_nothing_to_everything_is_always_kept() {
        let list: Vec<Item> = (0..60)
            .map(|chunk| Item {
                chunk,
                frames: 1 + chunk * 7 % 10,
                uses: 1 + chunk % 3,
                pinned: false,
            })
            .collect();
        for available in 10..340 {
            check(&list, &Limits { available, window: None });
        }
    }

    #[test]
    fn what_every_operation_needs_stays_and_the_ring_holds_the_rest() {
        let mut list = items(30, 10);
        list[0].uses = u32::MAX;
        let mut operations = Operations::default();
        (1..30).for_each(|weight| operations.push(&[0, weight]));
        let plan = plan(&list, &operations, &Limits { available: 28, window: None }).unwrap();
        assert!(plan.resident.contains(&0), "{plan:?}");
        assert!((10..=18).contains(&plan.ring_frames), "{plan:?}");
    }

    #[test]
    fn one_of_two_that_are_always_in_use_stays_if_both_cannot() {
        let mut list = items(20, 10);
        list[0].uses = 30;
        list[1].uses = 30;
        let mut operations = Operations::default();
        for weight in 2..20 {
            operations.push(&[0, weight]);
            operations.push(&[0, 1]);
        }
        let plan = plan(&list, &operations, &Limits { available: 28, window: None }).unwrap();
        assert_eq!(plan.resident, [0]);
        assert!(plan.ring_frames <= 18, "{plan:?}");
    }

    #[test]
    fn the_ring_holds_the_largest_operation_or_there_is_no_plan() {
        let list = items(30, 4);
        let mut operations = alone(&list);
        operations.push(&[3, 9, 20, 21]);
        let plan = plan(&list, &operations, &Limits { available: 20, window: Some(1) }).unwrap();
        let streamed = |chunk: &u32| plan.streamed.iter().any(|(s, _)| s == chunk);
        let together = [3, 9, 20, 21].iter().filter(|chunk| streamed(chunk)).count() as u32;
        assert!(plan.ring_frames >= together * 4);
        assert_eq!(super::plan(&list, &operations, &Limits { available: 15, window: None }), None);
    }
}
