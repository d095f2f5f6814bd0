//! `nonzero`, which boolean indexing, `masked_select` and printing use: the
//! cub kernels PyTorch launches for it, and its own.
//!
//! | kernel | parameters |
//! |---|---|
//! | `DeviceReduceSingleTileKernel<P, In, int*, …>` | `In, int* out, N, plus, int init, identity` |
//! | `DeviceReduceKernel<P, In, …>` | `In, int* out, N, GridEvenShare, plus, identity` |
//! | `DeviceCompactInitKernel<State, int*>` | `State, int tiles, int* selected` |
//! | `DeviceSelectSweepKernel<P, counting_iterator, In, long*, int*, …>` | `first, In flags, long* out, int* selected, State, NullType, NullType, int N, …, context` |
//! | `write_indices<I>` | `int64_t* to, I sizes[], int dims, I N, int64_t* total, int64_t fill` |
//!
//! `In` is `int*`, or a transform iterator (a pointer first; CUDA 12's has it second) that
//! asks whether an element is not zero. How cub splits the work over blocks is not
//! repeated: the first block's result is the whole, the others' is nothing.

use crate::block::{Source, Target};
use crate::name::{Name, name_of};
use crate::params::{Cursor, unsupported};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let argument = |index: usize| name.args.get(index).map(String::as_str);
    match name.base.as_str() {
        "DeviceReduceSingleTileKernel" if argument(2)? == "int*" => {
            Some(Box::new(Count { input: Input::of(argument(1)?)?, blocks: false }))
        }
        "DeviceReduceKernel" => {
            Some(Box::new(Count { input: Input::of(argument(1)?)?, blocks: true }))
        }
        // Prepares scratch memory that only the device's own sweep reads.
        "DeviceCompactInitKernel" => Some(Box::new(Prepare)),
        "DeviceSelectSweepKernel" if argument(3)? == "long*" && argument(4)? == "int*" => {
            let flags = Input::of(argument(2)?)?;
            // CUDA 12's cub has its own iterators, and no context.
            let context = match name_of(argument(1)?).base.as_str() {
                "counting_iterator" => true,
                "CountingInputIterator" => false,
                _ => return None,
            };
            flags.test.then(|| Box::new(Select { flags, context }) as Box<dyn Kernel>)
        }
        "write_indices" if argument(0)? == "long" => Some(Box::new(WriteIndices)),
        _ => None,
    }
}

/// What a reduction or selection reads.
#[derive(Clone, Copy)]
struct Input {
    element: DType,
    /// Each element counts as whether it is not zero, not as its value.
    test: bool,
    /// Where its pointer lies in the iterator.
    pointer: usize,
}

impl Input {
    fn of(text: &str) -> Option<Self> {
        if text == "int*" {
            return Some(Input { element: DType::I32, test: false, pointer: 0 });
        }
        let iterator = name_of(text);
        let (test, pointer) = match iterator.base.as_str() {
            "transform_iterator" => (iterator.args.first()?, 0),
            // CUDA 12's: the functor, which is empty, comes first.
            "TransformInputIterator" => (iterator.args.get(1)?, 8),
            _ => return None,
        };
        let test = name_of(test);
        (test.base == "NonZeroOp").then_some(())?;
        Some(Input { element: DType::from_cpp(test.args.first()?)?, test: true, pointer })
    }

    /// The address it reads from.
    fn address(self, launch: &Launch, index: usize) -> Result<u64, Fault> {
        let mut iterator = Cursor::parameter(launch, index)?;
        iterator.skip(self.pointer);
        iterator.u64()
    }

    /// Calls `visit` with each element's index and number.
    fn each(self, source: &Source, count: u64, mut visit: impl FnMut(u64, i64)) {
        const BLOCK: u64 = 1024;
        let (mut reals, mut integers) = ([0f64; BLOCK as usize], [0i64; BLOCK as usize]);
        let mut start = 0;
        while start < count {
            let length = BLOCK.min(count - start) as usize;
            if self.test {
                // Every element type is exact enough in f64 to tell zero from the rest.
                source.load(start, &mut reals[..length]);
                for (integer, real) in integers.iter_mut().zip(&reals) {
                    *integer = (*real != 0.0) as i64;
                }
            } else {
                source.load(start, &mut integers[..length]);
            }
            for (i, &number) in integers[..length].iter().enumerate() {
                visit(start + i as u64, number);
            }
            start += length as u64;
        }
    }
}

