//! Finds a period nobody told us about: when several chunks in a row come
//! back after the same number of operations, that number is a candidate. So it
//! is when *chains* do, three chunks in the same order: where chunks are used
//! several times an iteration, each in its own way, no two come back after the
//! same time, but chains do.
//!
//! What came back sooner is ignored by a voter for longer periods, so buffers
//! that every layer uses do not hide the layers' own period. Whether a
//! candidate is a period is decided by following it for an iteration (see
//! `laps`).

use super::Operation;
use super::record::Moment;
use crate::address_map::ChunkId;

/// Chunks that must agree, or a whole iteration of them if that is fewer.
const AGREEMENT: u32 = 4;

/// One candidate per power of two.
#[derive(Clone, Copy, Default)]
struct Voter {
    /// Operations from one use to the next.
    lag: u64,
    agreed: u32,
    /// Where the first that agreed was used before, and again.
    then: Moment,
    again: Moment,
    /// Where the last that agreed was used again.
    last: Moment,
}

#[derive(Default)]
pub(super) struct Voters {
    voters: [Voter; 32],
}

/// `then..again` may be an iteration that now repeats from `again` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub then: Moment,
    pub again: Moment,
    pub lag: u64,
    pub agreed: u32,
}

impl Voters {
    /// A chunk not used before: nothing that is being repeated.
    pub fn stranger(&mut self) {
        for voter in &mut self.voters {
            voter.agreed = voter.agreed.saturating_sub(2);
        }
    }

    /// A chunk used at `then` is used again at `again`, `lag` operations later.
    pub fn vote(&mut self, lag: u64, then: Moment, again: Moment) -> Option<Candidate> {
        let class = (63 - lag.max(1).leading_zeros() as usize).min(self.voters.len() - 1);
        for voter in &mut self.voters[..class.saturating_sub(1)] {
            voter.agreed = voter.agreed.saturating_sub(1);
        }
        // The pace may differ a little: the more, the longer it could.
        let near = |voter: &Voter| {
            let pause = (again - voter.last) / 2;
            voter.agreed > 0 && voter.lag.abs_diff(lag) <= 1 + lag / 64 + pause.min(lag / 4)
        };
        let last = (class + 1).min(self.voters.len() - 1);
        let found = (class.saturating_sub(1)..=last).find(|&index| near(&self.voters[index]));
        let Some(index) = found else {
            let voter = &mut self.voters[class];
            if voter.agreed > 1 {
                voter.agreed -= 1;
            } else {
                *voter = Voter { lag, agreed: 1, then, again, last: again };
            }
            return None;
        };
        let voter = &mut self.voters[index];
        // An agreement that took longer than the period itself says where the
        // period is only by its last member.
        if again - voter.again >= again - then {
            (voter.then, voter.again) = (then, again);
        }
        (voter.lag, voter.last) = (lag, again);
        voter.agreed += 1;
        let whole = again + 1 >= voter.again + (voter.again - voter.then);
        if voter.agreed < AGREEMENT && !whole {
            return None;
        }
        let candidate =
            Candidate { then: voter.then, again: voter.again, lag, agreed: voter.agreed };
        voter.agreed = 0;
        Some(candidate)
    }
}

/// Chains remembered, as a power of two; of those with the same remainder, the
/// last.
const CHAINS: u32 = 14;

/// Where chains were seen last.
#[derive(Default)]
pub(super) struct Chains {
    /// Empty until the first is seen.
    seen: Vec<Chain>,
}

#[derive(Clone, Copy, Default)]
struct Chain {
    name: u64,
    at: Moment,
    operation: Operation,
}

impl Chains {
    /// `chunks` came one after the other, the last in step `at`. Answers the
    /// step and the operation at which they did so before.
    pub fn note(
        &mut self,
        chunks: [ChunkId; 3],
        at: Moment,
        operation: Operation,
    ) -> Option<(Moment, Operation)> {
        // Multiplicative hashing (Knuth, TAOCP 3, 6.4), one factor per place.
        const FACTORS: [u64; 3] =
            [0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];
        let parts =
            chunks.iter().zip(FACTORS).map(|(&chunk, f)| (u64::from(chunk) + 1).wrapping_mul(f));
        let name = parts.fold(0u64, |name, part| (name ^ part).rotate_left(23));
        if self.seen.is_empty() {
            self.seen.resize(1 << CHAINS, Chain::default());
        }
        let place = name.wrapping_mul(FACTORS[0]) >> (u64::BITS - CHAINS);
        let chain = &mut self.seen[place as usize];
        let before = std::mem::replace(chain, Chain { name, at, operation });
        (before.name == name).then_some((before.at, before.operation))
    }

    pub fn footprint(&self) -> usize {
        self.seen.capacity() * size_of::<Chain>()
    }
}
