//! Keeping the plan in force where a new one would gain next to nothing: to
//! change places costs copies, and just then the program waits for others.
//!
//! Phases that the plan in force does not know stream what is theirs through
//! the frames that it shares already, and nothing else moves.

use super::search::{Room, Search};
use super::shape::Shape;
use super::{Effort, Layouts, Machine, Part, Phase, PhasePlan, Plan, Problem};
use super::{KEPT_AT_ONCE, cost, finish, in_place};

/// The previous plan's layouts for `problem`, if they still fit and `fresh`,
/// which takes `fresh_cost`, would gain too little for what the change costs.
pub(super) fn keep(
    problem: &Problem,
    previous: &Plan,
    effort: Effort,
    fresh_cost: f64,
    fresh: &Plan,
) -> Option<Plan> {
    // Below what measuring twice would differ by; and what moving whole chunks
    // between host and device has to be worth.
    const WORTH_IT: f64 = 0.005;
    const WORTH_MOVING: f64 = 0.02;
    let before = Before::new(problem, previous)?;
    let host: Vec<u32> = before
        .index_of
        .iter()
        .map(|index| index.map_or(0, |index| previous.layouts[index].host_frames))
        .collect();
    if problem.machine.zero_copy_bytes_per_s.is_none() && host.iter().any(|&frames| frames > 0) {
        return None;
    }
    let reduced = in_place::reduced(problem, &host);
    let kept = finish(&reduced, &host, before.layouts(&reduced, effort)?).ok()?;
    if kept.check_runs(problem).is_err() {
        return None;
    }
    let moved = fresh.layouts.iter().zip(&host).any(|(layout, &host)| layout.host_frames != host);
    let worth = if moved { WORTH_MOVING } else { WORTH_IT };
    (cost(&reduced, &kept) <= fresh_cost * (1.0 + worth)).then_some(kept)
}

/// A plan, and which of a problem's chunks it knows.
struct Before<'a> {
    plan: &'a Plan,
    /// Of each chunk of the problem, its layout's index.
    index_of: Vec<Option<usize>>,
    /// Of each layout, its chunk.
    chunk_of: Vec<u32>,
    /// Frames that nobody has.
    unused: u32,
}

impl<'a> Before<'a> {
    /// `None`: it no longer fits, or something it planned for is gone.
    fn new(problem: &Problem, plan: &'a Plan) -> Option<Self> {
        let mut known: Vec<usize> = (0..plan.layouts.len()).collect();
        known.sort_by_key(|&index| plan.layouts[index].id);
        let mut index_of = Vec::with_capacity(problem.chunks.len());
        let mut chunk_of = vec![u32::MAX; plan.layouts.len()];
        let mut own = 0;
        for (index, chunk) in problem.chunks.iter().enumerate() {
            let found = known.binary_search_by_key(&chunk.id, |&index| plan.layouts[index].id);
            let found = found.ok().map(|at| known[at]);
            if let Some(at) = found {
                let layout = &plan.layouts[at];
                let stays = layout.parts.is_empty() && layout.host_frames == 0;
                if layout.frames != chunk.frames || (chunk.pinned && !stays) {
                    return None;
                }
                chunk_of[at] = index as u32;
                own += layout.own_frames();
            } else if chunk.pinned {
                own += chunk.frames;
            }
            index_of.push(found);
        }
        let unused = problem.machine.frames.checked_sub(own + plan.shared_frames)?;
        let gone = chunk_of.contains(&u32::MAX);
        (!gone).then_some(Self { plan, index_of, chunk_of, unused })
    }

