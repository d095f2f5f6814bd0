//! Reducing the inputs of one output to one value (or two).
//!
//! Pure arithmetic on lanes, in index order; where the inputs lie and where
//! the outputs go is `reduce`'s business.

use crate::value::Lane;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Sum,
    NanSum,
    Mean,
    Product,
    Max,
    Min,
    And,
    Or,
    AbsMax,
    AbsMin,
    NormZero,
    NormOne,
    NormTwo {
        root: bool,
    },
    Norm {
        root: bool,
    },
    /// Outputs the value and its index.
    MaxPair,
    MinPair,
    /// Outputs the index only.
    ArgMax,
    ArgMin,
    /// Outputs the minimum and the maximum.
    MinMax,
    /// Outputs variance or standard deviation, and the mean.
    Welford,
}

#[derive(Clone, Copy)]
pub enum Value {
    Real(f64),
    Integer(i64),
}

/// Reduces the inputs of one output.
pub trait Accumulate: Sized {
    type Lane: Lane;
    fn start(operation: Operation) -> Self;
    /// `first` is the index of `lanes[0]` among the inputs.
    fn add(&mut self, operation: Operation, lanes: &[Self::Lane], first: u64, constants: &[f64]);
    /// The value, and the second output where there is one.
    fn finish(self, operation: Operation, inputs: u64, constants: &[f64]) -> (Value, Value);
}

/// Floating-point inputs, whatever their type.
pub struct Reals {
    value: f64,
    /// Mean or maximum, as the operation needs.
    extra: f64,
    index: i64,
}

impl Accumulate for Reals {
    type Lane = f64;

    fn start(operation: Operation) -> Self {
        let value = match operation {
            Operation::Product | Operation::And => 1.0,
            Operation::Max | Operation::MaxPair | Operation::ArgMax => f64::NEG_INFINITY,
            Operation::Min
            | Operation::MinPair
            | Operation::ArgMin
            | Operation::MinMax
            | Operation::AbsMin => f64::INFINITY,
            _ => 0.0,
        };
        let extra = if operation == Operation::MinMax { f64::NEG_INFINITY } else { 0.0 };
        Reals { value, extra, index: -1 }
    }

    fn add(&mut self, operation: Operation, lanes: &[f64], first: u64, constants: &[f64]) {
        match operation {
            Operation::Sum | Operation::Mean => self.value += sum(lanes.iter().copied()),
            Operation::NanSum => {
                self.value += sum(lanes.iter().map(|&x| if x.is_nan() { 0.0 } else { x }))
            }
            Operation::NormZero => {
                self.value += sum(lanes.iter().map(|&x| (x != 0.0) as u8 as f64))
            }
            Operation::NormOne => self.value += sum(lanes.iter().map(|&x| x.abs())),
            Operation::NormTwo { .. } => self.value += sum(lanes.iter().map(|&x| x * x)),
            Operation::Norm { .. } => {
                self.value += sum(lanes.iter().map(|&x| x.abs().powf(constants[0])))
            }
            Operation::Product => {
                self.value = lanes.iter().fold(self.value, |product, x| product * x)
            }
            Operation::And => {
                self.value = if lanes.iter().all(|&x| x != 0.0) { self.value } else { 0.0 }
            }
            Operation::Or => {
                self.value = if lanes.iter().any(|&x| x != 0.0) { 1.0 } else { self.value }
            }
            Operation::Max => self.value = lanes.iter().fold(self.value, |max, &x| larger(max, x)),
            Operation::Min => {
                self.value = lanes.iter().fold(self.value, |min, &x| -larger(-min, -x))
            }
            Operation::AbsMax => {
                self.value = lanes.iter().fold(self.value, |max, &x| larger(max, x.abs()))
            }
            Operation::AbsMin => {
                self.value = lanes.iter().fold(self.value, |min, &x| -larger(-min, -x.abs()))
            }
            Operation::MinMax => {
                for &x in lanes {
                    self.value = -larger(-self.value, -x);
                    self.extra = larger(self.extra, x);
                }
            }
            Operation::MaxPair | Operation::ArgMax | Operation::MinPair | Operation::ArgMin => {
                let sign = if matches!(operation, Operation::MaxPair | Operation::ArgMax) {
                    1.0
                } else {
                    -1.0
                };
                for (i, &x) in lanes.iter().enumerate() {
                    // The first of equals, and the first NaN of all, wins.
                    let better = self.index < 0
                        || (!self.value.is_nan() && (x.is_nan() || sign * x > sign * self.value));
                    if better {
                        (self.value, self.index) = (x, (first + i as u64) as i64);
                    }
                }
            }
            Operation::Welford => {
                for (i, &x) in lanes.iter().enumerate() {
                    let delta = x - self.extra;
                    self.extra += delta / (first + i as u64 + 1) as f64;
                    self.value += delta * (x - self.extra);
                }
            }
        }
    }

