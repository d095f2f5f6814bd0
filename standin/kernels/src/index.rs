//! Kernels that move elements by an index tensor: index, index_put, gather,
//! scatter, index_select (and so embedding).
//!
//! Elements are moved as opaque bytes. An index out of bounds is a device-side
//! assertion in PyTorch; here it is a fault that says so.

use crate::block::Source;
use crate::name::{Callable, Name, callable, name_of};
use crate::offsets::Offsets;
use crate::params::{Cursor, unsupported};
use crate::tensor::{TensorInfo, copy_elements, in_bounds, load_index, opaque_size, reach, widen};
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    match (name.base.as_str(), name.args.as_slice()) {
        ("vectorized_gather_kernel", [_, index]) => {
            Some(Box::new(GatherRows { index: DType::from_cpp(index)? }))
        }
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
            let fill = outer.function.base == "index_fill_kernel_impl";
            if fill || outer.function.base == "index_copy_kernel_impl" {
                let size = opaque_size(outer.function.args.first()?)?;
                return Some(Box::new(AssignByIndex { size, fill }));
            }
            if outer.function.base != "gpu_index_kernel" {
                return None;
            }
            let Callable::Lambda(inner) = callable(outer.function.args.first()?)? else {
                return None;
            };
            let put = match inner.function.base.as_str() {
                "index_kernel_impl" => false,
                "index_put_kernel_impl" => true,
                _ => return None,
            };
            Some(Box::new(IndexElements { put, size: opaque_size(inner.function.args.first()?)? }))
        }
        ("_scatter_gather_elementwise_kernel", [_, _, lambda]) => {
            // The lambda sits in a member template of this class.
            let class = name_of(lambda.strip_prefix("void ").unwrap_or(lambda));
            if !lambda.contains("operator()<TensorAssign>") {
                return None;
            }
            if let ("_cuda_scatter_fill_internal_kernel", [element, index]) =
                (class.base.as_str(), class.args.as_slice())
            {
                let index = DType::from_cpp(index)?;
                return Some(Box::new(FillElements { size: opaque_size(element)?, index }));
            }
            if class.base != "_cuda_scatter_gather_internal_kernel" {
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
        let input = reach(memory, input, widen((0, 0), dim, input_stride), slice as usize, false)?;
        let out =
            reach(memory, out, widen((0, 0), count as i64, output_stride), slice as usize, true)?;
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
        let count =
            Cursor::parameter(launch, 3).and_then(|mut cursor| cursor.i32()).unwrap_or(0) as f64;
        let slice =
            Cursor::parameter(launch, 4).and_then(|mut cursor| cursor.i64()).unwrap_or(0) as f64;
        Cost { bytes: count * (2.0 * slice + self.index.size() as f64), flops: 0.0 }
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
        let (to_slice, from_slice) =
            (to.offsets(self.size, Some(to_dim)), from.offsets(self.size, Some(from_dim)));
        let index_offsets = indices.offsets(self.index.size(), None);
        let (count, inner) = (index_offsets.count(), to_slice.count());
        if count == 0 || inner == 0 {
            return Ok(());
        }
        if from_slice.count() != inner {
            return Err(unsupported(launch, "source and destination slices of different sizes"));
        }
        let index_base =
            reach(memory, indices.address, index_offsets.bounds(0), self.index.size(), false)?;
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
        Cost { bytes: 2.0 * count as f64 * self.size as f64, flops: 0.0 }
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
        let pointers = (0..MAX_DIMS).map(|_| lambda.u64()).collect::<Result<Vec<_>, _>>()?;
        let sizes = (0..MAX_DIMS).map(|_| lambda.i64()).collect::<Result<Vec<_>, _>>()?;
        let strides = (0..MAX_DIMS).map(|_| lambda.i64()).collect::<Result<Vec<_>, _>>()?;
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
        let moved = if self.put { &mut bounds.0 } else { &mut bounds.1 };
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
        moved_by_index(launch, self.size)
    }
}

/// The cost of reading, and writing, as many elements of `size` bytes as the first
/// parameter says, each with its index.
fn moved_by_index(launch: &Launch, size: usize) -> Cost {
    let count =
        Cursor::parameter(launch, 0).and_then(|mut cursor| cursor.integer()).unwrap_or(0) as f64;
    Cost { bytes: count * (2 * size + 8) as f64, flops: 0.0 }
}

/// `index_elementwise_kernel` for `x.index_copy_(dim, index, source)`. The lambda holds:
/// `OffsetCalculator<3>, char* self, char* index, char* source, int64_t size, int64_t stride`,
/// the stride in elements. For `x.index_fill_(dim, index, value)`, of PyTorch 2.15, of two
/// offsets, without the source, and the value comes last.
struct AssignByIndex {
    size: usize,
    fill: bool,
}

