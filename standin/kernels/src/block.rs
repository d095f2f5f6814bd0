//! Checked, typed access to ranges of device memory, for kernels that work on
//! whole rows: what `elementwise` does with its views, but contiguous.

use crate::value::{DType, Lane, load_lanes, store_lanes};
use crate::{Fault, Memory};

/// A contiguous tensor checked for reading.
#[derive(Clone, Copy)]
pub struct Source {
    dtype: DType,
    base: *const u8,
    count: u64,
}

impl Source {
    pub fn new(memory: &dyn Memory, address: u64, dtype: DType, count: u64) -> Result<Self, Fault> {
        Ok(Source { dtype, base: memory.read(address, count * dtype.size() as u64)?, count })
    }

    /// Loads elements `start..start + out.len()`.
    pub fn load<L: Lane>(&self, start: u64, out: &mut [L]) {
        assert!(
            start + out.len() as u64 <= self.count,
            "a kernel reads outside what it had checked"
        );
        let size = self.dtype.size();
        // SAFETY: `new` had all `count` elements checked, and the range is inside.
        unsafe { load_lanes(self.dtype, self.base.add(start as usize * size), size as isize, out) }
    }

    pub fn get<L: Lane>(&self, index: u64) -> L {
        let mut lane = [L::default()];
        self.load(index, &mut lane);
        lane[0]
    }
}

/// A contiguous tensor checked for writing.
#[derive(Clone, Copy)]
pub struct Target {
    dtype: DType,
    base: *mut u8,
    count: u64,
}

impl Target {
    pub fn new(memory: &dyn Memory, address: u64, dtype: DType, count: u64) -> Result<Self, Fault> {
        Ok(Target { dtype, base: memory.write(address, count * dtype.size() as u64)?, count })
    }

    /// Stores lanes as elements `start..start + lanes.len()`.
    pub fn store<L: Lane>(&self, start: u64, lanes: &[L]) {
        assert!(
            start + lanes.len() as u64 <= self.count,
            "a kernel writes outside what it had checked"
        );
        let size = self.dtype.size();
        // SAFETY: `new` had all `count` elements checked, and the range is inside.
        unsafe {
            store_lanes(self.dtype, self.base.add(start as usize * size), size as isize, lanes)
        }
    }
}
