//! What was not expected. In this order, it is:
//! - more of the phase that was expected to end here;
//! - noise: a chunk that this phase uses all the time, one that was used a
//!   moment ago, one that comes and goes. Neither advances nor disturbs;
//! - a skip: the landmark is a few further on. Taken back if that proves wrong;
//! - a jump: this and the landmarks before it follow each other at another
//!   place of this or another known phase, or another phase begins;
//! - otherwise it is held: once the expected one comes, it was an insertion;
//!   after [`DOUBTS`] of them we are lost. If the phase is found again near
//!   where it was left, that was a detour; if another begins, what was in
//!   between may be a phase of its own (see `phases`).
//!
//! Chunks that come unexpectedly, or fail to come, are blamed; a chunk blamed
//! too often is *erratic* until it has come as expected for a while.

use super::laps::lap_stamp;
use super::phase::{Phase, Return};
use super::phases::STRETCH;
use super::times::place;
use super::track::{Change, Lap, Track};
use super::*;

/// Landmarks skipped without asking for more evidence.
pub(super) const SKIP: u32 = 8;
/// Unexpected landmarks held before we are lost.
pub(super) const DOUBTS: u32 = 12;
/// A landmark that is late by so many steps is not coming.
const OVERDUE: u64 = 24;
/// Landmarks in a row that identify a place.
const CONTEXT: u32 = 2;
/// Landmarks that come and go, in a row, that a context reaches across.
const CONTEXT_GAP: u32 = 16;
/// A longer part of a lap, spent elsewhere, is no detour within it.
const DETOUR: u64 = 3;
/// What two phases share where one begins and the other ends is at most so
/// many landmarks.
pub(super) const EDGE: u32 = 3;
/// A phase shorter than this part of the one under way interrupts no lap.
const TRIFLE: u64 = 4;
/// Places of a chunk, in one phase, that are looked at.
const PLACES: usize = 32;
/// A candidate that has to be followed with more jumps than this is none.
const CANDIDATE_JUMPS: u32 = 3;
/// Rounds that differ by less than this part are the same.
const SAME_ROUND: u64 = 64;
/// From so many landmarks on, a candidate may contain something new.
const LONG: u32 = 32;

/// A place in a known phase.
#[derive(Clone, Copy)]
struct Place {
    slot: usize,
    landmark: u32,
    /// Landmarks up to this one that agree with the last ones seen.
    context: u32,
}

impl Learner {
    /// `chunk` came instead of the expected landmark. `before`: the step that
    /// touched it last, and how many operations ago.
    pub(super) fn surprise(&mut self, chunk: ChunkId, at: Moment, before: Option<(Moment, u64)>) {
        if let Some(crossed) = self.crossed.filter(|crossed| crossed.expected == chunk) {
            // The visit goes on, past its expected end.
            self.crossed = None;
            self.visits.pop();
            self.track = Some(Track { model: None, ..crossed });
            self.hit(chunk, at);
            return;
        }
        if let Some(track) = &self.track {
            let bit = 1u64 << track.slot;
            let length = self.phase(track.slot).length();
            let known = &mut self.known.chunks[chunk as usize];
            let marks = known.marks & bit != 0;
            let erratic = known.erratic >= ERRATIC;
            if (!marks || erratic) && known.uses & bit != 0 {
                // It came, and has a place here.
                known.clear(if erratic { 3 } else { 1 });
                return;
            }
            if erratic {
                known.blame(3);
            }
            if erratic || !marks && before.is_some_and(|(_, lag)| lag < length / 8) {
                self.note_miss(chunk, at);
                if self.astray(at) {
                    self.lose();
                }
                return;
            }
        }
        if self.track.as_ref().is_some_and(|track| track.between && self.nearby(track, chunk)) {
            // The lap begins, if not as it used to.
            self.begin_lap(chunk, at);
            if self.track.as_ref().is_some_and(|track| track.expected == chunk) {
                self.hit(chunk, at);
                return;
            }
        }
        self.recent.push(chunk, at);
        if let Some(place) = self.recall(chunk, before.map(|(_, lag)| lag)) {
            // From one phase to another: that explains it, unless they are mere
            // stretches, which may be parts of an iteration.
            let stretch = |slot: usize| self.phase(slot).is_stretch();
            let explained = match &self.track {
                Some(track) => {
                    track.slot != place.slot && !stretch(track.slot) && !stretch(place.slot)
                }
                None => !stretch(place.slot),
            };
            self.jump(chunk, place, at);
            if !explained {
                self.propose(before, at);
            }
            return;
        }
        self.hold(chunk, at, before.map(|(_, lag)| lag));
        self.propose(before, at);
    }

