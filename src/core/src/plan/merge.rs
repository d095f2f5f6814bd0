//! Neighbours as one: small chunks that are used together and whose host
//! memory is in one piece are planned as if they were one chunk.
//!
//! Every copy has its price, whatever its size, so a thousand small chunks cost
//! much more than their bytes. A *unit* is several of them, side by side in a
//! slab and used in the same rhythm; everything after this (spread, ring, clock)
//! sees one chunk, touched by all the steps that touch its members. Then its
//! layout is cut into the members' parts again, and those that one copy can
//! bring become a *run* of the plan: side by side in the slab, and on
//! consecutive shared frames.
//!
//! A unit is in use from the first use of a member to the last, so its ring is
//! a little larger; whether that is worth it, the clock tells.

use super::{Chunk, Layouts, Nanos, Part, Phase, Problem};

/// What is planned instead of the problem, and what its chunks consist of.
pub(super) struct Units {
    pub problem: Problem,
    /// By chunk of `problem`: chunks of the original, in the order of their places.
    members: Vec<Vec<u32>>,
}

/// Not worth a search if fewer than one in so many chunks disappear.
const WORTH_ONE_IN: usize = 8;

/// Units of up to `limit` frames. `None`: next to nothing can be merged.
pub(super) fn merge(problem: &Problem, chunks: &[Chunk], limit: u32) -> Option<Units> {
    let candidates = chunks.iter().filter(|chunk| chunk.place.is_some()).count();
    if candidates * WORTH_ONE_IN < chunks.len() {
        return None;
    }
    let rhythms = Rhythms::new(problem, chunks);
    let mut order: Vec<u32> = (0..chunks.len() as u32).collect();
    let place = |chunk: u32| chunks[chunk as usize].place.map(|place| (place.slab, place.at));
    order.sort_by_key(|&chunk| (place(chunk), chunk));
    let movable = |chunk: u32| !chunks[chunk as usize].pinned && !rhythms.steps(chunk).is_empty();
    let mut members: Vec<Vec<u32>> = Vec::new();
    // Of the unit in the making: its frames, and each use from the first step to the last.
    let (mut frames, mut windows) = (0, Vec::new());
    for chunk in order {
        let known = &chunks[chunk as usize];
        let last = members.last().and_then(|unit| unit.last()).copied();
        let joined = last.and_then(|last| {
            let place = chunks[last as usize].place?;
            let beside = known.place?.follows(place, chunks[last as usize].frames);
            let may = beside && frames + known.frames <= limit && movable(last) && movable(chunk);
            may.then(|| rhythms.join(&windows, frames, chunk, known.frames))?
        });
        if let (Some(joined), Some(unit)) = (joined, members.last_mut()) {
            unit.push(chunk);
            frames += known.frames;
            windows = joined;
        } else {
            members.push(vec![chunk]);
            frames = known.frames;
            windows = rhythms.windows(chunk, frames);
        }
    }
    if (chunks.len() - members.len()) * WORTH_ONE_IN < chunks.len() || members.len() == chunks.len()
    {
        return None;
    }
    members.sort_by_key(|unit| unit.iter().copied().min());
    Some(Units { problem: united(problem, chunks, &members), members })
}

/// The problem with units for chunks.
fn united(problem: &Problem, chunks: &[Chunk], members: &[Vec<u32>]) -> Problem {
    let mut unit_of = vec![0; chunks.len()];
    for (unit, members) in members.iter().enumerate() {
        members.iter().for_each(|&chunk| unit_of[chunk as usize] = unit as u32);
    }
    let units = members.iter().map(|members| Chunk {
        frames: members.iter().map(|&chunk| chunks[chunk as usize].frames).sum(),
        ..chunks[members[0] as usize]
    });
    let phases = problem.phases.iter().map(|phase| {
        let Phase { repeats, visits, .. } = *phase;
        let mut merged = Phase { repeats, visits, ..Phase::default() };
        let mut touched: Vec<u32> = Vec::new();
        for step in &phase.steps {
            touched.clear();
            for &chunk in phase.touches(step) {
                let unit = unit_of[chunk as usize];
                if !touched.contains(&unit) {
                    touched.push(unit);
                }
            }
            merged.push_reading(step.ns, step.read_bytes, step.link_ns, &touched);
        }
        merged
    });
    Problem {
        chunks: units.collect(),
        phases: phases.collect(),
        machine: problem.machine,
        window_frames: problem.window_frames,
    }
}

impl Units {
    /// The layouts of the original's chunks that `layouts`, of the units', amount to.
    pub fn expand(&self, chunks: &[Chunk], layouts: Layouts) -> Layouts {
        let mut parts: Vec<Vec<Part>> = vec![Vec::new(); chunks.len()];
        let mut runs = Vec::new();
        for (members, whole) in self.members.iter().zip(layouts.parts) {
            if let [only] = members[..] {
                parts[only as usize] = whole;
                continue;
            }
            for part in &whole {
                // No copy goes over the end of the ring.
                let straight = part.frames.min(part.wrap - part.at);
                for (from, frames) in [(0, straight), (straight, part.frames - straight)] {
                    let (first, at) = (part.first + from, part.slot(from));
                    let piece = Part { first, frames, at, wrap: part.wrap };
                    let run = cut(chunks, members, &piece, &mut parts);
                    if run.len() > 1 {
                        runs.push(run);
                    }
                }
            }
        }
        Layouts { parts, runs, ..layouts }
    }
}

