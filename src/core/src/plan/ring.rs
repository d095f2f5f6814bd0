//! Where in the ring each streamed frame lives, and what that makes each copy
//! wait for.
//!
//! Frames are laid out one after the other in order of use, round after round,
//! and the number of rounds in an iteration is whole: the seam between two
//! iterations looks like any other place of the ring. A raw remainder by an
//! arbitrary length would put the last chunks under the first.
//!
//! A chunk stays where it is until the copy of another takes its frames; used
//! again after that, it is copied again. Copies run in the order of need; each
//! waits for the step that last used its frames. If that step comes before the
//! one that needs the copy for every copy, no copy waits for a step that waits
//! for it: by induction over the order, all run.

use super::shape::Shape;
use super::timeline::{Schedule, Timed};
use super::{Machine, Part};

/// A layout and what follows from it.
#[derive(Clone, Debug, Default)]
pub(super) struct RingLayout {
    /// Frames of the ring, and of all that is shared: what is behind the ring
    /// nobody else takes while the phase runs.
    pub ring: u32,
    pub slots: u32,
    /// Parts of local chunk `c`: `parts[first_part[c]..first_part[c + 1]]`.
    pub parts: Vec<Part>,
    pub first_part: Vec<u32>,
    /// Of each part, those before and after it in its run, or [`NOBODY`]; empty
    /// where there are no runs.
    pub beside: Vec<[u32; 2]>,
    /// The copies of an iteration in order.
    pub copies: Vec<Fetch>,
    pub schedule: Schedule,
}

/// One copy of the engine's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    /// Index into [`RingLayout::parts`]; more parts of its run follow, `count` in all.
    pub first: u32,
    pub count: u32,
    /// The step that it is for.
    pub need: u32,
}

/// No part.
pub(super) const NOBODY: u32 = u32::MAX;

impl RingLayout {
    /// The parts that come with `fetch`, in order.
    pub fn parts_in(&self, fetch: Fetch) -> impl Iterator<Item = u32> + '_ {
        let next = |&part: &u32| self.beside.get(part as usize).map(|beside| beside[1]);
        std::iter::successors(Some(fetch.first), next).take(fetch.count as usize)
    }

    /// Local chunk and index of a part.
    pub fn owner(&self, part: u32) -> (u32, u32) {
        let local = self.first_part.partition_point(|&first| first <= part) - 1;
        (local as u32, part - self.first_part[local])
    }

    fn range(&self, local: usize) -> std::ops::Range<usize> {
        self.first_part[local] as usize..self.first_part[local + 1] as usize
    }

    pub fn parts_of(&self, local: usize) -> &[Part] {
        &self.parts[self.range(local)]
    }
}

/// Lays `shares[c]` frames of each local chunk `c` out on at most `ring`
/// frames. Error: a local chunk that would meet another while both are needed;
/// of the two the one that is used more often.
pub(super) fn lay_out(
    shape: &Shape,
    shares: &[u32],
    ring: u32,
    split: u32,
    machine: &Machine,
) -> Result<RingLayout, u32> {
    let streamed: u32 = shares.iter().sum();
    if streamed == 0 {
        let compute_ns = shape.compute_ns();
        return Ok(RingLayout {
            first_part: vec![0; shares.len() + 1],
            schedule: Schedule { compute_ns, ..Schedule::default() },
            ..RingLayout::default()
        });
    }
    let rounds = streamed.div_ceil(ring.max(1));
    let mut layout = place(shares, streamed, rounds, split)?;
    order(shape, machine, &mut layout)?;
    Ok(layout)
}

/// Positions, in order of first use, in whole rounds.
fn place(shares: &[u32], streamed: u32, rounds: u32, split: u32) -> Result<RingLayout, u32> {
    let boundary = |round: u32| (u64::from(round) * u64::from(streamed) / u64::from(rounds)) as u32;
    let mut layout = RingLayout::default();
    layout.ring = streamed.div_ceil(rounds);
    layout.slots = layout.ring;
    let (mut round, mut at) = (0, 0);
    for (local, &share) in shares.iter().enumerate() {
        layout.first_part.push(layout.parts.len() as u32);
        if share == 0 {
            continue;
        }
        let count = share.div_ceil(split.max(1));
        let mut first = 0;
        for index in 0..count {
            let end = (u64::from(share) * u64::from(index + 1) / u64::from(count)) as u32;
            while at >= boundary(round + 1) {
                round += 1;
            }
            let length = boundary(round + 1) - boundary(round);
            let frames = end - first;
            if frames > length {
                return Err(local as u32);
            }
            layout.parts.push(Part { first, frames, at: at - boundary(round), wrap: length });
            at += frames;
            first = end;
        }
    }
    layout.first_part.push(layout.parts.len() as u32);
    Ok(layout)
}