    /// A place in a known phase that this and the last landmarks point to, if
    /// they do so clearly.
    fn recall(&self, chunk: ChunkId, lag: Option<u64>) -> Option<Place> {
        let marks = self.known.chunks[chunk as usize].marks;
        // From the middle of a lap that goes well, not into a trifle.
        let least = match &self.track {
            Some(track) if !self.between() && !track.poor && !self.near_an_end(track) => {
                let phase = self.phase(track.slot);
                if phase.known() && !phase.once { phase.length() / TRIFLE } else { 0 }
            }
            _ => 0,
        };
        let mut best: Option<(Place, (u32, bool, u64, u32))> = None;
        for slot in bits(marks) {
            let phase = self.phase(slot);
            let current = self.track.as_ref().filter(|track| track.slot == slot);
            if current.is_none()
                && (!phase.known()
                    || phase.length() < least
                    || self.known.erratic(chunk)
                    || lag.is_some_and(|lag| lag < phase.length() / 8))
            {
                continue;
            }
            for landmark in phase.places(chunk).take(PLACES) {
                let context = self.context(phase, landmark);
                let count = phase.count();
                let forward = current.map_or(0, |track| (landmark + count - track.next) % count);
                // What was used too recently to be due cannot tell alone.
                let due = || {
                    let gap = u64::from(phase.landmarks[landmark as usize].gap);
                    lag.is_some_and(|lag| lag >= gap / 2)
                };
                let unskipped = current.is_some_and(|track| track.skipped_from == Some(landmark));
                let clear = context >= CONTEXT
                    || (self.track.is_none() && self.loosely(phase, landmark) >= CONTEXT)
                    || unskipped
                    || (current.is_some()
                        && self.crossed.is_none()
                        && forward <= SKIP.min(count / 2)
                        && due())
                    || (current.is_none() && landmark == self.steady(slot, 0).0 && self.between());
                // Longest context, then near, then recent.
                let rank = (context, current.is_some(), phase.used_at, u32::MAX - forward);
                if clear && best.as_ref().is_none_or(|(_, best)| rank > *best) {
                    best = Some((Place { slot, landmark, context }, rank));
                }
            }
        }
        best.map(|(place, _)| place)
    }

    /// Whether a new phase may well begin here.
    fn between(&self) -> bool {
        match &self.track {
            None => true,
            Some(track) => track.between || track.next == track.entry && track.laps == 0,
        }
    }

    /// Whether a lap has hardly begun, or all but ended.
    fn near_an_end(&self, track: &Track) -> bool {
        let left = self.phase(track.slot).count() - track.next;
        track.lap.hits.min(left) <= EDGE
    }

    /// Whether `chunk` is expected soon.
    fn nearby(&self, track: &Track, chunk: ChunkId) -> bool {
        let phase = self.phase(track.slot);
        phase.places(chunk).take(PLACES).any(|place| place.wrapping_sub(track.next) <= SKIP)
    }

    /// How many landmarks up to `landmark` agree with the last ones seen.
    fn context(&self, phase: &Phase, landmark: u32) -> u32 {
        let mut at = landmark;
        let mut agreed = 0;
        while let Some((chunk, _)) = self.recent.get(agreed)
            && chunk != NO_CHUNK
            && agreed < phase.count()
            && phase.landmarks[at as usize].chunk == chunk
        {
            agreed += 1;
            at = phase.before(at);
            // Those that come and go were not among the last ones seen.
            let mut left = CONTEXT_GAP;
            while left > 0 && self.known.erratic(phase.landmarks[at as usize].chunk) {
                at = phase.before(at);
                left -= 1;
            }
        }
        agreed
    }

