//! Sorting along a dimension, and its first few: `sort`, `argsort`, `topk`.
//!
//! | kernel | parameters |
//! |---|---|
//! | `bitonicSortKVInPlace<…, K, V, Order, I>`, `warpMergeSortKVInPlace<…>` | `TensorInfo keys, I slices, I size, I stride, TensorInfo values, I stride, Order, …` |
//! | `radixSortKVInPlace<…, K, V, I>` | the same with `bool descending` |
//! | `gatherTopK<K, I, dims, bool>` | `TensorInfo in, I size, I k, bool largest, I slices, I stride, TensorInfo out, I stride, TensorInfo places, I stride, …` |
//!
//! NaN is larger than all numbers. Equals keep their order, which on the device only a
//! stable sort promises. Not here: the sorts of long rows, which cub does.

use crate::name::Name;
use crate::params::{Cursor, unsupported};
use crate::tensor::{TensorInfo, reach, widen};
use crate::value::{DType, load_lanes, store_lanes};
use crate::{Cost, Fault, Kernel, Launch, Memory};
use std::cmp::Ordering;

#[derive(Clone, Copy)]
enum Form {
    Sort { descending: Option<bool> },
    Top,
}

struct Sorting {
    form: Form,
    key: DType,
    value: DType,
    wide: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let mut args: Vec<&str> = name.args.iter().map(String::as_str).collect();
    // From PyTorch 2.15 on a warp's width comes last.
    if name.base == "warpMergeSortKVInPlace" && args.last() == Some(&"32") {
        args.pop();
    }
    let (form, key, value, index) = match (name.base.as_str(), args.as_slice()) {
        ("bitonicSortKVInPlace", [.., key, value, order, index])
        | ("warpMergeSortKVInPlace", [.., key, value, order, index]) => {
            (Form::Sort { descending: Some(order.contains("GTOp")) }, key, value, index)
        }
        ("radixSortKVInPlace", [.., key, value, index]) => {
            (Form::Sort { descending: None }, key, value, index)
        }
        // The form over several blocks has three arguments, and other parameters.
        ("gatherTopK", [key, index, _, "false"]) => (Form::Top, key, &"long", index),
        _ => return None,
    };
    Some(Box::new(Sorting {
        form,
        key: DType::from_cpp(key)?,
        value: DType::from_cpp(value)?,
        wide: index.ends_with("long"),
    }))
}

/// A tensor cut into slices along one dimension.
struct Slices {
    info: TensorInfo,
    dtype: DType,
    length: i64,
    stride: i64,
}

impl Slices {
    fn checked(&self, memory: &dyn Memory, write: bool) -> Result<*mut u8, Fault> {
        let size = self.dtype.size();
        let bounds = self.info.offsets(size, None).bounds(0);
        let bounds = widen(bounds, self.length, self.stride * size as i64);
        reach(memory, self.info.address, bounds, size, write)
    }

    fn start(&self, base: *mut u8, slice: u64) -> *mut u8 {
        base.wrapping_offset(self.info.offsets(self.dtype.size(), None).get(0, slice) as isize)
    }

    fn step(&self) -> isize {
        (self.stride * self.dtype.size() as i64) as isize
    }
}

impl Sorting {
    fn info(&self, launch: &Launch, at: usize) -> Result<TensorInfo, Fault> {
        TensorInfo::read(Cursor::parameter(launch, at)?, self.wide)
    }

    /// Slices, and keys to a slice.
    fn size(&self, launch: &Launch) -> Result<(u64, i64), Fault> {
        let number = |index| Cursor::parameter(launch, index)?.integer();
        let slices = number(if matches!(self.form, Form::Top) { 4 } else { 1 })?;
        let length = number(if matches!(self.form, Form::Top) { 1 } else { 2 })?;
        Ok((slices.max(0) as u64, length.max(0)))
    }
}

/// The order of places by what lies there: NaN above all numbers, equals as they are.
fn places<T: PartialOrd + Copy>(keys: &[T], descending: bool) -> Vec<usize> {
    let nan = |key: T| key.partial_cmp(&key).is_none();
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_by(|&a, &b| {
        let (a, b) = (keys[a], keys[b]);
        let order = a.partial_cmp(&b).unwrap_or_else(|| nan(a).cmp(&nan(b)));
        if descending { order.reverse() } else { order }
    });
    places
}

fn equal<T: PartialOrd + Copy>(a: T, b: T) -> bool {
    a.partial_cmp(&b).map_or(a.partial_cmp(&a).is_none() && b.partial_cmp(&b).is_none(), |order| {
        order == Ordering::Equal
    })
}

macro_rules! by_lane {
    ($dtype:expr, $lane:ident => $body:expr) => {
        match $dtype.class() {
            crate::value::Class::I64 => {
                type $lane = i64;
                $body
            }
            _ => {
                type $lane = f64;
                $body
            }
        }
    };
}

