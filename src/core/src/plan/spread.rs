//! Who streams how much.
//!
//! Streamed bytes are spread evenly over the iteration: by the time a fraction
//! of its compute has passed, the same fraction of the bytes should have
//! crossed the link. Walking along the order of use, credit grows with compute
//! time (or with bytes, or a mixture: `alpha`) and a chunk takes what credit
//! there is, between its bounds; what it cannot take goes to the next, over
//! the end of the iteration to its start.
//!
//! Chunks that would have to be fetched several times an iteration stay as
//! long as there is room: a frame of theirs saves several copies.

use super::shape::Shape;

/// What the search varies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Knobs {
    /// Frames through which everything streams, at the most.
    pub ring: u32,
    /// Weight of compute time against bytes in the spread, 0 to 1.
    pub alpha: f64,
    /// A chunk streams at least so many frames, or none, or all.
    pub least: u32,
    /// What one step needs streams at most so many frames.
    pub most: u32,
    /// Frames of one copy at the most.
    pub split: u32,
    /// A chunk counts as fetched again when it is used after so much of the
    /// ring has passed, in percent.
    pub hold: u32,
}

/// What [`Knobs`] are told apart by.
pub(super) type Key = (u32, u64, u32, u32, u32, u32);

impl Knobs {
    pub fn key(&self) -> Key {
        (self.ring, self.alpha.to_bits(), self.least, self.most, self.split, self.hold)
    }
}

/// How often each chunk would be fetched in an iteration, if `streamed` frames
/// pass through the ring evenly in compute time.
fn fetches(shape: &Shape, streamed: u32, knobs: &Knobs) -> Vec<u32> {
    let compute = shape.compute_ns().max(1);
    let volume = |from: u32, to: u32| {
        let passed = shape.clock[to as usize] - shape.clock[from as usize];
        (u128::from(passed) * u128::from(streamed) / u128::from(compute)) as u64
    };
    let limit = u64::from(knobs.ring) * u64::from(knobs.hold) / 100;
    (0..shape.locals.len())
        .map(|local| {
            let uses = shape.uses(local);
            let mut fetches = 1;
            let mut begun = uses[0];
            for &step in &uses[1..] {
                if volume(begun, step) > limit {
                    fetches += 1;
                    begun = step;
                }
            }
            fetches
        })
        .collect()
}

/// Frames of each local chunk that stream, `streamed` in all, none of those
/// in `barred`. `None`: the bounds do not allow so many.
pub(super) fn spread(
    shape: &Shape,
    streamed: u32,
    knobs: &Knobs,
    barred: &[u32],
) -> Option<Vec<u32>> {
    let fetches = fetches(shape, streamed, knobs);
    let most = most(shape, knobs.most, barred);
    let mut shares = vec![0; shape.locals.len()];
    let mut rest = streamed;
    let mut tiers: Vec<u32> = fetches.clone();
    tiers.sort_unstable();
    tiers.dedup();
    for tier in tiers {
        let members: Vec<u32> = (0..shape.locals.len() as u32)
            .filter(|&local| fetches[local as usize] == tier && most[local as usize] > 0)
            .collect();
        let room: u32 = members.iter().map(|&local| most[local as usize]).sum();
        if room <= rest {
            members.iter().for_each(|&local| shares[local as usize] = most[local as usize]);
            rest -= room;
        } else {
            diffuse(shape, &members, &most, rest, knobs, &mut shares);
            rest = 0;
        }
        if rest == 0 {
            return Some(shares);
        }
    }
    None
}

/// The bound of each chunk, so that no step needs more than `limit` streamed
/// frames.
fn most(shape: &Shape, limit: u32, barred: &[u32]) -> Vec<u32> {
    let mut most: Vec<u32> = shape.locals.iter().map(|local| local.frames.min(limit)).collect();
    barred.iter().for_each(|&local| most[local as usize] = 0);
    for step in &shape.together {
        let mut sum: u32 = step.iter().map(|&local| most[local as usize]).sum();
        if sum <= limit {
            continue;
        }
        // Each gives in proportion; what rounding leaves over, the first ones.
        for &local in step {
            let share = &mut most[local as usize];
            let less = (u64::from(*share) * u64::from(limit) / u64::from(sum)) as u32;
            *share = less;
        }
        sum = step.iter().map(|&local| most[local as usize]).sum();
        debug_assert!(sum <= limit);
    }
    most
}

/// Shares `total` frames out among `members`, who can take more than that.
fn diffuse(
    shape: &Shape,
    members: &[u32],
    most: &[u32],
    total: u32,
    knobs: &Knobs,
    shares: &mut [u32],
) {
    let compute = shape.compute_ns().max(1) as f64;
    let frames = f64::from(shape.frames.max(1));
    // The fraction of the iteration that has passed when a step begins.
    let passed = |step: u32| {
        let time = shape.clock[step as usize] as f64 / compute;
        let bytes = f64::from(shape.frames_before[step as usize]) / frames;
        knobs.alpha * time + (1.0 - knobs.alpha) * bytes
    };
    let mut carry = 0.0;
    // The second pass starts with what the first could not place.
    for _ in 0..2 {
        let mut given = 0.0;
        for &local in members {
            let credit = f64::from(total) * passed(shape.uses(local as usize)[0]) + carry - given;
            let bound = most[local as usize];
            let take = (credit.max(0.0) as u32).min(bound);
            let take = if take < knobs.least.min(bound) { 0 } else { take };
            shares[local as usize] = take;
            given += f64::from(take);
        }
        carry = (f64::from(total) + carry - given).max(0.0);
    }
    settle(members, most, total, knobs.least, shares);
}

/// Makes the sum exactly `total`, frame by frame, evenly over the order.
fn settle(members: &[u32], most: &[u32], total: u32, least: u32, shares: &mut [u32]) {
    let mut sum: u32 = members.iter().map(|&local| shares[local as usize]).sum();
    // First those that stream already, then anyone: a new copy is dearer.
    for newcomers in [false, true] {
        while sum < total {
            let takers: Vec<u32> = members
                .iter()
                .copied()
                .filter(|&local| {
                    let share = shares[local as usize];
                    share < most[local as usize] && (newcomers || share > 0)
                })
                .collect();
            if takers.is_empty() {
                break;
            }
            let missing = (total - sum) as usize;
            for local in evenly(&takers, missing) {
                let share = &mut shares[local as usize];
                let bound = most[local as usize];
                let step = if *share == 0 { least.clamp(1, bound) } else { 1 };
                let step = step.min(total - sum);
                *share += step;
                sum += step;
                if sum == total {
                    break;
                }
            }
        }
    }
    while sum > total {
        let givers: Vec<u32> =
            members.iter().copied().filter(|&local| shares[local as usize] > 0).collect();
        for local in evenly(&givers, (sum - total) as usize) {
            shares[local as usize] -= 1;
            sum -= 1;
        }
    }
}

/// Up to `count` of `list`, evenly spaced.
fn evenly(list: &[u32], count: usize) -> impl Iterator<Item = u32> + '_ {
    let count = count.min(list.len());
    (0..count).map(move |index| list[(index * 2 + 1) * list.len() / (count * 2)])
}
