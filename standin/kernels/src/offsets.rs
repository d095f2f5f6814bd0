//! PyTorch's `OffsetCalculator`: from a linear index to byte offsets.
//!
//! The device divides by precomputed magic numbers; here the divisors are
//! read from beside them, and blocks of elements are walked in runs along the
//! first dimension, so that the inner loop has a fixed stride.

use crate::Fault;
use crate::params::Cursor;

/// `MAX_DIMS` of the CUDA build.
const MAX_DIMS: usize = 25;

/// Sizes and byte strides, dimension 0 fastest.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    sizes: Vec<u64>,
    /// `strides[argument][dimension]`, bytes. Unsigned 32-bit on the device,
    /// where sums wrap: a negative stride is one that wraps.
    strides: Vec<Vec<i64>>,
}

impl Offsets {
    /// Reads an `OffsetCalculator<arguments, unsigned int>`.
    pub fn read(cursor: &mut Cursor, arguments: usize) -> Result<Self, Fault> {
        let dims = cursor.i32()? as usize;
        if dims > MAX_DIMS {
            return Err(Fault::Unsupported(format!("an OffsetCalculator of {dims} dimensions")));
        }
        let mut sizes = Vec::with_capacity(dims);
        for dim in 0..MAX_DIMS {
            let divisor = cursor.u32()?;
            cursor.skip(8);
            if dim < dims {
                sizes.push(divisor as u64);
            }
        }
        let mut strides = vec![Vec::with_capacity(dims); arguments];
        for dim in 0..MAX_DIMS {
            for argument in strides.iter_mut() {
                let stride = cursor.i32()?;
                if dim < dims {
                    argument.push(stride as i64);
                }
            }
        }
        Ok(Offsets { sizes, strides })
    }

    /// Sizes and byte strides given directly, one stride list per argument.
    pub fn new(sizes: Vec<u64>, strides: Vec<Vec<i64>>) -> Self {
        Offsets { sizes, strides }
    }

    /// Elements in all dimensions together.
    pub fn count(&self) -> u64 {
        self.sizes.iter().product()
    }

    /// The lowest and highest byte offset any element of `argument` starts at.
    pub fn bounds(&self, argument: usize) -> (i64, i64) {
        let mut bounds = (0, 0);
        for (&size, &stride) in self.sizes.iter().zip(&self.strides[argument]) {
            let reach = stride * (size.max(1) as i64 - 1);
            if reach < 0 { bounds.0 += reach } else { bounds.1 += reach }
        }
        bounds
    }

    /// Byte offset of element `index` of `argument`.
    pub fn get(&self, argument: usize, mut index: u64) -> i64 {
        let mut offset = 0;
        for (&size, &stride) in self.sizes.iter().zip(&self.strides[argument]) {
            offset += (index % size) as i64 * stride;
            index /= size;
        }
        offset
    }

    /// Walks elements `start..start + count` of `argument`. `visit` gets, for
    /// each run, the byte offset of its first element, the stride within it,
    /// and the range of its elements counted from `start`.
    pub fn runs(
        &self,
        argument: usize,
        start: u64,
        count: usize,
        mut visit: impl FnMut(i64, i64, std::ops::Range<usize>),
    ) {
        let strides = &self.strides[argument];
        let (Some(&inner), Some(&stride)) = (self.sizes.first(), strides.first()) else {
            visit(0, 0, 0..count);
            return;
        };
        let mut coordinates = [0u64; MAX_DIMS];
        let mut rest = start;
        for (coordinate, &size) in coordinates.iter_mut().zip(&self.sizes) {
            *coordinate = rest % size;
            rest /= size;
        }
        let mut row: i64 =
            (1..self.sizes.len()).map(|dim| coordinates[dim] as i64 * strides[dim]).sum();
        let (mut done, mut column) = (0, coordinates[0]);
        while done < count {
            let run = (count - done).min((inner - column) as usize);
            visit(row + column as i64 * stride, stride, done..done + run);
            done += run;
            column = 0;
            for dim in 1..self.sizes.len() {
                coordinates[dim] += 1;
                row += strides[dim];
                if coordinates[dim] < self.sizes[dim] {
                    break;
                }
                row -= strides[dim] * self.sizes[dim] as i64;
                coordinates[dim] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_agree_with_get() {
        let offsets = Offsets::new(vec![3, 4, 5], vec![vec![4, 40, 400], vec![400, 0, 8]]);
        for argument in 0..2 {
            for (start, count) in [(0, 60), (7, 20), (59, 1), (2, 1)] {
                let mut seen = vec![-1; count];
                offsets.runs(argument, start, count, |first, stride, range| {
                    for (i, at) in range.enumerate() {
                        seen[at] = first + i as i64 * stride;
                    }
                });
                let expected: Vec<i64> =
                    (start..start + count as u64).map(|i| offsets.get(argument, i)).collect();
                assert_eq!(seen, expected);
            }
        }
        assert_eq!(offsets.bounds(1), (0, 832));
    }

    #[test]
    fn no_dimensions_is_one_element() {
        let offsets = Offsets::new(vec![], vec![vec![]]);
        let mut runs = Vec::new();
        offsets.runs(0, 0, 1, |first, _, range| runs.push((first, range)));
        assert_eq!(runs, [(0, 0..1)]);
        assert_eq!(offsets.count(), 1);
    }
}
