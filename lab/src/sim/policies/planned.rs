//! Carries out a [`Plan`], knowing the position in the order: what a plan
//! gives when nothing has to be learned.
//!
//! It walks the uses to come, in order and across phases. What is absent is
//! fetched as soon as nothing that is expected earlier lies on its frames; so
//! in the steady state the copies are the plan's, in the plan's order, and in
//! the first iteration of a phase they are whatever is missing. Each copy
//! waits for the release of the frames it overwrites, and for its planned
//! start.

use crate::sim::device::Waits;
use crate::sim::oracle::{FRAME_BYTES, Oracle};
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Nanos, TraceChunk, Use};
use autooffload_core::plan::Plan;

const NONE: u32 = u32::MAX;

pub struct Planned<'a> {
    plan: &'a Plan,
    oracle: &'a Oracle,
    /// First step of each iteration, counted over the whole run; and the end.
    base: Vec<u64>,
    parts: Vec<Part>,
    /// Of each chunk of the problem: `parts[first..][..count]`.
    parts_of: Vec<(u32, u32)>,
    /// Problem chunk of each trace chunk, or `NONE`.
    chunk_of: Vec<u32>,
    /// Bytes of each trace chunk that are read in place, on the host.
    on_host: Vec<u64>,
    /// Per phase and step: the parts that it uses, and how many steps before
    /// the planned start is; `NONE`: any time.
    uses: Vec<Vec<Vec<(u32, u32)>>>,
    slots: Vec<Slot>,
    /// The step under way, and when each step so far began.
    now: Option<u64>,
    began: Vec<Waits>,
    /// The next use to be looked at: step, and index into its uses.
    ahead: (u64, usize),
    /// The iteration of `ahead`'s step.
    ahead_iteration: usize,
    /// Frames without a plan wait for this.
    unplanned: Waits,
    /// Copies that the plan did not foresee.
    pub demanded: u64,
}

#[derive(Clone, Copy)]
struct Part {
    chunk: TraceChunk,
    bytes: u64,
    at: u32,
    frames: u32,
    wrap: u32,
    present: bool,
    /// The last step found to need it.
    awaited: Option<u64>,
}

impl Part {
    fn slots(&self) -> impl Iterator<Item = usize> + use<> {
        let Part { at, frames, wrap, .. } = *self;
        (0..frames).map(move |index| ((at + index) % wrap) as usize)
    }
}

#[derive(Clone, Copy)]
struct Slot {
    part: u32,
    /// What must be over before it is overwritten.
    freed: Waits,
}

impl<'a> Planned<'a> {
    /// `plan` is one of `oracle.problem`.
    pub fn new(oracle: &'a Oracle, plan: &'a Plan, chunk_bytes: &[u64]) -> Self {
        let problem = &oracle.problem;
        let mut parts = Vec::new();
        let mut parts_of = Vec::new();
        let mut chunk_of = vec![NONE; chunk_bytes.len()];
        let mut on_host = vec![0; chunk_bytes.len()];
        for (index, layout) in plan.layouts.iter().enumerate() {
            let bytes = chunk_bytes[layout.id as usize];
            chunk_of[layout.id as usize] = index as u32;
            let before = u64::from(layout.frames - layout.host_frames) * FRAME_BYTES;
            on_host[layout.id as usize] = bytes.saturating_sub(before);
            parts_of.push((parts.len() as u32, layout.parts.len() as u32));
            for part in &layout.parts {
                let first = u64::from(part.first) * FRAME_BYTES;
                let end = (u64::from(part.first + part.frames) * FRAME_BYTES).min(bytes);
                parts.push(Part {
                    chunk: layout.id,
                    bytes: end - first,
                    at: part.at,
                    frames: part.frames,
                    wrap: part.wrap,
                    present: false,
                    awaited: None,
                });
            }
        }
        let uses = problem.phases.iter().zip(&plan.phases).map(|(phase, planned)| {
            let mut copies: Vec<(u32, u32, u32)> = planned
                .copies
                .iter()
                .map(|copy| (copy.need, parts_of[copy.chunk as usize].0 + copy.part, copy.lead))
                .collect();
            // In the plan's order within each step.
            copies.sort_by_key(|&(need, ..)| need);
            let mut copies = copies.into_iter().peekable();
            let steps = phase.steps.iter().enumerate().map(|(number, step)| {
                let mut listed = Vec::new();
                while let Some((_, part, lead)) =
                    copies.next_if(|&(need, ..)| need as usize <= number)
                {
                    listed.push((part, lead));
                }
                for &chunk in phase.touches(step) {
                    let (first, count) = parts_of[chunk as usize];
                    for part in first..first + count {
                        if !listed.iter().any(|&(known, _)| known == part) {
                            listed.push((part, NONE));
                        }
                    }
                }
                listed
            });
            steps.collect::<Vec<_>>()
        });
        let uses: Vec<_> = uses.collect();
        let mut base = vec![0];
        for &phase in &oracle.iterations {
            let steps = problem.phases[phase as usize].steps.len() as u64;
            base.push(base[base.len() - 1] + steps);
        }
        Self {
            plan,
            oracle,
            base,
            parts,
            parts_of,
            chunk_of,
            on_host,
            uses,
            slots: vec![Slot { part: NONE, freed: Waits::NONE }; plan.shared_frames as usize],
            now: None,
            began: Vec::new(),
            ahead: (0, 0),
            ahead_iteration: 0,
            unplanned: Waits::NONE,
            demanded: 0,
        }
    }

