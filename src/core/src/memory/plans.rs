//! When a new plan is due, what the planner is told, and how its answer is
//! carried out.
//!
//! A plan is due when the learner has something new to tell, or when layouts
//! had to change off the plan; not again at once, and less and less often for
//! a program that never settles. A phase that the plan does not know is no
//! restlessness: it is planned for as soon as it is described.

use super::chunk::ChunkState;
use super::{MemoryOps, Operation, Shortage, Streamer, Window};
use crate::address_map::ChunkId;
use crate::learn;
use crate::plan::{self, Nanos, Phase, Plan, Problem};
use crate::recall::Remembered;

/// One step in so many may be unmeasured in what counts as measured.
const UNMEASURED_ONE_IN: usize = 16;

/// What is remembered from one plan to the next.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// [`Order::version`] that the last plan was made for.
    version: u64,
    /// The version that was looked at last, planned for or not.
    examined: u64,
    /// No new plan before this many operations.
    not_before: Operation,
    /// Nothing was known; unless there is news, it is not asked for before this.
    ask_at: Operation,
    /// When the last one was made.
    began_at: Operation,
    /// Operations that it was meant to last at the least.
    pause: Operation,
    /// Plans that followed the one before too soon.
    restless: u32,
    /// Operations in an iteration of the phase it was made in.
    period: Option<u64>,
    /// By phase of the problem: the operations before each step, and all.
    /// Empty while times are guesses: starts are not planned by guesses.
    offsets: Vec<Vec<u64>>,
    /// Likewise, even by guesses: how the learner names it, and its operations.
    named: Vec<(u64, u64)>,
    /// The phase whose end its plan waits for.
    awaited: Option<u64>,
    /// [`Self::named`] of the plan in force; empty if it was made by guesses.
    in_force: Vec<(u64, u64)>,
    /// The phases for which, all together, there was no plan.
    unfit: Vec<u64>,
    /// The phase that was planned for alone, because of that.
    alone: Option<u64>,
}

impl Planning {
    pub fn period(&self) -> Option<u64> {
        self.period
    }

    /// Where in the plan in force the phase of this name is.
    pub fn phase_of_plan(&self, name: Option<u64>) -> Option<usize> {
        self.in_force.iter().position(|&(known, _)| Some(known) == name)
    }

    /// See [`Streamer::wants_times`].
    pub fn wants_times(&self, now: Operation) -> bool {
        /// Iterations that are measured first, and then one in so many.
        const FIRST: u64 = 4;
        const ONE_IN: u64 = 16;
        let Some(period) = self.period else { return true };
        let iteration = (now - self.began_at) / period;
        self.offsets.is_empty() || iteration < FIRST || iteration.is_multiple_of(ONE_IN)
    }

    /// The last plan was made before times were known.
    pub fn by_guesses(&self) -> bool {
        self.period.is_some() && self.offsets.is_empty()
    }

    /// The last problem has a phase that the plan in force does not know, which
    /// knows `present`, the one under way, and its times.
    fn adds(&self, present: u64) -> bool {
        let known = |name: u64| self.in_force.iter().any(|&(known, _)| known == name);
        known(present) && self.named.iter().any(|&(name, _)| !known(name))
    }

    /// A plan is being made, in a phase with iterations of `period` operations.
    /// `unplanned`: the plan before did not know that phase.
    fn begins(&mut self, now: Operation, period: u64, version: u64, unplanned: bool) {
        // Twice as long after each that did not last.
        const RESTLESS_MOST: u32 = 8;
        let soon = !unplanned && self.period.is_some() && now < self.began_at + 4 * self.pause;
        self.restless = if soon { (self.restless + 1).min(RESTLESS_MOST) } else { 0 };
        self.pause = period << self.restless;
        self.began_at = now;
        self.not_before = now + self.pause;
        self.period = Some(period);
        self.version = version;
    }
}

