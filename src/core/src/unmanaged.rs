//! What this process holds of a card besides the frames of our keeping: its
//! context, modules, small allocations and mappings of its own.
//!
//! The driver tells what of a card is free, not whose the rest is. So the card is
//! looked at before and after each call that may take memory or give some back:
//! what changed meanwhile is this process's, all other changes are other
//! processes'. Only what was there before our first look has to be guessed.
//!
//! Pure. Not here: which calls those are, and who asks the driver.

/// What was taken for a context, when we first look, is at most this much, and at
/// most that part of the card: the rest is other processes'. (Contexts on current
/// cards: 150 to 600 MB, the larger the card.)
const CONTEXT_BYTES: u64 = 600 << 20;
const CONTEXT_PART: u64 = 16;
/// More than this no call takes whose size is not known beforehand.
pub const UNKNOWN_BYTES: u64 = CONTEXT_BYTES;

/// All numbers are bytes; `unmanaged`: of the card, neither free nor frames of ours.
#[derive(Debug, Default)]
pub struct Unmanaged {
    /// This process's. `None`: nobody looked yet.
    own: Option<u64>,
    /// Calls under way, and what was unmanaged before the first of them.
    calls: u32,
    before: u64,
    /// What they take at the most.
    most: u64,
}

impl Unmanaged {
    /// How much of what is unmanaged now is this process's.
    pub fn own(&mut self, unmanaged: u64, total: u64) -> u64 {
        let first = || unmanaged.min(CONTEXT_BYTES).min(total / CONTEXT_PART);
        // What is gone was somebody's, and not more than there is can be ours.
        let own = self.own.get_or_insert_with(first);
        if self.calls == 0 {
            *own = unmanaged.min(*own);
        }
        unmanaged.min(*own)
    }

    /// A call begins that takes `most` at the most; it may give anything back.
    pub fn call_begins(&mut self, unmanaged: u64, total: u64, most: u64) {
        self.own(unmanaged, total);
        if self.calls == 0 {
            (self.before, self.most) = (unmanaged, 0);
        }
        self.calls += 1;
        self.most = self.most.saturating_add(most);
    }

    /// `None`: nobody can look any more.
    pub fn call_ends(&mut self, unmanaged: Option<u64>) {
        self.calls = self.calls.saturating_sub(1);
        let Some(unmanaged) = unmanaged.filter(|_| self.calls == 0) else { return };
        let taken = unmanaged.saturating_sub(self.before).min(self.most);
        let given = self.before.saturating_sub(unmanaged);
        let own = self.own.get_or_insert_default();
        *own = (*own + taken).saturating_sub(given).min(unmanaged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;
    const CARD: u64 = 8 << 30;

    #[test]
    fn what_others_take_is_theirs_and_what_a_call_takes_is_ours() {
        let mut card = Unmanaged::default();
        assert_eq!(card.own(300 * M, CARD), 300 * M, "our context");
        assert_eq!(card.own(4300 * M, CARD), 300 * M, "another process");
        card.call_begins(4300 * M, CARD, 10 * M);
        card.call_ends(Some(4308 * M));
        assert_eq!(card.own(4308 * M, CARD), 308 * M);
        card.call_begins(4308 * M, CARD, 0);
        card.call_ends(Some(4306 * M));
        assert_eq!(card.own(5000 * M, CARD), 306 * M);
        // The other one ends: ours is what is left.
        assert_eq!(card.own(250 * M, CARD), 250 * M);
        assert_eq!(card.own(400 * M, CARD), 250 * M);
    }

    #[test]
    fn what_was_there_before_us_is_not_all_ours() {
        assert_eq!(Unmanaged::default().own(4 << 30, CARD), 512 * M);
        assert_eq!(Unmanaged::default().own(4 << 30, 2 * CARD), 600 * M);
        assert_eq!(Unmanaged::default().own(0, CARD), 0);
    }

    #[test]
    fn a_call_takes_no_more_than_it_can() {
        let mut card = Unmanaged::default();
        card.own(0, CARD);
        card.call_begins(0, CARD, 2 * M);
        card.call_ends(Some(1000 * M));
        assert_eq!(card.own(1000 * M, CARD), 2 * M);
    }

    #[test]
    fn calls_at_once_count_once() {
        let mut card = Unmanaged::default();
        card.own(10 * M, CARD);
        card.call_begins(10 * M, CARD, 4 * M);
        card.call_begins(12 * M, CARD, 4 * M);
        assert_eq!(card.own(12 * M, CARD), 10 * M);
        card.call_ends(Some(16 * M));
        card.call_ends(Some(16 * M));
        assert_eq!(card.own(16 * M, CARD), 16 * M);
    }
}
