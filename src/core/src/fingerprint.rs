//! The fingerprint by which a clean weight is told from a written one: the
//! same function as `shim/fingerprint.ptx`, which the device computes.
//!
//! Two contents of the same length have the same fingerprint by chance once in
//! 2^64 comparisons. It is no defence against contents made on purpose.
//! Not here: when fingerprints are taken and compared (the engine's).

/// Bytes that share a fingerprint.
pub const PIECE_BYTES: usize = 1 << 16;

/// The step of SplitMix64, 2^64 over the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64 (Steele, Lea, Flood: "Fast splittable
/// pseudorandom number generators", OOPSLA 2014).
const fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// The fingerprint of up to [`PIECE_BYTES`] bytes.
pub fn of(piece: &[u8]) -> u64 {
    debug_assert!(piece.len() <= PIECE_BYTES);
    let mut key = 0u64;
    let sum = piece.chunks(8).fold(0u64, |sum, bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        key = key.wrapping_add(GAMMA);
        sum.wrapping_add(mix(key ^ u64::from_le_bytes(word)))
    });
    mix(sum.wrapping_add(piece.len() as u64))
}

/// How bytes that a kernel may have written get to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// All are copied, and their fingerprints taken.
    Anew,
    /// Those are stored whose fingerprint differs.
    Written,
    /// All are copied, unseen: they are written so often that looking costs
    /// more than it saves.
    All,
}

/// What is known of the host copy of one frame: whether fingerprints of its
/// bytes were taken, and how often in a row most of them had been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    taken: bool,
    written_in_a_row: u8,
    unseen: u8,
}

/// Times in a row that most of a frame is written before it is not looked at.
/// A frame that is written twice and then rests (a merged adapter) is not one
/// of those; an optimiser's state is.
const WRITTEN_IN_A_ROW: u8 = 3;
/// Times that it is then copied unseen. Looking in vain at one in nine costs a
/// reading of device memory, some per cent of what the copy takes.
const UNSEEN: u8 = 8;

impl History {
    /// How the frame is to be saved now. `written`: most of what was looked at
    /// last time had been written.
    pub fn next(&mut self, written: bool) -> Saving {
        if self.unseen > 0 {
            self.unseen -= 1;
            return Saving::All;
        }
        if !self.taken {
            self.taken = true;
            return Saving::Anew;
        }
        self.written_in_a_row = if written { self.written_in_a_row + 1 } else { 0 };
        if self.written_in_a_row == WRITTEN_IN_A_ROW {
            *self = Self { taken: false, written_in_a_row: 0, unseen: UNSEEN - 1 };
            return Saving::All;
        }
        Saving::Written
    }

    /// What was asked for was not done: the fingerprints are of other bytes.
    pub fn forget(&mut self) {
        self.taken = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_give_the_published_sequence() {
        // The first outputs of SplitMix64 from seed 0.
        let published = [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];
        let sum = published.iter().fold(0u64, |sum, &word| sum.wrapping_add(word));
        assert_eq!(of(&[0; 24]), mix(sum.wrapping_add(24)));
    }

    #[test]
    fn what_is_never_written_is_copied_once() {
        let mut history = History::default();
        assert_eq!(history.next(false), Saving::Anew);
        assert!((0..100).all(|_| history.next(false) == Saving::Written));
        history.forget();
        assert_eq!(history.next(false), Saving::Anew);
        assert_eq!(history.next(false), Saving::Written);
    }

    #[test]
    fn what_is_always_written_is_seldom_looked_at() {
        let mut history = History::default();
        let savings: Vec<Saving> = (0..1000).map(|_| history.next(true)).collect();
        let looked = savings.iter().filter(|&&saving| saving != Saving::All).count();
        assert!(looked < 300, "{looked}");
        // Fingerprints are only compared where the last saving left them of the same bytes.
        for pair in savings.windows(2) {
            assert_ne!(pair, [Saving::All, Saving::Written]);
        }
    }

    #[test]
    fn now_and_then_is_not_always() {
        let mut history = History::default();
        history.next(false);
        assert!((0..1000).all(|round| history.next(round % 3 != 0) == Saving::Written));
    }

    #[test]
    fn lengths_and_places_count() {
        let zeros = [0; PIECE_BYTES];
        assert_ne!(of(&zeros[..7]), of(&zeros[..8]));
        assert_eq!(of(&[]), mix(0));
        let mut one = zeros;
        let clean = of(&zeros);
        for at in [0, 1, 4095, PIECE_BYTES - 1] {
            for bit in 0..8 {
                one[at] = 1 << bit;
                assert_ne!(of(&one), clean);
                one[at] = 0;
            }
        }
    }
}