    /// How many of the last ones seen are among the landmarks just before
    /// `landmark`: when lost, nothing tells noise from landmarks.
    fn loosely(&self, phase: &Phase, landmark: u32) -> u32 {
        let before = &phase.landmarks[landmark.saturating_sub(SKIP) as usize..landmark as usize];
        let seen = (1..8).map_while(|back| self.recent.get(back));
        seen.filter(|&(chunk, _)| before.iter().any(|l| l.chunk == chunk && chunk != NO_CHUNK))
            .count() as u32
    }

    /// Goes to `place`, whose landmark was just seen in step `at`.
    fn jump(&mut self, chunk: ChunkId, place: Place, at: Moment) {
        let serial = self.phase(place.slot).serial;
        // The landmarks held that turn out to be the first of the visit.
        let held = self.track.as_ref().map_or(u32::MAX, |track| track.doubts + 1);
        if let Some(crossed) = self.crossed.take() {
            if crossed.slot == place.slot {
                // It never left.
                self.visits.pop();
                self.track = Some(Track { model: None, ..crossed });
            } else if self.track.as_ref().is_some_and(|track| track.slot != place.slot) {
                // What was expected instead never began.
                self.track = None;
                self.change_behind(&crossed, at);
            }
        }
        if self.track.as_ref().is_some_and(|track| track.slot == place.slot) {
            self.jump_within(chunk, place, at);
        } else {
            self.jump_to(chunk, place, serial, held, at);
        }
    }

    fn jump_within(&mut self, chunk: ChunkId, place: Place, at: Moment) {
        self.blame_held(place.context);
        let Some(track) = &mut self.track else { return };
        let phase = self.phases[track.slot].as_deref_mut().expect("the phase under way");
        let count = phase.count();
        let forward = (place.landmark + count - track.next) % count;
        let wraps = place.landmark < track.next;
        let skipped_from = track.skipped_from.take();
        if place.context < CONTEXT {
            track.skipped_from = Some(track.next);
        }
        if skipped_from == Some(place.landmark) {
            // What seemed a skip was noise.
            track.lap.missed += 1;
            if phase.known()
                && let Some((chunk, _)) = self.recent.get(1)
                && let Some(known) = self.known.chunks.get_mut(chunk as usize)
            {
                known.blame(3);
            }
            track.skipped_from = None;
        } else if !wraps || forward <= SKIP.min(count / 2) {
            // A skip, perhaps over the end of the lap.
            let end = if wraps { count } else { place.landmark };
            let lap = phase.laps + 1;
            for landmark in &mut phase.landmarks[track.next as usize..end as usize] {
                if landmark.chunk != NO_CHUNK {
                    if forward <= SKIP && (phase.confirmed || phase.once) {
                        self.known.chunks[landmark.chunk as usize].blame(3);
                    }
                    track.lap.skipped += 1;
                    let skipped = |laps_ago| {
                        landmark.skipped_in != 0 && landmark.skipped_in + laps_ago == lap
                    };
                    track.lap.recurred += u32::from(skipped(1));
                    track.lap.alternated += u32::from(skipped(2));
                    landmark.skipped_in = lap;
                }
            }
            track.lap.slips += 1;
            track.lap.jumps += u32::from(forward > SKIP);
            if wraps {
                track.laps += 1;
                (track.between, track.trailing) = (true, true);
                track.next = 0;
                self.end_lap();
                if place.landmark <= SKIP {
                    self.begin_lap(chunk, at);
                }
            }
        } else {
            // Back: a repetition, or a new beginning.
            let (slips, jumps) = (track.lap.slips + 1, track.lap.jumps + 1);
            if track.next > 2 * SKIP {
                track.lap = Lap { slips, jumps, ..Lap::default() };
                track.laps += u32::from(place.landmark < place.context);
            } else {
                // Still at the beginning of the same lap.
                (track.lap.slips, track.lap.jumps) = (slips, jumps);
            }
            track.change = Change::None;
            (track.between, track.trailing) = (false, false);
            if self.came_round(chunk, at) {
                return self.arrive(chunk, at);
            }
        }
        let Some(track) = &mut self.track else { return };
        let known = self.phases[track.slot].as_ref().is_some_and(|phase| phase.known());
        if !known && track.lap.jumps > CANDIDATE_JUMPS {
            return self.lose();
        }
        track.next = place.landmark;
        self.arrive(chunk, at);
    }

