//! `elementwise_kernel_with_index<I, F>(I N, F f, T* to)`: arange, linspace, range.
//!
//! `F` is a lambda over the index that captured start and step, in the
//! accumulation type of the element type `T`, which its number tells: PyTorch's
//! dispatch order.

use crate::block::Target;
use crate::name::{Callable, Lambda, Name, callable};
use crate::params::{Cursor, Layout, unsupported};
use crate::value::{Class, DType};
use crate::{Cost, Fault, Kernel, Launch, Memory};

struct Range {
    element: DType,
    accumulator: DType,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    if name.base != "elementwise_kernel_with_index" {
        return None;
    }
    let Callable::Lambda(lambda) = callable(name.args.get(1)?)? else {
        return None;
    };
    let element = element(&lambda)?;
    let accumulator = match element.class() {
        Class::I64 => DType::I64,
        Class::F32 => DType::F32,
        Class::F64 => DType::F64,
    };
    Some(Box::new(Range { element, accumulator }))
}

/// AT_DISPATCH_ALL_TYPES_AND2(kHalf, kBFloat16, …): its cases in order.
fn element(lambda: &Lambda) -> Option<DType> {
    const CASES: [DType; 9] = [
        DType::U8,
        DType::I8,
        DType::I32,
        DType::I64,
        DType::I16,
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
    ];
    match (lambda.function.base.as_str(), lambda.path.as_slice()) {
        ("arange_cuda_out", [1, case, 1]) => CASES.get(*case as usize - 1).copied(),
        _ => None,
    }
}

impl Kernel for Range {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = Cursor::parameter(launch, 0)?.integer()?.max(0) as u64;
        let mut state = Cursor::parameter(launch, 1)?;
        if state.size() != Layout::of(&[self.accumulator; 2]).then_pointer().size() {
            return Err(unsupported(launch, &format!("a lambda of {} bytes", state.size())));
        }
        let to = Cursor::parameter(launch, 2)?.u64()?;
        let to = Target::new(memory, to, self.element, count)?;
        // The device computes in the accumulator; so do these, wrap and rounding included.
        match self.accumulator {
            DType::I64 => {
                let (start, step) = (state.i64()?, state.i64()?);
                each(count, |i| to.store(i, &[start.wrapping_add(step.wrapping_mul(i as i64))]));
            }
            DType::F64 => {
                let (start, step) =
                    (state.scalar::<f64>(DType::F64)?, state.scalar::<f64>(DType::F64)?);
                each(count, |i| to.store(i, &[step.mul_add(i as f64, start)]));
            }
            _ => {
                let (start, step) =
                    (state.scalar::<f32>(DType::F32)?, state.scalar::<f32>(DType::F32)?);
                each(count, |i| to.store(i, &[step.mul_add(i as f32, start)]));
            }
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 0)
            .and_then(|mut cursor| cursor.integer())
            .unwrap_or(0) as f64;
        Cost { bytes: count * self.element.size() as f64, flops: 2.0 * count }
    }
}

fn each(count: u64, visit: impl FnMut(u64)) {
    (0..count).for_each(visit);
}
