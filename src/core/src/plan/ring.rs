//! Where in the ring each streamed frame lives, and what that makes each copy
//! wait for.
//!
//! Frames are laid out one after the other in order of use, lap after lap,
//! and the number of laps in an iteration is whole: the seam between two
//! iterations looks like any other place of the ring. A raw remainder by an
//! arbitrary length would put the last chunks under the first.
//!
//! A chunk *holds* its frames from the copy to its last use before it is
//! displaced. Copies run in the order of need; each waits for the step that
//! last used its frames. If that step comes before the one that needs the copy
//! for every copy, no copy waits for a step that waits for it: by induction
//! over the order, all run.

use super::shape::Shape;
use super::spread::HOLD_PERCENT;
use super::timeline::{Schedule, Timed};
use super::{Machine, Part};

/// A layout and what follows from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Frames of the ring, and of all that is shared: behind the ring, each
    /// frame is one chunk's while the phase runs.
    pub ring: u32,
    pub slots: u32,
    /// Parts of local chunk `c`: `parts[first_part[c]..first_part[c + 1]]`.
    pub parts: Vec<Part>,
    pub first_part: Vec<u32>,
    /// The copies of an iteration in order: (local chunk, part within it, step).
    pub copies: Vec<(u32, u32, u32)>,
    pub schedule: Schedule,
}

impl Layout {
    fn range(&self, local: usize) -> std::ops::Range<usize> {
        self.first_part[local] as usize..self.first_part[local + 1] as usize
    }

    pub fn parts_of(&self, local: usize) -> &[Part] {
        &self.parts[self.range(local)]
    }
}

/// A chunk on the device, from before step `need` to the end of step `last`
/// (of the next iteration, if that is smaller).
#[derive(Clone, Copy)]
struct Hold {
    local: u32,
    need: u32,
    /// May reach into the next iteration: then at or above the number of steps.
    last: u32,
}

/// Lays `shares[c]` frames of each local chunk `c` out on at most `ring`
/// frames. Error: a local chunk that would meet another while both are needed.
pub(super) fn lay_out(
    shape: &Shape,
    shares: &[u32],
    ring: u32,
    split: u32,
    machine: &Machine,
) -> Result<Layout, u32> {
    let streamed: u32 = shares.iter().sum();
    if streamed == 0 {
        let compute_ns = shape.compute_ns();
        return Ok(Layout {
            first_part: vec![0; shares.len() + 1],
            schedule: Schedule { compute_ns, ..Schedule::default() },
            ..Layout::default()
        });
    }
    let laps = streamed.div_ceil(ring.max(1));
    let mut layout = place(shares, streamed, laps, split)?;
    order(shape, machine, &mut layout)?;
    Ok(layout)
}

/// Positions, in order of first use, in whole laps.
fn place(shares: &[u32], streamed: u32, laps: u32, split: u32) -> Result<Layout, u32> {
    let boundary = |lap: u32| (u64::from(lap) * u64::from(streamed) / u64::from(laps)) as u32;
    let mut layout = Layout::default();
    layout.ring = streamed.div_ceil(laps);
    layout.slots = layout.ring;
    let (mut lap, mut at) = (0, 0);
    for (local, &share) in shares.iter().enumerate() {
        layout.first_part.push(layout.parts.len() as u32);
        if share == 0 {
            continue;
        }
        let count = share.div_ceil(split.max(1));
        let mut first = 0;
        for index in 0..count {
            let end = (u64::from(share) * u64::from(index + 1) / u64::from(count)) as u32;
            while at >= boundary(lap + 1) {
                lap += 1;
            }
            let length = boundary(lap + 1) - boundary(lap);
            let frames = end - first;
            if frames > length {
                return Err(local as u32);
            }
            layout.parts.push(Part { first, frames, at: at - boundary(lap), lap: length });
            at += frames;
            first = end;
        }
    }
    layout.first_part.push(layout.parts.len() as u32);
    Ok(layout)
}

