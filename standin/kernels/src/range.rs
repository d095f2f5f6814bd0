//! `elementwise_kernel_with_index<I, F>(I N, F f, T* to)`: arange, linspace.
//!
//! `F` is a lambda over the index. Arange has captured start and step, in the
//! accumulation type of the element type `T`, which its number tells: PyTorch's
//! dispatch order. Linspace has captured `T start, T end, long steps, T step,
//! long half`: it counts from the nearer end. Not here: linspace of half precision
//! and of integers.

use crate::block::Target;
use crate::name::{Callable, Lambda, Name, callable};
use crate::params::{Cursor, Layout, unsupported};
use crate::value::{Class, DType};
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Step,
    Between,
}

struct Range {
    form: Form,
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
    let (form, element) = element(&lambda)?;
    let accumulator = match element.class() {
        Class::I64 => DType::I64,
        Class::F32 => DType::F32,
        Class::F64 => DType::F64,
    };
    Some(Box::new(Range { form, element, accumulator }))
}

/// AT_DISPATCH_ALL_TYPES_AND2(kHalf, kBFloat16, …): its cases in order. Linspace has it for
/// integers alone; then comes AT_DISPATCH_FLOATING_AND_COMPLEX_TYPES_AND2.
fn element(lambda: &Lambda) -> Option<(Form, DType)> {
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
        ("arange_cuda_out", [1, case, 1]) => Some((Form::Step, *CASES.get(*case as usize - 1)?)),
        ("linspace_cuda_out", [2, 1, 1]) => Some((Form::Between, DType::F64)),
        ("linspace_cuda_out", [2, 2, 1]) => Some((Form::Between, DType::F32)),
        _ => None,
    }
}

impl Kernel for Range {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = Cursor::parameter(launch, 0)?.integer()?.max(0) as u64;
        let mut state = Cursor::parameter(launch, 1)?;
        let own = self.accumulator;
        let captured = match self.form {
            Form::Step => Layout::of(&[own; 2]),
            Form::Between => Layout::of(&[own, own, DType::I64, own, DType::I64]),
        };
        if state.size() != captured.then_pointer().size() {
            return Err(unsupported(launch, &format!("a lambda of {} bytes", state.size())));
        }
        let to = Cursor::parameter(launch, 2)?.u64()?;
        let to = Target::new(memory, to, self.element, count)?;
        if self.form == Form::Between {
            let mut number = |dtype: DType| {
                state.align(dtype.size());
                match dtype {
                    DType::I64 => state.i64().map(|value| value as f64),
                    _ => state.scalar::<f64>(dtype),
                }
            };
            let (start, end) = (number(own)?, number(own)?);
            let steps = number(DType::I64)?;
            let (step, half) = (number(own)?, number(DType::I64)?);
            each(count, |i| {
                let at = i as f64;
                // One rounding to the element, as where the device multiplies and adds at once.
                let value = match at < half {
                    true => step.mul_add(at, start),
                    false => (-step).mul_add(steps - at - 1.0, end),
                };
                to.store(i, &[value]);
            });
            return Ok(());
        }
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