/// A sum into `out[0]`.
struct Count {
    input: Input,
    /// One result per block of the grid.
    blocks: bool,
}

impl Count {
    fn count(&self, launch: &Launch) -> Result<u64, Fault> {
        Ok(Cursor::parameter(launch, 2)?.integer()?.max(0) as u64)
    }
}

impl Kernel for Count {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = self.count(launch)?;
        let source = self.input.address(launch, 0)?;
        let source = Source::new(memory, source, self.input.element, count)?;
        let results = if self.blocks { launch.grid[0] as usize } else { 1 };
        let out = Cursor::parameter(launch, 1)?.u64()?;
        let out = Target::new(memory, out, DType::I32, results as u64)?;
        let mut sum = if self.blocks { 0 } else { Cursor::parameter(launch, 4)?.i32()? as i64 };
        self.input.each(&source, count, |_, number| sum += number);
        let mut lanes = vec![0i64; results];
        lanes[0] = sum;
        out.store(0, &lanes);
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = self.count(launch).unwrap_or(0) as f64;
        Cost { bytes: count * self.input.element.size() as f64, flops: count }
    }
}

struct Prepare;

impl Kernel for Prepare {
    fn run(&self, _launch: &Launch, _memory: &dyn Memory) -> Result<(), Fault> {
        Ok(())
    }

    fn cost(&self, _launch: &Launch) -> Cost {
        Cost::default()
    }
}

/// The indices of the elements that are not zero, in order.
struct Select {
    flags: Input,
    context: bool,
}

impl Kernel for Select {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let first = Cursor::parameter(launch, 0)?.i64()?;
        let flags = self.flags.address(launch, 1)?;
        let out = Cursor::parameter(launch, 2)?.u64()?;
        let selected = Cursor::parameter(launch, 3)?.u64()?;
        let count = Cursor::parameter(launch, 7)?.i32()?.max(0) as u64;
        // The context of an input that needs several sweeps; this is the first, and the last.
        let mut context = Cursor::parameter(launch, 9)?;
        if self.context && (context.u8()?, context.u8()?) != (1, 1) {
            return Err(unsupported(launch, "a selection in several sweeps (over 2^31 elements)"));
        }
        let flags = Source::new(memory, flags, self.flags.element, count)?;
        let mut indices = Vec::new();
        self.flags.each(&flags, count, |i, number| {
            if number != 0 {
                indices.push(first + i as i64);
            }
        });
        Target::new(memory, out, DType::I64, indices.len() as u64)?.store(0, &indices);
        Target::new(memory, selected, DType::I32, 1)?.store(0, &[indices.len() as i64]);
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count =
            Cursor::parameter(launch, 7).and_then(|mut cursor| cursor.i32()).unwrap_or(0) as f64;
        Cost { bytes: count * self.flags.element.size() as f64, flops: count }
    }
}

/// Linear indices, N of them, into coordinates: N per dimension, in place.
struct WriteIndices;

impl Kernel for WriteIndices {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let to = Cursor::parameter(launch, 0)?.u64()?;
        let dims = Cursor::parameter(launch, 2)?.i32()?.max(0) as usize;
        let count = Cursor::parameter(launch, 3)?.i64()?.max(0) as u64;
        if Cursor::parameter(launch, 4)?.u64()? != 0 {
            return Err(unsupported(launch, "a number of results fixed in advance"));
        }
        let mut sizes = Cursor::parameter(launch, 1)?;
        let sizes = (0..dims).map(|_| sizes.i64()).collect::<Result<Vec<_>, _>>()?;
        let linear = Source::new(memory, to, DType::I64, count)?;
        let target = Target::new(memory, to, DType::I64, count * dims as u64)?;
        for i in 0..count {
            let mut rest: i64 = linear.get(i);
            for (dim, &size) in sizes.iter().enumerate().rev() {
                target.store(i + dim as u64 * count, &[rest % size.max(1)]);
                rest /= size.max(1);
            }
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count =
            Cursor::parameter(launch, 3).and_then(|mut cursor| cursor.i64()).unwrap_or(0) as f64;
        let dims =
            Cursor::parameter(launch, 2).and_then(|mut cursor| cursor.i32()).unwrap_or(0) as f64;
        Cost { bytes: 8.0 * count * (1.0 + dims), flops: count * dims }
    }
}
