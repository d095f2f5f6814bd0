//! When each copy should become ready.
//!
//! The copy engine takes what is ready, and a small copy of the program's that
//! becomes ready later waits behind it. So a copy is not ready as soon as its
//! frames are free, but only at the beginning of the step in which the copies
//! up to it amount to the allowed backlog.

use super::ring::RingLayout;
use super::shape::Shape;
use super::timeline::{Schedule, Times};
use super::{Copy, Machine};

/// The copies of `layout`, each with its planned start.
pub(super) fn with_starts(
    shape: &Shape,
    layout: &RingLayout,
    times: &Times,
    machine: &Machine,
) -> Vec<Copy> {
    let steps = shape.steps() as i64;
    let RingLayout { copies: order, schedule, .. } = layout;
    let count = order.len();
    let bytes = |index: usize| schedule.copies[index].bytes;
    // The first copy of the backlog that ends with the present one; -1 is the
    // last of the iteration before.
    let mut first = 0i64;
    let mut backlog = 0u64;
    let wrapped = |index: i64| {
        let iteration = index.div_euclid(count as i64);
        (index.rem_euclid(count as i64) as usize, iteration)
    };
    // Begin in the iteration before, so that the first copies have a past.
    let mut copies = Vec::with_capacity(count);
    for index in -(count as i64)..count as i64 {
        if index == -(count as i64) {
            first = index;
        }
        let (present, iteration) = wrapped(index);
        backlog += bytes(present);
        while backlog > machine.backlog_bytes && first < index {
            backlog -= bytes(wrapped(first).0);
            first += 1;
        }
        if iteration < 0 {
            continue;
        }
        let (earliest, iteration) = wrapped(first);
        let start = times.copies[earliest] + iteration as f64 * times.period;
        let need = order[present].need;
        let step = step_at(shape, schedule, times, start).min(i64::from(need));
        // More than an iteration ahead is not ahead at all.
        let lead = (i64::from(need) - step).clamp(0, steps) as u32;
        for (index, part) in layout.parts_in(order[present]).enumerate() {
            let (local, part) = layout.owner(part);
            let chunk = shape.locals[local as usize].chunk;
            copies.push(Copy { chunk, part, need, lead, joined: index > 0 });
        }
    }
    copies
}

/// The step that runs at `time` of the steady iteration; negative in the one
/// before.
fn step_at(shape: &Shape, schedule: &Schedule, times: &Times, time: f64) -> i64 {
    let iterations = (time / times.period).floor();
    let time = time - iterations * times.period;
    let steps = shape.steps() as i64;
    // The group that began last, and the compute since.
    let group = times.groups.partition_point(|&start| start <= time);
    let clock = match group.checked_sub(1) {
        Some(group) => {
            let next = schedule.groups.get(group + 1).copied().unwrap_or(schedule.compute_ns);
            let passed = time - times.groups[group];
            (schedule.groups[group] as f64 + passed).min(next as f64)
        }
        None => time.min(schedule.groups.first().map_or(0.0, |&first| first as f64)),
    };
    let step = shape.clock.partition_point(|&begun| (begun as f64) <= clock) as i64 - 1;
    // `clock` past the last step's beginning stays in the last step.
    iterations as i64 * steps + step.clamp(0, steps - 1)
}
