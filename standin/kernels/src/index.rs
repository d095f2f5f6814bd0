//! Kernels that move elements by an index tensor: index, index_put, gather,
//! scatter, index_select (and so embedding).
//!
//! Elements are moved as opaque bytes. An index out of bounds is a device-side
//! assertion in PyTorch; here it is a fault that says so.

use crate::block::Source;
use crate::name::{Callable, Name, callable, name_of};
use crate::offsets::Offsets;
use crate::params::{Cursor, unsupported};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    match (name.base.as_str(), name.args.as_slice()) {
        ("vectorized_gather_kernel", [_, index]) => Some(Box::new(GatherRows {
            index: DType::from_cpp(index)?,
        })),
        ("roll_cuda_kernel", [element]) => Some(Box::new(Roll {
            size: DType::from_cpp(element)?.size(),
        })),
        ("indexSelectSmallIndex", [element, index, offset, ..]) => {
            select(element, index, offset, false)
        }
        ("indexSelectLargeIndex", [element, index, offset, ..]) => {
            select(element, index, offset, true)
        }
        ("index_elementwise_kernel", [_, _, lambda]) => {
            let Callable::Lambda(outer) = callable(lambda)? else {
                return None;
            };
            match outer.function.base.as_str() {
                "gpu_index_kernel" => {}
                "flip_kernel_impl" => {
                    return Some(Box::new(Flip {
                        size: opaque_size(outer.function.args.first()?)?,
                    }));
                }
                _ => return None,
            }
            let Callable::Lambda(inner) = callable(outer.function.args.first()?)? else {
                return None;
            };
            let put = match inner.function.base.as_str() {
                "index_kernel_impl" => false,
                "index_put_kernel_impl" => true,
                _ => return None,
            };
            Some(Box::new(IndexElements {
                put,
                size: opaque_size(inner.function.args.first()?)?,
            }))
        }
        ("_scatter_gather_elementwise_kernel", [_, _, lambda]) => {
            // The lambda sits in a member template of this class.
            let class = name_of(lambda.strip_prefix("void ").unwrap_or(lambda));
            if class.base != "_cuda_scatter_gather_internal_kernel"
                || !lambda.contains("operator()<TensorAssign>")
            {
                return None;
            }
            let [scatter, element, index] = class.args.as_slice() else {
                return None;
            };
            Some(Box::new(GatherElements {
                scatter: scatter == "true",
                size: opaque_size(element)?,
                index: DType::from_cpp(index)?,
            }))
        }
        _ => None,
    }
}

fn select(element: &str, index: &str, offset: &str, large: bool) -> Option<Box<dyn Kernel>> {
    Some(Box::new(Select {
        size: DType::from_cpp(element)?.size(),
        index: DType::from_cpp(index)?,
        wide: offset.ends_with("long"),
        large,
    }))
}

/// The size of an `OpaqueType<N>`.
pub fn opaque_size(text: &str) -> Option<usize> {
    let name = name_of(text);
    (name.base == "OpaqueType").then_some(())?;
    // Unsigned numbers read `(unsigned int)8`.
    name.args.first()?.rsplit(')').next()?.parse().ok()
}

