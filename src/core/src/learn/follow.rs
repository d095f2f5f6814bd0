//! Where we are: follows the phase under way, landmark by landmark, over the
//! end of the lap and into the phase that is expected next.
//!
//! The hot path: a step that was expected costs a comparison per use. What was
//! not expected is for `surprise`.

use super::phase::Phase;
use super::times::place;
use super::track::{Change, Lap, Track};
use super::visits::{Visit, VisitNumber};
use super::*;

/// Between two laps, so many held landmarks that were there before are a
/// stretch between two visits.
const RETURNING: u32 = 2;

impl Learner {
    pub(super) fn phase(&self, slot: usize) -> &Phase {
        self.phases[slot].as_deref().expect("a phase that is referred to")
    }

    pub(super) fn phase_mut(&mut self, slot: usize) -> &mut Phase {
        self.phases[slot].as_deref_mut().expect("a phase that is referred to")
    }

    /// One more operation of the same step.
    #[inline]
    pub(super) fn linger(&mut self) {
        let Some(track) = &mut self.track else { return };
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        let end = track.base + i64::from(phase.offset(track.next_step));
        track.now = (track.now + 1).min(end - 1).max(track.now);
    }

    /// A new step.
    pub(super) fn step(&mut self, operation: Operation, chunks: &[ChunkId]) {
        let at = self.record.length();
        self.record.push(operation, chunks);
        if let Some(track) = &mut self.track {
            let phase = self.phases[track.slot].as_deref().expect("the phase under way");
            let count = phase.steps.len() as u32;
            if track.trailing && track.next_step == count {
                track.base += i64::from(phase.operations);
                (track.next_step, track.trailing) = (0, false);
            }
            // Up to the step of the next landmark, which only the landmark enters.
            let limit =
                if track.trailing { count } else { phase.landmarks[track.next as usize].step };
            if track.next_step < limit {
                track.now = track.base + i64::from(phase.steps[track.next_step as usize].offset);
                track.next_step += 1;
                self.record.entry_mut(at).place = place(track.slot, track.next_step - 1);
            } else {
                let end = track.base + i64::from(phase.offset(track.next_step));
                track.now = (track.now + 1).min(end - 1).max(track.now);
            }
        }
        for &chunk in chunks {
            self.access(chunk, at, operation);
        }
    }

    fn access(&mut self, chunk: ChunkId, at: Moment, operation: Operation) {
        if chunk as usize >= self.known.chunks.len() {
            if chunk as usize >= CHUNKS {
                return;
            }
            self.known.chunks.resize_with(chunk as usize + 1, Known::default);
        }
        let known = &mut self.known.chunks[chunk as usize];
        let touched = std::mem::replace(&mut known.touched, at + 1);
        let touched_by = std::mem::replace(&mut known.touched_by, operation);
        if touched != 0 && touched >= at {
            // A burst: no new use. (Or named twice.)
            return;
        }
        if let Some(track) = &self.track
            && track.expected == chunk
        {
            known.clear(1);
            self.hit(chunk, at);
            return;
        }
        let before = (touched != 0).then(|| (touched - 1, operation - touched_by));
        self.surprise(chunk, at, before);
    }

    /// The expected landmark came.
    pub(super) fn hit(&mut self, chunk: ChunkId, at: Moment) {
        self.recent.push(chunk, at);
        self.blame_held(1);
        self.blame_absent();
        self.interpose(at);
        if self.track.as_ref().is_some_and(|track| track.between) {
            self.begin_lap(chunk, at);
        }
        if let Some(crossed) = self.crossed.take() {
            self.change_behind(&crossed, at);
        }
        let Some(track) = &mut self.track else { return };
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        let step = phase.landmarks[track.next as usize].step;
        let entered = !track.trailing && track.next_step == step + 1;
        if track.trailing {
            track.base += i64::from(phase.operations);
        }
        (track.between, track.trailing) = (false, false);
        // Not back, if there were operations between two landmarks of a step.
        if !entered {
            track.next_step = step + 1;
            track.now = track.base + i64::from(phase.offset(step));
        }
        (track.doubts, track.strays) = (0, 0);
        track.skipped_from = None;
        track.lap.hits += 1;
        self.record.entry_mut(at).place = place(track.slot, step);
        let next = track.next + 1;
        self.advance(next);
    }

    /// What was held between two visits, or between two laps, becomes a phase
    /// of its own if it was there before. Now, in step `at`, goes on what was
    /// expected.
    fn interpose(&mut self, at: Moment) {
        let Some(track) = self.track else { return };
        if track.doubts == 0 || !track.returning {
            return;
        }
        let between_laps = track.between && track.doubts >= RETURNING && self.crossed.is_none();
        if between_laps {
            self.end_visit(&track);
            self.change_behind(&track, track.doubted_at);
        } else if let Some(crossed) = self.crossed.take() {
            self.change_behind(&crossed, track.doubted_at);
        } else {
            return;
        }
        self.keep_stretch(track.doubted_at, at, 1);
        let entry = if between_laps { 0 } else { track.entry };
        self.begin_visit(track.slot, entry, track.now + 1);
    }

