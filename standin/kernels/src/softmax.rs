//! Softmax and log-softmax.
//!
//! | kernel | parameters | rows |
//! |---|---|---|
//! | `softmax_warp_forward<In, Out, A, log2, is_log, is_masked[, int]>` | `Out*, In*, int rows, int stride, int row, bool* mask, int, bool` | given |
//! | `cunn_SoftMaxForward<n, In, A, Out, Epilogue>` | `Out*, In*, int row` | `grid.x` |
//! | `cunn_SoftMaxForwardSmem<n, In, A, Out, Epilogue, I>` | `Out*, In*, I row` | `grid.x` |
//! | `cunn_SoftMaxForwardReg<In, A, Out, Epilogue, I, n>` | `Out*, In*, I row` | `grid.x` |
//! | `cunn_SpatialSoftMaxForward<In, A, Out, I, Epilogue>` | `Out*, In*, I outer, I dim, I inner` | `outer × inner` |

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::Cursor;
use crate::value::{DType, Lane};
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Warp,
    Block,
    /// Over a dimension that is not the last.
    Spatial,
}

struct Softmax {
    form: Form,
    input: DType,
    output: DType,
    log: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let args: Vec<&str> = name.args.iter().map(String::as_str).collect();
    let (form, input, output, log) = match (name.base.as_str(), args.as_slice()) {
        // The masked variant is only used by nested tensors.
        ("softmax_warp_forward", [input, output, _, _, log, "false", ..]) => {
            (Form::Warp, input, output, *log == "true")
        }
        ("cunn_SoftMaxForward", [_, input, _, output, epilogue])
        | ("cunn_SoftMaxForwardSmem", [_, input, _, output, epilogue, _])
        | ("cunn_SoftMaxForwardReg", [input, _, output, epilogue, _, _]) => {
            (Form::Block, input, output, is_log(epilogue)?)
        }
        ("cunn_SpatialSoftMaxForward", [input, _, output, _, epilogue]) => {
            (Form::Spatial, input, output, is_log(epilogue)?)
        }
        _ => return None,
    };
    Some(Box::new(Softmax {
        form,
        input: DType::from_cpp(input)?,
        output: DType::from_cpp(output)?,
        log,
    }))
}

fn is_log(epilogue: &str) -> Option<bool> {
    match epilogue {
        "SoftMaxForwardEpilogue" => Some(false),
        "LogSoftMaxForwardEpilogue" => Some(true),
        _ => None,
    }
}

/// `outer × row × inner`, contiguous; the softmax is over `row`.
struct Decoded {
    output: u64,
    input: u64,
    outer: u64,
    row: u64,
    inner: u64,
}

impl Softmax {
    fn decode(&self, launch: &Launch) -> Result<Decoded, Fault> {
        let size =
            |index| Ok::<u64, Fault>(Cursor::parameter(launch, index)?.integer()?.max(0) as u64);
        let (outer, row, inner) = match self.form {
            Form::Warp => (size(2)?, size(4)?, 1),
            Form::Block => (launch.grid[0] as u64, size(2)?, 1),
            Form::Spatial => (size(2)?, size(3)?, size(4)?),
        };
        Ok(Decoded {
            output: Cursor::parameter(launch, 0)?.u64()?,
            input: Cursor::parameter(launch, 1)?.u64()?,
            outer,
            row,
            inner,
        })
    }

    fn compute<L: Lane>(
        &self,
        decoded: &Decoded,
        memory: &dyn Memory,
        rows: impl Fn(&mut [L], bool),
    ) -> Result<(), Fault> {
        let &Decoded { output, input, outer, row, inner } = decoded;
        let input = Source::new(memory, input, self.input, outer * row * inner)?;
        let output = Target::new(memory, output, self.output, outer * row * inner)?;
        if inner == 1 {
            let mut values = vec![L::default(); row as usize];
            for i in 0..outer {
                input.load(i * row, &mut values);
                rows(&mut values, self.log);
                output.store(i * row, &values);
            }
            return Ok(());
        }
        // Transposed through a buffer, so that rows are contiguous in between.
        let (row, inner) = (row as usize, inner as usize);
        let mut plane = vec![L::default(); row * inner];
        let mut values = vec![L::default(); row];
        for i in 0..outer {
            let start = i * (row * inner) as u64;
            input.load(start, &mut plane);
            for column in 0..inner {
                for (at, value) in values.iter_mut().enumerate() {
                    *value = plane[at * inner + column];
                }
                rows(&mut values, self.log);
                for (at, value) in values.iter().enumerate() {
                    plane[at * inner + column] = *value;
                }
            }
            output.store(start, &plane);
        }
        Ok(())
    }
}

impl Kernel for Softmax {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let decoded = self.decode(launch)?;
        match self.input {
            DType::F64 => self.compute(&decoded, memory, softmax_f64),
            _ => self.compute(&decoded, memory, softmax_f32),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let Ok(decoded) = self.decode(launch) else {
            return Cost::default();
        };
        let elements = (decoded.outer * decoded.row * decoded.inner) as f64;
        Cost {
            bytes: elements * (self.input.size() + self.output.size()) as f64,
            flops: 5.0 * elements,
        }
    }
}

/// A row in place. A row of −∞ only gives NaN, as on the device.
macro_rules! softmax_row {
    ($name:ident, $t:ty) => {
        fn $name(row: &mut [$t], log: bool) {
            let max = row
                .iter()
                .fold(<$t>::NEG_INFINITY, |max, &value| if value > max { value } else { max });
            if log {
                let sum: f64 = row.iter().map(|&value| (value - max).exp() as f64).sum();
                let log_sum = sum.ln() as $t;
                for value in row {
                    *value = *value - max - log_sum;
                }
                return;
            }
            let mut sum = 0f64;
            for value in row.iter_mut() {
                *value = (*value - max).exp();
                sum += *value as f64;
            }
            let sum = sum as $t;
            for value in row {
                *value /= sum;
            }
        }
    };
}
softmax_row!(softmax_f32, f32);
softmax_row!(softmax_f64, f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_to_one_and_logs_agree() {
        let mut plain = [1.0f32, 2.0, 3.0, f32::NEG_INFINITY];
        let mut log = plain;
        softmax_f32(&mut plain, false);
        softmax_f32(&mut log, true);
        assert!((plain.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(plain[3], 0.0);
        for (plain, log) in plain.iter().zip(log) {
            assert!((plain.ln() - log).abs() < 1e-6 || *plain == 0.0);
        }
    }
}
