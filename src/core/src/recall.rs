//! The order that a program showed, kept for its next start.
//!
//! What is kept is what was observed: for each known phase one iteration, step by
//! step, in places that mean the same at the next start: the n-th of the weights'
//! allocations, and the byte within it. At the next start the learner is shown it
//! as if it had just happened (`order`). So nothing is trusted: it predicts, and
//! what does not come is unlearned as always. There is no plan in it, for a plan is
//! made from an order in the time of a few steps, and for the budget there is.
//!
//! ```text
//!   file   "aoorder\n"  version u16  signature u64  body  crc32 u32
//!   body   count of phases, of each:
//!            count of steps, of each:
//!              operations  ns  count of uses, of each:  chunk  offset + 1, or 0
//! ```
//!
//! Header and checksum are little-endian; all else is a number of variable length,
//! seven bits a byte, lowest first, the top bit set where more follow. The checksum
//! covers every byte before it.
//!
//! Whoever reads has no reason to trust: [`decode`] refuses, with its reason,
//! whatever is damaged, of another version or another program, or says what cannot
//! be. It takes memory in proportion to the file's length.
//!
//! Not here: files (the engine's `remembered`); what is predicted (`order`, `learn`).

use crate::learn::Nanos;
use std::fmt;

/// What is kept of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Of its allocations; see [`signature`].
    pub signature: u64,
    pub phases: Vec<Vec<Step>>,
}

/// Operations of an iteration that touch the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub operations: u32,
    /// GPU time of all of them, 0 if it was not measured.
    pub ns: Nanos,
    pub uses: Vec<Place>,
}

/// What a use names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Among the weights' allocations, in the order in which they were made.
    pub chunk: u32,
    /// A byte that a copy from the host filled. `None`: elsewhere in it.
    pub offset: Option<u64>,
}

/// Names a program by its allocations, in order.
///
/// FNV-1a, 64 bits, over each size's eight little-endian bytes, then the number of
/// sizes likewise. Files depend on it: a change of it is a change of [`VERSION`].
pub fn signature(sizes: impl Iterator<Item = u64>) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let add = |hash: u64, word: u64| {
        let with = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        word.to_le_bytes().iter().fold(hash, with)
    };
    let (mut hash, mut count) = (BASIS, 0);
    for size in sizes {
        hash = add(hash, size);
        count += 1;
    }
    add(hash, count)
}

const MAGIC: [u8; 8] = *b"aoorder\n";
pub const VERSION: u16 = 1;
const HEADER: usize = MAGIC.len() + 2 + 8;
const CHECKSUM: usize = 4;

/// No longer file is read or written.
pub const MAX_BYTES: usize = 4 << 20;
/// In all phases together: what is shown takes time.
pub const MAX_OPERATIONS: u64 = 1 << 15;
/// Places that one step names.
const MAX_USES: usize = 1 << 12;

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NotAnOrder,
    /// Written by another version of this library.
    Version(u16),
    /// Cut short, or changed since it was written.
    Damaged,
    /// Of a program with other allocations.
    OtherProgram,
    /// Whole, but what it says cannot be.
    Inconsistent(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnOrder => write!(f, "not a saved order"),
            Self::Version(version) => write!(f, "of version {version}, not {VERSION}"),
            Self::Damaged => write!(f, "damaged or cut short"),
            Self::OtherProgram => write!(f, "made for other allocations"),
            Self::Inconsistent(what) => write!(f, "inconsistent: {what}"),
        }
    }
}

impl Remembered {
    /// The file; `None` if it would be larger than what is read.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::from(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.signature.to_le_bytes());
        put(&mut out, self.phases.len() as u64);
        for steps in &self.phases {
            put(&mut out, steps.len() as u64);
            for Step { operations, ns, uses } in steps {
                put(&mut out, u64::from(*operations));
                put(&mut out, *ns);
                put(&mut out, uses.len() as u64);
                for Place { chunk, offset } in uses {
                    put(&mut out, u64::from(*chunk));
                    put(&mut out, offset.map_or(0, |offset| offset + 1));
                }
            }
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        (out.len() <= MAX_BYTES && self.check().is_ok()).then_some(out)
    }

    fn check(&self) -> Result<(), Refused> {
        let steps = || self.phases.iter().flatten();
        let operations = steps().map(|step| u64::from(step.operations)).sum::<u64>();
        if operations > MAX_OPERATIONS || steps().any(|step| step.operations == 0) {
            return Err(Refused::Inconsistent("a number of operations"));
        }
        let offsets = || steps().flat_map(|step| &step.uses).filter_map(|place| place.offset);
        if offsets().any(|offset| offset >= 1 << 48) {
            return Err(Refused::Inconsistent("an offset is too large"));
        }
        if steps().any(|step| step.uses.len() > MAX_USES) {
            return Err(Refused::Inconsistent("a step of too many uses"));
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What `file` holds, if it is whole, of this version, of the program with this
/// signature, and consistent.
pub fn decode(file: &[u8], signature: u64) -> Result<Remembered, Refused> {
    if !file.starts_with(&MAGIC) {
        return Err(Refused::NotAnOrder);
    }
    if file.len() > MAX_BYTES {
        return Err(Refused::Inconsistent("it is too long"));
    }
    let version = file.get(MAGIC.len()..MAGIC.len() + 2).ok_or(Refused::Damaged)?;
    let version = u16::from_le_bytes([version[0], version[1]]);
    if version != VERSION {
        return Err(Refused::Version(version));
    }
    let (covered, checksum) = file
        .split_last_chunk::<CHECKSUM>()
        .filter(|(covered, _)| covered.len() >= HEADER)
        .ok_or(Refused::Damaged)?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*checksum) {
        return Err(Refused::Damaged);
    }
    let (header, body) = covered.split_at(HEADER);
    let written = header.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    if written != Some(signature) {
        return Err(Refused::OtherProgram);
    }
    let mut input = Reader(body);
    let phases = input.list(1, |input| input.list(3, read_step))?;
    if !input.0.is_empty() {
        return Err(Refused::Inconsistent("something follows"));
    }
    let remembered = Remembered { signature, phases };
    remembered.check()?;
    Ok(remembered)
}

fn read_step(input: &mut Reader) -> Result<Step, Refused> {
    let (operations, ns) = (input.number()?, input.wide()?);
    let uses = input.list(2, |input| {
        Ok(Place { chunk: input.number()?, offset: input.wide()?.checked_sub(1) })
    })?;
    Ok(Step { operations, ns, uses })
}

struct Reader<'a>(&'a [u8]);

const ENDS: Refused = Refused::Inconsistent("it ends too early");

impl Reader<'_> {
    fn wide(&mut self) -> Result<u64, Refused> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(ENDS)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Refused::Inconsistent("a number is too long"))
    }

    fn number(&mut self) -> Result<u32, Refused> {
        u32::try_from(self.wide()?).map_err(|_| Refused::Inconsistent("a number is too large"))
    }

    /// A count, and as many things of at least `bytes` each: no more than can follow.
    fn list<T>(
        &mut self,
        bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        let count = self.wide()?;
        if count > (self.0.len() / bytes) as u64 {
            return Err(ENDS);
        }
        (0..count).map(|_| read(self)).collect()
    }
}
