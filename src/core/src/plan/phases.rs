//! Memory for several phases: who keeps what while the others run.
//!
//! Phases over the same chunks are one *group*: a chunk has one layout, made
//! for the phase of the group that runs most. Between groups memory is shared
//! in two ways:
//!
//! - *private* frames stay a group's while others run: they save their copies
//!   in every iteration of every visit;
//! - *kept* frames are shared with other groups and filled anew at each visit:
//!   they save copies in every iteration of a visit but the first.
//!
//! So a phase that runs once per visit (a text encoder) gains nothing from
//! kept frames and streams through whatever ring there is, and two experts
//! that take turns of twenty steps each keep all they can, each in its turn.
//!
//! How many private frames each gets is decided on a fluid model: an iteration
//! takes `max(compute, streamed bytes / link)`. Its cost is convex in the
//! frames, so handing out a little at a time to whoever gains most is exact.

use super::shape::Shape;
use super::{Machine, Phase, Problem};

/// Phases that share chunks.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Indices of the phases; the first is the one the layout is made for.
    pub phases: Vec<usize>,
}

impl Group {
    /// The group's chunks in one cycle: that of its first phase, and after it
    /// the steps of the others that touch what is not in it.
    pub fn cycle(&self, problem: &Problem) -> Phase {
        let mut cycle = problem.phases[self.phases[0]].clone();
        let mut known = vec![false; problem.chunks.len()];
        for &chunk in &cycle.uses {
            known[chunk as usize] = true;
        }
        for &other in &self.phases[1..] {
            let other = &problem.phases[other];
            for step in &other.steps {
                let touched = other.touches(step);
                if touched.iter().any(|&chunk| !known[chunk as usize]) {
                    cycle.push(step.ns, touched);
                    touched.iter().for_each(|&chunk| known[chunk as usize] = true);
                }
            }
        }
        cycle
    }

    /// Iterations per visit, of the phase that the layout is made for.
    pub fn repeats(&self, problem: &Problem) -> u32 {
        problem.phases[self.phases[0]].repeats.max(1)
    }
}