impl Kernel for AssignByIndex {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = Cursor::parameter(launch, 0)?.integer()?.max(0) as u64;
        let mut lambda = Cursor::parameter(launch, 1)?;
        let offsets = Offsets::read(&mut lambda, if self.fill { 2 } else { 3 })?;
        let (own, indices) = (lambda.u64()?, lambda.u64()?);
        let source = if self.fill { 0 } else { lambda.u64()? };
        let (bound, stride) = (lambda.i64()?, lambda.i64()? * self.size as i64);
        let value = if self.fill { lambda.take(self.size)? } else { &[] };
        if lambda.position().next_multiple_of(8) != lambda.size() {
            return Err(unsupported(launch, &format!("a lambda of {} bytes", lambda.size())));
        }
        if count == 0 {
            return Ok(());
        }
        let own = reach(memory, own, widen(offsets.bounds(0), bound, stride), self.size, true)?;
        let indices = reach(memory, indices, offsets.bounds(1), 8, false)?;
        let source = match self.fill {
            true => value.as_ptr(),
            false => reach(memory, source, offsets.bounds(2), self.size, false)?.cast_const(),
        };
        for i in 0..count {
            let at = indices.wrapping_offset(offsets.get(1, i) as isize);
            // SAFETY: the index tensor was checked over all its offsets.
            let index = in_bounds(launch, unsafe { load_index(DType::I64, at) }, bound)?;
            let to = own.wrapping_offset((offsets.get(0, i) + index * stride) as isize);
            let from = match self.fill {
                true => source,
                false => source.wrapping_offset(offsets.get(2, i) as isize),
            };
            // SAFETY: one element each, inside the bounds just checked.
            unsafe { std::ptr::copy(from, to, self.size) };
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        moved_by_index(launch, self.size)
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
            return Err(unsupported(launch, &format!("a lambda of {} bytes", lambda.size())));
        }
        if count == 0 {
            return Ok(());
        }
        let stride = stride * self.size as i64;
        let mut bounds = (offsets.bounds(0), offsets.bounds(1));
        let moved = if self.scatter { &mut bounds.0 } else { &mut bounds.1 };
        *moved = widen(*moved, index_size, stride);
        let own = reach(memory, own, bounds.0, self.size, true)?;
        let source = reach(memory, source, bounds.1, self.size, false)?;
        let indices = reach(memory, indices, offsets.bounds(2), self.index.size(), false)?;
        for i in 0..count {
            // SAFETY: the index tensor was checked over all its offsets.
            let index = unsafe {
                load_index(self.index, indices.wrapping_offset(offsets.get(2, i) as isize))
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
        let count =
            Cursor::parameter(launch, 0).and_then(|mut cursor| cursor.i32()).unwrap_or(0) as f64;
        Cost { bytes: count * (2 * self.size + self.index.size()) as f64, flops: 0.0 }
    }
}

/// The same with one value for all: `OffsetCalculator<2>, char* index, int64_t index_size,
/// TensorAssign, char* self, int64_t index_stride, int64_t numel, T value`.
struct FillElements {
    size: usize,
    index: DType,
}

impl Kernel for FillElements {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let count = Cursor::parameter(launch, 0)?.i32()?.max(0) as u64;
        let mut lambda = Cursor::parameter(launch, 1)?;
        let offsets = Offsets::read(&mut lambda, 2)?;
        let (indices, bound, _assign) = (lambda.u64()?, lambda.i64()?, lambda.u8()?);
        let own = lambda.u64()?;
        let (stride, _numel) = (lambda.i64()? * self.size as i64, lambda.i64()?);
        let value = lambda.take(self.size)?;
        if lambda.position().next_multiple_of(8) != lambda.size() {
            return Err(unsupported(launch, &format!("a lambda of {} bytes", lambda.size())));
        }
        if count == 0 {
            return Ok(());
        }
        let own = reach(memory, own, widen(offsets.bounds(0), bound, stride), self.size, true)?;
        let indices = reach(memory, indices, offsets.bounds(1), self.index.size(), false)?;
        for i in 0..count {
            let at = indices.wrapping_offset(offsets.get(1, i) as isize);
            // SAFETY: the index tensor was checked over all its offsets.
            let index = in_bounds(launch, unsafe { load_index(self.index, at) }, bound)?;
            let to = own.wrapping_offset((offsets.get(0, i) + index * stride) as isize);
            // SAFETY: one element, inside the bounds just checked.
            unsafe { std::ptr::copy(value.as_ptr(), to, self.size) };
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count =
            Cursor::parameter(launch, 0).and_then(|mut cursor| cursor.i32()).unwrap_or(0) as f64;
        Cost { bytes: count * (self.size + self.index.size()) as f64, flops: 0.0 }
    }
}
