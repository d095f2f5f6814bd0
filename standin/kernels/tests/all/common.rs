//! What the kernel tests share: memory whose device addresses are host
//! addresses, and parameter blocks laid out as a C++ compiler would.

use std::cell::RefCell;

use standin_kernels::{Fault, Kernel, Launch, Memory, find};

/// Only ranges that were registered may be touched.
#[derive(Default)]
pub struct Host {
    ranges: RefCell<Vec<(u64, u64)>>,
}

impl Host {
    /// Registers a slice; its device address.
    pub fn map<T>(&self, slice: &mut [T]) -> u64 {
        let address = slice.as_mut_ptr() as u64;
        self.ranges.borrow_mut().push((address, size_of_val(slice) as u64));
        address
    }

    fn check(&self, address: u64, bytes: u64, write: bool) -> Result<(), Fault> {
        let inside =
            |&(start, size): &(u64, u64)| address >= start && address + bytes <= start + size;
        if bytes == 0 || self.ranges.borrow().iter().any(inside) {
            Ok(())
        } else {
            Err(Fault::IllegalAddress { address, bytes, write })
        }
    }
}

impl Memory for Host {
    fn read(&self, address: u64, bytes: u64) -> Result<*const u8, Fault> {
        self.check(address, bytes, false)?;
        Ok(address as *const u8)
    }

    fn write(&self, address: u64, bytes: u64) -> Result<*mut u8, Fault> {
        self.check(address, bytes, true)?;
        Ok(address as *mut u8)
    }
}

/// Bytes of one parameter, or of a whole parameter buffer.
#[derive(Default, Clone)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn align(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }

    /// Appends at the next multiple of the size of `bytes`.
    fn number<const N: usize>(self, bytes: [u8; N]) -> Self {
        let mut aligned = self.align(N);
        aligned.0.extend(bytes);
        aligned
    }

    pub fn u8(self, value: u8) -> Self {
        self.number([value])
    }

    pub fn i32(self, value: i32) -> Self {
        self.number(value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.number(value.to_le_bytes())
    }

    pub fn i64(self, value: i64) -> Self {
        self.number(value.to_le_bytes())
    }

    pub fn f32(self, value: f32) -> Self {
        self.number(value.to_le_bytes())
    }

    /// An `OffsetCalculator`; the magic numbers of the divisors are left out.
    pub fn offsets(mut self, sizes: &[u32], strides: &[&[u32]]) -> Self {
        self = self.i32(sizes.len() as i32);
        for dim in 0..25 {
            self = self.i32(*sizes.get(dim).unwrap_or(&0) as i32).i32(0).i32(0);
        }
        for dim in 0..25 {
            for argument in strides {
                self = self.i32(*argument.get(dim).unwrap_or(&0) as i32);
            }
        }
        self
    }

    /// A `TensorInfo` with a 32-bit index type.
    pub fn tensor(mut self, address: u64, sizes: &[i32], strides: &[i32]) -> Self {
        self = self.u64(address);
        for numbers in [sizes, strides] {
            for dim in 0..25 {
                self = self.i32(*numbers.get(dim).unwrap_or(&0));
            }
        }
        self.i32(sizes.len() as i32).align(8)
    }
}

/// Launches a kernel found by its mangled name.
pub fn launch(
    name: &str,
    grid: [u32; 3],
    parameters: &[Bytes],
    memory: &Host,
) -> Result<(), Fault> {
    let kernel: Box<dyn Kernel> = find(name).unwrap_or_else(|| panic!("no kernel {name}"));
    let (mut params, mut layout) = (Vec::new(), Vec::new());
    for parameter in parameters {
        let size = parameter.0.len();
        params.resize(params.len().next_multiple_of(size.next_power_of_two().min(8)), 0);
        layout.push((params.len() as u32, size as u32));
        params.extend(&parameter.0);
    }
    let launch = Launch {
        name,
        grid,
        block: [128, 1, 1],
        shared_bytes: 0,
        params: &params,
        layout: &layout,
    };
    let done = kernel.run(&launch, memory);
    assert!(done.is_err() || kernel.cost(&launch).bytes > 0.0, "{name} costs nothing");
    done
}

/// Fixed pseudo-random numbers in [-1, 1).
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2654435761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
