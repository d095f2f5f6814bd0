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

/// Sizes that bound the ring, in frames.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For residents and ring together.
    pub available: u32,
    /// The largest set of streamed chunks that one operation touched.
    pub largest_operation: u32,
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
pub fn plan(items: &[Item], limits: &Limits) -> Option<Plan> {
    let total = |items: &mut dyn Iterator<Item = &Item>| items.map(|item| item.frames).sum::<u32>();
    if total(&mut items.iter()) <= limits.available {
        let resident = items.iter().map(|item| item.chunk).collect();
        return Some(Plan { resident, ..Plan::default() });
    }
    let pinned = total(&mut items.iter().filter(|item| item.pinned));
    let movable = limits.available.checked_sub(pinned)?;

    // Chunks used many times an iteration (activations) will be resident, so
    // the ring is sized by those used once.
    let largest_item = items.iter().filter(|item| item.uses == 1).map(|item| item.frames).max();
    let wish = limits.window.unwrap_or_else(|| {
        let comfortable = largest_item.unwrap_or(1) * 4;
        comfortable.clamp(movable / 8, (movable / 2).max(1))
    });
    let ring = wish.max(largest_item.unwrap_or(1)).max(limits.largest_operation).min(movable);
    if ring == 0 {
        return None;
    }

    let mut room = movable - ring;
    let mut resident: Vec<bool> = items.iter().map(|item| item.pinned).collect();

    // Most copies saved per frame first: a chunk used twice saves two.
    let mut by_uses: Vec<usize> =
        (0..items.len()).filter(|&index| items[index].uses > 1 && !items[index].pinned).collect();
    by_uses.sort_by_key(|&index| (std::cmp::Reverse(items[index].uses), items[index].frames));
    for index in by_uses {
        if items[index].frames <= room {
            room -= items[index].frames;
            resident[index] = true;
        }
    }

    // The rest of the room, spread evenly over the order of use.
    let rest = total(&mut items.iter().zip(&resident).filter(|(_, r)| !**r).map(|(item, _)| item));
    let mut credit = 0u64;
    let share = u64::from(room);
    for (item, resident) in items.iter().zip(&mut resident) {
        if *resident || rest == 0 {
            continue;
        }
        // In units of frames × rest, so that nothing is rounded.
        credit += u64::from(item.frames) * share;
        let cost = u64::from(item.frames) * u64::from(rest);
        if credit >= cost && item.frames <= room {
            credit -= cost;
            room -= item.frames;
            *resident = true;
        }
    }

    let streamed_items = || items.iter().zip(&resident).filter(|(_, r)| !**r).map(|(item, _)| item);
    let streamed_frames = total(&mut streamed_items());
    // Whole laps: the seam between two iterations then looks like any other
    // place of the ring. What spread could not use goes to the ring first.
    let ring = (ring + room).min(streamed_frames);
    let even = streamed_frames.div_ceil(streamed_frames.div_ceil(ring));
    let smallest = streamed_items().map(|item| item.frames).max().unwrap_or(1);
    let ring = if even >= smallest.max(limits.largest_operation) { even } else { ring };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: u32, frames: u32) -> Vec<Item> {
        (0..count).map(|chunk| Item { chunk, frames, uses: 1, pinned: false }).collect()
    }

    fn check(items: &[Item], limits: &Limits) -> Plan {
        let plan = plan(items, limits).unwrap();
        let frames = |chunk: &ChunkId| items.iter().find(|item| item.chunk == *chunk).unwrap().frames;
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
        let limits = Limits { available: 40, largest_operation: 4, window: None };
        let plan = check(&items(10, 4), &limits);
        assert_eq!((plan.resident.len(), plan.ring_frames), (10, 0));
    }

    #[test]
    fn residents_are_spread_over_the_order_of_use() {
        let limits = Limits { available: 200, largest_operation: 4, window: None };
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
        let limits = Limits { available: 40, largest_operation: 8, window: None };
        let plan = check(&list, &limits);
        assert!(plan.resident.contains(&42) && plan.resident.contains(&77));
    }

    #[test]
    fn pinned_chunks_stay_and_too_many_of_them_do_not_fit() {
        let mut list = items(10, 4);
        for item in &mut list[..5] {
            item.pinned = true;
        }
        let limits = Limits { available: 26, largest_operation: 4, window: None };
        let plan = check(&list, &limits);
        assert!((0..5).all(|chunk| plan.resident.contains(&chunk)));
        assert_eq!(super::plan(&list, &Limits { available: 19, ..limits }), None);
    }

    #[test]
    fn a_budget_from_nothing_to_everything_is_always_kept() {
        let list: Vec<Item> = (0..60)
            .map(|chunk| Item { chunk, frames: 1 + chunk * 7 % 10, uses: 1 + chunk % 3, pinned: false })
            .collect();
        for available in 10..340 {
            check(&list, &Limits { available, largest_operation: 10, window: None });
        }
    }
}
