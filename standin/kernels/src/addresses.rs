//! `find_addresses`, whose text is `shim/addresses.ptx`, once more in Rust, as
//! `fingerprint` is: `tests/all/addresses.rs` shows that both do the same.

use crate::name::Name;
use crate::params::Cursor;
use crate::{Cost, Fault, Kernel, Launch, Memory};

const WORD: u64 = 8;
const LINE: u64 = 64;
const ADDRESS_MASK: u64 = (1 << 57) - 1;

struct FindAddresses;

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    (name.base == "find_addresses").then(|| Box::new(FindAddresses) as Box<dyn Kernel>)
}

impl Kernel for FindAddresses {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let parameter = |index| Cursor::parameter(launch, index)?.u64();
        let (base, bytes) = (parameter(0)?, parameter(1)?);
        let spans = [(parameter(2)?, parameter(3)?), (parameter(4)?, parameter(5)?)];
        let found = parameter(6)?;
        let words = memory.read(base, bytes)?.cast::<u64>();
        for index in 0..bytes / WORD {
            // SAFETY: `memory` vouches for the range.
            let word = unsafe { words.add(index as usize).read_unaligned() };
            let on_a_line = (base + index * WORD).is_multiple_of(LINE);
            let address = if on_a_line { word & ADDRESS_MASK } else { word };
            if spans.iter().any(|&(low, size)| address.wrapping_sub(low) < size) {
                for (at, word) in [(found, 1), (found + WORD * (1 + index), word)] {
                    let to = memory.write(at, WORD)?.cast::<u64>();
                    // SAFETY: as above.
                    unsafe { to.write_unaligned(word) };
                }
            }
        }
        Ok(())
    }

    /// Reads every byte once.
    fn cost(&self, launch: &Launch) -> Cost {
        let bytes = Cursor::parameter(launch, 1).and_then(|mut cursor| cursor.u64()).unwrap_or(0);
        Cost { bytes: bytes as f64, flops: 0.0 }
    }
}
