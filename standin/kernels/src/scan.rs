//! Running sums and products: `cumsum`, `cumprod`.
//!
//! | kernel | parameters |
//! |---|---|
//! | `tensor_kernel_scan_innermost_dim<T, Op>` | `T* to, T* from, uint rows, uint row, uint, T init, Op` |
//! | `tensor_kernel_scan_outer_dim<T, I, Op>` | `T* to, T* from, uint outer, uint inner, uint row, T init, Op` |
//! | `DeviceScanKernel<policy, T const*, T*, …, Op, NullType, …>` | `T* from, T* to, state, int, Op, NullType, N` |
//! | `DeviceScanInitKernel` | scratch memory that only the device's own scan reads |
//!
//! Floating-point sums run in f64, so the way the device splits them is no matter.

use crate::block::{Source, Target};
use crate::name::{Name, name_of};
use crate::params::Cursor;
use crate::value::{Class, DType, Lane};
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy)]
enum Form {
    Innermost,
    Outer,
    Whole,
    Prepare,
}

struct Scan {
    form: Form,
    data: DType,
    product: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let argument = |index: usize| name.args.get(index).map(String::as_str);
    let (form, data, operation) = match name.base.as_str() {
        "tensor_kernel_scan_innermost_dim" => (Form::Innermost, argument(0)?, argument(1)?),
        "tensor_kernel_scan_outer_dim" => (Form::Outer, argument(0)?, name.args.last()?.as_str()),
        "DeviceScanKernel" => {
            (argument(5)? == "NullType" || argument(5)?.ends_with("::NullType")).then_some(())?;
            (Form::Whole, argument(2)?.strip_suffix('*')?, argument(4)?)
        }
        "DeviceScanInitKernel" => {
            return Some(Box::new(Scan { form: Form::Prepare, data: DType::U8, product: false }));
        }
        _ => return None,
    };
    let product = match name_of(operation).base.as_str() {
        "plus" => false,
        "multiplies" => true,
        _ => return None,
    };
    Some(Box::new(Scan { form, data: DType::from_cpp(data)?, product }))
}

/// `outer × row × inner`, contiguous; the scan is along `row`.
struct Decoded {
    from: u64,
    to: u64,
    outer: u64,
    row: u64,
    inner: u64,
}

impl Scan {
    fn decode(&self, launch: &Launch) -> Result<Decoded, Fault> {
        if matches!(self.form, Form::Prepare) {
            return Ok(Decoded { from: 0, to: 0, outer: 0, row: 0, inner: 0 });
        }
        let pointer = |index| Cursor::parameter(launch, index)?.u64();
        let count = |index| Cursor::parameter(launch, index)?.integer().map(|n| n.max(0) as u64);
        let (first, second) = (pointer(0)?, pointer(1)?);
        let (to, from) =
            if matches!(self.form, Form::Whole) { (second, first) } else { (first, second) };
        let (outer, row, inner) = match self.form {
            Form::Outer => (count(2)?, count(4)?, count(3)?),
            Form::Whole => (1, count(6)?, 1),
            _ => (count(2)?, count(3)?, 1),
        };
        Ok(Decoded { from, to, outer, row, inner })
    }

    fn compute<L: Lane>(
        &self,
        at: &Decoded,
        memory: &dyn Memory,
        combine: impl Fn(L, L) -> L,
    ) -> Result<(), Fault> {
        let count = at.outer * at.row * at.inner;
        let from = Source::new(memory, at.from, self.data, count)?;
        let to = Target::new(memory, at.to, self.data, count)?;
        let mut total = vec![L::default(); at.inner as usize];
        let mut line = total.clone();
        for outer in 0..at.outer {
            total.fill(L::from_i64(i64::from(self.product)));
            for i in 0..at.row {
                let start = (outer * at.row + i) * at.inner;
                from.load(start, &mut line);
                for (total, &value) in total.iter_mut().zip(&line) {
                    *total = combine(*total, value);
                }
                to.store(start, &total);
            }
        }
        Ok(())
    }
}

impl Kernel for Scan {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let at = self.decode(launch)?;
        match (self.data.class(), self.product) {
            (Class::I64, false) => self.compute(&at, memory, i64::wrapping_add),
            (Class::I64, true) => self.compute(&at, memory, i64::wrapping_mul),
            (_, false) => self.compute(&at, memory, |a: f64, b| a + b),
            (_, true) => self.compute(&at, memory, |a: f64, b| a * b),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = self.decode(launch).map_or(0, |at| at.outer * at.row * at.inner) as f64;
        Cost { bytes: 2.0 * count * self.data.size() as f64, flops: count }
    }
}