impl Streamer {
    /// Whether [`Self::problem`] should be asked.
    #[inline]
    pub fn plan_due(&self) -> bool {
        let planning = &self.planning;
        let waited = self.operation >= planning.not_before.max(planning.ask_at)
            && (self.has_changed() || planning.by_guesses());
        let streams = self.streamed_chunks > 0 || self.host_frames > 0;
        let news = self.order.version() != planning.examined;
        streams && !self.accuracy.too_low() && (waited || news)
    }

    /// Whether the last plan was made for something else.
    #[inline]
    fn has_changed(&self) -> bool {
        let Planning { version, alone, .. } = self.planning;
        self.order.version() != version
            || self.unplanned_changes > 0
            || alone.is_some_and(|alone| self.order.present() != Some(alone))
    }

    /// Whether the plan in force was not made for this phase.
    fn is_unplanned(&self, phase: &learn::Phase) -> bool {
        /// Of what the phase uses, in percent, the plan knows at least so much.
        const KNOWN_PERCENT: usize = 90;
        let Some(plan) = &self.plan else { return true };
        let mut named = vec![false; self.chunks.len()];
        plan.layouts.iter().for_each(|layout| named[layout.id as usize] = true);
        let known = phase.uses.iter().filter(|&&id| named.get(id as usize) == Some(&true)).count();
        known * 100 < phase.uses.len() * KNOWN_PERCENT
    }

    /// What is to be planned, if it is time to. The next one is due when
    /// something has changed since.
    pub fn problem(&mut self) -> Option<Problem> {
        /// Operations until we ask again when nothing is known.
        const WAIT: Operation = 16;
        let changed = self.has_changed();
        let (description, names, alone) = self.to_be_planned();
        self.planning.examined = self.order.version();
        let period = description.present.map(|present| {
            let steps = &description.phases[present].steps;
            steps.iter().map(|step| u64::from(step.operations)).sum::<u64>().max(1)
        });
        // A loop that streamed nothing (over the tensors of one chunk, while
        // loading) teaches nothing, but may be the time to plan with what was
        // measured for what was guessed.
        let guessed = self.plan.is_some() && self.planning.by_guesses();
        let streams = |&period: &u64| {
            self.fetched_at + period > self.operation || self.host_frames > 0 || guessed
        };
        let Some(period) = period.filter(streams) else {
            self.planning.ask_at = self.operation + WAIT;
            return None;
        };
        let present = description.present.map(|present| &description.phases[present]);
        let unplanned = present.is_some_and(|phase| self.is_unplanned(phase));
        if self.operation < self.planning.not_before && !unplanned {
            return None;
        }
        let steps = || description.phases.iter().flat_map(|phase| &phase.steps);
        let unmeasured = steps().filter(|step| step.ns == 0).count();
        if !changed && unmeasured > steps().count() / UNMEASURED_ONE_IN {
            self.planning.ask_at = self.operation + (period / 4).max(WAIT);
            return None;
        }
        self.planning.alone = alone;
        self.planning.begins(self.operation, period, self.order.version(), unplanned);
        self.unplanned_changes = 0;
        Some(self.pose(&description, &names))
    }

    /// What is known of the order, and the phases' names: all of them, or the one
    /// under way, if there is no plan for all together.
    fn to_be_planned(&self) -> (learn::Description, Vec<u64>, Option<u64>) {
        let (mut description, mut names) = (self.order.describe(), self.order.described());
        let alone = description.present.filter(|_| names == self.planning.unfit);
        if let Some(present) = alone {
            description.phases.swap(0, present);
            description.phases.truncate(1);
            description.present = Some(0);
            names = vec![names[present]];
        }
        let alone = alone.and(names.first().copied());
        (description, names, alone)
    }

    /// The search for a plan for the last problem is over, and there is none. That
    /// of one phase is smaller: old ones that may not come again, or what moves a
    /// model from one place to another, need not be served by the same layout.
    pub fn found_no_plan(&mut self) {
        if self.planning.alone.is_none() && self.planning.named.len() > 1 {
            self.planning.unfit = self.order.described();
            self.planning.not_before = self.operation;
            self.unplanned_changes += 1;
        }
    }

