//! The log of all uses, in order, and what is known of each symbol in it.
//!
//! *Marks* are the uses that tell where the program is. A weight's are; those of
//! an activation are not, for it lies anywhere and is used all the time; nor are
//! those of what comes and goes by no rule (an expert that a router picks), once
//! that is *doubted*. Of what may be a weight, or a buffer that a program fills
//! again and again, only where no weight comes for long; and where nothing else
//! does, all uses are marks.
//!
//! Not here: what the past says of what is to come (`predict`).

use super::Operation;
use crate::address_map::ChunkId;

pub(super) type Symbol = ChunkId;
/// Number of a use, from 0 for ever.
pub(super) type Index = u64;

/// Uses that are remembered.
const USES: u64 = 1 << 18;
/// Uses looked through in search of a mark, or of what came between two.
const SPAN: u64 = 1 << 10;
/// A symbol that was used fewer uses ago does not tell where the program is.
const APART: u64 = 16;
/// Nor does one that was, so many times more often than not.
const CLOSE: u8 = 4;
const MOST_CLOSE: u8 = 16;
/// Uses without a mark until all are: while nothing is believed, and at most.
const WITHOUT: u64 = 12;
const WITHOUT_BELIEVED: u64 = 256;
/// A symbol doubted so much is neither a mark nor foretold.
const DOUBTED: u8 = 8;
const MOST_DOUBT: u8 = 20;
/// Marks before a use that are compared with those before an earlier one, and how
/// many of them may differ.
pub(super) const CONTEXT: u32 = 12;
const SLACK: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub symbol: Symbol,
    /// Uses back to the one of the same symbol before, and to the mark before.
    /// 0: there is none.
    before: u32,
    mark_before: u32,
    pub operation: Operation,
    /// Marks up to here.
    pub marks: u64,
    rare: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Its last use, plus 1; 0: there was none.
    last: Index,
    /// The operation that touched it last, plus 1.
    touched: Operation,
    /// Uses before this one were another's.
    born: Index,
    /// How little it can be relied on to come when it is foretold.
    doubt: u8,
    /// How much more often it came soon after a use than not.
    close: u8,
    kind: Kind,
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    #[default]
    Weight,
    /// It behaves like one.
    Perhaps,
    /// It lies anywhere: an activation.
    Background,
}

/// Which uses are marks: more and more of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Marks {
    #[default]
    Firm,
    Likely,
    All,
}

impl Known {
    /// Whether a use that comes after a pause is a mark.
    fn tells(&self, marks: Marks) -> bool {
        let least = if marks == Marks::Firm { Kind::Weight } else { Kind::Perhaps };
        self.kind <= least && self.doubt < DOUBTED
    }
}

#[derive(Default)]
pub(super) struct Uses {
    log: Vec<Use>,
    count: Index,
    marks: u64,
    known: Vec<Known>,
    /// The last mark, the last firm one and the last likely one, plus 1.
    last_mark: Index,
    last_firm: Index,
    last_likely: Index,
    /// Those that count at present.
    present: Marks,
}

