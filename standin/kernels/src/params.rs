//! Reads kernel parameters: C++ objects passed by value.
//!
//! A launch's parameter buffer and the size of each parameter come from the
//! driver; what lies inside a parameter follows the C++ layout rules, which
//! [`Cursor`] walks: each field at the next multiple of its alignment.

use crate::value::{DType, Lane, load_lanes};
use crate::{Fault, Launch};

/// Walks the bytes of one parameter (or of a struct inside one).
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The `index`-th parameter of a launch.
    pub fn parameter(launch: &Launch<'a>, index: usize) -> Result<Self, Fault> {
        let bytes = launch
            .layout
            .get(index)
            .and_then(|&(offset, size)| {
                launch.params.get(offset as usize..offset as usize + size as usize)
            })
            .ok_or_else(|| unsupported(launch, &format!("there is no parameter {index}")))?;
        Ok(Cursor { bytes, at: 0 })
    }

    /// Skips to the next multiple of `alignment`.
    pub fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    /// Moves past `count` bytes.
    pub fn skip(&mut self, count: usize) {
        self.at += count;
    }

    /// Bytes from the start of the parameter to here.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Size of the whole parameter.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The next `count` bytes, unaligned.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let bytes = self.bytes.get(self.at..self.at + count).ok_or_else(|| {
            Fault::Unsupported(format!("a parameter of {} bytes is too short", self.bytes.len()))
        })?;
        self.at += count;
        Ok(bytes)
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.align(N);
        let mut word = [0; N];
        word.copy_from_slice(self.take(N)?);
        Ok(word)
    }

    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.word().map(u8::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.word().map(u32::from_le_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Fault> {
        self.word().map(i32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.word().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Fault> {
        self.word().map(i64::from_le_bytes)
    }

    /// A scalar of type `dtype`, as a lane.
    pub fn scalar<L: Lane>(&mut self, dtype: DType) -> Result<L, Fault> {
        self.align(dtype.size());
        let bytes = self.take(dtype.size())?;
        let mut lane = [L::default()];
        // SAFETY: `bytes` holds exactly one element of `dtype`.
        unsafe { load_lanes(dtype, bytes.as_ptr(), 0, &mut lane) };
        Ok(lane[0])
    }

    /// An integer parameter of whichever width it has (`int` or `int64_t`).
    pub fn integer(&mut self) -> Result<i64, Fault> {
        match self.bytes.len() {
            4 => self.i32().map(i64::from),
            _ => self.i64(),
        }
    }
}

/// Where the fields of a functor's state lie, by the C++ layout rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub fields: Vec<(usize, DType)>,
    end: usize,
    alignment: usize,
}

impl Layout {
    pub fn of(dtypes: &[DType]) -> Self {
        dtypes.iter().fold(Layout::default(), Layout::then)
    }

    fn then(mut self, dtype: &DType) -> Self {
        let offset = self.end.next_multiple_of(dtype.size());
        self.fields.push((offset, *dtype));
        self.end = offset + dtype.size();
        self.alignment = self.alignment.max(dtype.size());
        self
    }

    /// A struct whose first member is a struct of this layout, followed by `dtype`.
    pub fn nested_then(mut self, dtype: DType) -> Self {
        self.end = self.size();
        self.then(&dtype)
    }

    /// The same, followed by a pointer. nvcc appends one to a `__host__
    /// __device__` lambda that captures, or could (`[=]`): to its host copy.
    pub fn then_pointer(mut self) -> Self {
        self.end = self.end.next_multiple_of(8) + 8;
        self.alignment = 8;
        self
    }

    /// `sizeof`: at least 1, as for an empty class.
    pub fn size(&self) -> usize {
        self.end.next_multiple_of(self.alignment()).max(1)
    }

    pub fn alignment(&self) -> usize {
        self.alignment.max(1)
    }

    /// The fields' values, read from the start of `bytes`.
    pub fn read<L: Lane>(&self, bytes: &[u8]) -> Result<Vec<L>, Fault> {
        self.fields
            .iter()
            .map(|&(offset, dtype)| {
                let mut cursor = Cursor { bytes, at: offset };
                cursor.scalar(dtype)
            })
            .collect()
    }
}

/// A fault that names the kernel and says what is not covered.
pub fn unsupported(launch: &Launch, what: &str) -> Fault {
    Fault::Unsupported(format!("{}: {what}", launch.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_follow_cpp() {
        assert_eq!(Layout::default().size(), 1);
        // struct { struct {} f; float a; }
        let unary = Layout::default().nested_then(DType::F32);
        assert_eq!((unary.fields[0].0, unary.size()), (4, 8));
        // struct { struct { int op; } f; double a; }
        let compare = Layout::of(&[DType::I32]).nested_then(DType::F64);
        assert_eq!((compare.fields[1].0, compare.size()), (8, 16));
        // A lambda that captured an int and two floats, and its host copy.
        assert_eq!(Layout::of(&[DType::I32, DType::F32, DType::F32]).then_pointer().size(), 24);
    }
}