    /// Fetches what the steps to come need, as far as there is room.
    fn look_ahead(&mut self, gpu: &mut Gpu, now: u64) {
        let Some(&end) = self.base.last() else { return };
        if self.ahead.0 < now {
            self.ahead = (now, 0);
        }
        // Where nothing is missing there is no need to look on for ever.
        let far = now + 2 * self.uses.iter().map(Vec::len).max().unwrap_or(0) as u64;
        while self.ahead.0 < end.min(far) {
            let step = self.ahead.0;
            while self.base[self.ahead_iteration + 1] <= step {
                self.ahead_iteration += 1;
            }
            let phase = self.oracle.iterations[self.ahead_iteration] as usize;
            let number = (step - self.base[self.ahead_iteration]) as usize;
            while let Some(&(index, lead)) = self.uses[phase][number].get(self.ahead.1) {
                let part = self.parts[index as usize];
                if !gpu.exists(part.chunk) {
                    // Not allocated yet: it will be demanded.
                    self.ahead.1 += 1;
                    continue;
                }
                if !part.present {
                    let start = if lead == NONE { 0 } else { step.saturating_sub(u64::from(lead)) };
                    let awaited = |slot: usize| {
                        let occupant = self.slots[slot].part;
                        occupant != NONE
                            && self.parts[occupant as usize].awaited.is_some_and(|last| last >= now)
                    };
                    if start > now || part.slots().any(awaited) {
                        return;
                    }
                    let gate = if lead == NONE { Waits::NONE } else { self.began[start as usize] };
                    self.fetch(gpu, index, gate);
                }
                self.parts[index as usize].awaited = Some(step);
                self.ahead.1 += 1;
            }
            self.ahead = (step + 1, 0);
        }
    }

    fn fetch(&mut self, gpu: &mut Gpu, index: u32, mut after: Waits) {
        let part = self.parts[index as usize];
        for slot in part.slots() {
            let occupant = self.slots[slot].part;
            if occupant != NONE {
                let victim = &mut self.parts[occupant as usize];
                victim.present = false;
                let freed = gpu.evict(victim.chunk, victim.bytes, Evict::AsWritten);
                for slot in victim.slots() {
                    self.slots[slot] = Slot { part: NONE, freed };
                }
            }
            after.merge(&self.slots[slot].freed);
        }
        gpu.fetch(part.chunk, part.bytes, after);
        for slot in part.slots() {
            self.slots[slot].part = index;
        }
        self.parts[index as usize].present = true;
    }

    /// The parts of `chunk`, if the plan knows it.
    fn parts_of(&self, chunk: TraceChunk) -> Option<std::ops::Range<u32>> {
        let known = self.chunk_of[chunk as usize];
        let (first, count) = *self.parts_of.get(known as usize)?;
        Some(first..first + count)
    }

    /// Brings in what nothing shares: the whole chunk, or all but its parts.
    fn place_own(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        let shared: u64 = self
            .parts_of(chunk)
            .map_or(0, |parts| parts.map(|part| self.parts[part as usize].bytes).sum());
        let on_host = self.on_host[chunk as usize];
        if on_host > 0 {
            gpu.make_remote(chunk);
        }
        let own = gpu.bytes(chunk) - shared - on_host;
        if own > gpu.free() {
            return Err(Infeasible::new("chunks that no plan knows do not fit"));
        }
        if own > 0 {
            gpu.place(chunk, own, self.unplanned);
        }
        Ok(())
    }
}

impl Policy for Planned<'_> {
    fn name(&self) -> &'static str {
        "planned"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let known: Vec<TraceChunk> = self
            .plan
            .layouts
            .iter()
            .map(|layout| layout.id)
            .chain(self.oracle.unplanned.iter().copied())
            .collect();
        for chunk in known {
            if gpu.exists(chunk) {
                self.place_own(gpu, chunk)?;
            }
        }
        Ok(())
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        self.place_own(gpu, chunk)
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        for index in self.parts_of(chunk).into_iter().flatten() {
            let part = self.parts[index as usize];
            if part.present {
                let freed = gpu.evict(chunk, part.bytes, Evict::Clean);
                for slot in part.slots() {
                    self.slots[slot] = Slot { part: NONE, freed };
                }
                self.parts[index as usize].present = false;
            }
        }
        let waits = gpu.evict(chunk, gpu.present(chunk), Evict::Clean);
        self.unplanned.merge(&waits);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        if let Some((iteration, step)) = self.oracle.positions[launch.number] {
            let now = self.base[iteration as usize] + u64::from(step);
            if self.now.is_none_or(|before| now > before) {
                // Steps that were skipped began with this one.
                let gate = gpu.gate();
                self.began.resize(now as usize + 1, gate);
                self.now = Some(now);
                self.look_ahead(gpu, now);
            }
        }
        for used in launch.uses {
            for index in self.parts_of(used.chunk).into_iter().flatten() {
                if !self.parts[index as usize].present {
                    self.demanded += 1;
                    self.fetch(gpu, index, Waits::NONE);
                }
            }
        }
        // What was demanded may have displaced what another use needs.
        for used in launch.uses {
            if gpu.present(used.chunk) + self.on_host[used.chunk as usize] < gpu.bytes(used.chunk) {
                return Err(Infeasible::new("what one launch uses shares frames"));
            }
        }
        Ok(())
    }

    fn duration(&mut self, gpu: &mut Gpu, launch: Launching<'_>, ns: Nanos) -> Nanos {
        let read = |used: &Use| self.on_host[used.chunk as usize] * u64::from(used.permille) / 1000;
        gpu.read_over_link(launch.uses.iter().map(read).sum(), ns)
    }
}
