//! `x.index_add_(dim, index, source, alpha)`.
//!
//! | kernel | parameters |
//! |---|---|
//! | `indexFuncSmallIndex<T, I, O, …, ReduceAdd>` | `TensorInfo to, TensorInfo from, TensorInfo indices, int to_dim, int from_dim, O inner, int64_t size, int64_t count, ReduceAdd*, T alpha` |
//! | `indexFuncLargeIndex<T, I, O, …, ReduceAdd>` | the same, `O total` before `inner` |
//!
//! Where an index comes twice, the device adds in any order; here it is that of the indices.

use crate::name::Name;
use crate::params::{Cursor, unsupported};
use crate::tensor::{TensorInfo, in_bounds, load_index, reach, widen};
use crate::value::{Class, DType, Lane, load_lanes, store_lanes};
use crate::{Cost, Fault, Kernel, Launch, Memory};

struct IndexAdd {
    data: DType,
    index: DType,
    wide: bool,
    large: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let large = match name.base.as_str() {
        "indexFuncSmallIndex" => false,
        "indexFuncLargeIndex" => true,
        _ => return None,
    };
    let [data, index, offset, .., operation] = name.args.as_slice() else { return None };
    (operation == "ReduceAdd").then_some(())?;
    Some(Box::new(IndexAdd {
        data: DType::from_cpp(data)?,
        index: DType::from_cpp(index)?,
        wide: offset.ends_with("long"),
        large,
    }))
}

impl IndexAdd {
    fn info(&self, launch: &Launch, index: usize) -> Result<TensorInfo, Fault> {
        TensorInfo::read(Cursor::parameter(launch, index)?, self.wide)
    }

    fn add<L: Lane>(
        &self,
        launch: &Launch,
        memory: &dyn Memory,
        combine: impl Fn(L, L, L) -> L,
    ) -> Result<(), Fault> {
        let (to, from, indices) =
            (self.info(launch, 0)?, self.info(launch, 1)?, self.info(launch, 2)?);
        let dim = |index| Ok(Cursor::parameter(launch, index)?.i32()? as usize);
        let (to_dim, from_dim) = (dim(3)?, dim(4)?);
        let more = usize::from(self.large);
        let bound = Cursor::parameter(launch, 6 + more)?.i64()?;
        let alpha = Cursor::parameter(launch, 9 + more)?.scalar::<L>(self.data)?;
        let size = self.data.size();
        let stride = |info: &TensorInfo, dim: usize| {
            let stride = info.strides.get(dim).map(|stride| stride * size as i64);
            stride.ok_or_else(|| unsupported(launch, "a dimension that does not exist"))
        };
        let (to_stride, from_stride) = (stride(&to, to_dim)?, stride(&from, from_dim)?);
        let to_slice = to.offsets(size, Some(to_dim));
        let from_slice = from.offsets(size, Some(from_dim));
        let places = indices.offsets(self.index.size(), None);
        let (count, inner) = (places.count(), to_slice.count());
        if count == 0 || inner == 0 {
            return Ok(());
        }
        if from_slice.count() != inner {
            return Err(unsupported(launch, "source and destination slices of different sizes"));
        }
        let place = reach(memory, indices.address, places.bounds(0), self.index.size(), false)?;
        let bounds = widen(from_slice.bounds(0), count as i64, from_stride);
        let source = reach(memory, from.address, bounds, size, false)?;
        let bounds = widen(to_slice.bounds(0), bound, to_stride);
        let target = reach(memory, to.address, bounds, size, true)?;
        for i in 0..count {
            let at = place.wrapping_offset(places.get(0, i) as isize);
            // SAFETY: the indices were checked over all their offsets.
            let index = in_bounds(launch, unsafe { load_index(self.index, at) }, bound)?;
            for element in 0..inner {
                let from = i as i64 * from_stride + from_slice.get(0, element);
                let to = index * to_stride + to_slice.get(0, element);
                let target = target.wrapping_offset(to as isize);
                let (mut value, mut sum) = ([L::default()], [L::default()]);
                // SAFETY: both slices were checked over all their offsets and all indices.
                unsafe {
                    load_lanes(self.data, source.wrapping_offset(from as isize), 0, &mut value);
                    load_lanes(self.data, target, 0, &mut sum);
                    store_lanes(self.data, target, 0, &[combine(sum[0], value[0], alpha)]);
                }
            }
        }
        Ok(())
    }
}

impl Kernel for IndexAdd {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        match self.data.class() {
            Class::I64 => self.add(launch, memory, |sum: i64, value, alpha: i64| {
                sum.wrapping_add(value.wrapping_mul(alpha))
            }),
            _ => self.add(launch, memory, |sum: f64, value, alpha| sum + value * alpha),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let elements = |index, but: Option<usize>| {
            let sizes = self.info(launch, index).map(|info| info.sizes).unwrap_or_default();
            let kept = sizes.iter().enumerate().filter(|&(dim, _)| Some(dim) != but);
            kept.map(|(_, &size)| size as f64).product::<f64>()
        };
        let dim = Cursor::parameter(launch, 3).and_then(|mut cursor| cursor.i32()).unwrap_or(0);
        let count = elements(0, Some(dim as usize)) * elements(2, None);
        Cost { bytes: 3.0 * count * self.data.size() as f64, flops: 2.0 * count }
    }
}