/// Brings a (possibly negative) index into bounds, or faults.
fn in_bounds(launch: &Launch, index: i64, size: i64) -> Result<i64, Fault> {
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
fn reach(
    memory: &dyn Memory,
    address: u64,
    bounds: (i64, i64),
    size: usize,
    write: bool,
) -> Result<*mut u8, Fault> {
    let start = address.wrapping_add_signed(bounds.0);
    let bytes = (bounds.1 - bounds.0) as u64 + size as u64;
    let pointer = if write {
        memory.write(start, bytes)?
    } else {
        memory.read(start, bytes)?.cast_mut()
    };
    Ok(pointer.wrapping_offset(-bounds.0 as isize))
}

/// Widens `bounds` by what indexing a dimension may add.
fn widen(bounds: (i64, i64), size: i64, stride: i64) -> (i64, i64) {
    let reach = (size - 1).max(0) * stride;
    (bounds.0 + reach.min(0), bounds.1 + reach.max(0))
}

/// `vectorized_gather_kernel<n, I>(char* out, char* in, I* index, int count,
/// int64_t slice, int64_t dim, int64_t in_stride, int64_t out_stride, bool negative)`:
/// copies whole slices; sizes and strides in bytes.
struct GatherRows {
    index: DType,
}

impl Kernel for GatherRows {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let pointer = |index| Cursor::parameter(launch, index)?.u64();
        let long = |index| Cursor::parameter(launch, index)?.i64();
        let (out, input, indices) = (pointer(0)?, pointer(1)?, pointer(2)?);
        let count = Cursor::parameter(launch, 3)?.i32()?.max(0) as u64;
        let (slice, dim, input_stride, output_stride) = (long(4)?, long(5)?, long(6)?, long(7)?);
        if count == 0 || slice <= 0 {
            return Ok(());
        }
        let indices = Source::new(memory, indices, self.index, count)?;
        let input = reach(
            memory,
            input,
            widen((0, 0), dim, input_stride),
            slice as usize,
            false,
        )?;
        let out = reach(
            memory,
            out,
            widen((0, 0), count as i64, output_stride),
            slice as usize,
            true,
        )?;
        for i in 0..count {
            let index = in_bounds(launch, indices.get(i), dim)?;
            let from = input.wrapping_offset((index * input_stride) as isize);
            let to = out.wrapping_offset((i as i64 * output_stride) as isize);
            // SAFETY: both slices lie in what was just checked. `copy` allows overlap.
            unsafe { std::ptr::copy(from, to, slice as usize) };
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 3)
            .and_then(|mut cursor| cursor.i32())
            .unwrap_or(0) as f64;
        let slice = Cursor::parameter(launch, 4)
            .and_then(|mut cursor| cursor.i64())
            .unwrap_or(0) as f64;
        Cost {
            bytes: count * (2.0 * slice + self.index.size() as f64),
            flops: 0.0,
        }
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
        let (input, out) = (
            Cursor::parameter(launch, 0)?.u64()?,
            Cursor::parameter(launch, 1)?.u64()?,
        );
        let (count, start, size, stride) = (number(2)?, number(4)?, number(5)?, number(6)?);
        let bytes = self.size as u64;
        let input = memory.read(input, count * bytes)?;
        let out = memory.write(out, count * bytes)?;
        let plane = size * stride;
        if plane == 0 || start > size || count % plane != 0 {
            return Err(unsupported(
                launch,
                "a dimension that does not divide the tensor",
            ));
        }
        // Each plane changes places with itself in two parts.
        let (head, tail) = (
            (start * stride * bytes) as usize,
            ((size - start) * stride * bytes) as usize,
        );
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
        let count = Cursor::parameter(launch, 2)
            .and_then(|mut cursor| cursor.i64())
            .unwrap_or(0) as f64;
        Cost {
            bytes: count * (2 * self.size) as f64,
            flops: 0.0,
        }
    }
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
                .map(|_| {
                    if wide {
                        cursor.i64()
                    } else {
                        cursor.i32().map(i64::from)
                    }
                })
                .collect()
        };
        let (mut sizes, mut strides) = (numbers()?, numbers()?);
        let dims = cursor.i32()? as usize;
        if dims > MAX_DIMS {
            return Err(Fault::Unsupported(format!(
                "a TensorInfo of {dims} dimensions"
            )));
        }
        sizes.truncate(dims);
        strides.truncate(dims);
        Ok(TensorInfo {
            address,
            sizes,
            strides,
        })
    }

    /// The tensor without dimension `skip`, in byte offsets.
    pub fn offsets(&self, size: usize, skip: Option<usize>) -> Offsets {
        let dims = (0..self.sizes.len()).rev().filter(|&dim| Some(dim) != skip);
        let (sizes, strides) = dims
            .map(|dim| (self.sizes[dim] as u64, self.strides[dim] * size as i64))
            .unzip();
        Offsets::new(sizes, vec![strides])
    }
}

/// `indexSelect{Small,Large}Index<T, I, O, …>(TensorInfo dst, TensorInfo src,
/// TensorInfo indices, int dst_dim, int src_dim, [O total,] O inner, int64_t src_size)`.
struct Select {
    size: usize,
    index: DType,
    wide: bool,
    large: bool,
}

