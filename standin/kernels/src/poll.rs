//! `standin_poll_u32`: a kernel that runs until a word of memory has a value,
//! as kernels do that wait for the host or for another stream.
//!
//! It does not spin: the driver asks whether it may end, so it takes no worker
//! and holds no memory map while it waits.

use standin_abi::POLL_U32_KERNEL;

use crate::block::Source;
use crate::name::Name;
use crate::params::Cursor;
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

struct Poll;

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    (name.base == POLL_U32_KERNEL).then(|| Box::new(Poll) as Box<dyn Kernel>)
}

fn has_come(launch: &Launch, memory: &dyn Memory) -> Result<bool, Fault> {
    let word = Cursor::parameter(launch, 0)?.u64()?;
    let value = Cursor::parameter(launch, 1)?.u32()?;
    let seen: i64 = Source::new(memory, word, DType::I32, 1)?.get(0);
    Ok(seen as u32 == value)
}

impl Kernel for Poll {
    /// The value has been there. What cannot be read is a fault.
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        has_come(launch, memory).map(drop)
    }

    fn cost(&self, _launch: &Launch) -> Cost {
        Cost::default()
    }

    fn polls(&self) -> bool {
        true
    }

    fn ready(&self, launch: &Launch, memory: &dyn Memory) -> bool {
        has_come(launch, memory).unwrap_or(true)
    }
}