impl Uses {
    /// `operation` uses `symbol`. Answers the use, and whether it is a mark; nothing
    /// where the operation before used it as well.
    pub fn push(
        &mut self,
        symbol: Symbol,
        operation: Operation,
        believed: bool,
    ) -> Option<(Index, Option<Marks>)> {
        let index = self.count;
        let known = self.known_mut(symbol);
        let touched = std::mem::replace(&mut known.touched, operation + 1);
        if touched != 0 && touched >= operation {
            return None;
        }
        let last = std::mem::replace(&mut known.last, index + 1);
        let new = last <= known.born;
        let before = if new { 0 } else { index + 1 - last };
        let apart = new || before >= APART;
        let rare = apart && known.close < CLOSE;
        known.close =
            if apart { known.close.saturating_sub(1) } else { (known.close + 1).min(MOST_CLOSE) };
        let (firm, likely) = (rare && known.tells(Marks::Firm), rare && known.tells(Marks::Likely));
        if !apart && self.remembers(last - 1) {
            // Nor did its first use tell anything.
            let first = self.use_mut(last - 1);
            first.rare &= first.before > 0;
        }
        let most = if believed { WITHOUT_BELIEVED } else { WITHOUT };
        let (no_firm, no_likely) = (index - self.last_firm > most, index - self.last_likely > most);
        self.present = match self.present {
            _ if firm => Marks::Firm,
            Marks::Firm if !no_firm => Marks::Firm,
            Marks::Firm | Marks::Likely if !no_likely => Marks::Likely,
            _ if likely => Marks::Likely,
            _ => Marks::All,
        };
        let mark = firm || (likely && self.present >= Marks::Likely) || self.present == Marks::All;
        self.marks += u64::from(mark);
        let back = |to: Index| u32::try_from(to).unwrap_or(0);
        let mark_before = if self.last_mark == 0 { 0 } else { back(index + 1 - self.last_mark) };
        let (before, marks) = (back(before), self.marks);
        let new = Use { symbol, before, mark_before, operation, marks, rare };
        if self.log.len() < USES as usize {
            self.log.push(new);
        } else {
            *self.use_mut(index) = new;
        }
        self.count += 1;
        if mark {
            self.last_mark = index + 1;
        }
        if firm {
            self.last_firm = index + 1;
        }
        if likely {
            self.last_likely = index + 1;
        }
        Some((index, mark.then_some(self.present)))
    }

    pub fn set_kind(&mut self, symbol: Symbol, kind: Kind) {
        self.known_mut(symbol).kind = kind;
    }

    /// `symbol` will mean something else. Answers whether it was ever used.
    pub fn forget(&mut self, symbol: Symbol) -> bool {
        let born = self.count;
        let Some(known) = self.known.get_mut(symbol as usize) else { return false };
        let used = known.last > known.born;
        *known = Known { born, ..Known::default() };
        used
    }

    pub fn get(&self, index: Index) -> &Use {
        &self.log[(index % USES) as usize]
    }

    /// Whether the use `index` is still there, and for a while: a mark comes sooner,
    /// and then this is asked again.
    pub fn remembers(&self, index: Index) -> bool {
        index < self.count && self.count - index <= USES - SPAN
    }

    /// Whether what was used at `index` still means the same, and is likely to come
    /// when it is foretold.
    pub fn is_told(&self, index: Index) -> bool {
        let known = &self.known[self.get(index).symbol as usize];
        known.born <= index && known.doubt < DOUBTED
    }

    pub fn is_mark(&self, index: Index, marks: Marks) -> bool {
        let Use { symbol, rare, .. } = *self.get(index);
        let known = &self.known[symbol as usize];
        known.born <= index && ((rare && known.tells(marks)) || marks == Marks::All)
    }

    /// Whether `symbol` comes so often that others say more.
    pub fn is_common(&self, symbol: Symbol) -> bool {
        self.known[symbol as usize].close > 0
    }