    /// The plan's own, and places among its shared frames for chunks that it
    /// does not know.
    fn layouts(&self, problem: &Problem, effort: Effort) -> Option<Layouts> {
        let member = |&(layout, part): &(u32, u32)| (self.chunk_of[layout as usize], part);
        let runs = self.plan.runs.iter().map(|run| run.iter().map(member).collect()).collect();
        let parts = |&index: &Option<usize>| -> Vec<Part> {
            index.map_or(Vec::new(), |index| self.plan.layouts[index].parts.clone())
        };
        let layouts = Layouts {
            parts: self.index_of.iter().map(parts).collect(),
            runs,
            shared_frames: self.plan.shared_frames,
            rings: problem.phases.iter().map(|phase| self.ring_of(phase)).collect(),
            cost: 0.0,
        };
        let mut new: Vec<bool> = self
            .index_of
            .iter()
            .zip(&problem.chunks)
            .map(|(index, chunk)| index.is_none() && !chunk.pinned)
            .collect();
        let new_phases: Vec<(usize, Shape)> = problem
            .phases
            .iter()
            .enumerate()
            .filter_map(|(index, phase)| {
                let any = phase.uses.iter().any(|&chunk| new[chunk as usize]);
                let shape = any.then(|| Shape::new(&problem.chunks, &new, phase));
                phase.uses.iter().for_each(|&chunk| new[chunk as usize] = false);
                Some((index, shape?))
            })
            .collect();
        let largest = new_phases.iter().map(|(_, shape)| shape.largest_step()).max().unwrap_or(0);
        // As few as will do, of largest steps, in quarters.
        const WIDTHS: [u32; 4] = [0, 5, 6, 8];
        WIDTHS.into_iter().find_map(|quarters| {
            let mut layouts = layouts.clone();
            self.widen(problem, largest * quarters / 4, &mut layouts)?;
            for (index, shape) in &new_phases {
                let ring = self.stream(shape, problem, effort, &mut layouts)?;
                layouts.rings[*index] = layouts.rings[*index].max(ring);
            }
            Some(layouts)
        })
    }

    /// Shares at least `frames`: beside what is shared already, what nobody has,
    /// and such as were some chunks' own, which from now on are kept only until
    /// others' phases come. `None`: there are not so many.
    fn widen(&self, problem: &Problem, frames: u32, layouts: &mut Layouts) -> Option<()> {
        let wrap = layouts.shared_frames.max(frames);
        let mut at = (layouts.shared_frames + self.unused).min(wrap);
        layouts.shared_frames = wrap;
        // What is used last in the largest phase: there is most time to bring it back.
        let known = |phase: &&Phase| {
            phase.uses.iter().all(|&chunk| self.index_of[chunk as usize].is_some())
        };
        let largest = problem.phases.iter().filter(known).max_by_key(|phase| phase.uses.len());
        for &chunk in largest.iter().flat_map(|phase| phase.uses.iter().rev()) {
            let known = &problem.chunks[chunk as usize];
            let parts = &mut layouts.parts[chunk as usize];
            let mut first = parts.last().map_or(0, |part| part.first + part.frames);
            while at < wrap && first < known.frames && !known.pinned {
                let frames = KEPT_AT_ONCE.min(wrap - at).min(known.frames - first);
                parts.push(Part { first, frames, at, wrap });
                (first, at) = (first + frames, at + frames);
            }
        }
        (at == wrap).then_some(())
    }

    /// The ring of the phase that brought in most of what `phase` uses.
    fn ring_of(&self, phase: &Phase) -> u32 {
        let mut used = vec![false; self.plan.layouts.len()];
        let known = phase.uses.iter().filter_map(|&chunk| self.index_of[chunk as usize]);
        known.for_each(|index| used[index] = true);
        let brought = |phase: &&PhasePlan| -> usize {
            phase.copies.iter().filter(|copy| used[copy.chunk as usize]).count()
        };
        let most = self.plan.phases.iter().filter(|phase| brought(phase) > 0).max_by_key(brought);
        most.map_or(0, |phase| phase.ring_frames)
    }

    /// Lets all chunks of `shape` stream. Answers the ring.
    fn stream(
        &self,
        shape: &Shape,
        problem: &Problem,
        effort: Effort,
        layouts: &mut Layouts,
    ) -> Option<u32> {
        let machine = Machine { frames: layouts.shared_frames, ..problem.machine };
        let widest = self.plan.phases.iter().map(|phase| phase.ring_frames).max().unwrap_or(0);
        let room = Room {
            frames: machine.frames,
            fixed_residents: Some(0),
            // What else is shared, others keep from visit to visit.
            cheap_ring: widest,
            ring_frame_ns: machine.frame_bytes as f64 * 1e9 / machine.link_bytes_per_s,
            window: problem.window_frames,
        };
        let found = Search::new(shape, &machine, room).run(effort)?;
        for (local, known) in shape.locals.iter().enumerate() {
            layouts.parts[known.chunk as usize] = found.layout.parts_of(local).to_vec();
        }
        Some(found.layout.ring)
    }
}
