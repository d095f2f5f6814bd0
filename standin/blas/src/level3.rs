//! Matrix · matrix: `C = alpha · op(A) · op(B) + beta · C`, column-major.

use std::ffi::c_void;

use standin_abi::Gemm;
use standin_blas_common::{DataType, Handle, Operation, Status, launch, scalar};

use crate::{api, handle};

/// One operand: address, leading dimension and batch stride in elements.
#[derive(Clone, Copy)]
struct Matrix {
    at: u64,
    ld: i32,
    stride: i64,
}

/// The types of A and B, of C, and of the scalars.
#[derive(Clone, Copy)]
struct Types {
    ab: DataType,
    c: DataType,
    scalars: DataType,
}

impl Types {
    const fn all(kind: DataType) -> Types {
        Types { ab: kind, c: kind, scalars: kind }
    }

    /// From the numbers of the `…Ex` functions.
    fn from_numbers(a: i32, b: i32, c: i32, compute: i32) -> Result<Types, Status> {
        if a != b {
            return Err(Status::NOT_SUPPORTED);
        }
        Ok(Types {
            ab: DataType::from_number(a)?,
            c: DataType::from_number(c)?,
            scalars: DataType::of_scalars(compute)?,
        })
    }
}

/// # Safety
/// `context` is a live handle; `alpha` and `beta` are null or of the scalars' type.
#[allow(clippy::too_many_arguments, reason = "BLAS's own signature")]
unsafe fn gemm(
    context: Handle,
    trans_a: i32,
    trans_b: i32,
    (m, n, k): (i32, i32, i32),
    alpha: *const c_void,
    a: Matrix,
    b: Matrix,
    beta: *const c_void,
    c: Matrix,
    batch: i32,
    types: Types,
) -> Result<(), Status> {
    // SAFETY: the caller's promise.
    let context = unsafe { handle::get(context)? };
    if !context.scalars_on_host() {
        return Err(Status::NOT_SUPPORTED);
    }
    if m < 0 || n < 0 || k < 0 || batch < 0 {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    let (alpha, beta) = unsafe { (scalar(alpha, types.scalars)?, scalar(beta, types.scalars)?) };
    launch(
        &Gemm {
            a: a.at,
            b: b.at,
            c: c.at,
            d: c.at,
            bias: 0,
            aux: 0,
            alpha,
            beta,
            m: m.into(),
            n: n.into(),
            k: k.into(),
            lda: a.ld.into(),
            ldb: b.ld.into(),
            ldc: c.ld.into(),
            ldd: c.ld.into(),
            stride_a: a.stride,
            stride_b: b.stride,
            stride_c: c.stride,
            stride_d: c.stride,
            batch,
            trans_a: Operation::from_number(trans_a)?.number(),
            trans_b: Operation::from_number(trans_b)?.number(),
            ab_type: types.ab.number(),
            d_type: types.c.number(),
            epilogue: 1,
        },
        context.stream(),
    )
}

/// The two forms, single and strided batch, of one precision.
macro_rules! precision {
    ($single:ident, $batched:ident, $scalar:ty, $kind:expr) => {
        api! {
            fn $single(
                handle: Handle, trans_a: i32, trans_b: i32, m: i32, n: i32, k: i32,
                alpha: *const $scalar, a: u64, lda: i32, b: u64, ldb: i32,
                beta: *const $scalar, c: u64, ldc: i32,
            ) {
                let [a, b, c] = [(a, lda), (b, ldb), (c, ldc)].map(|(at, ld)| Matrix { at, ld, stride: 0 });
                // SAFETY: the caller's handle and scalars.
                unsafe {
                    gemm(handle, trans_a, trans_b, (m, n, k), alpha.cast(), a, b, beta.cast(), c, 1, Types::all($kind))
                }
            }

            fn $batched(
                handle: Handle, trans_a: i32, trans_b: i32, m: i32, n: i32, k: i32,
                alpha: *const $scalar, a: u64, lda: i32, stride_a: i64, b: u64, ldb: i32, stride_b: i64,
                beta: *const $scalar, c: u64, ldc: i32, stride_c: i64, batch: i32,
            ) {
                let [a, b, c] = [(a, lda, stride_a), (b, ldb, stride_b), (c, ldc, stride_c)]
                    .map(|(at, ld, stride)| Matrix { at, ld, stride });
                // SAFETY: the caller's handle and scalars.
                unsafe {
                    gemm(handle, trans_a, trans_b, (m, n, k), alpha.cast(), a, b, beta.cast(), c, batch, Types::all($kind))
                }
            }
        }
    };
}

precision!(cublasSgemm_v2, cublasSgemmStridedBatched, f32, DataType::F32);
precision!(cublasDgemm_v2, cublasDgemmStridedBatched, f64, DataType::F64);

api! {
    fn cublasGemmEx(
        handle: Handle, trans_a: i32, trans_b: i32, m: i32, n: i32, k: i32,
        alpha: *const c_void, a: u64, a_type: i32, lda: i32, b: u64, b_type: i32, ldb: i32,
        beta: *const c_void, c: u64, c_type: i32, ldc: i32, compute: i32, _algorithm: i32,
    ) {
        let types = Types::from_numbers(a_type, b_type, c_type, compute)?;
        let [a, b, c] = [(a, lda), (b, ldb), (c, ldc)].map(|(at, ld)| Matrix { at, ld, stride: 0 });
        // SAFETY: the caller's handle and scalars.
        unsafe { gemm(handle, trans_a, trans_b, (m, n, k), alpha, a, b, beta, c, 1, types) }
    }

    fn cublasGemmStridedBatchedEx(
        handle: Handle, trans_a: i32, trans_b: i32, m: i32, n: i32, k: i32,
        alpha: *const c_void, a: u64, a_type: i32, lda: i32, stride_a: i64,
        b: u64, b_type: i32, ldb: i32, stride_b: i64,
        beta: *const c_void, c: u64, c_type: i32, ldc: i32, stride_c: i64,
        batch: i32, compute: i32, _algorithm: i32,
    ) {
        let types = Types::from_numbers(a_type, b_type, c_type, compute)?;
        let [a, b, c] = [(a, lda, stride_a), (b, ldb, stride_b), (c, ldc, stride_c)]
            .map(|(at, ld, stride)| Matrix { at, ld, stride });
        // SAFETY: the caller's handle and scalars.
        unsafe { gemm(handle, trans_a, trans_b, (m, n, k), alpha, a, b, beta, c, batch, types) }
    }

    /// Half or bfloat16 in, computed and scaled in single precision.
    fn cublasSgemmEx(
        handle: Handle, trans_a: i32, trans_b: i32, m: i32, n: i32, k: i32,
        alpha: *const f32, a: u64, a_type: i32, lda: i32, b: u64, b_type: i32, ldb: i32,
        beta: *const f32, c: u64, c_type: i32, ldc: i32,
    ) {
        const COMPUTE_32F: i32 = 68;
        let types = Types::from_numbers(a_type, b_type, c_type, COMPUTE_32F)?;
        let [a, b, c] = [(a, lda), (b, ldb), (c, ldc)].map(|(at, ld)| Matrix { at, ld, stride: 0 });
        // SAFETY: the caller's handle and scalars.
        unsafe { gemm(handle, trans_a, trans_b, (m, n, k), alpha.cast(), a, b, beta.cast(), c, 1, types) }
    }
}
