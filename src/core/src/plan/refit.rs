//! Betters what `first_fit` found: one after the other, each chunk goes where it
//! costs least.
//!
//! Every frame of the memory is a place, and chunks that are never needed together
//! take turns in it. One that is alone there stays. What a place costs is the time
//! to bring in what an iteration brings into it, and that which nothing hides
//! once more: where its last content is used until shortly before.
//!
//! Not here: which chunks may not meet (`first_fit`), and what the whole takes
//! (`timeline`).

use std::cmp::Reverse;

use super::{Chunk, Nanos, Part, Problem};

/// Uses looked at in all: some tens of milliseconds.
const WORK: usize = 4_000_000;
/// Rounds over all chunks.
const ROUNDS: usize = 12;

/// A use: phase, step, chunk.
type Use = (u32, u32, u32);

/// The frames of the memory, and who takes turns in them.
pub(super) struct Places<'a> {
    problem: &'a Problem,
    /// By phase: compute time before each step, and of all.
    clocks: Vec<Vec<Nanos>>,
    /// By chunk.
    uses: Vec<Vec<Use>>,
    taken: Vec<Taken>,
    frame_ns: Nanos,
}

/// A frame: who takes turns there, and what that costs.
#[derive(Clone, Default)]
struct Taken {
    chunks: Vec<u32>,
    cost: u64,
}

impl<'a> Places<'a> {
    /// `count` frames, with the chunks of `problem` where `runs` (begin and length)
    /// say; who has none has frames of its own, beyond those.
    pub fn new(
        problem: &'a Problem,
        chunks: &[Chunk],
        runs: &[Vec<(u32, u32)>],
        count: u32,
    ) -> Self {
        let machine = &problem.machine;
        let frame_ns = machine.frame_bytes as f64 * 1e9 / machine.link_bytes_per_s;
        let mut uses = vec![Vec::new(); chunks.len()];
        let mut clocks = Vec::new();
        for (index, phase) in problem.phases.iter().enumerate() {
            let (mut clock, mut now) = (Vec::with_capacity(phase.steps.len() + 1), 0);
            for (step, known) in phase.steps.iter().enumerate() {
                clock.push(now);
                now += known.ns;
                for &chunk in phase.touches(known) {
                    uses[chunk as usize].push((index as u32, step as u32, chunk));
                }
            }
            clock.push(now);
            clocks.push(clock);
        }
        let frame_ns = frame_ns as Nanos + machine.copy_ns;
        let taken = vec![Taken::default(); count as usize];
        let mut places = Self { problem, clocks, uses, taken, frame_ns };
        let end = runs.iter().flatten().map(|&(at, length)| at + length).max().unwrap_or(0);
        let mut own = end..count;
        for (chunk, known) in chunks.iter().enumerate().filter(|(_, known)| !known.pinned) {
            let mut at: Vec<u32> = runs[chunk].iter().flat_map(|&(at, n)| at..at + n).collect();
            if at.is_empty() {
                at = own.by_ref().take(known.frames as usize).collect();
            }
            at.into_iter().for_each(|at| places.put(chunk as u32, at as usize));
        }
        places
    }

    fn put(&mut self, chunk: u32, at: usize) {
        self.taken[at].cost = self.cost_with(at, chunk);
        self.taken[at].chunks.push(chunk);
    }

    fn take(&mut self, chunk: u32, at: usize) {
        self.taken[at].chunks.retain(|&other| other != chunk);
        self.taken[at].cost = match self.taken[at].chunks.pop() {
            Some(last) => {
                let cost = self.cost_with(at, last);
                self.taken[at].chunks.push(last);
                cost
            }
            None => 0,
        };
    }

    /// Of the frame `at`, with `chunk` there as well.
    fn cost_with(&self, at: usize, chunk: u32) -> u64 {
        let others = &self.taken[at].chunks;
        if others.is_empty() {
            return 0;
        }
        let of = |&chunk: &u32| &self.uses[chunk as usize][..];
        let mut uses: Vec<&[Use]> = others.iter().map(of).collect();
        uses.push(of(&chunk));
        let mut uses = uses.concat();
        uses.sort_unstable();
        self.cost(&uses)
    }

