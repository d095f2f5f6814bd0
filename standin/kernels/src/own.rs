//! The stand-in's own small kernels, which its tests and the interposer's
//! launch through a text image (see `standin_abi::IMAGE_MAGIC`).

use standin_abi::{ADD_U32_KERNEL, FILL_U32_KERNEL};

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::Cursor;
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

/// `standin_fill_u32(u32* to, u64 count, u32 value)`
struct Fill;

/// `standin_add_u32(u32* to, const u32* from, u64 count)`: to[i] += from[i].
struct Add;

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    match name.base.as_str() {
        FILL_U32_KERNEL => Some(Box::new(Fill)),
        ADD_U32_KERNEL => Some(Box::new(Add)),
        _ => None,
    }
}

/// Elements handled at a time.
const BLOCK: u64 = 4096;

/// Calls `visit` with the start and length of each block of `count` elements.
fn blocks(count: u64, mut visit: impl FnMut(u64, usize)) {
    let mut start = 0;
    while start < count {
        let length = BLOCK.min(count - start);
        visit(start, length as usize);
        start += length;
    }
}

impl Kernel for Fill {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let address = Cursor::parameter(launch, 0)?.u64()?;
        let count = Cursor::parameter(launch, 1)?.u64()?;
        let value = Cursor::parameter(launch, 2)?.u32()?;
        let to = Target::new(memory, address, DType::I32, count)?;
        let lanes = [value as i32 as i64; BLOCK as usize];
        blocks(count, |start, length| to.store(start, &lanes[..length]));
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 1).and_then(|mut cursor| cursor.u64()).unwrap_or(0);
        Cost { bytes: 4.0 * count as f64, flops: 0.0 }
    }
}

impl Kernel for Add {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let to = Cursor::parameter(launch, 0)?.u64()?;
        let from = Cursor::parameter(launch, 1)?.u64()?;
        let count = Cursor::parameter(launch, 2)?.u64()?;
        let old = Source::new(memory, to, DType::I32, count)?;
        let from = Source::new(memory, from, DType::I32, count)?;
        let to = Target::new(memory, to, DType::I32, count)?;
        let (mut sum, mut more) = ([0i64; BLOCK as usize], [0i64; BLOCK as usize]);
        blocks(count, |start, length| {
            old.load(start, &mut sum[..length]);
            from.load(start, &mut more[..length]);
            for (sum, more) in sum.iter_mut().zip(&more) {
                *sum += more;
            }
            to.store(start, &sum[..length]);
        });
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 2).and_then(|mut cursor| cursor.u64()).unwrap_or(0);
        Cost { bytes: 12.0 * count as f64, flops: count as f64 }
    }
}