/// Gives each member what it has of the unit's `piece`. Answers who got
/// something, as (chunk, part).
fn cut(
    chunks: &[Chunk],
    members: &[u32],
    piece: &Part,
    parts: &mut [Vec<Part>],
) -> Vec<(u32, u32)> {
    let mut begin = 0;
    let mut run = Vec::new();
    for &chunk in members {
        let end = begin + chunks[chunk as usize].frames;
        let from = piece.first.max(begin);
        let until = (piece.first + piece.frames).min(end);
        if from < until {
            let parts = &mut parts[chunk as usize];
            run.push((chunk, parts.len() as u32));
            let at = piece.at + from - piece.first;
            parts.push(Part { first: from - begin, frames: until - from, at, wrap: piece.wrap });
        }
        begin = end;
    }
    run
}

/// When each chunk is used, over all phases.
struct Rhythms {
    /// Steps of chunk `c`, counted through all phases, rising:
    /// `steps[first[c]..first[c + 1]]`.
    steps: Vec<u32>,
    first: Vec<u32>,
    /// Compute time before each step, and all.
    clock: Vec<Nanos>,
    /// By phase: its first step, and the time that a frame of it has for
    /// itself, if all have the same.
    phases: Vec<(u32, f64)>,
}

impl Rhythms {
    fn new(problem: &Problem, chunks: &[Chunk]) -> Self {
        let mut counts = vec![0; chunks.len() + 1];
        for &chunk in problem.phases.iter().flat_map(|phase| &phase.uses) {
            counts[chunk as usize + 1] += 1;
        }
        let first: Vec<u32> = counts
            .iter()
            .scan(0, |sum, &count: &u32| {
                *sum += count;
                Some(*sum)
            })
            .collect();
        let mut next = first.clone();
        let mut steps = vec![0; first[chunks.len()] as usize];
        let (mut clock, mut phases) = (vec![0], Vec::new());
        for phase in &problem.phases {
            let begins = clock.len() as u32 - 1;
            let mut now = clock[begins as usize];
            let (start, mut frames) = (now, 0.0);
            for step in &phase.steps {
                for &chunk in phase.touches(step) {
                    let at = &mut next[chunk as usize];
                    steps[*at as usize] = clock.len() as u32 - 1;
                    // Of those used several times, a share each time.
                    let uses = first[chunk as usize + 1] - first[chunk as usize];
                    frames += f64::from(chunks[chunk as usize].frames) / f64::from(uses);
                    *at += 1;
                }
                now += step.ns;
                clock.push(now);
            }
            phases.push((begins, (now - start) as f64 / frames.max(1.0)));
        }
        Self { steps, first, clock, phases }
    }

    fn steps(&self, chunk: u32) -> &[u32] {
        let [from, to] = [self.first[chunk as usize], self.first[chunk as usize + 1]];
        &self.steps[from as usize..to as usize]
    }

    /// A unit's use may take so many times its share of the phase.
    const LONGEST: f64 = 4.0;

    /// Whether `frames` may be in use from step `from` to step `to`, as one use.
    fn one_use(&self, from: u32, to: u32, frames: u32) -> bool {
        let phase = |step: u32| self.phases.partition_point(|&(begins, _)| begins <= step) - 1;
        let ns = (self.clock[to as usize + 1] - self.clock[from as usize]) as f64;
        let share = self.phases[phase(from)].1 * f64::from(frames);
        phase(from) == phase(to) && ns <= share * Self::LONGEST
    }

    /// The uses of `chunk`, of `frames` frames, each from its first step to its
    /// last: steps close together (the tensors of one chunk, one by one) are one.
    fn windows(&self, chunk: u32, frames: u32) -> Vec<(u32, u32)> {
        let mut windows: Vec<(u32, u32)> = Vec::new();
        for &step in self.steps(chunk) {
            match windows.last_mut() {
                Some(window) if self.one_use(window.0, step, frames) => window.1 = step,
                _ => windows.push((step, step)),
            }
        }
        windows
    }

    /// The `windows` of a unit of `frames` frames, with `chunk` of `more` in it.
    /// `None`: they are not used together.
    fn join(
        &self,
        windows: &[(u32, u32)],
        frames: u32,
        chunk: u32,
        more: u32,
    ) -> Option<Vec<(u32, u32)>> {
        let own = self.windows(chunk, more);
        if own.len() != windows.len() {
            return None;
        }
        let widened: Vec<(u32, u32)> =
            windows.iter().zip(&own).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1))).collect();
        let apart = widened.windows(2).all(|pair| pair[0].1 < pair[1].0);
        let short = widened.iter().all(|&(from, to)| self.one_use(from, to, frames + more));
        (apart && short).then_some(widened)
    }
}