    /// What all phases bring into a frame with these `uses`, each as often as it
    /// repeats.
    fn cost(&self, uses: &[Use]) -> u64 {
        let mut cost = 0;
        let mut before = uses.last().map(|&(.., chunk)| chunk);
        for phase in uses.chunk_by(|a, b| a.0 == b.0) {
            let known = &self.problem.phases[phase[0].0 as usize];
            let clock = &self.clocks[phase[0].0 as usize];
            let (first, last) = (phase[0], phase[phase.len() - 1]);
            let round = clock[clock.len() - 1];
            let bring = |from: Use, to: Use, wrap: Nanos| {
                let gap = (clock[to.1 as usize] + wrap).saturating_sub(clock[from.1 as usize + 1]);
                if from.2 == to.2 { 0 } else { self.frame_ns + self.frame_ns.saturating_sub(gap) }
            };
            let within: u64 = phase.windows(2).map(|pair| bring(pair[0], pair[1], 0)).sum();
            cost += (within + bring(last, first, round)) * u64::from(known.repeats.max(1));
            let anew = before.replace(last.2) != Some(first.2);
            cost += u64::from(anew) * self.frame_ns * u64::from(known.visits.max(1));
        }
        cost
    }

    /// Moves each chunk to where it costs least. `together[c]`: whom `c` must not meet.
    pub fn better(&mut self, chunks: &[Chunk], together: &[Vec<u32>]) {
        let mut order: Vec<u32> =
            (0..chunks.len() as u32).filter(|&chunk| !chunks[chunk as usize].pinned).collect();
        order.sort_by_key(|&chunk| Reverse(self.uses[chunk as usize].len()));
        let mut work = WORK;
        for _ in 0..ROUNDS {
            let mut moved = false;
            for &chunk in &order {
                let uses = self.uses[chunk as usize].len();
                let of = |taken: &Taken| -> usize {
                    taken.chunks.iter().map(|&other| self.uses[other as usize].len() + uses).sum()
                };
                let all: usize = self.taken.iter().map(of).sum();
                let Some(left) = work.checked_sub(all) else { return };
                work = left;
                moved |= self.move_to_best(chunk, &together[chunk as usize]);
            }
            if !moved {
                return;
            }
        }
    }

    /// Whether it went elsewhere.
    fn move_to_best(&mut self, chunk: u32, together: &[u32]) -> bool {
        let is_here = |taken: &Taken| taken.chunks.contains(&chunk);
        let before: Vec<usize> =
            (0..self.taken.len()).filter(|&at| is_here(&self.taken[at])).collect();
        before.iter().for_each(|&at| self.take(chunk, at));
        let free = |at: &usize| {
            let others = &self.taken[*at].chunks;
            others.iter().all(|other| together.binary_search(other).is_err())
        };
        let more = |at: usize| self.cost_with(at, chunk).saturating_sub(self.taken[at].cost);
        let mut best: Vec<(u64, bool, usize)> = (0..self.taken.len())
            .filter(free)
            .map(|at| (more(at), !before.contains(&at), at))
            .collect();
        best.sort_unstable();
        best.truncate(before.len());
        let mut after: Vec<usize> = best.into_iter().map(|(.., at)| at).collect();
        after.sort_unstable();
        after.iter().for_each(|&at| self.put(chunk, at));
        after != before
    }

    /// The shared parts of every chunk, and how many frames are shared.
    pub fn parts(&self, chunks: &[Chunk]) -> (Vec<Vec<Part>>, u32) {
        let mut parts: Vec<Vec<Part>> = vec![Vec::new(); chunks.len()];
        let shared = self.taken.iter().filter(|taken| taken.chunks.len() > 1);
        let wrap = shared.clone().count() as u32;
        for (at, taken) in (0..).zip(shared) {
            for &chunk in &taken.chunks {
                let parts = &mut parts[chunk as usize];
                match parts.last_mut() {
                    Some(part) if part.at + part.frames == at => part.frames += 1,
                    last => {
                        let first = last.map_or(0, |part| part.first + part.frames);
                        parts.push(Part { first, frames: 1, at, wrap });
                    }
                }
            }
        }
        (parts, wrap)
    }
}