    fn finish(self, operation: Operation, inputs: u64, constants: &[f64]) -> (Value, Value) {
        let extra = match operation {
            Operation::MaxPair | Operation::MinPair => Value::Integer(self.index),
            _ => Value::Real(self.extra),
        };
        let value = match operation {
            Operation::Mean => self.value * constants[0],
            Operation::NormTwo { root: true } => self.value.sqrt(),
            Operation::Norm { root: true } => self.value.powf(1.0 / constants[0]),
            Operation::ArgMax | Operation::ArgMin => return (Value::Integer(self.index), extra),
            Operation::Welford => {
                // Constants: the correction, and whether to take the root.
                let variance = self.value / (inputs as f64 - constants[0]).max(0.0);
                if constants[1] != 0.0 { variance.sqrt() } else { variance }
            }
            _ => self.value,
        };
        (Value::Real(value), extra)
    }
}

/// The larger of two numbers; a NaN is larger than any.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// Sums in eight interleaved parts: fast, and the same on every run.
fn sum(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let mut parts = [0.0; 8];
    for (i, value) in values.enumerate() {
        parts[i % 8] += value;
    }
    parts.iter().sum()
}

/// Integer and boolean inputs; arithmetic wraps.
pub struct Integers {
    value: i64,
    extra: i64,
    index: i64,
}

impl Accumulate for Integers {
    type Lane = i64;

    fn start(operation: Operation) -> Self {
        let value = match operation {
            Operation::Product | Operation::And => 1,
            Operation::Max | Operation::MaxPair | Operation::ArgMax => i64::MIN,
            Operation::Min
            | Operation::MinPair
            | Operation::ArgMin
            | Operation::MinMax
            | Operation::AbsMin => i64::MAX,
            _ => 0,
        };
        let extra = if operation == Operation::MinMax { i64::MIN } else { 0 };
        Integers { value, extra, index: -1 }
    }

    fn add(&mut self, operation: Operation, lanes: &[i64], first: u64, constants: &[f64]) {
        for (i, &x) in lanes.iter().enumerate() {
            match operation {
                Operation::Sum | Operation::NanSum | Operation::Mean => {
                    self.value = self.value.wrapping_add(x)
                }
                Operation::Product => self.value = self.value.wrapping_mul(x),
                Operation::And => self.value &= (x != 0) as i64,
                Operation::Or => self.value |= (x != 0) as i64,
                Operation::Max => self.value = self.value.max(x),
                Operation::Min => self.value = self.value.min(x),
                Operation::AbsMax => self.value = self.value.max(x.wrapping_abs()),
                Operation::AbsMin => self.value = self.value.min(x.wrapping_abs()),
                Operation::NormZero => self.value += (x != 0) as i64,
                Operation::NormOne => self.value = self.value.wrapping_add(x.wrapping_abs()),
                Operation::NormTwo { .. } => {
                    self.value = self.value.wrapping_add(x.wrapping_mul(x))
                }
                Operation::Norm { .. } => self.value += (x.abs() as f64).powf(constants[0]) as i64,
                Operation::MinMax => {
                    (self.value, self.extra) = (self.value.min(x), self.extra.max(x))
                }
                Operation::MaxPair | Operation::ArgMax => {
                    if self.index < 0 || x > self.value {
                        (self.value, self.index) = (x, (first + i as u64) as i64);
                    }
                }
                Operation::MinPair | Operation::ArgMin => {
                    if self.index < 0 || x < self.value {
                        (self.value, self.index) = (x, (first + i as u64) as i64);
                    }
                }
                // Variance is of floating-point tensors only.
                Operation::Welford => {}
            }
        }
    }

    fn finish(self, operation: Operation, _inputs: u64, constants: &[f64]) -> (Value, Value) {
        let value = match operation {
            Operation::Mean => (self.value as f64 * constants[0]) as i64,
            Operation::ArgMax | Operation::ArgMin => self.index,
            _ => self.value,
        };
        let extra = match operation {
            Operation::MaxPair | Operation::MinPair => self.index,
            _ => self.extra,
        };
        (Value::Integer(value), Value::Integer(extra))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_and_any_nan_win() {
        let index = |values: &[f64], operation| {
            let mut state = Reals::start(operation);
            state.add(operation, values, 0, &[]);
            state.index
        };
        assert_eq!(index(&[1.0, 3.0, 3.0, 2.0], Operation::ArgMax), 1);
        assert_eq!(index(&[1.0, 0.0, 0.0], Operation::ArgMin), 1);
        assert_eq!(index(&[1.0, f64::NAN, 9.0, f64::NAN], Operation::ArgMax), 1);
        assert_eq!(index(&[f64::NEG_INFINITY; 2], Operation::ArgMax), 0);
    }
}
