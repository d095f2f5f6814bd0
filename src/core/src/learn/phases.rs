//! The known phases: how they come to be, and which are forgotten.
//!
//! A phase is made from a candidate period (see `discover`), from a stretch
//! between two phases, or as a variant of another (see `laps`).

use super::discover::Candidate;
use super::phase::{Landmark, Phase};
use super::surprise::DOUBTS;
use super::track::Lap;
use super::visits::Visit;
use super::*;

/// What comes back after so few operations is a loop only if there is nothing
/// else.
const BURST: u64 = 4;
/// One in so many landmarks has to agree for a candidate to be tried.
const AGREED_OF: u32 = 4;
/// A candidate longer than this many laps of the phase under way is no loop
/// around it worth unrolling.
const UNROLLED: u64 = 6;
/// A loop with so many times the chunks is about other chunks.
const OTHER_CHUNKS: u32 = 4;
/// A loop of so few operations is worth unrolling in any case.
const SHORT_LOOP: u64 = 512;
/// What comes back at a pace that differs by less than this part is one course.
const SAME_COURSE: u64 = 8;
/// After so many laps it is late: what is less sure is tried, too.
const LATE: u64 = 2;
/// Courses remembered.
const COURSES: usize = 8;
/// A phase that shares this part of its landmarks with a longer one is part of it.
const CONTAINED: (u32, u32) = (15, 16);
/// A stretch of fewer landmarks that does not repeat is no phase.
pub(super) const STRETCH: u32 = 4;
/// A repetition of fewer is chance.
pub(super) const REPEATED: u32 = 16;

/// From step `again` on came what had come from step `then` on.
pub(super) struct Course {
    then: Moment,
    again: Moment,
}

impl Learner {
    /// Takes note of a return after a time, and tries what agrees.
    pub(super) fn propose(&mut self, before: Option<(Moment, u64)>, at: Moment) {
        let chain = self.chain(at);
        if before.is_none_or(|(_, lag)| lag > BURST) {
            self.rare_at = at;
        }
        if let Some((candidate, then, lag)) = chain
            && self.lost_since.is_some_and(|since| at - since >= LATE * (at - then))
        {
            return self.consider(candidate, then, lag, at);
        }
        let Some((then, lag)) = before else { return self.voters.stranger() };
        if lag <= BURST && at <= self.rare_at + 2 * lag {
            // The same weight again, with something else in between.
            return;
        }
        if let Some(candidate) = self.voters.vote(lag, then, at) {
            self.consider(candidate, then, lag, at);
        }
    }

    /// The last chunks that came may have come in the same order before: then
    /// that counts, and may make a candidate.
    fn chain(&mut self, at: Moment) -> Option<(Candidate, Moment, u64)> {
        let chunk = |back| self.recent.get(back).map(|(chunk, _)| chunk);
        let chunks = [chunk(0)?, chunk(1)?, chunk(2)?];
        let operation = self.record.entry(at).operation;
        let (then, before) = self.chains.note(chunks, at, operation)?;
        let lag = operation - before;
        let candidate = (lag > BURST).then(|| self.chain_voters.vote(lag, then, at))??;
        Some((candidate, then, lag))
    }

    /// Tries `candidate`, found by what came in step `then` and, `lag` operations
    /// later, in step `at`.
    fn consider(&mut self, candidate: Candidate, then: Moment, lag: u64, at: Moment) {
        let steps = candidate.again - candidate.then;
        if at < self.rest_until {
            return self.note_course(candidate.then, candidate.again);
        }
        let mut least = 0;
        if let Some(track) = &self.track {
            let phase = self.phase(track.slot);
            let poor = track.poor || track.lap.missed + track.lap.skipped > track.lap.hits + DOUBTS;
            let length = phase.length();
            // The loop under way itself is no news; one around it that is too
            // long to unroll is, only if it is about other chunks altogether: a
            // loop over activations hides the layers that it is in.
            let same = lag * 2 > length && lag * 2 < length * 3;
            let long = lag > length.saturating_mul(UNROLLED).max(SHORT_LOOP);
            if phase.known() && !poor {
                if same {
                    return;
                }
                if long {
                    least = phase.marking() * OTHER_CHUNKS;
                }
            }
        }
        // Laying out costs as much as so many steps: amortised.
        self.rest_until = at + steps / 4;
        self.try_candidate(candidate, then, at, least);
    }

