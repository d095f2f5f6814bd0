//! What kernels that move elements as opaque bytes share: `TensorInfo`,
//! checked reach over strided tensors, strided copies, indices.

use crate::name::name_of;
use crate::offsets::Offsets;
use crate::params::{Cursor, unsupported};
use crate::value::DType;
use crate::{Fault, Launch, Memory};

/// The size of an `OpaqueType<N>`.
pub fn opaque_size(text: &str) -> Option<usize> {
    let name = name_of(text);
    (name.base == "OpaqueType").then_some(())?;
    // Unsigned numbers read `(unsigned int)8`.
    name.args.first()?.rsplit(')').next()?.parse().ok()
}

/// A `TensorInfo<T, I>`: pointer, sizes and element strides, dimension 0 slowest.
pub struct TensorInfo {
    pub address: u64,
    pub sizes: Vec<i64>,
    pub strides: Vec<i64>,
}

impl TensorInfo {
    /// `wide`: the index type has 64 bits.
    pub fn read(mut cursor: Cursor, wide: bool) -> Result<Self, Fault> {
        const MAX_DIMS: usize = 25;
        let address = cursor.u64()?;
        let mut numbers = || -> Result<Vec<i64>, Fault> {
            (0..MAX_DIMS)
                .map(|_| if wide { cursor.i64() } else { cursor.i32().map(i64::from) })
                .collect()
        };
        let (mut sizes, mut strides) = (numbers()?, numbers()?);
        let dims = cursor.i32()? as usize;
        if dims > MAX_DIMS {
            return Err(Fault::Unsupported(format!("a TensorInfo of {dims} dimensions")));
        }
        sizes.truncate(dims);
        strides.truncate(dims);
        Ok(TensorInfo { address, sizes, strides })
    }

    /// The tensor without dimension `skip`, in byte offsets.
    pub fn offsets(&self, size: usize, skip: Option<usize>) -> Offsets {
        let dims = (0..self.sizes.len()).rev().filter(|&dim| Some(dim) != skip);
        let (sizes, strides) =
            dims.map(|dim| (self.sizes[dim] as u64, self.strides[dim] * size as i64)).unzip();
        Offsets::new(sizes, vec![strides])
    }
}

/// Brings a (possibly negative) index into bounds, or faults.
pub fn in_bounds(launch: &Launch, index: i64, size: i64) -> Result<i64, Fault> {
    let index = if index < 0 { index + size } else { index };
    if (0..size).contains(&index) {
        Ok(index)
    } else {
        Err(unsupported(
            launch,
            &format!("device-side assertion: index {index} out of bounds for size {size}"),
        ))
    }
}

/// Pointer to byte offset 0 of a tensor whose byte offsets lie in `bounds`,
/// elements of `size` bytes.
pub fn reach(
    memory: &dyn Memory,
    address: u64,
    bounds: (i64, i64),
    size: usize,
    write: bool,
) -> Result<*mut u8, Fault> {
    let start = address.wrapping_add_signed(bounds.0);
    let bytes = (bounds.1 - bounds.0) as u64 + size as u64;
    let pointer =
        if write { memory.write(start, bytes)? } else { memory.read(start, bytes)?.cast_mut() };
    Ok(pointer.wrapping_offset(-bounds.0 as isize))
}

/// Widens `bounds` by what indexing a dimension may add.
pub fn widen(bounds: (i64, i64), size: i64, stride: i64) -> (i64, i64) {
    let reach = (size - 1).max(0) * stride;
    (bounds.0 + reach.min(0), bounds.1 + reach.max(0))
}

/// Copies `count` elements of `size` bytes, each side by its own offsets.
///
/// # Safety
/// Every offset of either side's argument, from its pointer, must be valid for
/// `size` bytes, writable on the `to` side.
pub unsafe fn copy_elements(
    size: usize,
    count: u64,
    to: *mut u8,
    to_offsets: (&Offsets, usize),
    from: *const u8,
    from_offsets: (&Offsets, usize),
) {
    to_offsets.0.runs(to_offsets.1, 0, count as usize, |to_first, to_stride, range| {
        from_offsets.0.runs(
            from_offsets.1,
            range.start as u64,
            range.len(),
            |from_first, from_stride, part| {
                let to = to.wrapping_offset((to_first + part.start as i64 * to_stride) as isize);
                let from = from.wrapping_offset(from_first as isize);
                let dense = size as i64;
                if to_stride == dense && from_stride == dense {
                    // SAFETY: a run of consecutive elements, each valid by this function's contract.
                    unsafe { std::ptr::copy(from, to, part.len() * size) };
                    return;
                }
                for i in 0..part.len() as i64 {
                    // SAFETY: one element, valid by this function's contract.
                    unsafe {
                        std::ptr::copy(
                            from.wrapping_offset((i * from_stride) as isize),
                            to.wrapping_offset((i * to_stride) as isize),
                            size,
                        )
                    };
                }
            },
        );
    });
}

/// # Safety
/// `at` must be readable for one element of `dtype`.
pub unsafe fn load_index(dtype: DType, at: *const u8) -> i64 {
    // SAFETY: by this function's contract.
    unsafe {
        match dtype {
            DType::I32 => at.cast::<i32>().read_unaligned() as i64,
            _ => at.cast::<i64>().read_unaligned(),
        }
    }
}
