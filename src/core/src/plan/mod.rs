//! What stays, what streams, through which frames, and when each copy starts.
//!
//! Pure and deterministic: the same [`Problem`], previous plan and effort give
//! the same [`Plan`].
//!
//! ```text
//!   types      the problem, and the plan
//!   shape      one phase, arranged for planning
//!   in_place   what kernels had better read in host memory, over the link
//!   merge      which neighbours are planned as one chunk
//!   phases     which phases share chunks, and who gets which memory
//!   spread     how many frames of each chunk stream
//!   ring       where they live, and what that makes each copy wait for
//!   timeline   how long an iteration takes then
//!   search     tries many, keeps the best
//!   first_fit  a place for everything, whatever the order
//!   refit      betters that
//!   start      when each copy should become ready
//!   keep       keeps the plan before, where a new one would gain too little
//!   proof      checks the result, by other means
//!   outlook    what it comes to, for people
//! ```
//!
//! Not here: learning the order (`learn`), carrying a plan out (`memory`).

mod first_fit;
mod in_place;
mod keep;
mod merge;
pub mod outlook;
mod phases;
mod proof;
mod refit;
mod ring;
mod search;
mod shape;
mod spread;
mod start;
mod timeline;
mod types;

pub use proof::Fault;
pub use types::{
    Chunk, Copy, Effort, IN_PLACE_LINK_SHARE, Layout, Machine, Nanos, Part, Phase, PhasePlan,
    Place, Plan, Problem, SLAB_FRAMES, Step, Unfit,
};

use phases::{Division, Group};
use ring::RingLayout;
use search::{Found, Room, Search};
use shape::Shape;
use timeline::Clock;

/// Plans all phases of `problem`. `previous`: the plan in force, which is kept
/// where a better one would gain next to nothing.
pub fn plan(problem: &Problem, previous: Option<&Plan>, effort: Effort) -> Result<Plan, Unfit> {
    let unfit = |needed_frames| Unfit { needed_frames, available_frames: problem.machine.frames };
    let nowhere = vec![0; problem.chunks.len()];
    let promising = in_place::choose(problem);
    // Without time for both, the estimate decides.
    const MANY_CHUNKS: usize = 1000;
    let time = effort == Effort::Searched || problem.chunks.len() <= MANY_CHUNKS;
    let both = time || promising.is_none();
    let mut found = promising.and_then(|host| plan_with(problem, host, effort));
    if both || found.is_none() {
        let streamed = plan_with(problem, nowhere, effort);
        let better =
            |(cost, _): &(f64, Plan)| found.as_ref().is_none_or(|(other, _)| cost <= other);
        found = streamed.filter(better).or(found);
    }
    let (cost, fresh) = found.ok_or_else(|| unfit(least(problem)))?;
    Ok(previous
        .and_then(|previous| keep::keep(problem, previous, effort, cost, &fresh))
        .unwrap_or(fresh))
}

/// Frames of neighbours that are planned as one, at the most: each is tried.
const UNIT_FRAMES: [u32; 2] = [16, 8];

/// The plan with `host[c]` frames of chunk `c` in host memory, and the time that
/// its phases take, each as often as it repeats.
fn plan_with(problem: &Problem, host: Vec<u32>, effort: Effort) -> Option<(f64, Plan)> {
    let reduced = &in_place::reduced(problem, &host);
    // Among a few frames, large steps cost more than copies do.
    let largest = problem.machine.frames / 16;
    let merged = |limit: u32| attempt(reduced, &host, effort, Some(limit.min(largest)));
    let single = || attempt(reduced, &host, effort, None);
    let fitted = || finish(reduced, &host, first_fit::first_fit(reduced, &reduced.chunks)?).ok();
    let fresh = match effort {
        Effort::Quick => merged(UNIT_FRAMES[0]).or_else(single),
        Effort::Searched => {
            // Copies that cost no time here keep the host busy all the same.
            const SINGLE_GAINS: f64 = 0.002;
            let single = single().map(|plan| (cost(reduced, &plan) * (1.0 + SINGLE_GAINS), plan));
            let merged = UNIT_FRAMES.into_iter().filter_map(merged);
            let merged = merged.map(|plan| (cost(reduced, &plan), plan));
            let best = merged.chain(single).min_by(|a, b| a.0.total_cmp(&b.0));
            // A ring that is so near to the bound brings what it brings in order, too.
            const RING_DOES: f64 = 1.25;
            let does = |cost: f64| cost <= bound(reduced) * RING_DOES;
            // As the user wished: not more than a window is shared.
            let asked = problem.window_frames.is_some();
            match best {
                Some((cost, plan)) if asked || does(cost) => Some(plan),
                Some((ring, plan)) => {
                    Some(fitted().filter(|other| cost(reduced, other) < ring).unwrap_or(plan))
                }
                None => None,
            }
        }
    };
    let plan = fresh.or_else(fitted)?;
    Some((cost(reduced, &plan), plan))
}

