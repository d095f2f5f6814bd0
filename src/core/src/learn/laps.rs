//! What the end of a lap says about the phase: how much of it came as expected
//! decides whether a candidate is confirmed; a change that came twice in a row
//! is for good, and the phase is laid out anew from the last lap; a variant
//! that comes every other lap, or differs by a fifth, becomes a phase of its
//! own.
//!
//! A change is decided upon when the last landmark was seen and made when the
//! next lap begins, so that a lap is laid out with all its steps.

use super::phase::Phase;
use super::phases::{REPEATED, STRETCH};
use super::record::Sum;
use super::surprise::EDGE;
use super::track::{Change, Track};
use super::visits::Visit;
use super::*;

/// A phase with fewer landmarks is confirmed after as many, and if nearly all
/// came: chance repeats a few.
const SHORT: u32 = 8;
/// A variant differs in few places, if in many chunks.
const VARIANT_SLIPS: u32 = 8;
/// If this part of a phase's uses became uncertain, or certain, that is news.
const CERTAINTY: usize = 8;
/// Changes of a phase between two rises of the version, at most.
const MOST_PATIENCE: u32 = 64;

impl Phase {
    /// The version is raised for its changes; the next ones take longer.
    fn told_of_change(&mut self) {
        self.unrest = 0;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }
}

/// Names lap number `lap` of the phase `serial`, as far as 32 bits can.
pub(super) fn lap_stamp(serial: u64, lap: u32) -> u32 {
    (serial as u32) << 16 | (lap & 0xffff)
}

/// Whether steps and uses are as many, give or take a hundredth, and
/// operations, a tenth.
fn alike(a: &Sum, b: &Sum) -> bool {
    let like = |a: u64, b: u64, part: u64| a.abs_diff(b) * part <= a.max(b);
    like(a.steps, b.steps, 100) && like(a.uses, b.uses, 100) && like(a.operations, b.operations, 10)
}

impl Learner {
    /// The end of the phase was passed.
    pub(super) fn end_lap(&mut self) {
        let Some(track) = &mut self.track else { return };
        let phase = self.phases[track.slot].as_deref_mut().expect("the phase under way");
        phase.laps += 1;
        let lap = std::mem::take(&mut track.lap);
        track.lap.start = lap.start;
        track.detour = lap.detour;
        let (hits, total) = (u64::from(lap.hits), u64::from(lap.total()));
        track.poor = hits * 5 < total * 4;
        if hits * 5 < total * 2 {
            // Not this phase, whatever it is.
            self.doubt_since(lap.start);
            return self.lose();
        }
        if !phase.known() {
            if phase.count() < SHORT && track.poor {
                self.lose();
            } else if phase.count() * track.laps.min(SHORT) >= SHORT {
                self.confirm();
            }
            return;
        }
        if phase.once {
            phase.once = track.laps <= 1;
            if !phase.confirmed && !track.poor && hits * 5 >= u64::from(phase.count()) * 4 {
                phase.confirmed = true;
                self.version += 1;
            }
        }
        if phase.visits <= 1 {
            phase.repeats = track.laps;
        }
        if lap.start.is_some() {
            if lap.recurred > 0 {
                track.change = Change::Update;
            } else if (track.poor || lap.alternated > 1)
                && lap.slips <= VARIANT_SLIPS
                && !lap.detour
            {
                track.change = if lap.alternated > 1 { Change::Variant } else { Change::Other };
            }
        }
    }

    /// The lap that began at `start` is unexplained after all.
    fn doubt_since(&mut self, start: Option<Moment>) {
        if let (Some(track), Some(start)) = (&mut self.track, start) {
            track.doubted_at = start;
        }
    }

