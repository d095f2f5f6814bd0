//! GPU time, measured for groups of operations, spread over the steps that
//! they repeated.
//!
//! Groups begin and end anywhere. A group's time is split in proportion to
//! what is believed of its steps already, and the belief moves towards the
//! share: steps that were measured with different neighbours separate.

use super::phase::Phase;
use super::record::NOWHERE;
use super::*;

/// Measurements after which an estimate follows new ones at a fixed pace.
const SAMPLES: u8 = 4;

/// Nothing is believed of a step.
const UNKNOWN: f32 = -1.0;

const STEP_BITS: u32 = 26;

/// A step of a phase, as the record notes it.
pub(super) fn place(slot: usize, step: u32) -> u32 {
    (slot as u32) << STEP_BITS | step
}

fn of_place(place: u32) -> (usize, u32) {
    ((place >> STEP_BITS) as usize, place & ((1 << STEP_BITS) - 1))
}

impl Learner {
    pub(super) fn spread(&mut self, operations: Range<Operation>, ns: Nanos) {
        let operations = operations.start..operations.end.min(self.operations);
        if operations.is_empty() {
            return;
        }
        let Some(first) = self.record.find(operations.start) else { return };
        // How many of a step's operations are meant.
        let share = |entry: &record::Entry| {
            entry.end().min(operations.end).saturating_sub(entry.operation.max(operations.start))
        };
        let last = self.record.find(operations.end - 1).unwrap_or(first);
        // What the steps are believed to take; where nothing is, as much per
        // operation as the others.
        let (mut believed, mut timed, mut untimed) = (0.0, 0u64, 0u64);
        for at in first..=last {
            let entry = *self.record.entry(at);
            let count = share(&entry);
            if count == 0 {
                continue;
            }
            // Kept for below: a group may cover a step several times, and what
            // is believed of it changes with the first.
            let belief = self.belief(&entry);
            self.record.entry_mut(at).ns = belief.map_or(UNKNOWN, |ns| ns as f32);
            match belief {
                Some(ns) => {
                    believed += ns * count as f64;
                    timed += count;
                }
                None => untimed += count,
            }
        }
        if timed + untimed == 0 {
            return;
        }
        // Nothing believed of any: all alike.
        let uniform = believed <= 0.0;
        let usual = if uniform { 1.0 } else { believed / timed as f64 };
        let expected =
            if uniform { (timed + untimed) as f64 } else { believed + usual * untimed as f64 };
        let scale = ns as f64 / expected;
        let mut phases = 0u64;
        for at in first..=last {
            let entry = *self.record.entry(at);
            let count = share(&entry);
            if count == 0 {
                continue;
            }
            let known = !uniform && entry.ns != UNKNOWN;
            let operation_ns = if known { f64::from(entry.ns) } else { usual } * scale;
            let step_ns = operation_ns * f64::from(entry.operations);
            self.record.entry_mut(at).ns = step_ns as f32;
            if let Some((slot, step)) = self.meant(&entry) {
                phases |= 1 << slot;
                let phase = self.phases[slot].as_deref_mut().expect("it is meant");
                let expected = f64::from(phase.steps[step as usize].operations);
                phase.time(step, operation_ns * expected, count);
            }
        }
        for slot in bits(phases) {
            let phase = self.phases[slot].as_deref_mut().expect("it was measured");
            if phase.news() {
                self.version += u64::from(phase.confirmed);
            }
        }
    }

    /// The phase in `slot` was laid out from the steps `from` on: what is
    /// measured of them from now on is about it.
    pub(super) fn mean(&mut self, slot: usize, from: Moment) {
        let Some(phase) = self.phases[slot].as_deref_mut() else { return };
        let to = from + phase.steps.len() as u64;
        phase.built_at = self.record.entry(from).operation;
        for at in from..self.record.length() {
            let entry = self.record.entry_mut(at);
            if at < to {
                entry.place = place(slot, (at - from) as u32);
            } else if entry.place != NOWHERE && of_place(entry.place).0 == slot {
                // Of what was in this slot before.
                entry.place = NOWHERE;
            }
        }
    }

    /// The step of a phase that `entry` repeated, if that still means the same.
    fn meant(&self, entry: &record::Entry) -> Option<(usize, u32)> {
        if entry.place == NOWHERE {
            return None;
        }
        let (slot, step) = of_place(entry.place);
        let phase = self.phases[slot].as_deref()?;
        (entry.operation >= phase.built_at && (step as usize) < phase.steps.len())
            .then_some((slot, step))
    }

    /// What one operation of `entry` is believed to take.
    fn belief(&self, entry: &record::Entry) -> Option<f64> {
        let (slot, step) = self.meant(entry)?;
        let step = self.phase(slot).steps[step as usize];
        (step.samples > 0).then(|| f64::from(step.ns) / f64::from(step.operations))
    }
}

impl Phase {
    /// `step` took `ns`, as far as `operations` of it tell.
    fn time(&mut self, step: u32, ns: f64, operations: u64) {
        self.measured_since += operations;
        let step = &mut self.steps[step as usize];
        if step.samples == 0 {
            self.timed_operations += u64::from(step.operations);
        }
        self.difference -= f64::from((step.ns - step.told).abs());
        step.samples = (step.samples + 1).min(SAMPLES);
        step.ns += (ns as f32 - step.ns) / f32::from(step.samples);
        self.difference += f64::from((step.ns - step.told).abs());
    }

    /// Whether times differ by more than a tenth from those that were told
    /// last; they are told now. Asked often, answered once per iteration.
    fn news(&mut self) -> bool {
        if self.measured_since < self.length() || !self.timed() {
            return false;
        }
        self.measured_since = 0;
        if self.difference * 10.0 <= self.told {
            return false;
        }
        self.tell();
        true
    }

    fn tell(&mut self) {
        self.told = 0.0;
        for step in &mut self.steps {
            step.told = step.ns;
            self.told += f64::from(step.ns);
        }
        self.difference = 0.0;
    }

    /// Takes the place of `old`, which lived in `slot`: what was not measured
    /// since `start`, where this one begins, is as it was.
    pub(super) fn inherit(&mut self, old: &Phase, slot: usize, record: &Record, start: Moment) {
        for (index, step) in self.steps.iter_mut().enumerate() {
            let entry = record.entry(start + index as u64);
            let (same_slot, at) = of_place(entry.place);
            if entry.place == NOWHERE || same_slot != slot || entry.operation < old.built_at {
                continue;
            }
            let Some(before) = old.steps.get(at as usize) else { continue };
            if before.samples > 0 {
                if step.samples == 0 {
                    self.timed_operations += u64::from(step.operations);
                }
                // Laid out from measurements of one lap; the old ones are of several.
                step.ns = before.ns * step.operations as f32 / before.operations as f32;
                step.samples = before.samples;
            }
        }
        if old.told > 0.0 && self.timed() {
            self.tell();
        } else {
            self.difference = self.steps.iter().map(|step| f64::from(step.ns)).sum();
        }
        self.serial = old.serial;
        self.confirmed = old.confirmed;
        self.once = old.once;
        self.visits = old.visits;
        self.used_at = old.used_at;
        self.repeats = old.repeats;
        self.laps = old.laps;
        self.unrest = old.unrest + 1;
        self.patience = old.patience;
        self.erratic_told = old.erratic_told;
    }
}
