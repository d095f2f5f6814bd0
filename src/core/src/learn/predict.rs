//! What comes next, by one rule: *the present repeats the past from here*.
//!
//! A *hypothesis* says which past use the last mark repeats, and holds for as long
//! as what comes now is what came then. A few of them run side by side; the one
//! that has been right for longest is believed. When it fails, earlier uses of what
//! came instead are tried, first those that had the same before them. What is ahead
//! is read off the log: from the past use on, up to the present, and round again.
//!
//! A hypothesis that failed is not gone: what came may be an insertion, and it goes
//! on after that; or some marks are left out, which is a hypothesis of its own.
//! Which it was shows when one of the two is right again.
//!
//! Invariants:
//! - memory is bounded: see `uses`.
//! - nothing that was forgotten is named.
//! - within an epoch the position never goes back.
//!
//! Not here: iterations and their description (the rest of `learn`).

use std::cmp::Reverse;

use super::uses::{CONTEXT, Index, Kind, Marks, Symbol, Uses};
use super::{Operation, Upcoming};

/// Hypotheses at a time.
const HYPOTHESES: usize = 4;
/// Marks left out, or inserted, until a hypothesis is dropped.
const SKIP: u32 = 8;
/// Earlier uses that are tried when none foretold what came.
const TRIES: usize = 32;
/// As many uses that are no marks say as much as a mark, where two hypotheses differ.
const MARK_VOTES: i8 = 16;
/// A hypothesis that was right so often in a row is as good as one that was right for
/// longer.
const PROVEN: u32 = 2 * CONTEXT;
/// A hypothesis that was right so often in a row is believed.
const BELIEVED: u32 = 3;

#[derive(Clone, Copy, Debug)]
struct Hypothesis {
    /// The use that `now`, the last mark that was foretold, repeats.
    then: Index,
    now: Index,
    /// Marks foretold in a row.
    length: u32,
    /// Marks since, that were not.
    strays: u32,
    /// It has come back, or left another one, but for one mark: where that was.
    left_at: Option<(Index, Index)>,
}

impl Hypothesis {
    fn is_sure(&self) -> bool {
        self.strays == 0 && self.left_at.is_none() && self.length >= CONTEXT
    }

    /// The greater, the likelier.
    fn rank(&self, recent: bool) -> (u32, u32, Index) {
        let right = self.strays == 0 && self.left_at.is_none();
        let length = if right { self.length } else { self.length.min(BELIEVED) };
        if recent { (length.min(CONTEXT), 0, self.then) } else { (length, self.length, self.then) }
    }
}

/// Where a look ahead stands. Void once the epoch has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    index: Index,
    /// Marks, and operations, of the times round before this one.
    marks: u64,
    operations: u64,
}

/// How an operation compares with what was foretold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was, or not for long enough to rely on it, or nothing came that tells.
    Untold,
    Right,
    Wrong,
}

#[derive(Default)]
pub(super) struct Predictor {
    uses: Uses,
    operations: Operation,
    /// The one that is believed first.
    hypotheses: Vec<Hypothesis>,
    epoch: u64,
    /// Above 0: of those that were right for long, the one that repeats what was
    /// last is the likeliest; else the one that was right for longest.
    recent: i8,
}

impl Predictor {
    pub fn set_kind(&mut self, symbol: Symbol, kind: Kind) {
        self.uses.set_kind(symbol, kind);
    }

    /// The next operation uses `symbols`.
    pub fn observe(&mut self, symbols: impl IntoIterator<Item = Symbol>) -> Outcome {
        let operation = self.operations;
        self.operations += 1;
        let foretold = self.is_sure();
        let (mut right, mut told) = (true, false);
        for symbol in symbols {
            let believed = self.believed().is_some();
            match self.uses.push(symbol, operation, believed) {
                None => {}
                Some((_, None)) => self.weigh(symbol),
                Some((index, Some(marks))) => {
                    told = true;
                    right &= self.follow(index, symbol, marks);
                }
            }
        }
        match (foretold && told, right) {
            (false, _) => Outcome::Untold,
            (true, true) => Outcome::Right,
            (true, false) => Outcome::Wrong,
        }
    }

    /// `symbol` will mean something else.
    pub fn forget(&mut self, symbol: Symbol) {
        if self.uses.forget(symbol) {
            self.epoch += 1;
            let uses = &self.uses;
            self.hypotheses.retain(|hypothesis| uses.get(hypothesis.then).symbol != symbol);
        }
    }

