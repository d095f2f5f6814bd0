//! `reduce_kernel<threads, vector, ReduceOp<T, Ops, I, Out, vt, vi>>`: one
//! parameter, the ReduceOp:
//!
//! `Ops ops; Arg identity; ReduceConfig; OffsetCalculator<1>; OffsetCalculator<2>;
//!  void* src; char* dst[2]; void *acc, *cta, *semaphores; int64_t base_idx;
//!  bool accumulate, final; int noutputs`
//!
//! How the device splits the work over threads is not repeated: every output
//! is reduced in index order, floating-point sums in f64. So results do not
//! depend on the launch's shape, and are at least as exact as the device's.

use crate::accumulate::{Accumulate, Integers, Operation, Reals, Value};
use crate::name::{Callable, Name, callable, name_of};
use crate::offsets::Offsets;
use crate::params::{Cursor, Layout, unsupported};
use crate::value::{Class, DType, load_lanes, store_lanes};
use crate::{Cost, Fault, Kernel, Launch, Memory};

struct Reduce {
    operation: Operation,
    input: DType,
    output: DType,
    /// The ops object, as it may lie, and what `Arg` is made of.
    ops: Vec<Layout>,
    argument: Layout,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    if name.base != "reduce_kernel" {
        return None;
    }
    let reduce = name_of(name.args.get(2)?);
    let [input, ops, index, output, ..] = reduce.args.as_slice() else {
        return None;
    };
    if reduce.base != "ReduceOp" || index != "unsigned int" {
        return None;
    }
    let (input, output) = (DType::from_cpp(input)?, DType::from_cpp(output)?);
    let (operation, ops, argument) = operation(ops)?;
    let layout = Layout::of(&ops);
    // Around a lambda, which may hold nothing but a pointer to its host copy.
    let ops =
        if ops.is_empty() { vec![layout.clone(), layout.then_pointer()] } else { vec![layout] };
    Some(Box::new(Reduce { operation, input, output, ops, argument: Layout::of(&argument) }))
}

/// The operation an ops class stands for, its fields, and those of its `Arg`.
fn operation(text: &str) -> Option<(Operation, Vec<DType>, Vec<DType>)> {
    let ops = name_of(text);
    let dtype = |index: usize| ops.args.get(index).and_then(|arg| DType::from_cpp(arg));
    let root = ops.args.get(3).is_none_or(|root| root == "true");
    Some(match ops.base.as_str() {
        "func_wrapper_t" => {
            let (operation, argument) = wrapped(ops.args.get(1)?)?;
            (operation, vec![], vec![argument])
        }
        "MeanOps" => (Operation::Mean, vec![dtype(2)?], vec![dtype(1)?]),
        "NanSumOps" => (Operation::NanSum, vec![], vec![dtype(0)?]),
        "AbsMaxOps" => (Operation::AbsMax, vec![], vec![dtype(1)?]),
        "AbsMinOps" => (Operation::AbsMin, vec![], vec![dtype(1)?]),
        "NormZeroOps" => (Operation::NormZero, vec![], vec![dtype(1)?]),
        "NormOneOps" => (Operation::NormOne, vec![], vec![dtype(1)?]),
        "NormTwoOps" => (Operation::NormTwo { root }, vec![], vec![dtype(1)?]),
        "NormOps" => (Operation::Norm { root }, vec![dtype(1)?], vec![dtype(1)?]),
        "MaxOps" => (Operation::MaxPair, vec![], vec![dtype(0)?, DType::I64]),
        "MinOps" => (Operation::MinPair, vec![], vec![dtype(0)?, DType::I64]),
        "ArgMaxOps" => (Operation::ArgMax, vec![], vec![dtype(0)?, DType::I64]),
        "ArgMinOps" => (Operation::ArgMin, vec![], vec![dtype(0)?, DType::I64]),
        "MinMaxOps" => (Operation::MinMax, vec![], vec![dtype(1)?; 2]),
        "WelfordOps" => {
            let (accumulator, index) = (dtype(1)?, dtype(2)?);
            (
                Operation::Welford,
                vec![accumulator, DType::Bool],
                vec![accumulator, accumulator, index, accumulator],
            )
        }
        _ => return None,
    })
}