    /// The first landmark at or after `index` that is to be expected, and
    /// whether that is in the next lap: no hole, and no chunk that comes and
    /// goes unless all do.
    pub(super) fn steady(&self, slot: usize, index: u32) -> (u32, bool) {
        let phase = self.phase(slot);
        let first = phase.settle(index);
        let mut at = first;
        while self.known.erratic(phase.landmarks[at.0 as usize].chunk) {
            let (next, wrapped) = phase.settle(at.0 + 1);
            at = (next, at.1 || wrapped);
            if next == first.0 {
                return first;
            }
        }
        at
    }

    /// `next` is expected from now on.
    pub(super) fn advance(&mut self, next: u32) {
        let Some(slot) = self.track.as_ref().map(|track| track.slot) else { return };
        let from = next;
        let (next, wrapped) = self.steady(slot, next);
        let expected = self.phase(slot).landmarks[next as usize].chunk;
        let hit_at = self.record.length() - 1;
        let Some(track) = &mut self.track else { return };
        (track.from, track.hit_at) = (from, hit_at);
        (track.next, track.expected) = (next, expected);
        if wrapped {
            (track.between, track.trailing) = (true, true);
            track.laps += 1;
            self.end_lap();
        }
        self.cross_if_due();
    }

    /// If the visit ends here, as the past one did that it is expected to
    /// repeat, what came then is expected now.
    fn cross_if_due(&mut self) {
        let Some(track) = self.track else { return };
        let Some(visit) = track.model.and_then(|number| self.visits.get(number)) else { return };
        if track.laps > visit.laps {
            // It went on past the end of that one.
            self.track = Some(Track { model: None, ..track });
            return;
        }
        if track.laps < visit.laps || track.next < visit.exit {
            return;
        }
        let number = track.model.expect("it has one");
        let Some((slot, entry)) = self.after(number) else { return };
        let phase = self.phase(track.slot);
        let at = track.base
            + i64::from(if track.trailing {
                phase.operations
            } else {
                phase.offset(phase.step_of(track.next))
            });
        self.end_visit(&track);
        let crossed = track;
        // The last landmark may be of the very step that is not to come whole.
        self.begin_visit(slot, entry, at.max(track.now + 1));
        self.crossed = Some(crossed);
    }

    /// What came after visit `number`: the slot of the phase, and the landmark at
    /// which it was entered.
    fn after(&self, number: VisitNumber) -> Option<(usize, u32)> {
        let next = number + 1;
        if next == self.visits.count() {
            // The visit under way.
            let track = self.track.as_ref()?;
            return Some((track.slot, track.entry));
        }
        let visit = self.visits.get(next)?;
        let phase = self.phases[visit.slot].as_deref()?;
        (phase.serial == visit.serial).then_some((visit.slot, visit.entry))
    }

    pub(super) fn end_visit(&mut self, track: &Track) {
        let phase = self.phase_mut(track.slot);
        phase.repeats = track.laps.max(1);
        let serial = phase.serial;
        let Track { slot, entry, laps, next: exit, .. } = *track;
        self.visits.push(Visit { slot, serial, entry, laps, exit });
    }

    /// A visit whose first landmark, `entry`, is to come at virtual operation `at`.
    pub(super) fn begin_visit(&mut self, slot: usize, entry: u32, at: i64) {
        let now = self.record.length();
        let (entry, _) = self.steady(slot, entry);
        let phase = self.phase_mut(slot);
        phase.visits += 1;
        phase.used_at = now;
        let serial = phase.serial;
        let step = phase.landmarks[entry as usize].step;
        let base = at - i64::from(phase.offset(step));
        let expected = phase.landmarks[entry as usize].chunk;
        let model = self.visits.model(serial, entry);
        self.track = Some(Track {
            slot,
            next: entry,
            expected,
            from: entry,
            hit_at: now,
            next_step: step,
            between: false,
            trailing: false,
            base,
            now: at - 1,
            laps: 0,
            entry,
            begun: now,
            model,
            lap: Lap::default(),
            change: Change::None,
            detour: false,
            doubts: 0,
            strays: 0,
            strayed_at: now,
            skipped_from: None,
            returning: false,
            doubted_at: now,
            poor: false,
            prelude: None,
        });
    }

    /// After chunks were forgotten: expects what is still there.
    pub(super) fn settle(&mut self) {
        if let Some(track) = self.track {
            let phase = self.phase(track.slot);
            if phase.landmarks[track.next as usize].chunk == NO_CHUNK {
                self.advance(track.next);
            }
        }
    }
}
