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
    /// Whether its phases take turns: each comes again and again, for a few
    /// iterations, as where a cache lets some steps skip blocks.
    fn takes_turns(&self, problem: &Problem) -> bool {
        /// Iterations of a turn, at the most.
        const TURN: u32 = 4;
        self.phases.len() > 1
            && self.phases.iter().all(|&phase| {
                let Phase { repeats, visits, .. } = problem.phases[phase];
                repeats <= TURN && visits > 1
            })
    }

    /// The group's chunks in one cycle: that of its first phase, and after it
    /// the steps of the others that touch what is not in it. Phases that take
    /// turns are one cycle, all of them: what each of them uses is used most.
    pub fn cycle(&self, problem: &Problem) -> Phase {
        let turns = self.takes_turns(problem);
        let mut cycle = problem.phases[self.phases[0]].clone();
        let mut known = vec![false; problem.chunks.len()];
        for &chunk in &cycle.uses {
            known[chunk as usize] = true;
        }
        for &other in &self.phases[1..] {
            let other = &problem.phases[other];
            for step in &other.steps {
                let touched = other.touches(step);
                if turns || touched.iter().any(|&chunk| !known[chunk as usize]) {
                    cycle.push_reading(step.ns, step.read_bytes, step.link_ns, touched);
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

/// Phases are of one group if more than this of the smaller one's memory is
/// the other's as well. Less is accident: an allocator that put the last
/// tensors of one model and the first of another into the same allocation.
const COMMON_PERCENT: u64 = 50;
/// What groups have in common all the same stays for good, if it is at most
/// this of all memory. Otherwise they are one group.
const BETWEEN_PERCENT: u64 = 10;

/// What `phase` touches, sorted.
fn distinct(phase: &Phase) -> Vec<u32> {
    let mut chunks = phase.uses.clone();
    chunks.sort_unstable();
    chunks.dedup();
    chunks
}

fn intersection(a: &[u32], b: &[u32]) -> Vec<u32> {
    a.iter().copied().filter(|chunk| b.binary_search(chunk).is_ok()).collect()
}

/// Chunks that more than one group touches: they stay, for no one layout is
/// theirs.
pub(super) fn between(problem: &Problem, groups: &[Group]) -> Vec<u32> {
    let mut owner = vec![usize::MAX; problem.chunks.len()];
    let mut shared = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        for &phase in &group.phases {
            for chunk in distinct(&problem.phases[phase]) {
                let owner = &mut owner[chunk as usize];
                if *owner != usize::MAX && *owner != index {
                    shared.push(chunk);
                }
                *owner = index;
            }
        }
    }
    shared
}

/// Groups of phases, in the order of their first phase.
pub(super) fn groups(problem: &Problem) -> Vec<Group> {
    let groups = groups_by(problem, COMMON_PERCENT);
    let between = between(problem, &groups).into_iter();
    let frames: u64 = between.map(|chunk| u64::from(problem.chunks[chunk as usize].frames)).sum();
    if frames * 100 > u64::from(problem.machine.frames) * BETWEEN_PERCENT {
        return groups_by(problem, 0);
    }
    groups
}

fn groups_by(problem: &Problem, common_percent: u64) -> Vec<Group> {
    let mut group_of: Vec<usize> = (0..problem.phases.len()).collect();
    fn root(group_of: &[usize], mut phase: usize) -> usize {
        while group_of[phase] != phase {
            phase = group_of[phase];
        }
        phase
    }
    let sets: Vec<Vec<u32>> = problem.phases.iter().map(distinct).collect();
    let frames = |set: &[u32]| -> u64 {
        set.iter().map(|&chunk| u64::from(problem.chunks[chunk as usize].frames)).sum()
    };
    for later in 1..sets.len() {
        for earlier in 0..later {
            let common = intersection(&sets[earlier], &sets[later]);
            let smaller = frames(&sets[earlier]).min(frames(&sets[later]));
            if frames(&common) * 100 > smaller * common_percent {
                let (a, b) = (root(&group_of, earlier), root(&group_of, later));
                group_of[a.max(b)] = a.min(b);
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

/// How much of its compute time a phase's streaming may take before more memory
/// is worth having, by the fluid: copies are not as even as it has them.
/// Which is best is tried.
pub(super) const SATURATIONS: [f64; 5] = [0.96, 0.85, 0.7, 0.5, 0.35];

/// Divides `machine`'s frames among `groups`, whose shapes are `shapes`.
pub(super) fn divide(
    problem: &Problem,
    machine: &Machine,
    groups: &[Group],
    shapes: &[Shape],
    saturation: f64,
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
    let streams =
        |group: &Fluid, resident: u32| f64::from(group.frames.saturating_sub(resident)) * frame_ns;
    let cost = |group: &Fluid, private: u32, kept: u32| {
        let first = streams(group, private).max(group.compute_ns * saturation);
        let others = streams(group, private + kept).max(group.compute_ns * saturation);
        first + (group.repeats - 1.0) * others
    };
    // What the fluid does not know: everybody streams through something.
    let largest = shapes.iter().map(Shape::largest_step).max().unwrap_or(0);
    let ring = (largest * 2).min(machine.frames / 3);
    let mut best: Option<(f64, Division)> = None;
    const OVERLAYS: u32 = 24;
    const GRAINS: u32 = 256;
    for share in 0..=OVERLAYS {
        let free = machine.frames - ring;
        let overlay = (u64::from(free) * u64::from(share) / u64::from(OVERLAYS)) as u32;
        let mut private = vec![0; fluid.len()];
        let mut left = free - overlay;
        let grain = (left / GRAINS).max(1);
        while left > 0 {
            let step = grain.min(left);
            let gain = |index: usize| {
                let group = &fluid[index];
                let more = (private[index] + step).min(group.frames);
                let saved = cost(group, private[index], overlay) - cost(group, more, overlay);
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
            best = Some((total, Division { private, shared: overlay + ring + left }));
        }
    }
    best.expect("at least one division was tried").1
}

/// The smallest shared region with which every group's residents find a place:
/// `residents[g] - private[g] <= region - rings[g]`, `sum of private <= frames - region`.
/// Answers it and the private frames of each.
pub(super) fn fit(machine: &Machine, rings: &[u32], residents: &[u32]) -> Option<(u32, Vec<u32>)> {
    let largest = rings.iter().copied().max().unwrap_or(0);
    let private = |region: u32| -> Vec<u32> {
        rings
            .iter()
            .zip(residents)
            .map(|(&ring, &residents)| residents.saturating_sub(region - ring))
            .collect()
    };
    let fits = |region: u32| {
        private(region).iter().map(|&frames| u64::from(frames)).sum::<u64>()
            <= u64::from(machine.frames - region)
    };
    let (mut low, mut high) = (largest, machine.frames);
    if largest > high || !fits(high) {
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