/// What a functor inside `func_wrapper_t` does, and the type it takes.
fn wrapped(text: &str) -> Option<(Operation, DType)> {
    match callable(text)? {
        Callable::Class(class) => {
            let operation = match class.base.as_str() {
                "ReductionAddOp" => Operation::Sum,
                "ReductionMulOp" => Operation::Product,
                "MaxNanFunctor" => Operation::Max,
                "MinNanFunctor" => Operation::Min,
                _ => return None,
            };
            Some((operation, DType::from_cpp(class.args.first()?)?))
        }
        Callable::Lambda(lambda) => {
            let argument = DType::from_cpp(lambda.params.first()?)?;
            // The functors' lambdas sit in their operator(), a nested name.
            let operation = match lambda.function.base.as_str() {
                "and_kernel_cuda" => Operation::And,
                "or_kernel_cuda" => Operation::Or,
                "operator" if text.starts_with("sum_functor<") => Operation::Sum,
                "operator" if text.starts_with("prod_functor<") => Operation::Product,
                _ => return None,
            };
            Some((operation, argument))
        }
    }
}

/// A launch's parameter, decoded.
struct Decoded<'a> {
    ops: &'a [u8],
    layout: &'a Layout,
    inputs: u64,
    outputs: u64,
    input_offsets: Offsets,
    /// Argument 0: the output; argument 1: where its inputs start.
    output_offsets: Offsets,
    source: u64,
    targets: [u64; 2],
    target_count: i32,
}

impl Reduce {
    fn decode<'a>(&'a self, launch: &Launch<'a>) -> Result<Decoded<'a>, Fault> {
        let (layout, mut cursor) = self
            .ops
            .iter()
            .find_map(|layout| Some((layout, self.config(launch, layout)?)))
            .ok_or_else(|| unsupported(launch, "a ReduceOp of another layout"))?;
        let ops = Cursor::parameter(launch, 0)?.take(layout.size())?;
        // ReduceConfig: element size, inputs, outputs, and 13 words of how work is split.
        cursor.u32()?;
        let inputs = cursor.i32()? as u64;
        let outputs = cursor.i32()? as u64;
        cursor.skip(13 * 4);
        let input_offsets = Offsets::read(&mut cursor, 1)?;
        let output_offsets = Offsets::read(&mut cursor, 2)?;
        let source = cursor.u64()?;
        let targets = [cursor.u64()?, cursor.u64()?];
        cursor.skip(3 * 8);
        cursor.i64()?;
        let (accumulate, last) = (cursor.u8()?, cursor.u8()?);
        let target_count = cursor.i32()?;
        if cursor.position().next_multiple_of(8) != cursor.size() {
            return Err(unsupported(
                launch,
                &format!("a ReduceOp of {} bytes, expected {}", cursor.size(), cursor.position(),),
            ));
        }
        if accumulate != 0 || last == 0 {
            return Err(unsupported(
                launch,
                "a reduction split over several launches (over 2^31 elements)",
            ));
        }
        Ok(Decoded {
            ops,
            layout,
            inputs,
            outputs,
            input_offsets,
            output_offsets,
            source,
            targets,
            target_count,
        })
    }

