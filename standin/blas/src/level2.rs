//! Matrix · vector and vector · vector, expressed as matrix products.
//!
//! A strided vector is a matrix with one row whose leading dimension is the
//! stride, so every case becomes a product with a one-row result. Negative
//! strides are refused.

use std::ffi::c_void;

use standin_abi::Gemm;
use standin_blas_common::{DataType, Handle, Operation, Status, launch, scalar};

use crate::{api, handle};

/// A vector: address and distance between elements, in elements.
#[derive(Clone, Copy)]
struct Vector {
    at: u64,
    step: i32,
}

/// `row(result) = alpha · row(x) · op(matrix) + beta · row(result)`, where the
/// product has `inner` terms for each of `outer` results.
#[derive(Clone, Copy)]
struct RowProduct {
    x: Vector,
    matrix: u64,
    matrix_ld: i32,
    matrix_op: Operation,
    result: Vector,
    inner: i32,
    outer: i32,
    kind: DataType,
}

fn row_product(product: RowProduct, alpha: f64, beta: f64, stream: Handle) -> Result<(), Status> {
    let RowProduct { x, matrix, matrix_ld, matrix_op, result, inner, outer, kind } = product;
    if inner < 0 || outer < 0 {
        return Err(Status::INVALID_VALUE);
    }
    if x.step < 1 || result.step < 1 {
        return Err(Status::NOT_SUPPORTED);
    }
    launch(
        &Gemm {
            a: x.at,
            b: matrix,
            c: result.at,
            d: result.at,
            bias: 0,
            aux: 0,
            alpha,
            beta,
            m: 1,
            n: outer.into(),
            k: inner.into(),
            lda: x.step.into(),
            ldb: matrix_ld.into(),
            ldc: result.step.into(),
            ldd: result.step.into(),
            stride_a: 0,
            stride_b: 0,
            stride_c: 0,
            stride_d: 0,
            batch: 1,
            trans_a: Operation::Plain.number(),
            trans_b: matrix_op.number(),
            ab_type: kind.number(),
            d_type: kind.number(),
            epilogue: 1,
        },
        stream,
    )
}

/// `y = alpha · op(A) · x + beta · y`, A with `m` rows and `n` columns.
///
/// # Safety
/// `context` is a live handle; `alpha` and `beta` are null or of type `kind`.
#[allow(clippy::too_many_arguments, reason = "BLAS's own signature")]
unsafe fn gemv(
    context: Handle,
    trans: i32,
    (m, n): (i32, i32),
    alpha: *const c_void,
    (a, lda): (u64, i32),
    x: Vector,
    beta: *const c_void,
    y: Vector,
    kind: DataType,
) -> Result<(), Status> {
    // SAFETY: the caller's promise.
    let context = unsafe { handle::get(context)? };
    if !context.scalars_on_host() {
        return Err(Status::NOT_SUPPORTED);
    }
    // SAFETY: the caller's promise.
    let (alpha, beta) = unsafe { (scalar(alpha, kind)?, scalar(beta, kind)?) };
    let op = Operation::from_number(trans)?;
    let (outer, inner) = match op {
        Operation::Plain => (m, n),
        Operation::Transposed => (n, m),
    };
    // y = op(A) x as rows: yᵀ = xᵀ op(A)ᵀ.
    let matrix_op = op.flipped();
    let product =
        RowProduct { x, matrix: a, matrix_ld: lda, matrix_op, result: y, inner, outer, kind };
    row_product(product, alpha, beta, context.stream())
}

/// `result = x · y`; only a result in device memory can be computed in stream order.
///
/// # Safety
/// `context` is a live handle.
unsafe fn dot(
    context: Handle,
    n: i32,
    x: Vector,
    y: Vector,
    result: u64,
    kind: DataType,
) -> Result<(), Status> {
    // SAFETY: the caller's promise.
    let context = unsafe { handle::get(context)? };
    if context.scalars_on_host() || y.step < 1 {
        return Err(Status::NOT_SUPPORTED);
    }
    let product = RowProduct {
        x,
        matrix: y.at,
        matrix_ld: y.step,
        matrix_op: Operation::Transposed,
        result: Vector { at: result, step: 1 },
        inner: n,
        outer: 1,
        kind,
    };
    row_product(product, 1.0, 0.0, context.stream())
}

macro_rules! precision {
    ($gemv:ident, $dot:ident, $scalar:ty, $kind:expr) => {
        api! {
            fn $gemv(
                handle: Handle, trans: i32, m: i32, n: i32, alpha: *const $scalar, a: u64, lda: i32,
                x: u64, incx: i32, beta: *const $scalar, y: u64, incy: i32,
            ) {
                let (x, y) = (Vector { at: x, step: incx }, Vector { at: y, step: incy });
                // SAFETY: the caller's handle and scalars.
                unsafe { gemv(handle, trans, (m, n), alpha.cast(), (a, lda), x, beta.cast(), y, $kind) }
            }

            fn $dot(handle: Handle, n: i32, x: u64, incx: i32, y: u64, incy: i32, result: u64) {
                // SAFETY: the caller's handle.
                unsafe { dot(handle, n, Vector { at: x, step: incx }, Vector { at: y, step: incy }, result, $kind) }
            }
        }
    };
}

precision!(cublasSgemv_v2, cublasSdot_v2, f32, DataType::F32);
precision!(cublasDgemv_v2, cublasDdot_v2, f64, DataType::F64);

api! {
    fn cublasDotEx(
        handle: Handle, n: i32, x: u64, x_type: i32, incx: i32, y: u64, y_type: i32, incy: i32,
        result: u64, result_type: i32, _execution_type: i32,
    ) {
        if x_type != y_type || x_type != result_type {
            return Err(Status::NOT_SUPPORTED);
        }
        let kind = DataType::from_number(x_type)?;
        // SAFETY: the caller's handle.
        unsafe { dot(handle, n, Vector { at: x, step: incx }, Vector { at: y, step: incy }, result, kind) }
    }
}