    fn try_candidate(&mut self, candidate: Candidate, then: Moment, at: Moment, least: u32) {
        let Candidate { then: from, again: to, .. } = candidate;
        let Some(phase) = Phase::build(&self.record, from, to, None, &mut self.known) else {
            return self.note_course(from, to);
        };
        if u64::from(phase.count()) > UNROLLED * u64::from(phase.marking())
            || phase.marking() < least
        {
            return self.note_course(from, to);
        }
        let Some(offset) = then.checked_sub(from) else { return };
        let here = |(chunk, _): (ChunkId, Moment)| {
            let step = |l: &u32| u64::from(phase.landmarks[*l as usize].step);
            phase.places(chunk).find(|l| step(l) == offset)
        };
        // Better wait for a landmark, but not for ever.
        let before = || {
            let late = self.lost_since.is_none_or(|since| at - since >= LATE * (to - from));
            let after = phase.landmarks.partition_point(|l| u64::from(l.step) <= offset);
            late.then(|| after.checked_sub(1).map(|l| l as u32)).flatten()
        };
        let Some(seen) = self.recent.get(0).and_then(here).or_else(before) else { return };
        let chunk = phase.landmarks[seen as usize].chunk;
        // What came since the repetition began, where it should have.
        let hits = (0..=seen)
            .filter(|&index| {
                let Landmark { chunk, step, .. } = phase.landmarks[index as usize];
                let again = to + u64::from(step);
                again <= at && self.record.uses(again).any(|used| used == chunk)
            })
            .count() as u32;
        let hits = hits.max(candidate.agreed.min(seen + 1));
        if hits * AGREED_OF < seen + 1 {
            return;
        }
        if let Some(interrupted) = self.interrupted.take() {
            self.end_visit(&interrupted);
        }
        let mut prelude = self.lost_since.map(|since| (since, from));
        if let Some(track) = self.track.take() {
            let known = self.phase(track.slot).known();
            if self.crossed.take().is_some() {
                // What was expected never began.
            } else if known {
                self.end_visit(&track);
            } else {
                prelude = track.prelude.map(|(since, _)| (since, from));
                self.drop_phase(track.slot);
            }
        }
        self.lost_since = None;
        let slot = self.insert(phase);
        self.mean(slot, from);
        self.begin_visit(slot, 0, 0);
        let Some(track) = &mut self.track else { return };
        track.prelude = prelude.filter(|(since, end)| since < end);
        track.doubted_at = to;
        track.laps = 1;
        track.lap =
            Lap { start: Some(to), hits: hits - 1, skipped: seen + 1 - hits, ..Lap::default() };
        track.next = seen;
        let start = track.lap.start;
        self.arrive(chunk, at);
        if let Some(track) = &mut self.track
            && track.lap.start.is_none()
        {
            track.lap.start = start;
        }
    }

    /// Nothing known goes on, but from step `again` on what came from step
    /// `then` on, too long ago for a loop: one stretch may end here, and
    /// another begin.
    fn note_course(&mut self, then: Moment, again: Moment) {
        let Some(since) = self.lost_since.filter(|_| self.track.is_none()) else { return };
        if again < since || then >= since {
            return;
        }
        self.courses.retain(|course| course.again >= since);
        let same = |course: &Course| {
            let drift = (again - then).abs_diff(course.again - course.then);
            drift * SAME_COURSE <= again - course.again
        };
        if !self.courses.iter().any(same) {
            if self.courses.len() == COURSES {
                self.courses.remove(0);
            }
            self.courses.push(Course { then, again });
        }
    }

    /// The steps `from..to`, which nothing known explains, become a phase if
    /// there are at least `least` landmarks in them. What came before in the
    /// same order is a phase of its own, and known for good.
    pub(super) fn keep_stretch(&mut self, from: Moment, to: Moment, least: u32) {
        let courses = std::mem::take(&mut self.courses);
        let came_before = courses
            .iter()
            .filter(|course| (from..to).contains(&course.again))
            .find_map(|course| self.came_before(course, from, to));
        let Some((cut, mut known)) = came_before else {
            if let Some(phase) = self.build(from, to).filter(|phase| phase.count() >= least) {
                self.keep(phase, from);
            }
            return;
        };
        if from < cut
            && let Some(phase) = self.build(from, cut).filter(|phase| phase.count() >= least)
        {
            self.keep(phase, from);
        }
        known.confirmed = true;
        self.version += 1;
        self.keep(known, cut);
    }

    fn build(&mut self, from: Moment, to: Moment) -> Option<Phase> {
        Phase::build(&self.record, from, to, None, &mut self.known)
    }

    /// The steps of `course` within `from..to`, if they did come before, and
    /// the first of them.
    fn came_before(
        &mut self,
        course: &Course,
        from: Moment,
        to: Moment,
    ) -> Option<(Moment, Phase)> {
        /// Steps more or less from one landmark to the next.
        const LOOSE: u64 = 8;
        let Course { mut then, mut again } = *course;
        if then < self.record.oldest() {
            return None;
        }
        // It takes several that agree to be noticed: it began before.
        let same = |a, b| self.record.uses(a).eq(self.record.uses(b));
        while again > from && then > self.record.oldest() && same(then - 1, again - 1) {
            (then, again) = (then - 1, again - 1);
        }
        let phase = self.build(again, to).filter(|phase| phase.count() >= REPEATED)?;
        let (mut hits, mut next) = (0, then);
        let mut passed = 0;
        for landmark in &phase.landmarks {
            // As far on as now, give or take.
            let expected = next + u64::from(landmark.step - passed);
            let near = (next.max(expected.saturating_sub(LOOSE))..(expected + LOOSE).min(again))
                .find(|&at| self.record.uses(at).any(|chunk| chunk == landmark.chunk));
            if let Some(at) = near {
                hits += 1;
                (next, passed) = (at, landmark.step);
            }
        }
        (hits * CONTAINED.1 >= phase.count() * CONTAINED.0).then_some((again, phase))
    }