    /// Uses of the same symbol before `index`, the last one first.
    pub fn earlier(&self, index: Index) -> impl Iterator<Item = Index> + '_ {
        let before = |&at: &Index| {
            let before = u64::from(self.get(at).before);
            (before > 0).then(|| at - before).filter(|&at| self.remembers(at))
        };
        std::iter::successors(before(&index), before)
    }

    /// The first use of `symbol` after `from`, before `end`, and how many marks are
    /// passed over on the way there: at most `most`.
    pub fn find(
        &self,
        symbol: Symbol,
        from: Index,
        end: Index,
        marks: Marks,
        most: u32,
    ) -> Option<(Index, u32)> {
        let common = marks == Marks::All || self.is_common(symbol);
        let mut passed = 0;
        for index in (from + 1..end.min(from + SPAN)).filter(|&index| self.is_mark(index, marks)) {
            let other = self.get(index).symbol;
            if other == symbol {
                return Some((index, passed));
            }
            passed += u32::from(common || !self.is_common(other));
            if passed > most {
                break;
            }
        }
        None
    }

    /// Whether `symbol` is used after `from` and before the next mark.
    pub fn follows(&self, symbol: Symbol, from: Index) -> bool {
        let between = (from + 1..self.count).take_while(|&index| !self.is_mark(index, Marks::Firm));
        between.take(SPAN as usize).any(|index| self.get(index).symbol == symbol)
    }

    /// How many marks before `past` are those before `present`, a few left out.
    pub fn context(&self, past: Index, present: Index, marks: Marks) -> u32 {
        let back = |mut index: Index| loop {
            let before = u64::from(self.get(index).mark_before);
            index = (before > 0).then(|| index - before).filter(|&at| self.remembers(at))?;
            if self.is_mark(index, marks) {
                return Some(index);
            }
        };
        let same = |a: Index, b: Index| self.get(a).symbol == self.get(b).symbol;
        let (mut length, mut slack) = (0, SLACK);
        let (mut then, mut now) = (back(past), back(present));
        while let (Some(a), Some(b)) = (then, now)
            && length < CONTEXT
            // What came since is compared with what came before, not with itself.
            && (b > past || a < b)
        {
            if same(a, b) {
                length += 1;
                (then, now) = (back(a), back(b));
                continue;
            }
            if slack == 0 {
                break;
            }
            slack -= 1;
            if back(a).is_some_and(|a| same(a, b)) {
                then = back(a);
            } else if back(b).is_some_and(|b| same(a, b)) {
                now = back(b);
            } else {
                (then, now) = (back(a), back(b));
            }
        }
        length
    }

    /// What came after `then`, before `then_to`, was foretold for what came after
    /// `now`, before `now_to`: what did not come is doubted more, what did, less.
    pub fn judge(&mut self, then: [Index; 2], now: [Index; 2], marks: Marks) {
        let ([then, then_to], [now, now_to]) = (then, now);
        if !self.remembers(then) {
            return;
        }
        let then_to = then_to.min(then + SPAN);
        // Where it was used all along, there is no new use.
        let since = self.get(now).operation;
        let mut strays = false;
        for stray in now + 1..now_to.min(now + SPAN) {
            let Use { symbol, before, .. } = *self.get(stray);
            // What came for the first time could not be foretold.
            if before > 0
                && self.is_mark(stray, marks)
                && !(then + 1..then_to).any(|past| self.get(past).symbol == symbol)
            {
                strays = true;
                self.doubt(symbol, 3);
            }
        }
        for past in then + 1..then_to {
            let mark = self.is_mark(past, marks);
            let symbol = self.get(past).symbol;
            let known = &self.known[symbol as usize];
            if known.born > past {
                continue;
            }
            if known.touched > since {
                self.trust(symbol);
            } else if !mark || strays {
                // A mark left out, and nothing in its place: that is a shorter way.
                self.doubt(symbol, 2);
            }
        }
    }

    pub fn trust(&mut self, symbol: Symbol) {
        let known = &mut self.known[symbol as usize];
        known.doubt = known.doubt.saturating_sub(1);
    }

    fn doubt(&mut self, symbol: Symbol, by: u8) {
        let known = &mut self.known[symbol as usize];
        known.doubt = (known.doubt + by).min(MOST_DOUBT);
    }

    pub fn footprint(&self) -> usize {
        self.log.capacity() * size_of::<Use>() + self.known.capacity() * size_of::<Known>()
    }

    fn use_mut(&mut self, index: Index) -> &mut Use {
        &mut self.log[(index % USES) as usize]
    }

    fn known_mut(&mut self, symbol: Symbol) -> &mut Known {
        let index = symbol as usize;
        if self.known.len() <= index {
            self.known.resize(index + 1, Known::default());
        }
        &mut self.known[index]
    }
}
