//! Where we are: follows the phase under way, landmark by landmark, and
//! decides about every chunk that was not expected.
//!
//! In this order, it is:
//! - more of the phase that was expected to end here;
//! - noise: a chunk that this phase uses all the time, or one that was used a
//!   moment ago. Neither advances nor disturbs;
//! - a skip: the landmark is a few further on;
//! - a jump: this and the landmarks before it follow each other at another
//!   place of this or another known phase, or another phase begins;
//! - otherwise it is held: once the expected one comes, it was an insertion;
//!   after [`DOUBTS`] of them we are lost, and what follows becomes a phase of
//!   its own if it ever ends.
//!
//! At the end of each lap: how much of it came as expected decides whether a
//! candidate is confirmed, a changed phase is laid out anew (the same change
//! twice in a row), or a variant becomes a phase of its own (a fifth differs).

use super::discover::Candidate;
use super::phase::{Landmark, Phase};
use super::record::Sum;
use super::times::place;
use super::visits::{Visit, VisitNumber};
use super::*;

/// Landmarks skipped without asking for more evidence.
const SKIP: u32 = 8;
/// Unexpected landmarks held before we are lost.
const DOUBTS: u32 = 12;
/// What comes back after so few operations is a loop only if there is nothing
/// else.
const BURST: u64 = 4;
/// A landmark that is late by so many steps is not coming.
const OVERDUE: u64 = 24;
/// Landmarks in a row that identify a place.
const CONTEXT: u32 = 2;
/// Landmarks that come and go, in a row, that a context reaches across.
const CONTEXT_GAP: u32 = 16;
/// A longer part of a lap, spent elsewhere, is no detour within it.
const DETOUR: u64 = 3;
/// A phase shorter than this part of the one under way interrupts no lap.
const TRIFLE: u64 = 4;
/// Places of a chunk, in one phase, that are looked at.
const PLACES: usize = 32;
/// A phase with fewer landmarks is confirmed after as many, and if nearly all
/// came: chance repeats a few.
const SHORT: u32 = 8;
/// From so many landmarks on, a candidate may contain something new.
const LONG: u32 = 32;
/// One in so many landmarks has to agree for a candidate to be tried.
const AGREED_OF: u32 = 4;
/// A candidate longer than this many laps of the phase under way is no loop
/// around it worth unrolling.
const UNROLLED: u64 = 6;
/// A loop of so few operations is worth unrolling in any case.
const SHORT_LOOP: u64 = 512;
/// A candidate that has to be followed with more jumps than this is none.
const CANDIDATE_JUMPS: u32 = 3;
/// A variant differs in few places, if in many chunks.
const VARIANT_SLIPS: u32 = 8;
/// Between two laps, so many held landmarks that were there before are a
/// stretch between two visits.
const RETURNING: u32 = 2;
/// If this part of a phase's uses became uncertain, or certain, that is news.
const CERTAINTY: usize = 8;
/// A phase that shares this part of its landmarks with a longer one is part of it.
const CONTAINED: (u32, u32) = (15, 16);
/// Changes of a phase between two rises of the version, at most.
const MOST_PATIENCE: u32 = 64;
/// A stretch of fewer landmarks that does not repeat is no phase.
const STRETCH: u32 = 4;

/// The lap under way.
#[derive(Clone, Copy, Default)]
struct Lap {
    /// The step of its first landmark, if it was followed from there.
    start: Option<Moment>,
    hits: u32,
    missed: u32,
    skipped: u32,
    slips: u32,
    /// Those to another place than a few landmarks further on.
    jumps: u32,
    /// It was left for something that never came before, and resumed.
    detour: bool,
    /// Misses and skips that the lap before had, too.
    recurred: u32,
    /// Those that the lap before the last had, but not the last.
    alternated: u32,
}

impl Lap {
    /// What came and what should have: something else in its place counts once.
    fn total(&self) -> u32 {
        self.hits + self.missed.max(self.skipped)
    }
}

/// Names lap number `lap` of the phase `serial`, as far as 32 bits can.
fn lap_stamp(serial: u64, lap: u32) -> u32 {
    (serial as u32) << 16 | (lap & 0xffff)
}

/// Whether steps and uses are as many, give or take a hundredth, and
/// operations, a tenth.
fn alike(a: &Sum, b: &Sum) -> bool {
    let like = |a: u64, b: u64, part: u64| a.abs_diff(b) * part <= a.max(b);
    like(a.steps, b.steps, 100) && like(a.uses, b.uses, 100) && like(a.operations, b.operations, 10)
}

