//! Kernels that put a tensor's elements in another order: flip, roll.

use crate::name::{Callable, Name, callable};
use crate::offsets::Offsets;
use crate::params::{Cursor, unsupported};
use crate::tensor::{copy_elements, opaque_size, reach};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    match (name.base.as_str(), name.args.as_slice()) {
        ("roll_cuda_kernel", [element]) => {
            Some(Box::new(Roll { size: DType::from_cpp(element)?.size() }))
        }
        ("index_elementwise_kernel", [_, _, lambda]) => match callable(lambda)? {
            Callable::Lambda(lambda) if lambda.function.base == "flip_kernel_impl" => {
                Some(Box::new(Flip { size: opaque_size(lambda.function.args.first()?)? }))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `index_elementwise_kernel<nt, vt, L>(int64_t N, L lambda)` for `flip`. The
/// lambda holds `OffsetCalculator<2>` of signed strides, `char* out, char* in`.
struct Flip {
    size: usize,
}

impl Kernel for Flip {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = Cursor::parameter(launch, 0)?.integer()?.max(0) as u64;
        let mut lambda = Cursor::parameter(launch, 1)?;
        let offsets = Offsets::read(&mut lambda, 2)?;
        let (out, input) = (lambda.u64()?, lambda.u64()?);
        if lambda.position() != lambda.size() {
            return Err(unsupported(launch, &format!("a lambda of {} bytes", lambda.size())));
        }
        if count == 0 {
            return Ok(());
        }
        let out = reach(memory, out, offsets.bounds(0), self.size, true)?;
        let input = reach(memory, input, offsets.bounds(1), self.size, false)?;
        // SAFETY: both sides were just checked over all their offsets.
        unsafe { copy_elements(self.size, count, out, (&offsets, 0), input, (&offsets, 1)) };
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 0)
            .and_then(|mut cursor| cursor.integer())
            .unwrap_or(0) as f64;
        Cost { bytes: count * (2 * self.size) as f64, flops: 0.0 }
    }
}

/// `roll_cuda_kernel<T>(T* in, T* out, int64_t N, int64_t dim, int64_t start,
/// int64_t size, int64_t stride, int64_t offset)`: contiguous, one dimension
/// rolled so that index `start` becomes the first.
struct Roll {
    size: usize,
}

impl Kernel for Roll {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let number =
            |index| Ok::<u64, Fault>(Cursor::parameter(launch, index)?.i64()?.max(0) as u64);
        let (input, out) =
            (Cursor::parameter(launch, 0)?.u64()?, Cursor::parameter(launch, 1)?.u64()?);
        let (count, start, size, stride) = (number(2)?, number(4)?, number(5)?, number(6)?);
        let bytes = self.size as u64;
        let input = memory.read(input, count * bytes)?;
        let out = memory.write(out, count * bytes)?;
        let plane = size * stride;
        if plane == 0 || start > size || count % plane != 0 {
            return Err(unsupported(launch, "a dimension that does not divide the tensor"));
        }
        // Each plane changes places with itself in two parts.
        let (head, tail) =
            ((start * stride * bytes) as usize, ((size - start) * stride * bytes) as usize);
        for i in 0..count / plane {
            let at = (i * plane * bytes) as usize;
            // SAFETY: both parts lie inside plane i, and all planes were just checked.
            unsafe {
                std::ptr::copy(input.add(at + head), out.add(at), tail);
                std::ptr::copy(input.add(at), out.add(at + tail), head);
            }
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count =
            Cursor::parameter(launch, 2).and_then(|mut cursor| cursor.i64()).unwrap_or(0) as f64;
        Cost { bytes: count * (2 * self.size) as f64, flops: 0.0 }
    }
}