    /// The phase under way jumped back to `chunk`, in step `at`. If it does so
    /// each time that it comes round, it is laid out wrongly: anew, then, from
    /// one such jump to the next.
    fn came_round(&mut self, chunk: ChunkId, at: Moment) -> bool {
        let Some(track) = &self.track else { return false };
        let slot = track.slot;
        let phase = self.phases[slot].as_deref_mut().expect("the phase under way");
        let last = phase.returned;
        let steps = if last.chunk == chunk { at - last.at } else { 0 };
        phase.returned = Return { chunk, at, steps };
        let alike = |a: u64, b: u64| a.abs_diff(b) * SAME_ROUND <= a.max(b);
        let round = steps > 0 && alike(steps, last.steps) && steps * 2 > phase.steps.len() as u64;
        if !phase.confirmed || !round || last.at < self.record.oldest() {
            return false;
        }
        let Some(found) = self.lay_out(last.at, at, chunk) else { return false };
        self.replace(slot, found, last.at);
        let Some(track) = &mut self.track else { return false };
        (track.next, track.lap, track.skipped_from) = (0, Lap::default(), None);
        true
    }

    fn jump_to(&mut self, chunk: ChunkId, place: Place, serial: u64, held: u32, at: Moment) {
        if let Some(interrupted) = self.interrupted.take() {
            let steps = self.phase(interrupted.slot).steps.len() as u64;
            let short = (at - interrupted.doubted_at) * DETOUR < steps;
            let near = interrupted.next.abs_diff(place.landmark) <= SKIP;
            if interrupted.slot == place.slot && near && short {
                // Where it was left in the middle of a lap: that was a detour.
                self.lost_since = None;
                let mut track = Track { next: place.landmark, ..interrupted };
                track.lap.detour = true;
                self.track = Some(track);
                self.arrive(chunk, at);
                return;
            }
            self.end_visit(&interrupted);
        }
        let context = place.context.min(held).clamp(1, place.landmark + 1);
        let begun = self.recent.get(context - 1).map_or(at, |(_, moment)| moment);
        self.leave(begun);
        if self.phases[place.slot].as_ref().is_none_or(|phase| phase.serial != serial) {
            // It had to make room for what ended here.
            self.lost_since = Some(begun);
            return;
        }
        let entry = place.landmark + 1 - context;
        self.begin_visit(place.slot, entry, 0);
        let Some(track) = &mut self.track else { return };
        track.begun = begun;
        if entry == 0 {
            track.lap.start = Some(begun);
        }
        track.lap.hits = context - 1;
        track.next = place.landmark;
        self.arrive(chunk, at);
    }

    /// The landmark `next`, which is `chunk`'s, was reached by a jump, in step `at`.
    pub(super) fn arrive(&mut self, chunk: ChunkId, at: Moment) {
        let Some(track) = &mut self.track else { return };
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        // The phase may have been laid out anew since the place was found.
        let near = |place: &u32| place.abs_diff(track.next);
        let Some(next) = phase.places(chunk).take(PLACES).min_by_key(near) else {
            return self.lose();
        };
        track.next = next;
        let landmark = phase.landmarks[next as usize];
        if track.between {
            track.lap.start = None;
        }
        (track.between, track.trailing) = (false, false);
        // Voids every cursor, so any origin will do.
        track.base = -i64::from(phase.offset(landmark.step));
        track.now = 0;
        track.next_step = landmark.step + 1;
        (track.doubts, track.strays) = (0, 0);
        track.lap.hits += 1;
        if track.next == 0 && track.lap.start.is_none() {
            track.lap.start = Some(at);
        }
        self.record.entry_mut(at).place = place(track.slot, landmark.step);
        let next = track.next + 1;
        self.advance(next);
    }