/// Groups of phases, in the order of their first phase.
pub(super) fn groups(problem: &Problem) -> Vec<Group> {
    let mut group_of: Vec<usize> = (0..problem.phases.len()).collect();
    fn root(group_of: &[usize], mut phase: usize) -> usize {
        while group_of[phase] != phase {
            phase = group_of[phase];
        }
        phase
    }
    let mut first_user: Vec<Option<usize>> = vec![None; problem.chunks.len()];
    for (index, phase) in problem.phases.iter().enumerate() {
        for &chunk in &phase.uses {
            match first_user[chunk as usize] {
                None => first_user[chunk as usize] = Some(index),
                Some(other) => {
                    let (a, b) = (root(&group_of, other), root(&group_of, index));
                    group_of[a.max(b)] = a.min(b);
                }
            }
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut index_of = vec![usize::MAX; problem.phases.len()];
    for phase in 0..problem.phases.len() {
        let root = root(&group_of, phase);
        if index_of[root] == usize::MAX {
            index_of[root] = groups.len();
            groups.push(Group { phases: Vec::new() });
        }
        groups[index_of[root]].phases.push(phase);
    }
    let weight = |phase: usize| {
        let phase = &problem.phases[phase];
        // What its bytes and its compute ask for, whichever is more visible:
        // the number of launches' worth of either per visit.
        u64::from(phase.repeats.max(1)) * phase.uses.len() as u64
    };
    for group in &mut groups {
        group.phases.sort_by_key(|&phase| (std::cmp::Reverse(weight(phase)), phase));
    }
    groups
}

/// What the fluid model needs of a group.
#[derive(Clone, Copy, Debug)]
struct Fluid {
    frames: u32,
    compute_ns: f64,
    repeats: f64,
}

/// Private frames of each group, and frames to be shared by all.
#[derive(Clone, Debug)]
pub(super) struct Division {
    pub private: Vec<u32>,
    pub shared: u32,
}

/// Streaming is planned to stay a little below compute: copies are not as even
/// as the fluid model has them.
const KNEE: f64 = 0.96;

/// Divides `machine`'s frames among `groups`, whose shapes are `shapes`.
pub(super) fn divide(
    problem: &Problem,
    machine: &Machine,
    groups: &[Group],
    shapes: &[Shape],
) -> Division {
    let fluid: Vec<Fluid> = groups
        .iter()
        .zip(shapes)
        .map(|(group, shape)| Fluid {
            frames: shape.frames,
            compute_ns: shape.compute_ns() as f64,
            repeats: f64::from(group.repeats(problem)),
        })
        .collect();
    if fluid.len() == 1 {
        return Division { private: vec![0], shared: machine.frames };
    }
    let frame_ns = machine.frame_bytes as f64 * 1e9 / machine.link_bytes_per_s;
    let streams = |group: &Fluid, resident: u32| {
        f64::from(group.frames.saturating_sub(resident)) * frame_ns
    };
    let cost = |group: &Fluid, private: u32, kept: u32| {
        let first = streams(group, private).max(group.compute_ns * KNEE);
        let others = streams(group, private + kept).max(group.compute_ns * KNEE);
        first + (group.repeats - 1.0) * others
    };
    let mut best: Option<(f64, Division)> = None;
    const OVERLAYS: u32 = 24;
    const GRAINS: u32 = 256;
    for share in 0..=OVERLAYS {
        let overlay = (u64::from(machine.frames) * u64::from(share) / u64::from(OVERLAYS)) as u32;
        let mut private = vec![0; fluid.len()];
        let mut left = machine.frames - overlay;
        let grain = (left / GRAINS).max(1);
        while left > 0 {
            let step = grain.min(left);
            let gain = |index: usize| {
                let group = &fluid[index];
                let more = (private[index] + step).min(group.frames);
                let saved =
                    cost(group, private[index], overlay) - cost(group, more, overlay);
                saved / f64::from(step)
            };
            let Some(index) = (0..fluid.len())
                .filter(|&index| private[index] < fluid[index].frames)
                .max_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(b.cmp(&a)))
            else {
                break;
            };
            if gain(index) <= 0.0 {
                break;
            }
            private[index] = (private[index] + step).min(fluid[index].frames);
            left -= step;
        }
        let total: f64 = fluid.iter().zip(&private).map(|(g, &p)| cost(g, p, overlay)).sum();
        // What nobody gains from widens what is shared.
        if best.as_ref().is_none_or(|(known, _)| total < known * (1.0 - 1e-9)) {
            best = Some((total, Division { private, shared: overlay + left }));
        }
    }
    best.expect("at least one division was tried").1
}

/// The smallest shared region with which every group's residents find a place:
/// `residents[g] - private[g] <= region - rings[g]`, `sum of private <= frames - region`.
/// Answers it and the private frames of each; `pinned[g]` of them at the least.
pub(super) fn fit(
    machine: &Machine,
    rings: &[u32],
    residents: &[u32],
    pinned: &[u32],
) -> Option<(u32, Vec<u32>)> {
    let largest = rings.iter().copied().max().unwrap_or(0);
    let private = |region: u32| -> Vec<u32> {
        rings
            .iter()
            .zip(residents)
            .zip(pinned)
            .map(|((&ring, &residents), &pinned)| {
                residents.saturating_sub(region - ring).max(pinned)
            })
            .collect()
    };
    let fits = |region: u32| {
        private(region).iter().map(|&frames| u64::from(frames)).sum::<u64>()
            <= u64::from(machine.frames - region)
    };
    let most = machine.frames.checked_sub(pinned.iter().sum())?;
    let (mut low, mut high) = (largest, most);
    if largest > most || !fits(most) {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let mut private = private(low);
    // What is left makes residents private that would be kept: first come.
    let mut left = machine.frames - low - private.iter().sum::<u32>();
    for (frames, &residents) in private.iter_mut().zip(residents) {
        let more = residents.saturating_sub(*frames).min(left);
        *frames += more;
        left -= more;
    }
    Some((low, private))
}