/// What the end of a lap asks to be done with it when the next one begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// Lay the phase out anew.
    Update,
    /// Make it a phase of its own.
    Variant,
    /// The same, if it was longer or shorter: a router's choice is no variant.
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct Track {
    pub slot: usize,
    /// The landmark that comes next, and its chunk.
    next: u32,
    expected: ChunkId,
    /// The one after the last that was seen, and when that was.
    from: u32,
    hit_at: Moment,
    /// The step that comes next.
    pub next_step: u32,
    /// The last landmark of the lap was seen, the first of the next not yet.
    between: bool,
    /// So are steps of the old lap: `next_step` and `base` are of that.
    pub trailing: bool,
    /// Virtual operations: the beginning of the lap, and the last one observed.
    pub base: i64,
    pub now: i64,
    /// Times this visit passed the end.
    pub laps: u32,
    /// The landmark at which it began.
    pub entry: u32,
    /// The past visit that it is expected to repeat.
    pub model: Option<VisitNumber>,
    lap: Lap,
    change: Change,
    /// The lap that ended was left and resumed.
    detour: bool,
    doubts: u32,
    /// Chunks without a place here, held or ignored, since the last landmark,
    /// and the step of the first.
    strays: u32,
    strayed_at: Moment,
    /// The landmark that was next before a skip that nothing has confirmed yet.
    skipped_from: Option<u32>,
    /// All that is held was used before, but not of late: it may be a stretch
    /// between phases that comes back.
    returning: bool,
    /// The first step held.
    doubted_at: Moment,
    /// The last lap was mostly something else.
    poor: bool,
    /// Of a candidate: where the unknown stretch before it began and ended.
    prelude: Option<(Moment, Moment)>,
}

impl Track {
    /// Panics unless it is a place in `phase`.
    pub fn check(&self, phase: &Phase) {
        assert_ne!(self.expected, NO_CHUNK);
        assert_eq!(phase.landmarks[self.next as usize].chunk, self.expected);
        assert!(self.next_step as usize <= phase.steps.len());
        let end = self.base + i64::from(phase.offset(self.next_step));
        assert!(self.now < end, "the present, {}, is past the next step, {end}", self.now);
    }

    /// Whether what it says of the future is worth acting upon.
    pub fn trusted(&self, phase: &Phase) -> bool {
        phase.known() || self.lap.hits >= 4
    }
}

/// The last landmarks, newest first.
#[derive(Default)]
pub(super) struct Recent {
    ring: [(ChunkId, Moment); 8],
    count: usize,
}

impl Recent {
    fn push(&mut self, chunk: ChunkId, at: Moment) {
        self.ring[self.count % 8] = (chunk, at);
        self.count += 1;
    }

    /// The one `back` before the newest.
    fn get(&self, back: u32) -> Option<(ChunkId, Moment)> {
        let index = self.count.checked_sub(1 + back as usize)?;
        (back < 8).then(|| self.ring[index % 8])
    }

    pub fn forget(&mut self, chunk: ChunkId) {
        for entry in &mut self.ring {
            if entry.0 == chunk {
                entry.0 = NO_CHUNK;
            }
        }
    }
}

/// A place in a known phase.
#[derive(Clone, Copy)]
struct Place {
    slot: usize,
    landmark: u32,
    /// Landmarks up to this one that agree with the last ones seen.
    context: u32,
}

impl Learner {
    pub(super) fn phase(&self, slot: usize) -> &Phase {
        self.phases[slot].as_deref().expect("a phase that is referred to")
    }

    fn phase_mut(&mut self, slot: usize) -> &mut Phase {
        self.phases[slot].as_deref_mut().expect("a phase that is referred to")
    }

    /// One more operation of the same step.
    #[inline]
    pub(super) fn linger(&mut self) -> bool {
        let Some(track) = &mut self.track else { return false };
        let phase = self.phases[track.slot].as_deref().expect("the phase under way");
        let end = track.base + i64::from(phase.offset(track.next_step));
        track.now = (track.now + 1).min(end - 1).max(track.now);
        true
    }

    /// A new step.
    pub(super) fn step(&mut self, operation: Operation, chunks: &[ChunkId]) -> bool {
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
        let mut predicted = self.track.is_some();
        for &chunk in chunks {
            predicted &= self.access(chunk, at, operation);
        }
        predicted
    }

