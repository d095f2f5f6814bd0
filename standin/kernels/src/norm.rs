//! LayerNorm and RMSNorm over the last dimension.
//!
//! | kernel | parameters |
//! |---|---|
//! | `vectorized_layer_norm_kernel<T, A, rms>` | `int N, A eps, T* X, T* gamma, T* beta, A* mean, A* rstd, T* Y` |
//! | `RowwiseMomentsCUDAKernel<T, A, rms>` | `int64_t N, A eps, T* X, A* mean, A* rstd` |
//! | `LayerNormForwardCUDAKernel<T, A, rms>` | `int64_t N, T* X, A* mean, A* rstd, T* gamma, T* beta, T* Y` |
//!
//! Up to PyTorch 2.9 there is no `rms`; from 2.15 on the first parameter of the latter two
//! is `int64_t rows`. Before, one block of threads per row of N. Gamma and beta may be null.
//! With `rms` there is no mean, and its buffer is not written.

use crate::block::{Source, Target};
use crate::name::Name;
use crate::params::Cursor;
use crate::value::DType;
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy)]
enum Form {
    Whole,
    Moments,
    Apply,
}

struct Norm {
    form: Form,
    data: DType,
    /// Type of eps, mean and rstd.
    accumulator: DType,
    rms: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let form = match name.base.as_str() {
        "vectorized_layer_norm_kernel" => Form::Whole,
        "RowwiseMomentsCUDAKernel" => Form::Moments,
        "LayerNormForwardCUDAKernel" => Form::Apply,
        _ => return None,
    };
    // GroupNorm has a RowwiseMomentsCUDAKernel of its own, with one argument.
    let [data, accumulator, rms @ ..] = name.args.as_slice() else {
        return None;
    };
    Some(Box::new(Norm {
        form,
        data: DType::from_cpp(data)?,
        accumulator: DType::from_cpp(accumulator)?,
        rms: rms.first().is_some_and(|rms| rms == "true"),
    }))
}

/// Addresses a launch names; 0 where the form has none.
struct Addresses {
    rows: u64,
    row: u64,
    eps: f64,
    x: u64,
    gamma: u64,
    beta: u64,
    mean: u64,
    rstd: u64,
    y: u64,
}

impl Norm {
    fn decode(&self, launch: &Launch) -> Result<Addresses, Fault> {
        // From PyTorch 2.15 on the number of rows comes first, but where all is one kernel.
        let before = match self.form {
            Form::Whole => launch.layout.len(),
            Form::Moments => 5,
            Form::Apply => 7,
        };
        let counted = usize::from(launch.layout.len() == before + 1);
        let long = |index| Ok(Cursor::parameter(launch, index)?.integer()?.max(0) as u64);
        let rows = if counted == 1 { long(0)? } else { u64::from(launch.grid[0]) };
        let row = long(counted)?;
        let pointer = |index| Cursor::parameter(launch, index + counted)?.u64();
        let eps = || Cursor::parameter(launch, 1 + counted)?.scalar::<f64>(self.accumulator);
        Ok(match self.form {
            Form::Whole => Addresses {
                rows,
                row,
                eps: eps()?,
                x: pointer(2)?,
                gamma: pointer(3)?,
                beta: pointer(4)?,
                mean: pointer(5)?,
                rstd: pointer(6)?,
                y: pointer(7)?,
            },
            Form::Moments => Addresses {
                rows,
                row,
                eps: eps()?,
                x: pointer(2)?,
                gamma: 0,
                beta: 0,
                mean: pointer(3)?,
                rstd: pointer(4)?,
                y: 0,
            },
            Form::Apply => Addresses {
                rows,
                row,
                eps: 0.0,
                x: pointer(1)?,
                mean: pointer(2)?,
                rstd: pointer(3)?,
                gamma: pointer(4)?,
                beta: pointer(5)?,
                y: pointer(6)?,
            },
        })
    }
}

impl Kernel for Norm {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let at = self.decode(launch)?;
        let (rows, row) = (at.rows, at.row);
        let x = Source::new(memory, at.x, self.data, rows * row)?;
        let optional = |address: u64| match address {
            0 => Ok(None),
            address => Source::new(memory, address, self.data, row).map(Some),
        };
        let (gamma, beta) = (optional(at.gamma)?, optional(at.beta)?);
        let parameters = |source: Option<Source>, absent: f32| {
            let mut values = vec![absent; row as usize];
            if let Some(source) = source {
                source.load(0, &mut values);
            }
            values
        };
        let (gamma, beta) = (parameters(gamma, 1.0), parameters(beta, 0.0));

        let mut values = vec![0f32; row as usize];
        let moments_out = match self.form {
            Form::Apply => None,
            _ => Some((
                if self.rms {
                    None
                } else {
                    Some(Target::new(memory, at.mean, self.accumulator, rows)?)
                },
                Target::new(memory, at.rstd, self.accumulator, rows)?,
            )),
        };
        let moments_in = match self.form {
            Form::Apply => Some((
                if self.rms {
                    None
                } else {
                    Some(Source::new(memory, at.mean, self.accumulator, rows)?)
                },
                Source::new(memory, at.rstd, self.accumulator, rows)?,
            )),
            _ => None,
        };
        let y = match self.form {
            Form::Moments => None,
            _ => Some(Target::new(memory, at.y, self.data, rows * row)?),
        };

        for i in 0..rows {
            x.load(i * row, &mut values);
            let (mean, rstd) = match &moments_in {
                Some((mean, rstd)) => (mean.map_or(0.0, |mean| mean.get(i)), rstd.get(i)),
                None => moments(&values, at.eps, self.rms),
            };
            if let Some((mean_out, rstd_out)) = &moments_out {
                if let Some(mean_out) = mean_out {
                    mean_out.store(i, &[mean]);
                }
                rstd_out.store(i, &[rstd]);
            }
            if let Some(y) = &y {
                for ((value, gamma), beta) in values.iter_mut().zip(&gamma).zip(&beta) {
                    *value = gamma * (rstd * (*value - mean)) + beta;
                }
                y.store(i * row, &values);
            }
        }
        Ok(())
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let Ok(at) = self.decode(launch) else {
            return Cost::default();
        };
        let elements = at.rows as f64 * at.row as f64;
        let passes = if matches!(self.form, Form::Moments) { 1.0 } else { 2.0 };
        Cost { bytes: elements * passes * self.data.size() as f64, flops: 8.0 * elements }
    }
}

/// Mean (0 for RMSNorm) and reciprocal standard deviation of one row.
/// Two passes in f64: exact enough that the order of summation is no matter.
fn moments(values: &[f32], eps: f64, rms: bool) -> (f32, f32) {
    let count = values.len() as f64;
    let mean = if rms { 0.0 } else { sum(values.iter().map(|&value| value as f64)) / count };
    let variance =
        sum(values.iter().map(|&value| (value as f64 - mean) * (value as f64 - mean))) / count;
    (mean as f32, (1.0 / (variance + eps).sqrt()) as f32)
}

fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.sum()
}