    /// A stretch that begins with step `from` is a phase.
    fn keep(&mut self, mut phase: Phase, from: Moment) {
        phase.once = true;
        phase.visits = 1;
        phase.repeats = 1;
        let slot = self.insert(phase);
        self.mean(slot, from);
        let serial = self.phase(slot).serial;
        self.visits.push(Visit { slot, serial, entry: 0, laps: 1, exit: 0 });
    }

    /// Forgets the phases that the one in `slot` consists of, or repeats; and
    /// longer ones that did not repeat: laps of it before it was noticed.
    pub(super) fn drop_contained(&mut self, slot: usize) {
        let length = self.phase(slot).length();
        self.drop_within(slot, |other| other.length() <= length || other.once);
    }

    /// The phase in `slot` was laid out anew: forgets what is a small part of it,
    /// a loop within a layer that seemed to be all there is. Larger ones may be
    /// what some iterations leave out.
    pub(super) fn drop_fragments(&mut self, slot: usize) {
        const SMALL: u64 = 8;
        let length = self.phase(slot).length();
        self.drop_within(slot, |other| other.length() * SMALL <= length);
    }

    /// Forgets phases of which `which` holds and whose landmarks are chunks of the
    /// one in `slot`.
    fn drop_within(&mut self, slot: usize, which: impl Fn(&Phase) -> bool) {
        let bit = 1u64 << slot;
        let tracks = [&self.track, &self.crossed, &self.interrupted];
        let kept = tracks.map(|track| track.as_ref().map(|track| track.slot));
        for other in 0..PHASES {
            let Some(phase) = self.phases[other].as_deref() else { continue };
            if other == slot || kept.contains(&Some(other)) || !which(phase) {
                continue;
            }
            let (mut shared, mut all) = (0, 0);
            for (chunk, marks) in phase.chunks() {
                let known = &self.known.chunks[chunk as usize];
                if marks && known.erratic < ERRATIC {
                    all += 1;
                    shared += u32::from(known.uses & bit != 0);
                }
            }
            if shared * CONTAINED.1 >= all * CONTAINED.0 {
                self.drop_phase(other);
            }
        }
    }

    /// Gives `phase` a slot.
    pub(super) fn insert(&mut self, mut phase: Phase) -> usize {
        let free = self.phases.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            let slot = self.least_useful(usize::MAX).expect("all slots are taken");
            self.drop_phase(slot);
            slot
        });
        self.serials += 1;
        phase.serial = self.serials;
        phase.used_at = self.record.length();
        phase.built_at = self.operations;
        self.mark(&phase, slot);
        self.phases[slot] = Some(Box::new(phase));
        self.make_room(slot);
        slot
    }

    /// Forgets phases, other than `slot`, until all fit the bounds.
    pub(super) fn make_room(&mut self, slot: usize) {
        loop {
            let live = || self.phases.iter().flatten();
            let steps: usize = live().map(|phase| phase.steps.len()).sum();
            let uses: usize = live().map(|phase| phase.uses.len()).sum();
            if steps <= PHASE_STEPS && uses <= PHASE_USES {
                return;
            }
            let Some(victim) = self.least_useful(slot) else { return };
            self.drop_phase(victim);
        }
    }

    /// The phase to forget: one seen once before one that came back, and the
    /// one longest unused.
    fn least_useful(&self, keep: usize) -> Option<usize> {
        let current = self.track.as_ref().map(|track| track.slot);
        let crossed = self.crossed.as_ref().map(|track| track.slot);
        (0..PHASES)
            .filter(|&slot| slot != keep && Some(slot) != current && Some(slot) != crossed)
            .filter_map(|slot| {
                let phase = self.phases[slot].as_deref()?;
                Some(((phase.confirmed, phase.used_at, phase.serial), slot))
            })
            .min()
            .map(|(_, slot)| slot)
    }

    pub(super) fn mark(&mut self, phase: &Phase, slot: usize) {
        for (chunk, marks) in phase.chunks() {
            let known = &mut self.known.chunks[chunk as usize];
            known.uses |= 1 << slot;
            if marks {
                known.marks |= 1 << slot;
            }
        }
    }

    pub(super) fn unmark(&mut self, phase: &Phase, slot: usize) {
        for (chunk, _) in phase.chunks() {
            let known = &mut self.known.chunks[chunk as usize];
            known.uses &= !(1 << slot);
            known.marks &= !(1 << slot);
        }
    }

    pub(super) fn drop_phase(&mut self, slot: usize) {
        let Some(phase) = self.phases[slot].take() else { return };
        self.unmark(&phase, slot);
        for track in [&mut self.crossed, &mut self.interrupted] {
            if track.as_ref().is_some_and(|track| track.slot == slot) {
                *track = None;
            }
        }
        if self.track.as_ref().is_some_and(|track| track.slot == slot) {
            self.track = None;
            self.crossed = None;
            self.lost_since = Some(self.record.length());
        }
    }
}