impl Kernel for Select {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let info = |index| TensorInfo::read(Cursor::parameter(launch, index)?, self.wide);
        let (to, from, indices) = (info(0)?, info(1)?, info(2)?);
        let to_dim = Cursor::parameter(launch, 3)?.i32()? as usize;
        let from_dim = Cursor::parameter(launch, 4)?.i32()? as usize;
        let bound = Cursor::parameter(launch, if self.large { 7 } else { 6 })?.i64()?;
        let (Some(&to_stride), Some(&from_stride)) =
            (to.strides.get(to_dim), from.strides.get(from_dim))
        else {
            return Err(unsupported(launch, "a dimension that does not exist"));
        };
        let (to_stride, from_stride) =
            (to_stride * self.size as i64, from_stride * self.size as i64);
        // The dimension indexed has been set to size 1 by the caller; it is left out.
        let (to_slice, from_slice) = (
            to.offsets(self.size, Some(to_dim)),
            from.offsets(self.size, Some(from_dim)),
        );
        let index_offsets = indices.offsets(self.index.size(), None);
        let (count, inner) = (index_offsets.count(), to_slice.count());
        if count == 0 || inner == 0 {
            return Ok(());
        }
        if from_slice.count() != inner {
            return Err(unsupported(
                launch,
                "source and destination slices of different sizes",
            ));
        }
        let index_base = reach(
            memory,
            indices.address,
            index_offsets.bounds(0),
            self.index.size(),
            false,
        )?;
        let from_base = reach(
            memory,
            from.address,
            widen(from_slice.bounds(0), bound, from_stride),
            self.size,
            false,
        )?;
        let to_base = reach(
            memory,
            to.address,
            widen(to_slice.bounds(0), count as i64, to_stride),
            self.size,
            true,
        )?;
        for i in 0..count {
            let at = index_base.wrapping_offset(index_offsets.get(0, i) as isize);
            // SAFETY: the indices were checked over all their offsets.
            let index = in_bounds(launch, unsafe { load_index(self.index, at) }, bound)?;
            let from = from_base.wrapping_offset((index * from_stride) as isize);
            let to = to_base.wrapping_offset((i as i64 * to_stride) as isize);
            // SAFETY: both slices were checked over all their offsets and all indices.
            unsafe { copy_elements(self.size, inner, to, (&to_slice, 0), from, (&from_slice, 0)) };
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let Ok(to) =
            Cursor::parameter(launch, 0).and_then(|cursor| TensorInfo::read(cursor, self.wide))
        else {
            return Cost::default();
        };
        let Ok(indices) =
            Cursor::parameter(launch, 2).and_then(|cursor| TensorInfo::read(cursor, self.wide))
        else {
            return Cost::default();
        };
        let count: i64 = to.sizes.iter().product::<i64>() * indices.sizes.iter().product::<i64>();
        Cost {
            bytes: 2.0 * count as f64 * self.size as f64,
            flops: 0.0,
        }
    }
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
    to_offsets.0.runs(
        to_offsets.1,
        0,
        count as usize,
        |to_first, to_stride, range| {
            from_offsets.0.runs(
                from_offsets.1,
                range.start as u64,
                range.len(),
                |from_first, from_stride, part| {
                    let to =
                        to.wrapping_offset((to_first + part.start as i64 * to_stride) as isize);
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
        },
    );
}

/// # Safety
/// `at` must be readable for one element of `dtype`.
unsafe fn load_index(dtype: DType, at: *const u8) -> i64 {
    // SAFETY: by this function's contract.
    unsafe {
        match dtype {
            DType::I32 => at.cast::<i32>().read_unaligned() as i64,
            _ => at.cast::<i64>().read_unaligned(),
        }
    }
}

/// `index_elementwise_kernel<nt, vt, L>(int64_t N, L lambda)` for `x[i, j, …]`
/// and `x[i, j, …] = y`. The lambda holds: `OffsetCalculator<3>, char* out,
/// char* in, size_t indices, char* pointer[25], int64_t size[25], int64_t
/// stride[25], F`. Argument 2 of the calculator is the indices' own.
struct IndexElements {
    put: bool,
    size: usize,
}

impl Kernel for IndexElements {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        const MAX_DIMS: usize = 25;
        let count = Cursor::parameter(launch, 0)?.integer()?.max(0) as u64;
        let mut lambda = Cursor::parameter(launch, 1)?;
        let offsets = Offsets::read(&mut lambda, 3)?;
        let (out, input, indexed) = (lambda.u64()?, lambda.u64()?, lambda.u64()? as usize);
        let pointers = (0..MAX_DIMS)
            .map(|_| lambda.u64())
            .collect::<Result<Vec<_>, _>>()?;
        let sizes = (0..MAX_DIMS)
            .map(|_| lambda.i64())
            .collect::<Result<Vec<_>, _>>()?;
        let strides = (0..MAX_DIMS)
            .map(|_| lambda.i64())
            .collect::<Result<Vec<_>, _>>()?;
        if indexed > MAX_DIMS || lambda.position() + 8 != lambda.size() {
            return Err(unsupported(
                launch,
                &format!("a lambda of {} bytes over {indexed} indices", lambda.size()),
            ));
        }
        if count == 0 {
            return Ok(());
        }
        let mut bounds = (offsets.bounds(0), offsets.bounds(1));
        let moved = if self.put {
            &mut bounds.0
        } else {
            &mut bounds.1
        };
        for i in 0..indexed {
            *moved = widen(*moved, sizes[i], strides[i]);
        }
        let out = reach(memory, out, bounds.0, self.size, true)?;
        let input = reach(memory, input, bounds.1, self.size, false)?;
        let pointers = pointers[..indexed]
            .iter()
            .map(|&pointer| reach(memory, pointer, offsets.bounds(2), 8, false))
            .collect::<Result<Vec<_>, _>>()?;
        for i in 0..count {
            let at = offsets.get(2, i) as isize;
            let mut moved = 0;
            for (dim, pointer) in pointers.iter().enumerate() {
                // SAFETY: every index tensor was checked over all its offsets.
                let index = unsafe { pointer.wrapping_offset(at).cast::<i64>().read_unaligned() };
                moved += in_bounds(launch, index, sizes[dim])? * strides[dim];
            }
            let (to_moved, from_moved) = if self.put { (moved, 0) } else { (0, moved) };
            let to = out.wrapping_offset((offsets.get(0, i) + to_moved) as isize);
            let from = input.wrapping_offset((offsets.get(1, i) + from_moved) as isize);
            // SAFETY: one element each, inside the bounds just checked.
            unsafe { std::ptr::copy(from, to, self.size) };
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 0)
            .and_then(|mut cursor| cursor.integer())
            .unwrap_or(0) as f64;
        Cost {
            bytes: count * (2 * self.size + 8) as f64,
            flops: 0.0,
        }
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
            return Err(unsupported(
                launch,
                &format!("a lambda of {} bytes", lambda.size()),
            ));
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
        Cost {
            bytes: count * (2 * self.size) as f64,
            flops: 0.0,
        }
    }
}

/// `_scatter_gather_elementwise_kernel<nt, vt, L>(int N, L lambda)` with
/// assignment. The lambda holds: `OffsetCalculator<3>, char* index, int64_t
/// index_size, TensorAssign, char* self, int64_t index_stride, int64_t numel,
/// char* src`. The stride is in elements.
struct GatherElements {
    scatter: bool,
    size: usize,
    index: DType,
}

impl Kernel for GatherElements {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = Cursor::parameter(launch, 0)?.i32()?.max(0) as u64;
        let mut lambda = Cursor::parameter(launch, 1)?;
        let offsets = Offsets::read(&mut lambda, 3)?;
        let (indices, index_size, _assign) = (lambda.u64()?, lambda.i64()?, lambda.u8()?);
        let (own, stride, _numel, source) =
            (lambda.u64()?, lambda.i64()?, lambda.i64()?, lambda.u64()?);
        if lambda.position() != lambda.size() {
            return Err(unsupported(
                launch,
                &format!("a lambda of {} bytes", lambda.size()),
            ));
        }
        if count == 0 {
            return Ok(());
        }
        let stride = stride * self.size as i64;
        let mut bounds = (offsets.bounds(0), offsets.bounds(1));
        let moved = if self.scatter {
            &mut bounds.0
        } else {
            &mut bounds.1
        };
        *moved = widen(*moved, index_size, stride);
        let own = reach(memory, own, bounds.0, self.size, true)?;
        let source = reach(memory, source, bounds.1, self.size, false)?;
        let indices = reach(memory, indices, offsets.bounds(2), self.index.size(), false)?;
        for i in 0..count {
            // SAFETY: the index tensor was checked over all its offsets.
            let index = unsafe {
                load_index(
                    self.index,
                    indices.wrapping_offset(offsets.get(2, i) as isize),
                )
            };
            let moved = in_bounds(launch, index, index_size)? * stride;
            let (own_moved, source_moved) = if self.scatter { (moved, 0) } else { (0, moved) };
            let to = own.wrapping_offset((offsets.get(0, i) + own_moved) as isize);
            let from = source.wrapping_offset((offsets.get(1, i) + source_moved) as isize);
            // SAFETY: one element each, inside the bounds just checked.
            unsafe { std::ptr::copy(from, to, self.size) };
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = Cursor::parameter(launch, 0)
            .and_then(|mut cursor| cursor.i32())
            .unwrap_or(0) as f64;
        Cost {
            bytes: count * (2 * self.size + self.index.size()) as f64,
            flops: 0.0,
        }
    }
}