    /// The candidate under way is a phase.
    fn confirm(&mut self) {
        let Some(track) = &mut self.track else { return };
        let prelude = track.prelude.take();
        let phase = self.phases[track.slot].as_deref_mut().expect("the phase under way");
        phase.confirmed = true;
        phase.repeats = track.laps;
        let serial = phase.serial;
        let slot = track.slot;
        // If it is about to be laid out anew, that will be the news.
        phase.untold = match track.lap.start {
            Some(start) if start >= self.record.oldest() => {
                let sum = self.record.sum(start, self.record.length());
                !alike(&sum, &phase.sum_before(track.next_step))
            }
            _ => false,
        };
        self.version += u64::from(!phase.untold);
        if let Some((from, to)) = prelude {
            self.keep_stretch(from, to, STRETCH);
        }
        self.drop_contained(slot);
        let model = self.visits.model(serial, 0);
        if let Some(track) = &mut self.track {
            track.model = model;
        }
    }

    /// A lap begins with `chunk`, in step `at`.
    pub(super) fn begin_lap(&mut self, chunk: ChunkId, at: Moment) {
        self.turn(chunk, at);
        if let Some(track) = &self.track {
            // Whatever became of it: it is told of now.
            let phase = self.phases[track.slot].as_deref_mut().expect("the phase under way");
            self.version += u64::from(std::mem::take(&mut phase.untold));
        }
    }

    /// Makes the change that the last lap asked for.
    fn turn(&mut self, chunk: ChunkId, at: Moment) {
        let Some(track) = &mut self.track else { return };
        track.between = false;
        let mut change = std::mem::replace(&mut track.change, Change::None);
        let slot = track.slot;
        let detour = std::mem::take(&mut track.detour);
        let Some(start) = track.lap.start.replace(at) else { return };
        self.tell_erratic(slot);
        if change == Change::Other {
            let phase = self.phase(slot);
            let sum = self.record.sum(start.max(self.record.oldest()), at);
            let alike = sum.operations.abs_diff(phase.length()) * 16 <= phase.length();
            change = if alike { Change::None } else { Change::Variant };
        }
        if change == Change::None && !detour && self.uses_changed(slot, start, at) {
            change = Change::Update;
        }
        if change == Change::None {
            return;
        }
        if change == Change::Variant {
            // What only some laps have is not erratic in those.
            let phase = self.phases[slot].as_deref().expect("the phase under way");
            let stamp = lap_stamp(phase.serial, phase.laps);
            for moment in start.max(self.record.oldest())..at {
                for chunk in self.record.uses(moment) {
                    if let Some(known) = self.known.chunks.get_mut(chunk as usize)
                        && known.missed_in == stamp
                    {
                        known.erratic = 0;
                    }
                }
            }
        }
        let Some(mut phase) = self.lay_out(start, at, chunk) else { return };
        if change == Change::Update {
            self.replace(slot, phase, start);
            let Some(track) = &mut self.track else { return };
            (track.next, track.next_step) = (0, 0);
            track.expected =
                self.phases[slot].as_deref().expect("just laid out").landmarks[0].chunk;
            return;
        }
        if self.phases.iter().flatten().any(|other| other.same_order(&phase)) {
            return;
        }
        let mut track = self.track.take().expect("a phase is under way");
        track.laps = track.laps.saturating_sub(1);
        track.next = 0;
        if track.laps > 0 || track.entry != 0 {
            self.end_visit(&track);
        }
        (phase.confirmed, phase.once) = (true, true);
        let slot = self.insert(phase);
        self.mean(slot, start);
        self.begin_visit(slot, 0, 0);
        if let Some(track) = &mut self.track {
            track.laps = 1;
            track.lap.start = Some(at);
        }
        self.version += 1;
    }

    /// Raises the version if what is certain in a phase is not what it was.
    fn tell_erratic(&mut self, slot: usize) {
        let phase = self.phases[slot].as_deref_mut().expect("the phase under way");
        if phase.unrest == 0 {
            return;
        }
        let known = &self.known;
        let count = phase.uses.iter().filter(|&&chunk| known.erratic(chunk)).count();
        if count.abs_diff(phase.erratic_told) * CERTAINTY >= phase.uses.len() {
            phase.erratic_told = count;
            phase.unrest = 0;
            self.version += 1;
        }
    }

