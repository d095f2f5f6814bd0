//! `triu_tril_kernel<T, I, upper, n, inplace>(TensorInfo result, TensorInfo own,
//! int64_t diagonal, …)`: copies one triangle, zeroes the other.

use crate::name::Name;
use crate::params::{Cursor, unsupported};
use crate::tensor::TensorInfo;
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

struct Triangle {
    size: usize,
    wide: bool,
    upper: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    match (name.base.as_str(), name.args.as_slice()) {
        ("triu_tril_kernel", [element, index, upper, ..]) => Some(Box::new(Triangle {
            size: DType::from_cpp(element)?.size(),
            wide: index == "long",
            upper: upper == "true",
        })),
        _ => None,
    }
}

impl Kernel for Triangle {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let result = TensorInfo::read(Cursor::parameter(launch, 0)?, self.wide)?;
        let own = TensorInfo::read(Cursor::parameter(launch, 1)?, self.wide)?;
        let diagonal = Cursor::parameter(launch, 2)?.i64()?;
        let dims = own.sizes.len();
        if dims < 2 || result.sizes.len() != dims {
            return Err(unsupported(launch, "a tensor that is not a matrix"));
        }
        let (to, from) = (result.offsets(self.size, None), own.offsets(self.size, None));
        let count = from.count();
        if count == 0 {
            return Ok(());
        }
        let to_pointer = memory.write(result.address, to.bounds(0).1 as u64 + self.size as u64)?;
        let from_pointer = memory.read(own.address, from.bounds(0).1 as u64 + self.size as u64)?;
        let (rows, columns) = (own.sizes[dims - 2] as u64, own.sizes[dims - 1] as u64);
        for i in 0..count {
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let keep = if self.upper { column - row >= diagonal } else { column - row <= diagonal };
            let to = to_pointer.wrapping_offset(to.get(0, i) as isize);
            // SAFETY: one element of each tensor, inside the (unsigned) bounds just checked.
            unsafe {
                if keep {
                    std::ptr::copy(
                        from_pointer.wrapping_offset(from.get(0, i) as isize),
                        to,
                        self.size,
                    );
                } else {
                    std::ptr::write_bytes(to, 0, self.size);
                }
            }
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let own =
            Cursor::parameter(launch, 1).and_then(|cursor| TensorInfo::read(cursor, self.wide));
        let elements = own.map_or(0, |own| own.sizes.iter().product::<i64>());
        Cost { bytes: 2.0 * elements as f64 * self.size as f64, flops: 0.0 }
    }
}