impl Kernel for Sorting {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let (slices, length) = self.size(launch)?;
        if slices == 0 || length == 0 {
            return Ok(());
        }
        match self.form {
            Form::Sort { descending } => self.sort(launch, memory, slices, length, descending),
            Form::Top => self.top(launch, memory, slices, length),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let (slices, length) = self.size(launch).unwrap_or((0, 0));
        let keys = slices as f64 * length as f64;
        Cost { bytes: 2.0 * keys * (self.key.size() + self.value.size()) as f64, flops: 8.0 * keys }
    }
}

impl Sorting {
    fn sort(
        &self,
        launch: &Launch,
        memory: &dyn Memory,
        slices: u64,
        length: i64,
        descending: Option<bool>,
    ) -> Result<(), Fault> {
        let stride = |index| Cursor::parameter(launch, index)?.integer();
        let keys =
            Slices { info: self.info(launch, 0)?, dtype: self.key, length, stride: stride(3)? };
        let values =
            Slices { info: self.info(launch, 4)?, dtype: self.value, length, stride: stride(5)? };
        let descending = match descending {
            Some(descending) => descending,
            None => Cursor::parameter(launch, 6)?.u8()? != 0,
        };
        let (key_base, value_base) = (keys.checked(memory, true)?, values.checked(memory, true)?);
        by_lane!(self.key, K => by_lane!(self.value, V => {
            let (mut old, mut new) = (vec![K::default(); length as usize], Vec::new());
            let (mut old_values, mut new_values) = (vec![V::default(); length as usize], Vec::new());
            for slice in 0..slices {
                let (k, v) = (keys.start(key_base, slice), values.start(value_base, slice));
                // SAFETY: `checked` covers every slice over its whole length.
                unsafe {
                    load_lanes(self.key, k, keys.step(), &mut old);
                    load_lanes(self.value, v, values.step(), &mut old_values);
                }
                let order = places(&old, descending);
                new.clear();
                new.extend(order.iter().map(|&place| old[place]));
                new_values.clear();
                new_values.extend(order.iter().map(|&place| old_values[place]));
                // SAFETY: as above, and checked for writing.
                unsafe {
                    store_lanes(self.key, k, keys.step(), &new);
                    store_lanes(self.value, v, values.step(), &new_values);
                }
            }
        }));
        Ok(())
    }

    /// Those beyond the last that belongs, then as many of its equals as are missing: each in
    /// the order of the input, as the device gathers them.
    fn top(
        &self,
        launch: &Launch,
        memory: &dyn Memory,
        slices: u64,
        length: i64,
    ) -> Result<(), Fault> {
        let number = |index| Cursor::parameter(launch, index)?.integer();
        let (wanted, largest) = (number(2)?, Cursor::parameter(launch, 3)?.u8()? != 0);
        if wanted <= 0 {
            return Ok(());
        }
        if wanted > length {
            return Err(unsupported(launch, "more wanted than there are"));
        }
        let input =
            Slices { info: self.info(launch, 0)?, dtype: self.key, length, stride: number(5)? };
        let output = Slices {
            info: self.info(launch, 6)?,
            dtype: self.key,
            length: wanted,
            stride: number(7)?,
        };
        let found = Slices {
            info: self.info(launch, 8)?,
            dtype: DType::I64,
            length: wanted,
            stride: number(9)?,
        };
        let from = input.checked(memory, false)?;
        let (to, at) = (output.checked(memory, true)?, found.checked(memory, true)?);
        by_lane!(self.key, K => {
            let mut keys = vec![K::default(); length as usize];
            for slice in 0..slices {
                // SAFETY: `checked` covers every slice over its whole length.
                unsafe { load_lanes(self.key, input.start(from, slice), input.step(), &mut keys) };
                let order = places(&keys, largest);
                let last = keys[order[wanted as usize - 1]];
                let mut chosen: Vec<usize> = order[..wanted as usize].to_vec();
                chosen.sort_by_key(|&place| (equal(keys[place], last), place));
                let best: Vec<K> = chosen.iter().map(|&place| keys[place]).collect();
                let places: Vec<i64> = chosen.iter().map(|&place| place as i64).collect();
                // SAFETY: as above, and checked for writing.
                unsafe {
                    store_lanes(self.key, output.start(to, slice), output.step(), &best);
                    store_lanes(DType::I64, found.start(at, slice), found.step(), &places);
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_above_all_numbers_and_equals_keep_their_order() {
        let keys = [1.0, f64::NAN, 3.0, 1.0, f64::INFINITY];
        assert_eq!(places(&keys, false), [0, 3, 2, 4, 1]);
        assert_eq!(places(&keys, true), [1, 4, 2, 0, 3]);
    }
}
