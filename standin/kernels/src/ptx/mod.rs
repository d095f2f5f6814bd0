//! Executes PTX, the text form of device code: as much of it as small kernels
//! need that are written by hand. An instruction that is not known is an error
//! when the module is read, with its line, never a guess.
//!
//! ```text
//!   text -> parse   entries with their parameters; registers, labels resolved
//!           run     a warp at a time, its threads in step where they exchange
//! ```
//!
//! It is slow, some ten nanoseconds an instruction: what is launched often has
//! a twin in Rust beside it (`find` of this crate), and tests show that both
//! compute the same. Not here: shared memory, atomics, calls, floating point.

mod parse;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Cost, Fault, Kernel, Launch, Memory};
use parse::Instruction;

/// The entries of one module, by name.
pub struct Module {
    pub entries: BTreeMap<String, Entry>,
}

/// One kernel. Cloning shares the code.
#[derive(Clone)]
pub struct Entry {
    /// (offset, size) in bytes of each parameter.
    pub layout: Vec<(u32, u32)>,
    registers: usize,
    code: Arc<[Instruction]>,
}

impl Module {
    /// Reads a module. Errors: a sentence with the line that is not understood.
    pub fn read(text: &str) -> Result<Module, String> {
        parse::module(text)
    }
}

/// Whether `text` begins like PTX: with comments, then `.version`.
pub fn is_ptx(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with("//"));
    first.is_some_and(|line| line.starts_with(".version"))
}

impl Kernel for Entry {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        run::grid(self, launch, memory)
    }

    /// What a kernel of unknown purpose costs is not known.
    fn cost(&self, _launch: &Launch) -> Cost {
        Cost::default()
    }
}
