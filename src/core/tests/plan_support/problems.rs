//! Random problems, of every awkward kind.

use super::Random;
use autooffload_core::plan::{Chunk, Machine, Phase, Place, Problem, SLAB_FRAMES};

/// What must fit whatever the plan: pinned chunks and the largest step.
pub fn least_frames(problem: &Problem) -> u32 {
    let frames = |chunk: u32| problem.chunks[chunk as usize].frames;
    let pinned: u32 = problem.chunks.iter().filter(|c| c.pinned).map(|c| c.frames).sum();
    let step = |phase: &Phase, at: usize| -> u32 {
        let touched = phase.touches(&phase.steps[at]).iter();
        touched.filter(|&&c| !problem.chunks[c as usize].pinned).map(|&c| frames(c)).sum()
    };
    let largest = problem
        .phases
        .iter()
        .flat_map(|phase| (0..phase.steps.len()).map(move |at| step(phase, at)))
        .max();
    pinned + largest.unwrap_or(0)
}

/// What any plan needs: places are fixed, so chunks of which any two are
/// needed together want places apart, though no step needs them all. Beside the
/// pinned ones.
pub fn least_planned_frames(problem: &Problem) -> u32 {
    let count = problem.chunks.len();
    let mut meets = vec![vec![false; count]; count];
    for phase in &problem.phases {
        for step in &phase.steps {
            let touched = phase.touches(step);
            for &a in touched {
                touched.iter().for_each(|&b| meets[a as usize][b as usize] = true);
            }
        }
    }
    fn heaviest(problem: &Problem, meets: &[Vec<bool>], candidates: &[usize]) -> u32 {
        let with = |(index, &chunk): (usize, &usize)| {
            let rest = &candidates[index + 1..];
            let rest: Vec<usize> = rest.iter().copied().filter(|&b| meets[chunk][b]).collect();
            problem.chunks[chunk].frames + heaviest(problem, meets, &rest)
        };
        candidates.iter().enumerate().map(with).max().unwrap_or(0)
    }
    let free: Vec<usize> = (0..count).filter(|&chunk| !problem.chunks[chunk].pinned).collect();
    let pinned = problem.chunks.iter().filter(|chunk| chunk.pinned);
    pinned.map(|chunk| chunk.frames).sum::<u32>() + heaviest(problem, &meets, &free)
}

pub fn total_frames(problem: &Problem) -> u32 {
    problem.chunks.iter().map(|chunk| chunk.frames).sum()
}

/// Shared chunks, chunks used several times, used by most steps, huge or
/// pinned ones, steps that need several or none, phases, windows, budgets from
/// the least to more than all.
pub fn random_problem(random: &mut Random) -> Problem {
    let count = random.within(2, 60) as u32;
    let largest = [3, 12, 40][random.within(0, 2) as usize];
    let mut chunks: Vec<Chunk> = (0..count)
        .map(|index| Chunk {
            id: 3 * index + random.within(0, 2) as u32,
            frames: random.within(1, largest) as u32,
            pinned: random.one_in(20),
            place: None,
        })
        .collect();
    if random.one_in(4) {
        let huge = random.within(0, u64::from(count) - 1) as usize;
        chunks[huge].frames *= 8;
    }
    let total: u32 = chunks.iter().map(|chunk| chunk.frames).sum();

    let mut machine = Machine {
        frame_bytes: 2 << 20,
        link_bytes_per_s: [12e9, 26e9, 55e9][random.within(0, 2) as usize],
        copy_ns: [0, 8_000, 30_000][random.within(0, 2) as usize],
        release_ns: [0, 20_000][random.within(0, 1) as usize],
        release_bytes_per_s: [f64::INFINITY, 1e12][random.within(0, 1) as usize],
        ..Machine::default()
    };
    // Compute from a twentieth of what copying all takes to four times that.
    let all_ns = f64::from(total) * machine.frame_bytes as f64 * 1e9 / machine.link_bytes_per_s;
    let each_ns = all_ns * random.within(1, 80) as f64 / 20.0 / f64::from(count);

    let mut phases = Vec::new();
    let wanted = if random.one_in(3) { random.within(2, 3) } else { 1 };
    for _ in 0..wanted {
        let (repeats, visits) = (random.within(1, 40) as u32, random.within(1, 3) as u32);
        let mut phase = Phase { repeats, visits, ..Phase::default() };
        // A stretch of the chunks; the phases' may overlap or not.
        let (from, to) = if wanted == 1 {
            (0, count)
        } else {
            let from = random.within(0, u64::from(count) - 1) as u32;
            (from, random.within(u64::from(from) + 1, count.into()) as u32)
        };
        let constant =
            random.one_in(6).then(|| random.within(from.into(), u64::from(to) - 1) as u32);
        for chunk in from..to {
            let ns = (each_ns * random.within(1, 40) as f64 / 20.0) as u64;
            let mut needs = vec![chunk];
            if random.one_in(5) {
                needs.push(random.within(from.into(), u64::from(to) - 1) as u32);
            }
            needs.extend(constant.filter(|_| !random.one_in(4)));
            needs.sort_unstable();
            needs.dedup();
            phase.push(ns, &needs);
            if random.one_in(6) {
                phase.push(ns * random.within(0, 10), &[]);
            }
            if random.one_in(8) {
                phase.push(ns, &[random.within(from.into(), u64::from(chunk)) as u32]);
            }
        }
        phases.push(phase);
    }
    let (chunks, phases) = without_unused(chunks, phases);
    let total: u32 = chunks.iter().map(|chunk| chunk.frames).sum();
    let window_frames = random.one_in(5).then(|| random.within(1, total.into()) as u32);
    machine.frames = total;
    let mut problem = Problem { chunks, phases, machine, window_frames };
    let least = least_frames(&problem);
    problem.machine.frames = random.within(least.into(), u64::from(total.max(least)) + 4) as u32;
    if random.one_in(4) {
        problem.machine.frames = least + random.within(0, 4) as u32;
    }
    problem
}

/// Gives the small chunks of `problem` places side by side, in their order; here
/// and there one of another program's lies between two.
pub fn in_slabs(problem: &mut Problem, random: &mut Random) {
    let (mut slab, mut at) = (0, 0);
    for chunk in problem.chunks.iter_mut().filter(|chunk| chunk.frames <= 8) {
        at += u32::from(random.one_in(12));
        if at + chunk.frames > SLAB_FRAMES {
            (slab, at) = (slab + 1, 0);
        }
        chunk.place = Some(Place { slab, at });
        at += chunk.frames;
    }
}

/// A problem names the chunks of its phases, and no others.
fn without_unused(chunks: Vec<Chunk>, mut phases: Vec<Phase>) -> (Vec<Chunk>, Vec<Phase>) {
    let used = |index: u32| phases.iter().any(|phase| phase.uses.contains(&index));
    let kept: Vec<u32> = (0..chunks.len() as u32).filter(|&index| used(index)).collect();
    for chunk in phases.iter_mut().flat_map(|phase| &mut phase.uses) {
        *chunk = kept.binary_search(chunk).expect("it is used") as u32;
    }
    (kept.iter().map(|&index| chunks[index as usize]).collect(), phases)
}