    /// Whether the lap `from..to` of the phase in `slot`, which came as
    /// expected, touched other chunks between the landmarks than is known, and
    /// not just this once.
    fn uses_changed(&mut self, slot: usize, from: Moment, to: Moment) -> bool {
        if from < self.record.oldest() {
            return false;
        }
        let sum = self.record.sum(from, to);
        let phase = self.phase_mut(slot);
        let last = std::mem::replace(&mut phase.last_sum, sum);
        if sum == phase.sum {
            // It has settled: what changed is news.
            if phase.unrest * 2 >= phase.patience {
                phase.told_of_change();
                self.version += 1;
            }
            return false;
        }
        // The first lap after the stretch that it was laid out from is the better one.
        sum == last || (!alike(&sum, &phase.sum) && (alike(&sum, &last) || phase.laps <= 1))
    }

    /// The visit `track`, the last that ended, ended at `to`: a change that its
    /// last lap asked for is made, and an excerpt that came before is a phase.
    pub(super) fn change_behind(&mut self, track: &Track, to: Moment) {
        self.excerpt(track, to);
        let (Change::Update, Some(start)) = (track.change, track.lap.start) else { return };
        let gone = self.phases[track.slot].is_none();
        let current = self.track.as_ref().is_some_and(|current| current.slot == track.slot);
        if !track.between || gone || current {
            return;
        }
        let first = self.steady(track.slot, 0).0;
        let chunk = self.phase(track.slot).landmarks[first as usize].chunk;
        if let Some(phase) = self.lay_out(start, to, chunk) {
            self.replace(track.slot, phase, start);
        }
    }

    /// Of a stretch that came once (all weights, say, when they were loaded) now
    /// came, as in its last visit, the same part, and no more: that is a phase of
    /// its own, laid out from what came just now, and was one then.
    fn excerpt(&mut self, track: &Track, to: Moment) {
        let Some(phase) = self.phases[track.slot].as_deref() else { return };
        if !phase.is_stretch() || track.begun < self.record.oldest() {
            return;
        }
        let serial = phase.serial;
        let Some(same) = self.visits.repeated(serial, EDGE) else { return };
        let found = Phase::build(&self.record, track.begun, to, None, &mut self.known);
        let Some(mut found) = found.filter(|found| found.count() >= REPEATED) else { return };
        if self.phases.iter().flatten().any(|other| other.same_order(&found)) {
            return;
        }
        (found.once, found.confirmed) = (true, true);
        (found.visits, found.repeats) = (2, 1);
        let slot = self.insert(found);
        self.mean(slot, track.begun);
        let serial = self.phase(slot).serial;
        for number in same {
            self.visits.rename(number, Visit { slot, serial, entry: 0, laps: 1, exit: 0 });
        }
        self.version += 1;
    }

    /// The lap `from..to`, if it begins with `chunk`.
    pub(super) fn lay_out(&mut self, from: Moment, to: Moment, chunk: ChunkId) -> Option<Phase> {
        let phase = Phase::build(&self.record, from, to, Some(chunk), &mut self.known)?;
        let first = phase.landmarks[0];
        (first.step == 0 && first.chunk == chunk).then_some(phase)
    }

    /// The phase in `slot` is now as `phase`, seen from `start` on.
    pub(super) fn replace(&mut self, slot: usize, mut phase: Phase, start: Moment) {
        let Some(old) = self.phases[slot].take() else { return };
        self.unmark(&old, slot);
        phase.inherit(&old, slot, &self.record, start);
        if phase.unrest >= phase.patience {
            phase.told_of_change();
            self.version += 1;
        }
        self.mark(&phase, slot);
        self.phases[slot] = Some(Box::new(phase));
        self.mean(slot, start);
        self.make_room(slot);
        self.drop_fragments(slot);
    }
}
