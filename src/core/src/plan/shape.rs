//! One phase, arranged for planning: when each chunk is used, in compute time.
//!
//! Everything here is computed once per phase; the search looks it up.

use super::{Chunk, Nanos, Phase};

/// A phase as the search sees it: of chunks that may move. They have *local* indices, in order of
/// their first use.
pub(super) struct Shape {
    pub locals: Vec<Local>,
    /// Every use as (local chunk, step), in order.
    pub order: Vec<(u32, u32)>,
    /// Steps of each local chunk, rising, one chunk after the other.
    uses: Vec<u32>,
    /// `clock[s]`: compute time before step `s`; the last is that of all.
    pub clock: Vec<Nanos>,
    /// Likewise: of that, in which kernels read over the link.
    pub link: Vec<Nanos>,
    /// Frames of the chunks first used before step `s`.
    pub frames_before: Vec<u32>,
    /// Frames of all chunks.
    pub frames: u32,
    /// Steps that touch several chunks, as local indices: what must be present
    /// together.
    pub together: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    /// Index into the problem's chunks.
    pub chunk: u32,
    pub frames: u32,
    first_use: u32,
    use_count: u32,
}

impl Shape {
    pub fn new(chunks: &[Chunk], movable: &[bool], phase: &Phase) -> Self {
        let mut local_of = vec![u32::MAX; chunks.len()];
        let mut locals: Vec<Local> = Vec::new();
        let mut clock = Vec::with_capacity(phase.steps.len() + 1);
        let mut frames_before = Vec::with_capacity(phase.steps.len() + 1);
        let mut link = Vec::with_capacity(phase.steps.len() + 1);
        let (mut now, mut linked, mut frames) = (0, 0, 0);
        let mut pairs = Vec::with_capacity(phase.uses.len());
        let mut together = Vec::new();
        for (index, step) in phase.steps.iter().enumerate() {
            clock.push(now);
            link.push(linked);
            frames_before.push(frames);
            now += step.ns;
            linked += step.link_ns;
            let moving = || phase.touches(step).iter().filter(|&&chunk| movable[chunk as usize]);
            for &chunk in moving() {
                let local = &mut local_of[chunk as usize];
                if *local == u32::MAX {
                    *local = locals.len() as u32;
                    let known = &chunks[chunk as usize];
                    frames += known.frames;
                    locals.push(Local { chunk, frames: known.frames, first_use: 0, use_count: 0 });
                }
                pairs.push((*local, index as u32));
                locals[*local as usize].use_count += 1;
            }
            if moving().count() > 1 {
                together.push(moving().map(|&chunk| local_of[chunk as usize]).collect());
            }
        }
        clock.push(now);
        link.push(linked);
        frames_before.push(frames);
        // Counting sort by chunk; steps stay in order.
        let mut at = 0;
        for local in &mut locals {
            local.first_use = at;
            at += local.use_count;
        }
        let mut uses = vec![0; pairs.len()];
        let mut next: Vec<u32> = locals.iter().map(|local| local.first_use).collect();
        for &(local, step) in &pairs {
            uses[next[local as usize] as usize] = step;
            next[local as usize] += 1;
        }
        together.sort_unstable();
        together.dedup();
        Self { locals, order: pairs, uses, clock, link, frames_before, frames, together }
    }

    /// The steps that use local chunk `local`, rising.
    pub fn uses(&self, local: usize) -> &[u32] {
        let Local { first_use, use_count, .. } = self.locals[local];
        &self.uses[first_use as usize..][..use_count as usize]
    }

    pub fn steps(&self) -> usize {
        self.clock.len() - 1
    }

    /// Time of the step that follows `step`, which is counted on over the ends
    /// of the iteration.
    pub fn next_turn(&self, step: i64) -> Nanos {
        let next = step.saturating_add(1).rem_euclid(self.steps() as i64) as usize;
        self.clock[next + 1] - self.clock[next]
    }

    /// Compute time of an iteration.
    pub fn compute_ns(&self) -> Nanos {
        self.clock[self.steps()]
    }

    /// The most frames of chunks that one step touches, and what it touches.
    pub fn largest_step(&self) -> u32 {
        let several = self
            .together
            .iter()
            .map(|step| step.iter().map(|&local| self.locals[local as usize].frames).sum());
        let single = self.locals.iter().map(|local| local.frames);
        several.chain(single).max().unwrap_or(0)
    }
}
