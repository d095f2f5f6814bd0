//! Descriptors of products, matrices and preferences: plain records that the
//! program fills attribute by attribute.

use std::ffi::c_void;

use standin_blas_common::{Handle, Status, say_once};

use crate::api;

/// `cublasLtMatmulDesc_t`.
#[derive(Clone, Debug)]
pub struct Product {
    pub compute_type: i32,
    pub scale_type: i32,
    pub pointer_mode: i32,
    pub trans_a: i32,
    pub trans_b: i32,
    pub epilogue: i32,
    pub bias: u64,
    /// -1: that of D.
    pub bias_type: i32,
    /// An attribute was set that the GEMM kernel has no case for.
    pub beyond_us: bool,
}

/// `cublasLtMatrixLayout_t`.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub kind: i32,
    pub order: i32,
    pub rows: u64,
    pub columns: u64,
    pub ld: i64,
    pub batch: i32,
    /// Elements between consecutive matrices.
    pub stride: i64,
}

/// `cublasLtMatmulPreference_t`: there is only one algorithm to prefer.
struct Preference;

/// # Safety
/// `descriptor` is null or came from the create function for `T`.
pub unsafe fn get<'a, T>(descriptor: Handle) -> Result<&'a T, Status> {
    // SAFETY: the caller's promise.
    unsafe { descriptor.cast::<T>().as_ref() }.ok_or(Status::INVALID_VALUE)
}

/// # Safety
/// As [`get`], and nobody else uses the descriptor meanwhile (cuBLASLt's own rule).
unsafe fn get_mut<'a, T>(descriptor: Handle) -> Result<&'a mut T, Status> {
    // SAFETY: the caller's promise.
    unsafe { descriptor.cast::<T>().as_mut() }.ok_or(Status::INVALID_VALUE)
}

/// # Safety
/// `result` is null or may be written.
unsafe fn create<T>(result: *mut Handle, value: T) -> Result<(), Status> {
    if result.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: not null, and the caller's to write.
    unsafe { *result = Box::into_raw(Box::new(value)).cast() };
    Ok(())
}

/// # Safety
/// `descriptor` is null or came from `create::<T>` and is not used afterwards.
unsafe fn destroy<T>(descriptor: Handle) -> Result<(), Status> {
    if !descriptor.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(descriptor.cast::<T>()) });
    }
    Ok(())
}

/// Copies an attribute's value out of the caller's buffer, whose size must match.
///
/// # Safety
/// `buffer` is null or holds `bytes` bytes.
unsafe fn value<T: Copy>(buffer: *const c_void, bytes: usize) -> Result<T, Status> {
    if buffer.is_null() || bytes != size_of::<T>() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: `bytes` bytes, of an integer type for which any bits are a value.
    Ok(unsafe { buffer.cast::<T>().read_unaligned() })
}

api! {
    fn cublasLtMatmulDescCreate(descriptor: *mut Handle, compute_type: i32, scale_type: i32) {
        let product = Product {
            compute_type,
            scale_type,
            pointer_mode: 0,
            trans_a: 0,
            trans_b: 0,
            epilogue: 1,
            bias: 0,
            bias_type: -1,
            beyond_us: false,
        };
        // SAFETY: the caller's pointer.
        unsafe { create(descriptor, product) }
    }

    fn cublasLtMatmulDescDestroy(descriptor: Handle) {
        // SAFETY: the caller's descriptor.
        unsafe { destroy::<Product>(descriptor) }
    }

    fn cublasLtMatmulDescSetAttribute(descriptor: Handle, attribute: i32, buffer: *const c_void, bytes: usize) {
        // SAFETY: the caller's descriptor and buffer of `bytes` bytes.
        unsafe {
            let product = get_mut::<Product>(descriptor)?;
            match attribute {
                0 => product.compute_type = value(buffer, bytes)?,
                1 => product.scale_type = value(buffer, bytes)?,
                2 => product.pointer_mode = value(buffer, bytes)?,
                3 => product.trans_a = value(buffer, bytes)?,
                4 => product.trans_b = value(buffer, bytes)?,
                7 => product.epilogue = value(buffer, bytes)?,
                8 => product.bias = value(buffer, bytes)?,
                26 => product.bias_type = value(buffer, bytes)?,
                // Hints: how many multiprocessors to leave free, faster accumulation.
                15 | 25 => {}
                // Scales of 8-bit types, auxiliary outputs, and so on.
                _ => {
                    say_once("cuBLASLt", &format!("product attribute {attribute}"));
                    product.beyond_us = true;
                }
            }
        }
        Ok(())
    }

    fn cublasLtMatrixLayoutCreate(layout: *mut Handle, kind: i32, rows: u64, columns: u64, ld: i64) {
        // SAFETY: the caller's pointer.
        unsafe { create(layout, Matrix { kind, order: 0, rows, columns, ld, batch: 1, stride: 0 }) }
    }

    fn cublasLtMatrixLayoutDestroy(layout: Handle) {
        // SAFETY: the caller's layout.
        unsafe { destroy::<Matrix>(layout) }
    }

    fn cublasLtMatrixLayoutSetAttribute(layout: Handle, attribute: i32, buffer: *const c_void, bytes: usize) {
        // SAFETY: the caller's layout and buffer of `bytes` bytes.
        unsafe {
            let matrix = get_mut::<Matrix>(layout)?;
            match attribute {
                0 => matrix.kind = value(buffer, bytes)?,
                1 => matrix.order = value(buffer, bytes)?,
                2 => matrix.rows = value(buffer, bytes)?,
                3 => matrix.columns = value(buffer, bytes)?,
                4 => matrix.ld = value(buffer, bytes)?,
                5 => matrix.batch = value(buffer, bytes)?,
                6 => matrix.stride = value(buffer, bytes)?,
                _ => {
                    say_once("cuBLASLt", &format!("layout attribute {attribute}"));
                    return Err(Status::NOT_SUPPORTED);
                }
            }
        }
        Ok(())
    }

    fn cublasLtMatmulPreferenceCreate(preference: *mut Handle) {
        // SAFETY: the caller's pointer.
        unsafe { create(preference, Preference) }
    }

    fn cublasLtMatmulPreferenceDestroy(preference: Handle) {
        // SAFETY: the caller's preference.
        unsafe { destroy::<Preference>(preference) }
    }

    /// Workspace and alignment limits: any will do.
    fn cublasLtMatmulPreferenceSetAttribute(_preference: Handle, _attribute: i32, _buffer: *const c_void, _bytes: usize) {
        Ok(())
    }
}