    /// Leaves the phase under way, or the unknown, for what begins with step `begun`.
    fn leave(&mut self, begun: Moment) {
        let lost_since = self.lost_since.take();
        let Some(track) = self.track.take() else {
            if let Some(from) = lost_since {
                self.keep_stretch(from, begun, STRETCH);
            }
            return;
        };
        let phase = self.phase(track.slot);
        if phase.known() {
            self.end_visit(&track);
            if track.doubts > 0 && track.returning && track.doubted_at < begun {
                self.change_behind(&track, track.doubted_at);
                let least = if track.between { 1 } else { STRETCH };
                self.keep_stretch(track.doubted_at, begun, least);
            } else {
                self.change_behind(&track, begun);
            }
        } else {
            self.drop_phase(track.slot);
            self.keep_stretch(
                track.prelude.map_or(track.doubted_at, |(from, _)| from),
                begun,
                STRETCH,
            );
        }
    }

    /// Something that has no place here: an insertion, or the first of
    /// something else.
    fn hold(&mut self, chunk: ChunkId, at: Moment, lag: Option<u64>) {
        self.note_miss(chunk, at);
        let Some(track) = &mut self.track else { return };
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        let erratic = self.known.erratic(chunk);
        track.lap.missed += 1;
        if track.doubts == 0 {
            track.doubted_at = at;
            track.returning = true;
        }
        track.doubts += 1;
        track.returning &= lag.is_some_and(|lag| lag * 2 > phase.length() * 3) && !erratic;
        // What was never seen before is no repetition; a long one may differ.
        let stranger = lag.is_none() && !phase.known() && phase.count() < LONG;
        if track.doubts > DOUBTS || stranger {
            self.lose();
        }
    }

    /// `chunk` has no place in the phase under way. In two laps running, the
    /// phase has changed.
    fn note_miss(&mut self, chunk: ChunkId, at: Moment) {
        let Some(track) = &mut self.track else { return };
        if track.strays == 0 {
            track.strayed_at = at;
        }
        track.strays += 1;
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        let known = &mut self.known.chunks[chunk as usize];
        let lap = phase.laps + 1;
        let missed =
            |laps_ago| lap > laps_ago && known.missed_in == lap_stamp(phase.serial, lap - laps_ago);
        track.lap.recurred += u32::from(missed(1));
        track.lap.alternated += u32::from(missed(2));
        known.missed_in = lap_stamp(phase.serial, lap);
    }

    /// Whether the next landmark is long overdue, and something else going on.
    fn astray(&self, at: Moment) -> bool {
        let Some(track) = &self.track else { return false };
        let step = self.phase(track.slot).landmarks[track.next as usize].step;
        let due = u64::from(if track.between { 0 } else { step.saturating_sub(track.next_step) });
        track.strays > DOUBTS && at - track.strayed_at > OVERDUE + 4 * due
    }

    /// Nothing known goes on.
    pub(super) fn lose(&mut self) {
        let Some(mut track) = self.track.take() else { return };
        if track.strays > 0 {
            track.doubted_at = track.strayed_at;
        }
        self.lost_since = Some(track.doubted_at);
        if let Some(crossed) = self.crossed.take() {
            // What was expected to begin never did.
            self.change_behind(&crossed, track.doubted_at);
        } else if self.phase(track.slot).known() {
            if track.between {
                self.end_visit(&track);
                self.change_behind(&track, track.doubted_at);
            } else {
                self.interrupted = Some(track);
            }
        } else {
            self.drop_phase(track.slot);
            self.lost_since = Some(track.prelude.map_or(track.doubted_at, |(from, _)| from));
        }
    }

    /// The phase goes on: what was held, but for the last `found` landmarks,
    /// has no place in it.
    pub(super) fn blame_held(&mut self, found: u32) {
        let Some(track) = &self.track else { return };
        if track.doubts == 0 || !self.phase(track.slot).known() {
            return;
        }
        for back in found..=track.doubts.min(found + SKIP) {
            if let Some((chunk, _)) = self.recent.get(back)
                && let Some(known) = self.known.chunks.get_mut(chunk as usize)
            {
                known.blame(3);
            }
        }
    }

    /// Of the landmarks passed over since the last one because they come and
    /// go: those that did not come.
    pub(super) fn blame_absent(&mut self) {
        let Some(track) = &self.track else { return };
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        for landmark in phase.landmarks.get(track.from as usize..track.next as usize).unwrap_or(&[])
        {
            if let Some(known) = self.known.chunks.get_mut(landmark.chunk as usize)
                && known.touched <= track.hit_at + 1
            {
                known.blame(2);
            }
        }
    }
}
