//! What comes next, from where we are: to the end of the lap, into the next
//! one, and into the next phase where past visits tell which and when.
//!
//! Positions are counted in *virtual* operations, as the phases have them: an
//! operation more or less in reality moves the present, not what is ahead.

use super::*;
use visits::VisitNumber;

/// Where a look ahead stands. Void once [`Learner::epoch`] has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    slot: usize,
    step: u32,
    /// Within the step.
    index: u32,
    /// Virtual operation at which the lap begins.
    base: i64,
    /// Laps of the visit before this one.
    laps: u32,
    /// The past visit that this one is expected to repeat.
    model: Option<VisitNumber>,
}

/// Ends of laps and visits passed in search of one access.
const TURNS: u32 = 8;

impl Learner {
    /// The first access to come, if anything is predicted.
    pub fn ahead(&self) -> Option<Cursor> {
        let track = self.track.as_ref()?;
        let phase = self.phase(track.slot);
        track.trusted(phase).then(|| Cursor {
            slot: track.slot,
            step: track.next_step,
            index: 0,
            base: track.base,
            laps: track.laps - u32::from(track.trailing),
            model: track.model,
        })
    }

    /// Where the last operation stands in the predicted order: an upcoming
    /// access comes at this plus its distance. Rises, but not always by one:
    /// programs do a thing more or less now and then. Starts anew with each
    /// epoch.
    pub fn position(&self) -> i64 {
        self.track.as_ref().map_or(0, |track| track.now)
    }

    /// The access at `cursor`, which moves on to the next: over the end of the
    /// iteration into its repetition, and into the next phase where that is
    /// known. `None`: nothing is predicted further.
    ///
    /// A cursor that was overtaken continues from the present.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Upcoming> {
        let track = self.track.as_ref()?;
        let present = track.base + i64::from(self.phase(track.slot).offset(track.next_step));
        let mut turns = 0;
        while turns < TURNS {
            let phase = self.phases[cursor.slot].as_deref()?;
            let at = cursor.base + i64::from(phase.offset(cursor.step));
            if at < present {
                *cursor = self.ahead()?;
                turns += 1;
                continue;
            }
            if self.leaves(cursor) {
                self.cross_cursor(cursor, at);
                turns += 1;
                continue;
            }
            let Some(step) = phase.steps.get(cursor.step as usize) else {
                if phase.once && cursor.model.is_none() {
                    return None;
                }
                cursor.base += i64::from(phase.operations);
                cursor.laps += 1;
                (cursor.step, cursor.index) = (0, 0);
                turns += 1;
                continue;
            };
            if cursor.index >= step.use_count {
                (cursor.step, cursor.index) = (cursor.step + 1, 0);
                continue;
            }
            let chunk = phase.uses[(step.first_use + cursor.index) as usize];
            cursor.index += 1;
            if chunk != NO_CHUNK && !self.known.erratic(chunk) {
                let distance = (at - track.now).clamp(1, i64::from(u32::MAX)) as u32;
                return Some(Upcoming { chunk, distance });
            }
        }
        None
    }

    /// Whether the visit ends where `cursor` stands.
    fn leaves(&self, cursor: &Cursor) -> bool {
        let Some(visit) = cursor.model.and_then(|number| self.visits.get(number)) else {
            return false;
        };
        cursor.index == 0
            && cursor.laps >= visit.laps
            && cursor.step >= self.phase(cursor.slot).step_of(visit.exit)
    }

    /// Into the phase that follows, from virtual operation `at`.
    fn cross_cursor(&self, cursor: &mut Cursor, at: i64) {
        let Some((slot, entry, model)) = cursor.model.and_then(|number| self.after(number)) else {
            // Nothing known of what follows: more of the same.
            cursor.model = None;
            return;
        };
        let phase = self.phase(slot);
        let step = phase.step_of(entry);
        let base = at - i64::from(phase.offset(step));
        *cursor = Cursor { slot, step, index: 0, base, laps: 0, model };
    }

    /// What came after visit `number`: the slot of the phase, the landmark at
    /// which it was entered, and the visit to expect a repetition of.
    pub(super) fn after(&self, number: VisitNumber) -> Option<(usize, u32, Option<VisitNumber>)> {
        let next = number + 1;
        if next == self.visits.count() {
            // The visit under way.
            let track = self.track.as_ref()?;
            return Some((track.slot, track.entry, track.model));
        }
        let visit = self.visits.get(next)?;
        let phase = self.phases[visit.slot].as_deref()?;
        (phase.serial == visit.serial).then_some((visit.slot, visit.entry, Some(next)))
    }
}