    /// The problem of `description`, as far as its chunks still live.
    fn pose(&mut self, description: &learn::Description, names: &[u64]) -> Problem {
        let mut index_of = vec![u32::MAX; self.chunks.len()];
        for id in description.phases.iter().flat_map(|phase| &phase.uses) {
            if let Some(Some(_)) = self.chunks.get(*id as usize) {
                index_of[*id as usize] = 0;
            }
        }
        let mut problem = Problem { machine: self.machine, ..Problem::default() };
        let rate = self.machine.zero_copy_bytes_per_s.filter(|_| !self.host_refused);
        problem.machine.zero_copy_bytes_per_s = rate.map(|rate| rate / self.in_place.plan());
        self.record_reads(description);
        let mut elsewhere = 0;
        for id in self.ids() {
            let ChunkState { frames, pinned, place, .. } = *self.chunk(id);
            if index_of[id as usize] == 0 {
                index_of[id as usize] = problem.chunks.len() as u32;
                problem.chunks.push(plan::Chunk { id, frames, pinned, place });
            } else if pinned {
                elsewhere += frames;
            }
        }
        problem.machine.frames = self.cap_frames.saturating_sub(elsewhere);
        let mut offsets = Vec::new();
        let mut named = Vec::new();
        let mut all_measured = true;
        for (known, &name) in description.phases.iter().zip(names) {
            let mut before = vec![0];
            let learn::Phase { repeats, visits, .. } = *known;
            let mut phase = Phase { repeats, visits, ..Phase::default() };
            let mut guesses = Vec::with_capacity(known.steps.len());
            for step in &known.steps {
                let uses = &known.uses[step.first_use as usize..][..step.use_count as usize];
                let uses: Vec<u32> = uses
                    .iter()
                    .map(|&id| index_of.get(id as usize).copied().unwrap_or(u32::MAX))
                    .filter(|&index| index != u32::MAX)
                    .collect();
                let frames: u32 =
                    uses.iter().map(|&index| problem.chunks[index as usize].frames).sum();
                let bytes = u64::from(frames) * self.machine.frame_bytes;
                let read = self.read_by(step, &uses, &problem.chunks);
                guesses.push(bytes.min(read) as f64 / self.machine.link_bytes_per_s * 1e9);
                phase.push_reading(step.ns, read, 0, &uses);
                before.push(before[before.len() - 1] + u64::from(step.operations));
            }
            if !phase.uses.is_empty() {
                all_measured &= guess_times(&mut phase, &guesses);
                problem.phases.push(phase);
                named.push((name, before[before.len() - 1]));
                offsets.push(before);
            }
        }
        self.prefer_rewritten(&mut problem);
        self.planning.offsets = if all_measured { offsets } else { Vec::new() };
        self.planning.named = named;
        self.planning.awaited = None;
        let largest_chunk = problem.chunks.iter().map(|chunk| chunk.frames).max().unwrap_or(1);
        problem.window_frames = match self.window {
            Window::Auto => None,
            Window::Chunks(count) => Some(count.saturating_mul(largest_chunk)),
            Window::Frames(frames) => Some(frames),
        };
        problem
    }

    /// A little of what is written each time stays: streamed, it crosses the link both ways.
    fn prefer_rewritten(&self, problem: &mut Problem) {
        let frames = problem.machine.frames;
        let mut room = frames.saturating_sub(plan::least(problem)).min(frames / 8);
        let mut found: Vec<&mut plan::Chunk> = problem.chunks.iter_mut().collect();
        found.retain(|chunk| !chunk.pinned && self.chunk(chunk.id).rewritten);
        found.sort_by_key(|chunk| chunk.frames);
        for chunk in found {
            let Some(left) = room.checked_sub(chunk.frames) else { break };
            (room, chunk.pinned) = (left, true);
        }
    }