    /// Changes whenever what was foretold no longer holds.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where the last operation stands in what was foretold: what was to come up to
    /// [`Upcoming::at`] this place came.
    pub fn position(&self) -> u64 {
        self.believed().map_or(0, |best| self.uses.get(best.then).marks)
    }

    /// The operation of the past that the last one repeats, if nothing was inserted or
    /// left out since the last mark.
    pub fn repeats(&self) -> Option<Operation> {
        let best = self.believed()?;
        let (then, now) = (self.uses.get(best.then), self.uses.get(best.now));
        Some(then.operation + (self.operations - 1 - now.operation))
    }

    /// The first access to come, if anything is foretold.
    pub fn ahead(&self) -> Option<Cursor> {
        let best = self.believed()?;
        Some(Cursor { index: best.then + 1, marks: 0, operations: 0 })
    }

    /// What is believed has been right for long.
    pub fn is_sure(&self) -> bool {
        self.believed().is_some_and(|best| best.length >= CONTEXT)
    }

    /// The access at `cursor`, which moves on to the next. `None`: nothing is foretold
    /// further. A cursor that was overtaken continues from the present.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Upcoming> {
        /// Uses passed over in search of one.
        const FAR: u32 = 1 << 12;
        let best = self.believed()?;
        let (then, now) = (self.uses.get(best.then), self.uses.get(best.now));
        let present = self.repeats()?;
        for _ in 0..FAR {
            while cursor.index > best.now {
                cursor.index -= best.now - best.then;
                cursor.marks += now.marks - then.marks;
                cursor.operations += now.operation - then.operation;
            }
            let index = cursor.index;
            if !self.uses.remembers(index) {
                return None;
            }
            let entry = self.uses.get(index);
            let at = entry.marks + cursor.marks;
            if best.length < CONTEXT && at > then.marks + u64::from(2 * best.length) {
                // No farther ahead than it has been right.
                return None;
            }
            if at < then.marks || (cursor.marks == 0 && index <= best.then) {
                *cursor = self.ahead()?;
                continue;
            }
            cursor.index += 1;
            let operation = entry.operation + cursor.operations;
            let mark = self.uses.is_mark(index, Marks::Firm);
            // What is no mark came, or did not, if its time is over.
            if self.uses.is_told(index) && (mark || operation > present) {
                let distance = operation.saturating_sub(present);
                let distance = distance.clamp(1, u64::from(u32::MAX)) as u32;
                let at = at + u64::from(!mark);
                return Some(Upcoming { chunk: entry.symbol, distance, at, operation });
            }
        }
        None
    }

    pub fn footprint(&self) -> usize {
        self.uses.footprint()
    }

    fn believed(&self) -> Option<&Hypothesis> {
        self.hypotheses.first().filter(|best| best.length >= BELIEVED)
    }

    /// How many marks back the past is that is believed to repeat, and its place.
    fn lag(&self) -> Option<(u64, u64)> {
        let best = self.believed()?;
        let then = self.uses.get(best.then).marks;
        Some((self.uses.get(best.now).marks - then, then))
    }

    /// The mark `index`, of `symbol`, came. Answers whether it was foretold.
    fn follow(&mut self, index: Index, symbol: Symbol, marks: Marks) -> bool {
        let find = |uses: &Uses, then| uses.find(symbol, then, index, marks, SKIP);
        if marks == Marks::Firm
            && self.uses.is_common(symbol)
            && self.believed().is_some_and(|b| !matches!(find(&self.uses, b.then), Some((_, 0))))
        {
            // It says too little to doubt what is believed.
            return true;
        }
        let before = self.lag();
        let rivals = self.rivals();
        let (mut young, mut long) = (false, false);
        let mut right = false;
        let mut fork = None;
        for (rank, hypothesis) in self.hypotheses.iter_mut().enumerate() {
            let found = find(&self.uses, hypothesis.then);
            let Some((at, 0)) = found else {
                hypothesis.strays += 1;
                if let (Some((then, _)), 0) = (found, rank) {
                    let left_at = Some((hypothesis.then, hypothesis.now));
                    let length = hypothesis.length.min(BELIEVED);
                    fork = Some(Hypothesis { then, now: index, length, strays: 0, left_at });
                }
                continue;
            };
            if let Some((youngest, longest)) = rivals {
                young |= hypothesis.then == youngest;
                long |= hypothesis.then == longest;
            }
            let Hypothesis { then, now, .. } = *hypothesis;
            if hypothesis.strays > 0 {
                hypothesis.length = hypothesis.length.min(CONTEXT);
                hypothesis.left_at.get_or_insert((then, now));
            } else {
                let left_at = hypothesis.left_at.take();
                if rank == 0 {
                    right = true;
                    if let Some((then_left, now_left)) = left_at {
                        self.uses.judge([then_left, then], [now_left, now], marks);
                    }
                    self.uses.judge([then, at], [now, index], marks);
                    self.uses.trust(symbol);
                }
            }
            hypothesis.length = hypothesis.length.saturating_add(1);
            (hypothesis.then, hypothesis.now, hypothesis.strays) = (at, index, 0);
        }
        self.vote(young, long, MARK_VOTES);
        let uses = &self.uses;
        self.hypotheses
            .retain(|hypothesis| hypothesis.strays <= SKIP && uses.remembers(hypothesis.then));
        if let Some(fork) = fork {
            self.add(fork);
        }
        // Where it was foretold: what came last is the likeliest should that fail.
        self.search(index, marks, if right { 1 } else { TRIES });
        self.rank(right);
        if before.is_some_and(|(lag, position)| {
            self.lag().is_none_or(|(now, at)| now != lag || at < position)
        }) {
            self.epoch += 1;
        }
        right
    }

    /// Puts what is likeliest first.
    fn rank(&mut self, right: bool) {
        let sure = || self.hypotheses.iter().filter(|hypothesis| hypothesis.is_sure());
        let mut recent = self.recent > 0;
        let best = self.hypotheses.first();
        let stays = right
            && best.is_some_and(|best| {
                // Who was right for long is believed on.
                best.is_sure()
                    && !(recent
                        && sure().any(|other| other.then > best.then && other.length >= PROVEN))
            });
        // Of those that were right where it was not, what came last is the likeliest.
        recent |= !right && sure().count() > 1;
        self.hypotheses[usize::from(stays)..]
            .sort_by_key(|hypothesis| Reverse(hypothesis.rank(recent)));
        // Two that have met are one.
        for index in (1..self.hypotheses.len()).rev() {
            let Hypothesis { then, now, .. } = self.hypotheses[index];
            if self.hypotheses[..index].iter().any(|other| (other.then, other.now) == (then, now)) {
                self.hypotheses.remove(index);
            }
        }
    }

    /// The past of the youngest, and of the longest, of those that were right for
    /// long.
    fn rivals(&self) -> Option<(Index, Index)> {
        let long = || self.hypotheses.iter().filter(|h| h.strays == 0 && h.length >= CONTEXT);
        let youngest = long().max_by_key(|hypothesis| hypothesis.then)?.then;
        let longest = long().max_by_key(|hypothesis| hypothesis.length)?.then;
        Some((youngest, longest)).filter(|_| youngest != longest)
    }

    /// `symbol` came, which is no mark: which of the rivals foretold it?
    fn weigh(&mut self, symbol: Symbol) {
        if let Some((youngest, longest)) = self.rivals() {
            self.vote(self.uses.follows(symbol, youngest), self.uses.follows(symbol, longest), 1);
        }
    }

    /// Which of them was right?
    fn vote(&mut self, young: bool, long: bool, votes: i8) {
        let more = votes * (i8::from(young) - i8::from(long));
        self.recent = (self.recent + more).clamp(-MARK_VOTES, MARK_VOTES);
    }

    /// Tries `tries` earlier uses of what `index` uses.
    fn search(&mut self, index: Index, marks: Marks, tries: usize) {
        let mut found: [Option<Hypothesis>; 2] = [None; 2];
        for then in self.uses.earlier(index).take(tries) {
            if self.hypotheses.iter().any(|hypothesis| hypothesis.then == then) {
                continue;
            }
            let length = 1 + self.uses.context(then, index, marks);
            let new = Hypothesis { then, now: index, length, strays: 0, left_at: None };
            let longer = |other: &Option<Hypothesis>| other.is_none_or(|o| o.length < length);
            if longer(&found[0]) {
                found = [Some(new), found[0]];
            } else if longer(&found[1]) {
                found[1] = Some(new);
            }
        }
        found.into_iter().flatten().for_each(|new| self.add(new));
    }

    fn add(&mut self, new: Hypothesis) {
        if self.hypotheses.len() < HYPOTHESES {
            return self.hypotheses.push(new);
        }
        let rank = |hypothesis: &Hypothesis| hypothesis.rank(self.recent > 0);
        let weakest = (0..HYPOTHESES).min_by_key(|&index| rank(&self.hypotheses[index]));
        if let Some(weakest) = weakest.filter(|&index| rank(&self.hypotheses[index]) < rank(&new)) {
            self.hypotheses[weakest] = new;
        }
    }
}
