//! `fingerprint_pieces`, whose text is `shim/fingerprint.ptx`, once more in
//! Rust: the interpreter in `ptx` runs the text itself, some hundred times
//! slower. `tests/all/ptx.rs` shows that both do the same.

use crate::name::Name;
use crate::params::Cursor;
use crate::{Cost, Fault, Kernel, Launch, Memory};

const PIECE_BYTES: u64 = 1 << 16;
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

struct Fingerprint;

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    (name.base == "fingerprint_pieces").then(|| Box::new(Fingerprint) as Box<dyn Kernel>)
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

fn fingerprint(piece: &[u8]) -> u64 {
    let (words, rest) = piece.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain((!rest.is_empty()).then_some(&last));
    let (mut sum, mut key) = (0u64, 0u64);
    for word in words {
        key = key.wrapping_add(GAMMA);
        sum = sum.wrapping_add(mix(key ^ u64::from_le_bytes(*word)));
    }
    mix(sum.wrapping_add(piece.len() as u64))
}

impl Kernel for Fingerprint {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let parameter = |index| Cursor::parameter(launch, index)?.u64();
        let (base, bytes, table) = (parameter(0)?, parameter(1)?, parameter(2)?);
        let (host, saved) = (parameter(3)?, parameter(4)?);
        for piece in 0..bytes.div_ceil(PIECE_BYTES) {
            let start = piece * PIECE_BYTES;
            let length = (bytes - start).min(PIECE_BYTES);
            let from = memory.read(base + start, length)?;
            let entry = memory.write(table + 8 * piece, 8)?.cast::<u64>();
            // SAFETY: `memory` vouches for the ranges; nothing writes to the piece meanwhile.
            unsafe {
                let found = fingerprint(std::slice::from_raw_parts(from, length as usize));
                if host != 0 {
                    if found == entry.read_unaligned() {
                        continue;
                    }
                    let to = memory.write(host + start, length)?;
                    std::ptr::copy_nonoverlapping(from, to, length as usize);
                    let count = memory.write(saved + 4 * piece, 4)?.cast::<u32>();
                    count.write_unaligned(count.read_unaligned().wrapping_add(1));
                }
                entry.write_unaligned(found);
            }
        }
        Ok(())
    }

    /// Reads every byte once. What it stores is not known beforehand.
    fn cost(&self, launch: &Launch) -> Cost {
        let bytes = Cursor::parameter(launch, 1).and_then(|mut cursor| cursor.u64()).unwrap_or(0);
        Cost { bytes: bytes as f64, flops: 0.0 }
    }
}
