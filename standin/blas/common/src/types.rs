//! Numbers of the cuBLAS ABI, and the edge where they enter.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Any opaque handle: stream, cuBLAS handle, descriptor.
pub type Handle = *mut c_void;

/// `cublasStatus_t` other than success; an open number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    pub const NOT_INITIALIZED: Status = Status(1);
    pub const INVALID_VALUE: Status = Status(7);
    pub const EXECUTION_FAILED: Status = Status(13);
    pub const INTERNAL_ERROR: Status = Status(14);
    pub const NOT_SUPPORTED: Status = Status(15);
}

/// Runs the body of an exported function; a panic must not unwind into C.
pub fn guard(body: impl FnOnce() -> Result<(), Status>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(Status(code))) => code,
        Err(_) => Status::INTERNAL_ERROR.0,
    }
}

/// A `cudaDataType` the GEMM kernel computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    F32,
    F64,
    F16,
    Bf16,
}

impl DataType {
    /// Complex, integer and 8-bit types are refused.
    pub fn from_number(number: i32) -> Result<DataType, Status> {
        match number {
            0 => Ok(DataType::F32),
            1 => Ok(DataType::F64),
            2 => Ok(DataType::F16),
            14 => Ok(DataType::Bf16),
            _ => Err(Status::NOT_SUPPORTED),
        }
    }

    pub fn number(self) -> i32 {
        match self {
            DataType::F32 => 0,
            DataType::F64 => 1,
            DataType::F16 => 2,
            DataType::Bf16 => 14,
        }
    }

    /// The type of alpha and beta that goes with a `cublasComputeType_t`.
    pub fn of_scalars(compute_type: i32) -> Result<DataType, Status> {
        match compute_type {
            64 | 65 => Ok(DataType::F16),                // 16F, pedantic
            68 | 69 | 74 | 75 | 77 => Ok(DataType::F32), // 32F, pedantic, fast 16F, 16BF, TF32
            70 | 71 => Ok(DataType::F64),                // 64F, pedantic
            _ => Err(Status::NOT_SUPPORTED),
        }
    }
}

/// A `cublasOperation_t`; conjugation changes nothing for real numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Plain,
    Transposed,
}

impl Operation {
    pub fn from_number(number: i32) -> Result<Operation, Status> {
        match number {
            0 => Ok(Operation::Plain),
            1 | 2 => Ok(Operation::Transposed),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    pub fn number(self) -> i32 {
        match self {
            Operation::Plain => 0,
            Operation::Transposed => 1,
        }
    }

    pub fn flipped(self) -> Operation {
        match self {
            Operation::Plain => Operation::Transposed,
            Operation::Transposed => Operation::Plain,
        }
    }
}

/// Reads alpha or beta from host memory.
///
/// # Safety
/// `at` is null or points to a value of type `kind`.
pub unsafe fn scalar(at: *const c_void, kind: DataType) -> Result<f64, Status> {
    if at.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: not null, of the type the caller vouches for; alignment is not assumed.
    unsafe {
        match kind {
            DataType::F32 => Ok(f64::from(at.cast::<f32>().read_unaligned())),
            DataType::F64 => Ok(at.cast::<f64>().read_unaligned()),
            DataType::F16 => Ok(half_to_f64(at.cast::<u16>().read_unaligned())),
            DataType::Bf16 => {
                Ok(f64::from(f32::from_bits(u32::from(at.cast::<u16>().read_unaligned()) << 16)))
            }
        }
    }
}

/// IEEE 754 binary16 to binary64, exact.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)]
        {
            assert_eq!(half_to_f64(bits), value);
        }
        assert!(half_to_f64(0x7e00).is_nan());
    }

    #[test]
    fn a_scalar_is_read_in_its_own_type() {
        let (one_and_a_half, two_and_a_half, in_bf16) = (1.5f32, 2.5f64, 0x3fc0u16);
        // SAFETY: each pointer is to a live value of the stated type.
        unsafe {
            assert_eq!(scalar((&raw const one_and_a_half).cast(), DataType::F32), Ok(1.5));
            assert_eq!(scalar((&raw const two_and_a_half).cast(), DataType::F64), Ok(2.5));
            assert_eq!(scalar((&raw const in_bf16).cast(), DataType::Bf16), Ok(1.5));
            assert_eq!(scalar(std::ptr::null(), DataType::F32), Err(Status::INVALID_VALUE));
        }
    }
}