/// Walks two iterations over the ring; the second is the steady one. Fills in
/// the copies and the schedule.
///
/// Error: of two local chunks that meet though the same step needs both, the one
/// that is used more often; it had better stay.
pub(super) fn order(shape: &Shape, machine: &Machine, layout: &mut RingLayout) -> Result<(), u32> {
    const NEVER: i64 = i64::MIN;
    let steps = shape.steps() as i64;
    // Which part each shared frame holds, which parts are wholly there, and
    // the last use of each.
    let mut owners = vec![NOBODY; layout.slots as usize];
    let mut present = vec![false; layout.parts.len()];
    let mut used = vec![NEVER; layout.parts.len()];
    // (release step, counted from the start of the steady iteration; bytes)
    let mut waits: Vec<(i64, u64)> = Vec::new();
    for round in 0..2 {
        for &(local, need) in &shape.order {
            let now = i64::from(round) * steps + i64::from(need);
            for id in layout.range(local as usize) {
                if present[id] {
                    used[id] = now;
                    continue;
                }
                // What is absent on both sides of it in its run comes along.
                let absent = |part: u32, side: usize| {
                    let beside = layout.beside.get(part as usize).map(|beside| beside[side]);
                    beside.filter(|&part| part != NOBODY && !present[part as usize])
                };
                let mut fetch = Fetch { first: id as u32, count: 1, need };
                while let Some(before) = absent(fetch.first, 0) {
                    (fetch.first, fetch.count) = (before, fetch.count + 1);
                }
                let mut last = id as u32;
                while let Some(after) = absent(last, 1) {
                    (last, fetch.count) = (after, fetch.count + 1);
                }
                let (mut release, mut frames) = (NEVER, 0);
                let mut displaced = NOBODY;
                let mut id_of = fetch.first;
                for _ in 0..fetch.count {
                    let part = layout.parts[id_of as usize];
                    for frame in 0..part.frames {
                        let owner = &mut owners[part.slot(frame) as usize];
                        if *owner != NOBODY {
                            present[*owner as usize] = false;
                            if used[*owner as usize] > release {
                                (release, displaced) = (used[*owner as usize], *owner);
                            }
                        }
                        *owner = id_of;
                    }
                    present[id_of as usize] = true;
                    frames += part.frames;
                    id_of = layout.beside.get(id_of as usize).map_or(NOBODY, |beside| beside[1]);
                }
                if release >= now {
                    let (other, _) = layout.owner(displaced);
                    let uses = |local: u32| shape.uses(local as usize).len();
                    return Err(if uses(other) > uses(local) { other } else { local });
                }
                used[id] = now;
                if round == 1 {
                    layout.copies.push(fetch);
                    let bytes = u64::from(frames) * machine.frame_bytes;
                    waits.push((if release == NEVER { NEVER } else { release - steps }, bytes));
                }
            }
        }
    }
    layout.schedule = schedule(shape, &layout.copies, &waits, machine);
    Ok(())
}

fn schedule(shape: &Shape, copies: &[Fetch], waits: &[(i64, u64)], machine: &Machine) -> Schedule {
    let steps = shape.steps() as i64;
    let mut needs: Vec<u32> = copies.iter().map(|fetch| fetch.need).collect();
    needs.dedup();
    let clock = |step: usize| shape.clock[step];
    let groups: Vec<u64> = needs.iter().map(|&need| clock(need as usize)).collect();
    let mut group = 0;
    let timed = copies
        .iter()
        .zip(waits)
        .map(|(&Fetch { need, .. }, &(release, bytes))| {
            while needs[group] != need {
                group += 1;
            }
            let latency =
                machine.release_ns as f64 + bytes as f64 * 1e9 / machine.release_bytes_per_s;
            let release_turn = shape.next_turn(release);
            let (release_group, release_after, release_before) =
                release_point(release, steps, &needs, &groups, shape);
            Timed {
                bytes,
                group: group as u32,
                release_group,
                release_after,
                release_before,
                release_latency: latency as u64,
                release_turn,
            }
        })
        .collect();
    let link = needs.iter().map(|&need| shape.link[need as usize]).collect();
    let link_ns = shape.link[shape.steps()];
    Schedule { copies: timed, groups, compute_ns: shape.compute_ns(), link, link_ns }
}

/// The end of step `release` (of the iteration before, if negative) as a group
/// and the compute time from its start.
fn release_point(
    release: i64,
    steps: i64,
    needs: &[u32],
    groups: &[u64],
    shape: &Shape,
) -> (u32, u64, bool) {
    // A step two iterations back has long ended.
    if release < -steps {
        return (u32::MAX, 0, true);
    }
    let before = release < 0;
    let step = if before { release + steps } else { release } as usize;
    let ended = shape.clock[step + 1];
    let found = needs.partition_point(|&need| need as usize <= step);
    match (found.checked_sub(1), before) {
        (Some(group), _) => (group as u32, ended - groups[group], before),
        // Before the first step that needs a copy: told from the last of the
        // iteration before.
        (None, false) => {
            let last = groups.len() - 1;
            (last as u32, ended + shape.compute_ns() - groups[last], true)
        }
        (None, true) => (0, 0, true),
    }
}