    fn access(&mut self, chunk: ChunkId, at: Moment, operation: Operation) -> bool {
        if chunk as usize >= self.known.chunks.len() {
            if chunk as usize >= CHUNKS {
                return false;
            }
            self.known.chunks.resize_with(chunk as usize + 1, Known::default);
        }
        let known = &mut self.known.chunks[chunk as usize];
        let touched = std::mem::replace(&mut known.touched, at + 1);
        let touched_by = std::mem::replace(&mut known.touched_by, operation);
        if touched != 0 && touched >= at {
            // A burst: no new use. (Or named twice.)
            return true;
        }
        if let Some(track) = &self.track
            && track.expected == chunk
        {
            known.clear(1);
            self.hit(chunk, at);
            return true;
        }
        let before = (touched != 0).then(|| (touched - 1, operation - touched_by));
        self.surprise(chunk, at, before)
    }

    /// The expected landmark came.
    fn hit(&mut self, chunk: ChunkId, at: Moment) {
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

    /// The phase goes on: what was held, but for the last `found` landmarks,
    /// has no place in it.
    fn blame_held(&mut self, found: u32) {
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
    fn blame_absent(&mut self) {
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
        self.epoch += 1;
        self.keep_stretch(track.doubted_at, at, 1);
        let entry = if between_laps { 0 } else { track.entry };
        self.begin_visit(track.slot, entry, track.now + 1);
    }

    /// The first landmark at or after `index` that is to be expected, and
    /// whether that is in the next lap: no hole, and no chunk that comes and
    /// goes unless all do.
    fn steady(&self, slot: usize, index: u32) -> (u32, bool) {
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
    fn advance(&mut self, next: u32) {
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
        if track.laps != visit.laps || track.next < visit.exit {
            return;
        }
        let number = track.model.expect("it has one");
        let Some((slot, entry, expected_model)) = self.after(number) else { return };
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
        // A look ahead went by the visit that followed then; of others that
        // resemble this one better, what is said must be the same.
        let model = self.track.as_ref().and_then(|track| track.model);
        if model != expected_model && self.course(model) != self.course(expected_model) {
            self.epoch += 1;
        }
    }

    /// What is expected of a visit that repeats `model`: its length and what
    /// comes after it.
    fn course(&self, model: Option<VisitNumber>) -> Option<(u32, u32, usize, u32)> {
        let number = model?;
        let visit = self.visits.get(number)?;
        let (slot, entry, _) = self.after(number)?;
        Some((visit.laps, visit.exit, slot, entry))
    }

    fn end_visit(&mut self, track: &Track) {
        let phase = self.phase_mut(track.slot);
        phase.repeats = track.laps.max(1);
        let serial = phase.serial;
        let Track { slot, entry, laps, next: exit, .. } = *track;
        self.visits.push(Visit { slot, serial, entry, laps, exit });
    }

    /// A visit whose first landmark, `entry`, is to come at virtual operation `at`.
    fn begin_visit(&mut self, slot: usize, entry: u32, at: i64) {
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

    // --- what was not expected ---------------------------------------------

    /// `chunk` came instead of the expected landmark. `before`: the step that
    /// touched it last, and how many operations ago.
    fn surprise(&mut self, chunk: ChunkId, at: Moment, before: Option<(Moment, u64)>) -> bool {
        if let Some(crossed) = self.crossed.filter(|crossed| crossed.expected == chunk) {
            // The visit goes on, past its expected end.
            self.crossed = None;
            self.visits.pop();
            self.track = Some(Track { model: None, ..crossed });
            self.epoch += 1;
            self.hit(chunk, at);
            return false;
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
                return true;
            }
            if erratic {
                known.blame(3);
            }
            if erratic || !marks && before.is_some_and(|(_, lag)| lag < length / 8) {
                self.note_miss(chunk, at);
                if self.astray(at) {
                    self.lose();
                }
                return false;
            }
        }
        if self.track.as_ref().is_some_and(|track| track.between && self.nearby(track, chunk)) {
            // The lap begins, if not as it used to.
            self.begin_lap(chunk, at);
            if self.track.as_ref().is_some_and(|track| track.expected == chunk) {
                self.hit(chunk, at);
                return false;
            }
        }
        self.recent.push(chunk, at);
        if let Some(place) = self.recall(chunk, before.map(|(_, lag)| lag)) {
            let other = self.track.as_ref().is_none_or(|track| track.slot != place.slot);
            self.jump(chunk, place, at);
            if !other {
                self.propose(before, at);
            }
            return false;
        }
        self.hold(chunk, at, before.map(|(_, lag)| lag));
        self.propose(before, at);
        false
    }

    /// Whether `chunk` is expected soon.
    fn nearby(&self, track: &Track, chunk: ChunkId) -> bool {
        let phase = self.phase(track.slot);
        phase.places(chunk).take(PLACES).any(|place| place.wrapping_sub(track.next) <= SKIP)
    }

    /// A place in a known phase that this and the last landmarks point to, if
    /// they do so clearly.
    fn recall(&self, chunk: ChunkId, lag: Option<u64>) -> Option<Place> {
        let marks = self.known.chunks[chunk as usize].marks;
        // From the middle of a lap that goes well, not into a trifle.
        let least = match &self.track {
            Some(track) if !self.between() && !track.poor => {
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
        self.epoch += 1;
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
            self.jump_to(chunk, place, held, at);
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
        }
        let Some(track) = &mut self.track else { return };
        let known = self.phases[track.slot].as_ref().is_some_and(|phase| phase.known());
        if !known && track.lap.jumps > CANDIDATE_JUMPS {
            return self.lose();
        }
        track.next = place.landmark;
        self.arrive(chunk, at);
    }

    fn jump_to(&mut self, chunk: ChunkId, place: Place, held: u32, at: Moment) {
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
        let serial = self.phase(place.slot).serial;
        self.leave(begun);
        if self.phases[place.slot].as_ref().is_none_or(|phase| phase.serial != serial) {
            // It had to make room for the stretch that ends here.
            self.lost_since = Some(begun);
            return;
        }
        let entry = place.landmark + 1 - context;
        self.begin_visit(place.slot, entry, 0);
        let Some(track) = &mut self.track else { return };
        if entry == 0 {
            track.lap.start = Some(begun);
        }
        track.lap.hits = context - 1;
        track.next = place.landmark;
        self.arrive(chunk, at);
    }

    /// The landmark `next`, which is `chunk`'s, was reached by a jump, in step `at`.
    fn arrive(&mut self, chunk: ChunkId, at: Moment) {
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
    fn lose(&mut self) {
        let Some(mut track) = self.track.take() else { return };
        self.epoch += 1;
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

    // --- laps ---------------------------------------------------------------

    /// The end of the phase was passed.
    fn end_lap(&mut self) {
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
            if !phase.confirmed && !track.poor && track.entry == 0 {
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
        self.epoch += 1;
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
    fn begin_lap(&mut self, chunk: ChunkId, at: Moment) {
        self.turn(chunk, at);
        if let Some(track) = &self.track {
            // Whatever became of it: it is told of now.
            let phase = self.phases[track.slot].as_deref_mut().expect("the phase under way");
            self.version += u64::from(std::mem::take(&mut phase.untold));
        }
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
        self.epoch += 1;
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
        self.begin_visit(slot, 0, 0);
        if let Some(track) = &mut self.track {
            track.laps = 1;
            track.lap.start = Some(at);
        }
        self.version += 1;
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
            return false;
        }
        // The first lap after the stretch that it was laid out from is the better one.
        sum == last || (!alike(&sum, &phase.sum) && (alike(&sum, &last) || phase.laps <= 1))
    }

    /// The visit `track` ended at `to`: a change that its last lap asked for is made.
    fn change_behind(&mut self, track: &Track, to: Moment) {
        let (Change::Update, Some(start)) = (track.change, track.lap.start) else { return };
        let gone = self.phases[track.slot].is_none();
        let current = self.track.as_ref().is_some_and(|current| current.slot == track.slot);
        if !track.between || gone || current {
            return;
        }
        let first = self.steady(track.slot, 0).0;
        let chunk = self.phase(track.slot).landmarks[first as usize].chunk;
        if let Some(phase) = self.lay_out(start, to, chunk) {
            self.epoch += 1;
            self.replace(track.slot, phase, start);
        }
    }

    /// The lap `from..to`, if it begins with `chunk`.
    fn lay_out(&mut self, from: Moment, to: Moment, chunk: ChunkId) -> Option<Phase> {
        let phase = Phase::build(&self.record, from, to, &mut self.known)?;
        let first = phase.landmarks[0];
        (first.step == 0 && first.chunk == chunk).then_some(phase)
    }

    /// The phase in `slot` is now as `phase`, seen from `start` on.
    fn replace(&mut self, slot: usize, mut phase: Phase, start: Moment) {
        let Some(old) = self.phases[slot].take() else { return };
        self.unmark(&old, slot);
        phase.inherit(&old, slot, &self.record, start);
        phase.built_at = self.operations;
        if phase.unrest >= phase.patience {
            phase.unrest = 0;
            phase.patience = (phase.patience * 2).min(MOST_PATIENCE);
            self.version += 1;
        }
        self.mark(&phase, slot);
        self.phases[slot] = Some(Box::new(phase));
        self.make_room(slot);
    }

    // --- phases -------------------------------------------------------------

    /// Takes note of a return after a time, and tries what agrees.
    fn propose(&mut self, before: Option<(Moment, u64)>, at: Moment) {
        if before.is_none_or(|(_, lag)| lag > BURST) {
            self.rare_at = at;
        }
        let Some((then, lag)) = before else { return self.voters.stranger() };
        if lag <= BURST && at <= self.rare_at + 2 * lag {
            // The same weight again, with something else in between.
            return;
        }
        let Some(candidate) = self.voters.vote(lag, then, at) else { return };
        let steps = candidate.again - candidate.then;
        if at < self.rest_until {
            return;
        }
        if let Some(track) = &self.track {
            let phase = self.phase(track.slot);
            let poor = track.poor || track.lap.missed + track.lap.skipped > track.lap.hits + DOUBTS;
            let length = phase.length();
            // The loop under way itself, or one around it that is too long.
            let same = lag * 2 > length && lag * 2 < length * 3;
            let long = lag > length.saturating_mul(UNROLLED).max(SHORT_LOOP);
            if phase.known() && !poor && (same || long) {
                return;
            }
        }
        // Laying out costs as much as so many steps: amortised.
        self.rest_until = at + steps / 4;
        self.try_candidate(candidate, then, at);
    }

    fn try_candidate(&mut self, candidate: Candidate, then: Moment, at: Moment) {
        let Candidate { then: from, again: to, .. } = candidate;
        let Some(phase) = Phase::build(&self.record, from, to, &mut self.known) else { return };
        if u64::from(phase.count()) > UNROLLED * u64::from(phase.marking()) {
            return;
        }
        let Some(offset) = then.checked_sub(from) else { return };
        // The landmark just seen.
        let Some((chunk, _)) = self.recent.get(0) else { return };
        let seen =
            phase.places(chunk).find(|&l| u64::from(phase.landmarks[l as usize].step) == offset);
        let Some(seen) = seen else { return };
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
        self.epoch += 1;
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

    /// The steps `from..to`, which nothing known explains, become a phase if
    /// there are at least `least` landmarks in them.
    fn keep_stretch(&mut self, from: Moment, to: Moment, least: u32) {
        let Some(mut phase) = Phase::build(&self.record, from, to, &mut self.known) else { return };
        if phase.count() < least {
            return;
        }
        phase.once = true;
        phase.visits = 1;
        phase.repeats = 1;
        let slot = self.insert(phase);
        let serial = self.phase(slot).serial;
        self.visits.push(Visit { slot, serial, entry: 0, laps: 1, exit: 0 });
    }

    /// Forgets the phases that the one in `slot` consists of, or repeats.
    fn drop_contained(&mut self, slot: usize) {
        let bit = 1u64 << slot;
        let length = self.phase(slot).length();
        for other in 0..PHASES {
            let Some(phase) = self.phases[other].as_deref() else { continue };
            let (mut shared, mut all) = (0, 0);
            for (chunk, marks) in phase.chunks() {
                let known = &self.known.chunks[chunk as usize];
                if marks && known.erratic < ERRATIC {
                    all += 1;
                    shared += u32::from(known.uses & bit != 0);
                }
            }
            if other != slot && phase.length() <= length && shared * CONTAINED.1 >= all * CONTAINED.0 {
                self.drop_phase(other);
            }
        }
    }

    /// Gives `phase` a slot.
    fn insert(&mut self, mut phase: Phase) -> usize {
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
    fn make_room(&mut self, slot: usize) {
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

    fn mark(&mut self, phase: &Phase, slot: usize) {
        for (chunk, marks) in phase.chunks() {
            let known = &mut self.known.chunks[chunk as usize];
            known.uses |= 1 << slot;
            if marks {
                known.marks |= 1 << slot;
            }
        }
    }

    fn unmark(&mut self, phase: &Phase, slot: usize) {
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
            self.epoch += 1;
        }
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