    /// What is kept of a former start of this program: predicted and planned from
    /// now on, as long as it comes.
    pub fn recall_order(
        &mut self,
        kept: &Remembered,
        place: impl Fn(u32) -> Option<(ChunkId, u64)>,
    ) {
        let lives = |id: ChunkId| matches!(self.chunks.get(id as usize), Some(Some(_)));
        self.order.recall(kept, |number| place(number).filter(|&(id, _)| lives(id)));
        self.operation = self.order.operations();
        self.fetched_at = self.operation;
        self.planning.not_before = self.operation;
        self.start_over();
    }

    /// The plan in force.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Whether `plan`, made for the last problem, had better wait: it moves what
    /// the phase under way uses, which gains nothing by it. When that phase ends,
    /// the first iteration of the next brings in much anyway. Or it is about a
    /// phase of which only guesses are known: that is over for now, and until it
    /// comes again there is time to plan by what was measured.
    pub fn adopts_later(&mut self, plan: &Plan) -> bool {
        /// Less is no gain, and less of the memory no move, in thousandths.
        const GAIN: u64 = 5;
        const MOVE: u64 = 50;
        /// Part of an iteration in which the link of a phase is at work, from
        /// which on it has no time to make good what was moved.
        const BUSY: f64 = 0.5;
        let planning = &self.planning;
        let (Some(before), Some(present)) = (&self.plan, self.order.present()) else {
            return false;
        };
        if planning.awaited == Some(present) {
            return true;
        }
        if !planning.adds(present) {
            return false;
        }
        if planning.offsets.is_empty() {
            // It will be known soon how long the other phase takes.
            self.planning.awaited = Some(present);
            return true;
        }
        let here = |plan: &Plan, named: &[(u64, u64)]| {
            let at = named.iter().position(|&(name, _)| name == present)?;
            plan.phases.get(at).map(|phase| (phase.period_ns, phase.streamed_bytes))
        };
        let both = here(before, &planning.in_force).zip(here(plan, &planning.named));
        let Some(((period, bytes), (next, _))) = both else { return false };
        let gains = period * 1000 > next * (1000 + GAIN);
        // Where the link has time, what moves is there again soon.
        let busy = bytes as f64 * 1e9 / self.machine.link_bytes_per_s > period as f64 * BUSY;
        let moved = u64::from(plan.moved_frames(before));
        if gains || !busy || moved * 1000 < u64::from(self.cap_frames) * MOVE {
            return false;
        }
        self.planning.awaited = Some(present);
        true
    }

    /// A problem was posed. If that is because some phase was met again that the
    /// plan in force does not know, and the one under way is known, then what
    /// that phase lost gets its place back at once: the next plan may be long in
    /// coming, and what comes in meanwhile should not do so twice.
    pub fn restore_layouts(&mut self, ops: &mut impl MemoryOps) -> Result<(), Shortage> {
        if !self.order.present().is_some_and(|present| self.planning.adds(present)) {
            return Ok(());
        }
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let displaced = |layout: &plan::Layout| {
            let chunk = self.chunk(layout.id);
            !chunk.mapped || !chunk.laid_out_as(&layout.parts, layout.host_frames)
        };
        if !self.any_held(ops) && self.applies(&plan) && plan.layouts.iter().any(displaced) {
            match self.carry_out(&plan, ops) {
                Ok(()) => {}
                Err(Shortage::Unfinished) => {
                    self.plan = Some(plan);
                    return Err(Shortage::Unfinished);
                }
                Err(_) => self.unplanned_changes += 1,
            }
            self.set_runs(&plan);
            self.start_over();
        }
        self.plan = Some(plan);
        Ok(())
    }

