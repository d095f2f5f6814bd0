//! The access record, and what it predicts.
//!
//! Every access of a chunk is a token in one long sequence. A cursor follows
//! the sequence's own past: as long as new tokens repeat what once followed
//! the same context, what came next then is what comes next now. Iterations,
//! nested loops, skipped and repeated blocks need no special case: a token off
//! the track moves the cursor to where its context last occurred.
//!
//! The distance between the cursor and the end of the record is the length of
//! the present iteration; it is *confirmed* when the cursor has followed for a
//! whole iteration without a slip.
//!
//! The cursor is led by *landmarks*: streamed chunks that come round seldom.
//! Everything else (residents, and what is touched again and again) is
//! recorded, because it tells what to expect and a later plan may stream it,
//! but neither advances nor disturbs the cursor: activations move between
//! iterations, weights do not.
//!
//! Pure, bounded memory, no allocation after construction.
//! Not here: what to do about a prediction (see `streamer`).

use crate::address_map::ChunkId;

/// Absolute position in the record: tokens are numbered from 0 for ever.
pub type Position = u64;

/// Tokens remembered. An iteration longer than half of this is not learned.
const CAPACITY: usize = 1 << 17;
/// Slots of the context table: one per remembered pair, direct-mapped; a
/// collision forgets a context, never invents one.
const CONTEXTS: usize = 1 << 15;

#[derive(Clone, Copy)]
struct Token {
    chunk: ChunkId,
    landmark: bool,
}

#[derive(Clone, Copy)]
struct Context {
    previous: ChunkId,
    current: ChunkId,
    /// Where `current` stood when the pair last occurred.
    position: Position,
}

/// See the module's text.
pub struct History {
    tokens: Box<[Token]>,
    /// The operation that each token belongs to.
    operations: Box<[u64]>,
    length: Position,
    contexts: Box<[Option<Context>]>,
    /// Every chunk of every operation, bursts included: what is touched together.
    touched: Box<[(u64, ChunkId)]>,
    touches: u64,
    /// The landmark seen last.
    previous: Option<ChunkId>,
    /// The next landmark is expected to repeat the first one at or after this.
    cursor: Option<Position>,
    /// Where the cursor last jumped: everything since has followed.
    followed_since: Position,
    slips: u64,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    pub fn new() -> Self {
        Self {
            tokens: vec![Token { chunk: 0, landmark: false }; CAPACITY].into(),
            operations: vec![0; CAPACITY].into(),
            length: 0,
            contexts: vec![None; CONTEXTS].into(),
            touched: vec![(0, 0); CAPACITY].into(),
            touches: 0,
            previous: None,
            cursor: None,
            followed_since: 0,
            slips: 0,
        }
    }

    /// Number of tokens ever recorded.
    pub fn len(&self) -> Position {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How often the cursor had to jump.
    pub fn slips(&self) -> u64 {
        self.slips
    }

    /// The token at `position`, while it is remembered.
    pub fn token(&self, position: Position) -> Option<ChunkId> {
        let remembered = position < self.length && self.length - position <= CAPACITY as u64;
        remembered.then(|| self.tokens[position as usize % CAPACITY].chunk)
    }

    /// `operation` touches `chunk`, whether or not that is a token.
    pub fn record_touch(&mut self, chunk: ChunkId, operation: u64) {
        self.touched[self.touches as usize % CAPACITY] = (operation, chunk);
        self.touches += 1;
    }

    /// The remembered (operation, chunk) pairs from `operation` on, in order.
    pub fn touched_since(&self, operation: u64) -> impl Iterator<Item = (u64, ChunkId)> + '_ {
        let oldest = self.touches.saturating_sub(CAPACITY as u64);
        (oldest..self.touches)
            .map(|index| self.touched[index as usize % CAPACITY])
            .filter(move |&(at, _)| at >= operation)
    }

    /// The operation that the remembered token at `position` belongs to.
    pub fn operation(&self, position: Position) -> u64 {
        self.operations[position as usize % CAPACITY]
    }

    /// Where the prediction continues: the token there comes next, then the
    /// one after it, and so on up to [`Self::len`]. `None`: nothing to follow.
    pub fn cursor(&self) -> Option<Position> {
        self.cursor
    }

    /// Length of the iteration that the last accesses repeated once in full.
    pub fn confirmed_period(&self) -> Option<u64> {
        let period = self.length - self.cursor?;
        (self.length - self.followed_since >= period && period <= CAPACITY as u64 / 2)
            .then_some(period)
    }

    /// Records an access that is no landmark.
    pub fn record_plain(&mut self, chunk: ChunkId, operation: u64) {
        self.push(chunk, false, operation);
    }