/// When each streamed chunk is on the device, in order of need.
fn holds(shape: &Shape, shares: &[u32], layout: &Layout) -> Vec<Hold> {
    let steps = shape.steps() as u32;
    let limit = u64::from(layout.ring) * HOLD_PERCENT / 100;
    // Frames streamed by chunks first used before each local chunk.
    let mut before = Vec::with_capacity(shares.len() + 1);
    let mut sum = 0u64;
    for &share in shares {
        before.push(sum);
        sum += u64::from(share);
    }
    before.push(sum);
    let firsts: Vec<u32> = (0..shape.locals.len()).map(|local| shape.uses(local)[0]).collect();
    let at_step = |step: u32| before[firsts.partition_point(|&first| first < step)];
    let volume = |from: u32, to: u32| {
        let whole = u64::from(to / steps) - u64::from(from / steps);
        (whole * sum + at_step(to % steps)) as i64 - at_step(from % steps) as i64
    };
    let mut holds = Vec::with_capacity(shares.len());
    for local in 0..shape.locals.len() {
        if layout.parts_of(local).is_empty() {
            continue;
        }
        let uses = shape.uses(local);
        // Without a ring, each use is by itself.
        if uses.len() == 1 || layout.ring == 0 {
            holds.extend(uses.iter().map(|&step| Hold { local: local as u32, need: step, last: step }));
            continue;
        }
        // Begin behind the widest gap; it is the one least worth bridging.
        let gap = |index: usize| {
            let from = uses[index];
            let to = if index + 1 < uses.len() { uses[index + 1] } else { uses[0] + steps };
            volume(from, to)
        };
        let widest = (0..uses.len()).max_by_key(|&index| gap(index)).unwrap_or(0);
        let unrolled = (1..=uses.len()).map(|index| {
            let index = widest + index;
            uses[index % uses.len()] + if index >= uses.len() { steps } else { 0 }
        });
        let mut hold: Option<Hold> = None;
        for step in unrolled {
            match &mut hold {
                Some(held) if volume(held.need, step) <= limit as i64 => held.last = step,
                _ => {
                    holds.extend(hold.take());
                    hold = Some(Hold { local: local as u32, need: step, last: step });
                }
            }
        }
        holds.extend(hold);
    }
    for hold in &mut holds {
        if hold.need >= steps {
            hold.need -= steps;
            hold.last -= steps;
        }
    }
    holds.sort_by_key(|hold| (hold.need, hold.local));
    holds
}

/// Walks two iterations over the ring; the second is the steady one. Fills in
/// the copies and the schedule.
///
/// Error: a local chunk whose copy would wait for a step that does not come
/// before its own.
pub(super) fn order(
    shape: &Shape,
    machine: &Machine,
    layout: &mut Layout,
) -> Result<(), u32> {
    let shares: Vec<u32> = (0..shape.locals.len())
        .map(|local| {
            let passing = layout.parts_of(local).iter().filter(|part| part.at < layout.ring);
            passing.map(|part| part.frames).sum()
        })
        .collect();
    let holds = holds(shape, &shares, layout);
    const NOBODY: u32 = u32::MAX;
    const NEVER: i64 = i64::MIN;
    let steps = shape.steps() as i64;
    let mut owners = vec![NOBODY; layout.slots as usize];
    let mut released = vec![NEVER; layout.slots as usize];
    // (release step, counted from the start of the steady iteration; bytes)
    let mut waits: Vec<(i64, u64)> = Vec::new();
    for round in 0..2 {
        let offset = i64::from(round) * steps;
        for hold in &holds {
            let range = layout.range(hold.local as usize);
            for (index, part) in range.enumerate() {
                let part = layout.parts[part];
                let slots = || (0..part.frames).map(|frame| part.slot(frame) as usize);
                let need = offset + i64::from(hold.need);
                let last = offset + i64::from(hold.last);
                if slots().all(|slot| owners[slot] == hold.local) {
                    // Still there from the hold before.
                    slots().for_each(|slot| released[slot] = last);
                    continue;
                }
                let release = slots().map(|slot| released[slot]).max().unwrap_or(NEVER);
                if release >= need {
                    return Err(hold.local);
                }
                for slot in slots() {
                    owners[slot] = hold.local;
                    released[slot] = last;
                }
                if round == 1 {
                    layout.copies.push((hold.local, index as u32, hold.need));
                    let bytes = u64::from(part.frames) * machine.frame_bytes;
                    waits.push((if release == NEVER { NEVER } else { release - steps }, bytes));
                }
            }
        }
    }
    layout.schedule = schedule(shape, &layout.copies, &waits, machine);
    Ok(())
}

fn schedule(
    shape: &Shape,
    copies: &[(u32, u32, u32)],
    waits: &[(i64, u64)],
    machine: &Machine,
) -> Schedule {
    let steps = shape.steps() as i64;
    let mut needs: Vec<u32> = copies.iter().map(|&(_, _, need)| need).collect();
    needs.dedup();
    let clock = |step: usize| shape.clock[step];
    let groups: Vec<u64> = needs.iter().map(|&need| clock(need as usize)).collect();
    let mut group = 0;
    let timed = copies
        .iter()
        .zip(waits)
        .map(|(&(_, _, need), &(release, bytes))| {
            while needs[group] != need {
                group += 1;
            }
            let latency = machine.release_ns as f64 + bytes as f64 * 1e9 / machine.release_bytes_per_s;
            let (release_group, release_after, release_before) =
                release_point(release, steps, &needs, &groups, shape);
            Timed {
                bytes,
                group: group as u32,
                release_group,
                release_after,
                release_before,
                release_latency: latency as u64,
            }
        })
        .collect();
    Schedule { copies: timed, groups, compute_ns: shape.compute_ns() }
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
