//! Concatenation: the `CatArrayBatchedCopy` kernels.
//!
//! `K<T, unsigned, dims, n, s, …>(T* out, Metadata inputs, SizeStride out_shape,
//! int dim, unsigned dim_stride)`, one row of the grid per input tensor, with
//! `Metadata { T* input[n]; unsigned offset[n], dim_size[n], elements[n];
//! bool contiguous[n]; SizeStride shape[s]; }` and
//! `SizeStride { unsigned size[4], stride[4]; }`, dimension 0 slowest.
//!
//! The `_vectorized` variant counts in units of 16 bytes: its output shape is
//! in units and flat from the concatenated dimension on, and its last
//! parameter is the number of elements behind one step of that dimension.

use crate::name::Name;
use crate::offsets::Offsets;
use crate::params::{Cursor, unsupported};
use crate::tensor::{copy_elements, opaque_size};
use crate::{Cost, Fault, Kernel, Launch, Memory};

/// `CAT_ARRAY_MAX_INPUT_DIMS`.
const MAX_DIMS: usize = 4;

struct Concatenate {
    element: usize,
    dims: usize,
    /// Capacity of the metadata's arrays.
    inputs: usize,
    shapes: usize,
    /// Elements per unit: 1 unless vectorized.
    unit: u64,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let [element, offset, dims, inputs, shapes, ..] = name.args.as_slice() else {
        return None;
    };
    let unit = match name.base.as_str() {
        "CatArrayBatchedCopy"
        | "CatArrayBatchedCopy_contig"
        | "CatArrayBatchedCopy_alignedK_contig" => 1,
        "CatArrayBatchedCopy_vectorized" => name.args.get(6)?.parse().ok()?,
        _ => return None,
    };
    let dims = dims.parse().ok().filter(|dims| *dims <= MAX_DIMS)?;
    (offset == "unsigned int").then(|| {
        Some(Box::new(Concatenate {
            element: opaque_size(element)?,
            dims,
            inputs: inputs.parse().ok()?,
            shapes: shapes.parse().ok()?,
            unit,
        }) as Box<dyn Kernel>)
    })?
}

/// Sizes and strides of one tensor, in units, dimension 0 slowest.
#[derive(Clone, Copy)]
struct Shape {
    sizes: [u32; MAX_DIMS],
    strides: [u32; MAX_DIMS],
}

impl Shape {
    fn read(cursor: &mut Cursor) -> Result<Self, Fault> {
        let mut shape = Shape { sizes: [0; MAX_DIMS], strides: [0; MAX_DIMS] };
        for number in shape.sizes.iter_mut().chain(&mut shape.strides) {
            *number = cursor.u32()?;
        }
        Ok(shape)
    }

    /// Byte offsets of a tensor of this shape, but with `dim_size` in `dim`.
    fn offsets(&self, dims: usize, dim: usize, dim_size: u64, unit_bytes: i64) -> Offsets {
        let size = |i: usize| {
            if i == dim { dim_size } else { self.sizes[i] as u64 }
        };
        Offsets::new(
            (0..dims).rev().map(size).collect(),
            vec![(0..dims).rev().map(|i| self.strides[i] as i64 * unit_bytes).collect()],
        )
    }
}

/// One input tensor of a launch, counted in elements.
struct Input {
    address: u64,
    offset: u64,
    dim_size: u64,
    elements: u64,
    shape: Option<Shape>,
}

impl Concatenate {
    fn inputs(&self, launch: &Launch) -> Result<Vec<Input>, Fault> {
        let mut cursor = Cursor::parameter(launch, 1)?;
        let addresses = (0..self.inputs).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
        let mut numbers =
            || (0..self.inputs).map(|_| cursor.u32().map(u64::from)).collect::<Result<Vec<_>, _>>();
        let (offsets, dim_sizes, elements) = (numbers()?, numbers()?, numbers()?);
        let contiguous = cursor.take(self.inputs)?;
        cursor.align(4);
        let shapes =
            (0..self.shapes).map(|_| Shape::read(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        if cursor.position().next_multiple_of(8) != cursor.size() {
            return Err(unsupported(
                launch,
                &format!("metadata of {} bytes, expected {}", cursor.size(), cursor.position()),
            ));
        }
        let used = launch.grid[1] as usize;
        if used > self.inputs {
            return Err(unsupported(launch, "more inputs than the metadata holds"));
        }
        Ok((0..used)
            .map(|i| Input {
                address: addresses[i],
                offset: offsets[i],
                dim_size: dim_sizes[i],
                elements: elements[i],
                shape: (contiguous[i] == 0).then(|| shapes[if self.shapes > 1 { i } else { 0 }]),
            })
            .collect())
    }
}

impl Kernel for Concatenate {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let output = Cursor::parameter(launch, 0)?.u64()?;
        let shape = Shape::read(&mut Cursor::parameter(launch, 2)?)?;
        let dim = Cursor::parameter(launch, 3)?.i32()? as usize;
        let last = Cursor::parameter(launch, 4)?.u32()? as u64;
        let unit_bytes = self.unit as usize * self.element;
        for input in self.inputs(launch)? {
            if input.elements == 0 {
                continue;
            }
            let count = input.elements / self.unit;
            // Where this input starts, and how far it goes in the dimension, in units.
            let (start, dim_size) = match self.unit {
                1 => (input.offset * last, input.dim_size),
                unit => (input.offset * last / unit, input.dim_size * last / unit),
            };
            let to = shape.offsets(self.dims, dim, dim_size, unit_bytes as i64);
            let from = match input.shape {
                Some(shape) => shape.offsets(self.dims, dim, dim_size, unit_bytes as i64),
                None => Offsets::new(vec![count], vec![vec![unit_bytes as i64]]),
            };
            if to.count() != count || from.count() != count {
                return Err(unsupported(
                    launch,
                    &format!("an input of {count} units into a slice of {}", to.count()),
                ));
            }
            let to_pointer = memory.write(
                output + start * unit_bytes as u64,
                to.bounds(0).1 as u64 + unit_bytes as u64,
            )?;
            let from_pointer =
                memory.read(input.address, from.bounds(0).1 as u64 + unit_bytes as u64)?;
            // SAFETY: both sides were just checked over all their (unsigned) offsets.
            unsafe {
                copy_elements(unit_bytes, count, to_pointer, (&to, 0), from_pointer, (&from, 0))
            };
        }
        Ok(())
    }

    /// All behind the addresses of this launch's inputs: the slots of further
    /// inputs, in which lies what lay on the stack, and numbers.
    fn without_addresses(&self, launch: &Launch) -> std::ops::Range<usize> {
        let first = launch.layout.get(1).map_or(0, |&(offset, _)| offset as usize);
        first + 8 * (launch.grid[1] as usize).min(self.inputs)..launch.params.len()
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let elements: u64 =
            self.inputs(launch).map_or(0, |inputs| inputs.iter().map(|input| input.elements).sum());
        Cost { bytes: 2.0 * elements as f64 * self.element as f64, flops: 0.0 }
    }
}