    /// Carries `plan` out: moves what lies elsewhere, and nothing else. Leaves
    /// everything as it was, and answers `false`, when some chunk is held or the
    /// plan was made for others. Error: what it moves is used, still; ask again.
    pub fn adopt(&mut self, plan: &Plan, ops: &mut impl MemoryOps) -> Result<bool, Shortage> {
        if self.any_held(ops) || !self.applies(plan) {
            return Ok(false);
        }
        // What streamed together before the plan says nothing about it.
        let largest_operation = std::mem::take(&mut self.largest_operation);
        let here = |layout: &plan::Layout| self.chunk(layout.id).on_host == layout.host_frames;
        if !plan.layouts.iter().all(here) {
            self.moved_at = self.operation;
        }
        match self.carry_out(plan, ops) {
            Ok(()) => {}
            Err(Shortage::Unfinished) => {
                self.largest_operation = largest_operation;
                return Err(Shortage::Unfinished);
            }
            // Whatever is unmapped now is attached again when it is used.
            Err(_) => self.unplanned_changes += 1,
        }
        self.counters.plans += 1;
        self.chunks.iter_mut().flatten().for_each(|chunk| chunk.planned = false);
        for layout in &plan.layouts {
            self.chunk_mut(layout.id).planned = true;
        }
        self.set_leads(plan);
        self.set_runs(plan);
        let named = std::mem::take(&mut self.planning.named);
        self.plan_idle_copies(plan, &named);
        self.planning.in_force.clear();
        if !self.planning.offsets.is_empty() {
            self.planning.in_force.extend_from_slice(&named);
        }
        self.planning.named = named;
        self.plan = Some(plan.clone());
        self.start_over();
        Ok(true)
    }

    /// Tells every part how long before its use its copy may be ready: where
    /// it is used more than once, the longest time.
    fn set_leads(&mut self, plan: &Plan) {
        let mut leads: Vec<Vec<Option<u32>>> =
            plan.layouts.iter().map(|layout| vec![None; layout.parts.len()]).collect();
        for (phase, offsets) in plan.phases.iter().zip(&self.planning.offsets) {
            let steps = offsets.len() as i64 - 1;
            let Some(&period) = offsets.last() else { continue };
            // Operations from the beginning of the first iteration on.
            let begins = |step: i64| -> i64 {
                let iteration = step.div_euclid(steps);
                offsets[step.rem_euclid(steps) as usize] as i64 + iteration * period as i64
            };
            // The link takes copies in order: none is held back longer than
            // one that comes after it.
            let mut latest = i64::MAX;
            for copy in phase.copies.iter().rev() {
                let need = i64::from(copy.need);
                let known = leads.get_mut(copy.chunk as usize);
                let Some(known) = known.and_then(|parts| parts.get_mut(copy.part as usize)) else {
                    continue;
                };
                if need >= steps {
                    continue;
                }
                latest = latest.min(begins(need - i64::from(copy.lead)));
                let lead = begins(need).saturating_sub(latest).clamp(0, i64::from(u32::MAX));
                *known = (*known).max(Some(lead as u32));
            }
        }
        for (layout, leads) in plan.layouts.iter().zip(leads) {
            let chunk = self.chunk_mut(layout.id);
            if chunk.laid_out_as(&layout.parts, layout.host_frames) {
                let parts = chunk.parts.iter_mut().zip(leads);
                parts.for_each(|(streamed, lead)| streamed.lead = lead);
            }
        }
    }
}

/// Gives every step that was not measured a time: `guesses`, by bytes, in the
/// proportion in which they stand to what was measured. `true`: nearly all
/// were.
fn guess_times(phase: &mut Phase, guesses: &[f64]) -> bool {
    let (mut ns, mut guessed, mut missing) = (0.0, 0.0, 0);
    for (step, guess) in phase.steps.iter().zip(guesses) {
        if step.ns > 0 {
            ns += step.ns as f64;
            guessed += guess;
        } else {
            missing += 1;
        }
    }
    let scale = if ns > 0.0 && guessed > 0.0 { ns / guessed } else { 1.0 };
    for (step, guess) in phase.steps.iter_mut().zip(guesses) {
        if step.ns == 0 {
            step.ns = (guess * scale) as Nanos;
        }
    }
    missing <= guesses.len() / UNMEASURED_ONE_IN
}