/// One plan: chunk by chunk, or by units of up to `limit` frames. `None`: there
/// is none, or nothing to be merged.
fn attempt(problem: &Problem, host: &[u32], effort: Effort, limit: Option<u32>) -> Option<Plan> {
    let mut chunks = problem.chunks.clone();
    // Phases of a group share a layout made for one of them. Should two chunks
    // meet in another, one of them gets frames of its own.
    const CONFLICTS: usize = 16;
    for _ in 0..CONFLICTS {
        let layouts = match limit {
            None => lay_out(problem, &chunks, effort)?,
            Some(limit) => {
                let units = merge::merge(problem, &chunks, limit)?;
                let layouts = lay_out(&units.problem, &units.problem.chunks, effort)?;
                units.expand(&chunks, layouts)
            }
        };
        match finish(problem, host, layouts) {
            Ok(plan) => return Some(plan),
            Err(chunk) => chunks[chunk as usize].pinned = true,
        }
    }
    None
}

/// Time of all phases of `plan`, each as often as it repeats.
fn cost(reduced: &Problem, plan: &Plan) -> f64 {
    let each = plan.phases.iter().zip(&reduced.phases);
    each.map(|(plan, phase)| {
        let period = plan.period_ns as f64;
        // Kernels that read over the link while copies use it take longer; how
        // much meets, the clock does not say.
        let read: Nanos = phase.steps.iter().map(|step| step.link_ns).sum();
        let copied = plan.streamed_bytes as f64 * 1e9 / reduced.machine.link_bytes_per_s;
        let meeting = read as f64 * (copied / period.max(1.0)).min(1.0);
        (period + meeting) * f64::from(phase.repeats.max(1))
    })
    .sum()
}

/// What no plan can better: the time that phases compute, or that the link needs
/// for what does not fit.
fn bound(reduced: &Problem) -> f64 {
    let frame_ns = reduced.machine.frame_bytes as f64 * 1e9 / reduced.machine.link_bytes_per_s;
    let each = reduced.phases.iter().map(|phase| {
        let mut used = vec![0; reduced.chunks.len()];
        for &chunk in &phase.uses {
            used[chunk as usize] = reduced.chunks[chunk as usize].frames;
        }
        let excess = used.iter().sum::<u32>().saturating_sub(reduced.machine.frames);
        let compute: Nanos = phase.steps.iter().map(|step| step.ns).sum();
        (compute as f64).max(f64::from(excess) * frame_ns) * f64::from(phase.repeats.max(1))
    });
    each.sum()
}

/// What must fit in any case: pinned chunks and the largest step.
pub(crate) fn least(problem: &Problem) -> u32 {
    let pinned = |chunk: &&Chunk| chunk.pinned;
    let frames: u32 = problem.chunks.iter().filter(pinned).map(|chunk| chunk.frames).sum();
    let step = |phase: &Phase, step: &Step| -> u32 {
        let touched = phase.touches(step).iter().map(|&chunk| &problem.chunks[chunk as usize]);
        touched.filter(|chunk| !chunk.pinned).map(|chunk| chunk.frames).sum()
    };
    let largest = problem
        .phases
        .iter()
        .flat_map(|phase| phase.steps.iter().map(move |one| step(phase, one)))
        .max();
    frames + largest.unwrap_or(0)
}

/// The parts of every chunk, and how many frames are shared.
#[derive(Clone)]
struct Layouts {
    parts: Vec<Vec<Part>>,
    /// Of [`Plan::runs`].
    runs: Vec<Vec<(u32, u32)>>,
    shared_frames: u32,
    /// By phase.
    rings: Vec<u32>,
    /// Time of a visit to each phase, by which layouts are compared.
    cost: f64,
}

