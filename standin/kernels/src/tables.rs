//! The stand-in's own kernels that write tables of addresses into device
//! memory, and that read through them: what they reach, no parameter names.
//! Their parameters are in `standin_abi`.

use standin_abi::{
    ADD_FAR_U32_KERNEL, ADD_THROUGH_U32_KERNEL, GROUP_TABLES_KERNEL, GROUPED_PRODUCT_KERNEL,
    TABLE_U64_KERNEL,
};

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::{Cursor, unsupported};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy)]
enum Tables {
    Write,
    AddThrough,
    AddFar,
    Group,
    Product,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    Some(Box::new(match name.base.as_str() {
        TABLE_U64_KERNEL => Tables::Write,
        ADD_THROUGH_U32_KERNEL => Tables::AddThrough,
        ADD_FAR_U32_KERNEL => Tables::AddFar,
        GROUP_TABLES_KERNEL => Tables::Group,
        GROUPED_PRODUCT_KERNEL => Tables::Product,
        _ => return None,
    }))
}

fn word(launch: &Launch, index: usize) -> Result<u64, Fault> {
    Cursor::parameter(launch, index)?.u64()
}

impl Kernel for Tables {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        match self {
            Tables::Write => write(launch, memory),
            Tables::AddThrough => add_through(launch, memory),
            Tables::AddFar => add_far(launch, memory),
            Tables::Group => group(launch, memory),
            Tables::Product => product(launch, memory),
        }
    }

    /// How much it reads stands in the tables, which is not known yet.
    fn cost(&self, _launch: &Launch) -> Cost {
        Cost { bytes: 4096.0, flops: 0.0 }
    }
}

fn write(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let (first, step, count) = (word(launch, 1)?, word(launch, 2)?, word(launch, 3)?);
    let table = Target::new(memory, word(launch, 0)?, DType::I64, count)?;
    for i in 0..count {
        table.store(i, &[first.wrapping_add(i.wrapping_mul(step)) as i64]);
    }
    Ok(())
}

fn add_through(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let from = entry(memory, word(launch, 1)?, word(launch, 2)?)?;
    add(memory, word(launch, 0)?, from, word(launch, 3)?)
}

fn add_far(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let table = entry(memory, word(launch, 1)?, 0)?;
    add(memory, word(launch, 0)?, entry(memory, table, 0)?, word(launch, 2)?)
}

fn entry(memory: &dyn Memory, table: u64, index: u64) -> Result<u64, Fault> {
    let word: i64 = Source::new(memory, table, DType::I64, index + 1)?.get(index);
    Ok(word as u64)
}

fn add(memory: &dyn Memory, to: u64, from: u64, count: u64) -> Result<(), Fault> {
    let from = Source::new(memory, from, DType::I32, count)?;
    let (old, new) =
        (Source::new(memory, to, DType::I32, count)?, Target::new(memory, to, DType::I32, count)?);
    for i in 0..count {
        new.store(i, &[old.get::<i64>(i) + from.get::<i64>(i)]);
    }
    Ok(())
}

const WORDS_PER_GROUP: u64 = 4;

fn group(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let (a, b, d) = (word(launch, 0)?, word(launch, 1)?, word(launch, 2)?);
    let (n, k) = (word(launch, 5)?, word(launch, 6)?);
    let groups = u64::from(Cursor::parameter(launch, 7)?.u32()?);
    let ends = Source::new(memory, word(launch, 4)?, DType::I32, groups)?;
    let tables = Target::new(memory, word(launch, 3)?, DType::I64, groups * WORDS_PER_GROUP)?;
    let mut start = 0u64;
    for g in 0..groups {
        let end = ends.get::<i64>(g) as u64;
        if end < start {
            return Err(unsupported(launch, "groups that end before they begin"));
        }
        let row = [
            a.wrapping_add(start * k * 4),
            b.wrapping_add(g * k * n * 4),
            d.wrapping_add(start * n * 4),
            end - start,
        ];
        tables.store(g * WORDS_PER_GROUP, &row.map(|word| word as i64));
        start = end;
    }
    Ok(())
}

fn product(launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
    let (n, k) = (word(launch, 1)?, word(launch, 2)?);
    let groups = u64::from(Cursor::parameter(launch, 3)?.u32()?);
    let tables = Source::new(memory, word(launch, 0)?, DType::I64, groups * WORDS_PER_GROUP)?;
    for g in 0..groups {
        let mut row = [0i64; WORDS_PER_GROUP as usize];
        tables.load(g * WORDS_PER_GROUP, &mut row);
        let [a, b, d, rows] = row.map(|word| word as u64);
        let a = Source::new(memory, a, DType::F32, rows * k)?;
        let b = Source::new(memory, b, DType::F32, k * n)?;
        let d = Target::new(memory, d, DType::F32, rows * n)?;
        let mut weights = vec![0f32; (k * n) as usize];
        b.load(0, &mut weights);
        let mut left = vec![0f32; k as usize];
        for i in 0..rows {
            a.load(i * k, &mut left);
            let mut sums = vec![0f32; n as usize];
            for (value, weights) in left.iter().zip(weights.chunks_exact(n.max(1) as usize)) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += value * weight;
                }
            }
            d.store(i * n, &sums);
        }
    }
    Ok(())
}