    /// A cursor at the ReduceConfig, if one lies behind an ops object of this
    /// layout. Different layouts can add up to the same size, so the config is
    /// recognised by what must be true of it.
    fn config<'a>(&self, launch: &Launch<'a>, ops: &Layout) -> Option<Cursor<'a>> {
        let mut cursor = Cursor::parameter(launch, 0).ok()?;
        cursor.skip(ops.size());
        cursor.align(self.argument.alignment());
        cursor.skip(self.argument.size());
        cursor.align(4);
        let start = cursor;
        let words = (0..14).map(|_| cursor.i32()).collect::<Result<Vec<_>, _>>().ok()?;
        let (width, height, threads) = (words[11], words[12], words[13]);
        (words[0] as usize == self.argument.size()
            && width.checked_mul(height) == Some(threads)
            && threads > 0)
            .then_some(start)
    }

    fn compute<A: Accumulate>(&self, decoded: &Decoded, memory: &dyn Memory) -> Result<(), Fault> {
        let constants: Vec<f64> = decoded.layout.read(decoded.ops)?;
        let size = self.input.size();
        let (low, high) = {
            let (inner, outer) =
                (decoded.input_offsets.bounds(0), decoded.output_offsets.bounds(1));
            (inner.0 + outer.0, inner.1 + outer.1)
        };
        let source = memory
            .read(decoded.source.wrapping_add_signed(low), (high - low) as u64 + size as u64)?
            .wrapping_offset(-low as isize);
        // A second output lies like the first, scaled to its element size.
        let (first, second) = self.target_types();
        let (low, high) = decoded.output_offsets.bounds(0);
        let target = |index: usize, dtype: DType| {
            let scale = |offset: i64| offset / first.size() as i64 * dtype.size() as i64;
            let bytes = (scale(high) - scale(low)) as u64 + dtype.size() as u64;
            memory
                .write(decoded.targets[index].wrapping_add_signed(scale(low)), bytes)
                .map(|pointer| pointer.wrapping_offset(-scale(low) as isize))
        };
        let first_target = target(0, first)?;
        let second_target = match second {
            Some(dtype) if decoded.target_count > 1 => Some((target(1, dtype)?, dtype)),
            _ => None,
        };

        const BLOCK: usize = 1024;
        let mut lanes = [A::Lane::default(); BLOCK];
        for output in 0..decoded.outputs {
            let from = source.wrapping_offset(decoded.output_offsets.get(1, output) as isize);
            let mut state = A::start(self.operation);
            let mut start = 0;
            while start < decoded.inputs {
                let count = BLOCK.min((decoded.inputs - start) as usize);
                decoded.input_offsets.runs(0, start, count, |offset, stride, range| {
                    // SAFETY: `source` was checked for every offset the two calculators can give.
                    unsafe {
                        load_lanes(
                            self.input,
                            from.wrapping_offset(offset as isize),
                            stride as isize,
                            &mut lanes[range],
                        )
                    };
                });
                state.add(self.operation, &lanes[..count], start, &constants);
                start += count as u64;
            }
            let (value, extra) = state.finish(self.operation, decoded.inputs, &constants);
            let offset = decoded.output_offsets.get(0, output);
            // SAFETY: the first target was checked for every output offset.
            unsafe { store_one(first, first_target.wrapping_offset(offset as isize), value) };
            if let Some((target, dtype)) = second_target {
                let offset = offset / first.size() as i64 * dtype.size() as i64;
                // SAFETY: the second target was checked for every output offset, scaled likewise.
                unsafe { store_one(dtype, target.wrapping_offset(offset as isize), extra) };
            }
        }
        Ok(())
    }

    /// Element types of the outputs.
    fn target_types(&self) -> (DType, Option<DType>) {
        match self.operation {
            Operation::MaxPair | Operation::MinPair => (self.output, Some(DType::I64)),
            Operation::MinMax | Operation::Welford => (self.output, Some(self.output)),
            _ => (self.output, None),
        }
    }
}

/// # Safety
/// `to` must be writable for one element of `dtype`.
unsafe fn store_one(dtype: DType, to: *mut u8, value: Value) {
    // SAFETY: by this function's contract; one lane is one element.
    unsafe {
        match value {
            Value::Real(value) => store_lanes(dtype, to, 0, &[value]),
            Value::Integer(value) => store_lanes(dtype, to, 0, &[value]),
        }
    }
}

impl Kernel for Reduce {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let decoded = self.decode(launch)?;
        match self.input.class() {
            Class::I64 => self.compute::<Integers>(&decoded, memory),
            _ => self.compute::<Reals>(&decoded, memory),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let Ok(decoded) = self.decode(launch) else {
            return Cost::default();
        };
        let elements = decoded.inputs as f64 * decoded.outputs as f64;
        Cost {
            bytes: elements * self.input.size() as f64
                + decoded.outputs as f64 * self.output.size() as f64,
            flops: elements,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_classes_and_wrapped_functors_are_recognised() {
        let sum = "func_wrapper_t<BFloat16, sum_functor<BFloat16, float, BFloat16>::operator()(at::TensorIterator&)::{lambda(float, float)#1}>";
        assert_eq!(operation(sum), Some((Operation::Sum, vec![], vec![DType::F32])));
        assert_eq!(
            operation(
                "func_wrapper_t<bool, and_kernel_cuda(at::TensorIterator&)::{lambda()#1}::operator()() const::{lambda()#7}::operator()() const::{lambda(float, float)#1}>"
            ),
            Some((Operation::And, vec![], vec![DType::F32]))
        );
        assert_eq!(
            operation("MeanOps<BFloat16, float, float, float>"),
            Some((Operation::Mean, vec![DType::F32], vec![DType::F32]))
        );
        assert_eq!(
            operation(
                "func_wrapper_t<float, xor_sum_functor<float>::operator()(at::TensorIterator&)::{lambda(float, float)#1}>"
            ),
            None
        );
    }
}