fn lay_out(problem: &Problem, chunks: &[Chunk], effort: Effort) -> Option<Layouts> {
    let groups = phases::groups(problem);
    // What stays in any case is out of the game, and its frames are: pinned
    // chunks, what several groups touch, what no phase touches.
    let mut used = vec![false; chunks.len()];
    for &chunk in problem.phases.iter().flat_map(|phase| &phase.uses) {
        used[chunk as usize] = true;
    }
    let mut movable: Vec<bool> =
        chunks.iter().zip(&used).map(|(chunk, &used)| used && !chunk.pinned).collect();
    for chunk in phases::between(problem, &groups) {
        movable[chunk as usize] = false;
    }
    let frames_of = |wanted: bool| -> u32 {
        let which = chunks.iter().zip(&movable).filter(|(_, movable)| **movable == wanted);
        which.map(|(chunk, _)| chunk.frames).sum()
    };
    let machine = &Machine {
        frames: problem.machine.frames.checked_sub(frames_of(false))?,
        ..problem.machine
    };
    let total = u64::from(frames_of(true));
    if total <= u64::from(machine.frames) {
        let rings = vec![0; problem.phases.len()];
        return Some(Layouts {
            parts: vec![Vec::new(); chunks.len()],
            runs: Vec::new(),
            shared_frames: 0,
            rings,
            cost: 0.0,
        });
    }
    let shapes: Vec<Shape> =
        groups.iter().map(|group| Shape::new(chunks, &movable, &group.cycle(problem))).collect();
    // Dividing memory is a guess to be tried, unless that would take long.
    const MANY_CHUNKS: usize = 4000;
    let tries = match effort {
        Effort::Searched if groups.len() > 1 && chunks.len() <= MANY_CHUNKS => {
            phases::SATURATIONS.len()
        }
        _ => 1,
    };
    let knees = &phases::SATURATIONS[..tries];
    knees
        .iter()
        .filter_map(|&saturation| {
            let division = phases::divide(problem, machine, &groups, &shapes, saturation);
            let found = search_groups(problem, machine, &groups, &shapes, &division, effort)?;
            let mut layouts = join(machine, problem, &groups, &shapes, &found)?;
            layouts.cost += groups
                .iter()
                .zip(&found)
                .map(|(group, found)| found.period * f64::from(group.repeats(problem)))
                .sum::<f64>();
            Some(layouts)
        })
        .min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// Puts the groups' layouts side by side. Their cost so far: what is brought
/// in anew at each visit.
fn join(
    machine: &Machine,
    problem: &Problem,
    groups: &[Group],
    shapes: &[Shape],
    found: &[Found],
) -> Option<Layouts> {
    let frames = |of: &dyn Fn(usize) -> u32| -> Vec<u32> { (0..groups.len()).map(of).collect() };
    let rings = frames(&|group| found[group].layout.ring);
    let residents = frames(&|group| {
        let streamed: u32 = found[group].layout.parts.iter().map(|part| part.frames).sum();
        shapes[group].frames - streamed
    });
    let (shared_frames, private) = phases::fit(machine, &rings, &residents)?;

    let mut parts: Vec<Vec<Part>> = vec![Vec::new(); problem.chunks.len()];
    let mut kept = 0;
    for (group, shape) in shapes.iter().enumerate() {
        if groups[group].repeats(problem) > 1 {
            kept += residents[group] - private[group];
        }
        let layout = &found[group].layout;
        for (local, known) in shape.locals.iter().enumerate() {
            parts[known.chunk as usize] = layout.parts_of(local).to_vec();
        }
        keep(shape, residents[group] - private[group], layout.ring, shared_frames, &mut parts);
    }
    let mut ring_of = vec![0; problem.phases.len()];
    for (group, &ring) in groups.iter().zip(&rings) {
        group.phases.iter().for_each(|&phase| ring_of[phase] = ring);
    }
    let frame_ns = machine.frame_bytes as f64 * 1e9 / machine.link_bytes_per_s;
    let cost = f64::from(kept) * frame_ns;
    Some(Layouts { parts, runs: Vec::new(), shared_frames, rings: ring_of, cost })
}

/// Frames of a part that is brought in once per visit: large enough for the
/// full rate, small enough to let others through.
const KEPT_AT_ONCE: u32 = 16;

/// Puts `frames` resident frames of a group on shared frames from `at` on.
///
/// Those used last: other groups' phases displace them, and so there is most
/// time to bring them back in the first iteration.
fn keep(shape: &Shape, frames: u32, at: u32, shared_frames: u32, parts: &mut [Vec<Part>]) {
    let (mut left, mut at) = (frames, at);
    for local in shape.locals.iter().rev() {
        let parts = &mut parts[local.chunk as usize];
        let mut first: u32 = parts.iter().map(|part| part.frames).sum();
        while left > 0 && first < local.frames {
            let frames = KEPT_AT_ONCE.min(left).min(local.frames - first);
            parts.push(Part { first, frames, at, wrap: shared_frames });
            first += frames;
            at += frames;
            left -= frames;
        }
    }
}

fn search_groups(
    problem: &Problem,
    machine: &Machine,
    groups: &[Group],
    shapes: &[Shape],
    division: &Division,
    effort: Effort,
) -> Option<Vec<Found>> {
    let mut found: Vec<Option<Found>> = vec![None; groups.len()];
    let mut cheap_ring = 0;
    // Those that repeat first: the others stream through what these leave.
    for repeating in [true, false] {
        for (index, group) in groups.iter().enumerate() {
            let repeats = group.repeats(problem) > 1 || groups.len() == 1;
            if repeats != repeating {
                continue;
            }
            let mut room = Room {
                frames: division.private[index] + division.shared,
                fixed_residents: None,
                cheap_ring: 0,
                ring_frame_ns: 0.0,
                window: problem.window_frames,
            };
            if !repeats {
                // It runs once per visit: frames that it streams through, others
                // fill anew, which costs as much as they hold.
                room.frames = machine.frames;
                room.fixed_residents = Some(division.private[index]);
                room.cheap_ring = cheap_ring;
                room.ring_frame_ns = machine.frame_bytes as f64 * 1e9 / machine.link_bytes_per_s;
            }
            let search = |room| Search::new(&shapes[index], machine, room).run(effort);
            // A phase that is little more than its largest step streams through
            // nothing smaller than itself: it is brought in as a whole.
            let best = search(room)
                .or_else(|| search(Room { fixed_residents: None, ring_frame_ns: 0.0, ..room }))?;
            cheap_ring = cheap_ring.max(best.layout.ring);
            found[index] = Some(best);
        }
    }
    found.into_iter().collect()
}

/// Derives the copies of every phase from the layouts; `problem` is what is left
/// without the `host` frames. Error: a chunk that meets another in some phase.
fn finish(problem: &Problem, host: &[u32], layouts: Layouts) -> Result<Plan, u32> {
    let Layouts { parts, runs, shared_frames, rings, .. } = layouts;
    let shares: Vec<bool> = parts.iter().map(|parts| !parts.is_empty()).collect();
    let mut clock = Clock::default();
    let mut phases = Vec::with_capacity(problem.phases.len());
    for (phase, &ring_frames) in problem.phases.iter().zip(&rings) {
        let shape = Shape::new(&problem.chunks, &shares, phase);
        let mut layout =
            RingLayout { ring: ring_frames, slots: shared_frames, ..RingLayout::default() };
        for local in &shape.locals {
            layout.first_part.push(layout.parts.len() as u32);
            layout.parts.extend_from_slice(&parts[local.chunk as usize]);
        }
        layout.first_part.push(layout.parts.len() as u32);
        link(&shape, &runs, &mut layout);
        ring::order(&shape, &problem.machine, &mut layout)
            .map_err(|local| shape.locals[local as usize].chunk)?;
        let schedule = &layout.schedule;
        let times = clock.times(schedule, &problem.machine);
        phases.push(PhasePlan {
            copies: start::with_starts(&shape, &layout, &times, &problem.machine),
            ring_frames,
            period_ns: times.period as Nanos,
            stall_ns: (times.period as Nanos).saturating_sub(schedule.compute_ns),
            streamed_bytes: schedule.copies.iter().map(|copy| copy.bytes).sum(),
        });
    }
    let layouts = problem
        .chunks
        .iter()
        .zip(parts)
        .zip(host)
        .map(|((chunk, parts), &host_frames)| {
            let frames = chunk.frames + host_frames;
            Layout { id: chunk.id, frames, parts, host_frames }
        })
        .collect();
    Ok(Plan { layouts, shared_frames, runs, phases })
}

/// Tells `layout`, of the chunks of `shape`, which parts follow which in a run.
fn link(shape: &Shape, runs: &[Vec<(u32, u32)>], layout: &mut RingLayout) {
    if runs.is_empty() {
        return;
    }
    let chunks = shape.locals.iter().map(|local| local.chunk as usize).max().unwrap_or(0);
    let mut local_of = vec![u32::MAX; chunks + 1];
    for (local, known) in shape.locals.iter().enumerate() {
        local_of[known.chunk as usize] = local as u32;
    }
    layout.beside = vec![[ring::NOBODY; 2]; layout.parts.len()];
    // Not every phase touches all chunks: what it does not touch ends a run.
    let part_of = |&(chunk, part): &(u32, u32)| {
        let local = *local_of.get(chunk as usize)?;
        Some(layout.first_part.get(local as usize)? + part)
    };
    for pair in runs.iter().flat_map(|run| run.windows(2)) {
        if let (Some(one), Some(next)) = (part_of(&pair[0]), part_of(&pair[1])) {
            layout.beside[one as usize][1] = next;
            layout.beside[next as usize][0] = one;
        }
    }
}
