//! Which phase came after which, and after how many iterations.
//!
//! A visit that begins is taken for a repetition of the past visit whose
//! predecessors resemble it most; what came after that one is expected to come
//! again.
//! Not here: phases themselves (they may have been forgotten since).

/// Visits remembered.
const VISITS: usize = 256;
/// Predecessors compared.
const DEPTH: u64 = 4;

/// Number of a visit, from 0 for ever.
pub(super) type VisitNumber = u64;

/// A stay in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visit {
    pub slot: usize,
    pub serial: u64,
    /// Landmark at which it began.
    pub entry: u32,
    /// Times the end of the phase was passed.
    pub laps: u32,
    /// The landmark that did not come any more.
    pub exit: u32,
}

#[derive(Default)]
pub(super) struct Visits {
    ring: Vec<Visit>,
    count: VisitNumber,
}

impl Visits {
    pub fn push(&mut self, visit: Visit) {
        if self.ring.len() < VISITS {
            self.ring.push(visit);
        } else {
            self.ring[self.count as usize % VISITS] = visit;
        }
        self.count += 1;
    }

    pub fn footprint(&self) -> usize {
        self.ring.capacity() * size_of::<Visit>()
    }

    /// The last visit has not ended after all.
    pub fn pop(&mut self) {
        self.count = self.count.saturating_sub(1);
        if (self.count as usize) < self.ring.len() && self.ring.len() < VISITS {
            self.ring.truncate(self.count as usize);
        }
    }

    /// Visits that ended; also the number of the one under way.
    pub fn count(&self) -> VisitNumber {
        self.count
    }

    pub fn get(&self, number: VisitNumber) -> Option<&Visit> {
        // One less than there is room for: the last may have overwritten it and
        // been taken back.
        let remembered = number < self.count && self.count - number < VISITS as u64;
        remembered.then(|| &self.ring[number as usize % VISITS])
    }

    /// The last visit, of `serial`, and the one of it before, if they began and
    /// ended at about the same landmarks of one lap, `edge` more or less.
    pub fn repeated(&self, serial: u64, edge: u32) -> Option<[VisitNumber; 2]> {
        let last = self.count.checked_sub(1)?;
        let now = *self.get(last).filter(|visit| visit.serial == serial)?;
        let mut before = (0..last).rev().map_while(|number| Some((number, self.get(number)?)));
        let (number, then) = before.find(|(_, visit)| visit.serial == serial)?;
        let alike = now.entry.abs_diff(then.entry) <= edge && now.exit.abs_diff(then.exit) <= edge;
        (alike && now.laps == 0 && then.laps == 0).then_some([number, last])
    }

    /// Visit `number` was another.
    pub fn rename(&mut self, number: VisitNumber, visit: Visit) {
        if self.get(number).is_some() {
            self.ring[number as usize % VISITS] = visit;
        }
    }

    /// The past visit that one of `serial`, beginning now at `entry`, is
    /// likely to repeat: the one whose predecessors resemble most those of
    /// now; among equals, one as long as the last was.
    pub fn model(&self, serial: u64, entry: u32) -> Option<VisitNumber> {
        let mut best: Option<((u32, bool), VisitNumber)> = None;
        let mut last_laps = None;
        for number in (self.count.saturating_sub(VISITS as u64)..self.count).rev() {
            let Some(visit) = self.get(number) else { break };
            if visit.serial != serial {
                continue;
            }
            let last_laps = *last_laps.get_or_insert(visit.laps);
            let likeness = 2 * self.resemblance(number) + u32::from(visit.entry == entry);
            let rank = (likeness, visit.laps == last_laps);
            if best.is_none_or(|(best, _)| rank > best) {
                best = Some((rank, number));
            }
            if rank == (2 * 2 * DEPTH as u32 + 1, true) {
                break;
            }
        }
        best.map(|(_, number)| number)
    }

    /// How far back what came before visit `number` is what came before now:
    /// one for each phase, one more if it was left as it is now.
    fn resemblance(&self, number: VisitNumber) -> u32 {
        let mut alike = 0;
        for back in 1..=DEPTH {
            let (Some(then), Some(now)) = (
                number.checked_sub(back).and_then(|n| self.get(n)),
                self.count.checked_sub(back).and_then(|n| self.get(n)),
            ) else {
                break;
            };
            if then.serial != now.serial {
                break;
            }
            alike += 1;
            if (then.laps, then.exit) != (now.laps, now.exit) {
                break;
            }
            alike += 1;
        }
        alike
    }
}