    /// Records a landmark and moves the cursor.
    ///
    /// `streamed` tells which landmarks of the past are some under the present
    /// plan. Answers whether the access was the predicted one.
    pub fn record_landmark(
        &mut self,
        chunk: ChunkId,
        operation: u64,
        streamed: impl Fn(ChunkId) -> bool,
    ) -> bool {
        let expected = self.cursor.and_then(|cursor| self.next_landmark(cursor, &streamed));
        let followed = match expected {
            Some((position, token)) if token == chunk => {
                self.cursor = Some(position + 1);
                true
            }
            _ => {
                self.slips += 1;
                self.cursor = self
                    .previous
                    .and_then(|previous| self.recall(previous, chunk))
                    .or_else(|| self.recall(chunk, chunk))
                    .map(|position| position + 1);
                self.followed_since = self.length;
                false
            }
        };
        let position = self.length;
        if let Some(previous) = self.previous {
            self.remember(previous, chunk, position);
        }
        // The chunk alone, for a first slip into a known region.
        self.remember(chunk, chunk, position);
        self.previous = Some(chunk);
        self.push(chunk, true, operation);
        followed
    }

    /// The first landmark at or after `from` that still is one.
    fn next_landmark(
        &self,
        from: Position,
        streamed: impl Fn(ChunkId) -> bool,
    ) -> Option<(Position, ChunkId)> {
        (from..self.length)
            .map_while(|position| {
                self.token(position)?;
                Some((position, self.tokens[position as usize % CAPACITY]))
            })
            .find(|&(_, token)| token.landmark && streamed(token.chunk))
            .map(|(position, token)| (position, token.chunk))
    }

    /// Forgets where it was, not what it saw: the plan has changed.
    pub fn restart_confirmation(&mut self) {
        self.followed_since = self.length;
    }

    fn push(&mut self, chunk: ChunkId, landmark: bool, operation: u64) {
        self.tokens[self.length as usize % CAPACITY] = Token { chunk, landmark };
        self.operations[self.length as usize % CAPACITY] = operation;
        self.length += 1;
    }

    fn slot(previous: ChunkId, current: ChunkId) -> usize {
        let key = (u64::from(previous) << 32) | u64::from(current);
        // Fibonacci hashing (Knuth, TAOCP 3, 6.4).
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize % CONTEXTS
    }

    fn remember(&mut self, previous: ChunkId, current: ChunkId, position: Position) {
        self.contexts[Self::slot(previous, current)] =
            Some(Context { previous, current, position });
    }

    fn recall(&self, previous: ChunkId, current: ChunkId) -> Option<Position> {
        let context = self.contexts[Self::slot(previous, current)]?;
        let same = context.previous == previous && context.current == current;
        (same && self.token(context.position) == Some(current)).then_some(context.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: ChunkId) -> bool {
        true
    }

    /// Feeds `sequence`; answers how many of its tokens were predicted.
    fn feed(history: &mut History, sequence: &[ChunkId]) -> usize {
        sequence.iter().filter(|&&token| history.record_landmark(token, 0, all)).count()
    }

    #[test]
    fn the_second_pass_is_predicted_after_its_first_token() {
        let mut history = History::new();
        let pass = [5, 3, 9, 3, 7];
        assert_eq!(feed(&mut history, &pass), 0);
        assert_eq!(history.confirmed_period(), None);
        assert!(feed(&mut history, &pass) >= 4);
        assert_eq!(feed(&mut history, &pass), 5);
        assert_eq!(history.confirmed_period(), Some(5));
    }

    #[test]
    fn nested_loops_are_followed_across_the_outer_one() {
        let mut history = History::new();
        let outer = [1, 2, 3, 2, 3, 2, 3, 4];
        for _ in 0..3 {
            feed(&mut history, &outer);
        }
        assert_eq!(feed(&mut history, &outer), outer.len());
        assert_eq!(history.confirmed_period(), Some(8));
    }

    #[test]
    fn a_skipped_block_costs_one_slip() {
        let mut history = History::new();
        let pass: Vec<ChunkId> = (0..20).collect();
        for _ in 0..3 {
            feed(&mut history, &pass);
        }
        let skipped: Vec<ChunkId> = (0..20).filter(|token| !(8..12).contains(token)).collect();
        assert_eq!(feed(&mut history, &skipped), skipped.len() - 1);
    }

    #[test]
    fn what_is_no_landmark_neither_advances_nor_disturbs() {
        let mut history = History::new();
        let resident = |token: ChunkId| token >= 100;
        for round in 0..4 {
            for token in [1, 2, 3] {
                // Activations differ from round to round.
                history.record_plain(100 + (round * 7 + token) % 5, 0);
                let predicted = history.record_landmark(token, 0, |token| !resident(token));
                assert_eq!(predicted, round >= 2 || (round == 1 && token > 1), "{round} {token}");
            }
        }
        assert_eq!(history.confirmed_period(), Some(6));
    }

    #[test]
    fn what_was_forgotten_is_not_predicted() {
        let mut history = History::new();
        feed(&mut history, &[1, 2]);
        for _ in 0..CAPACITY {
            history.record_plain(9, 0);
        }
        assert_eq!(history.token(0), None);
        assert!(!history.record_landmark(1, 0, |token| token != 9));
        assert_eq!(history.cursor(), None);
    }
}
