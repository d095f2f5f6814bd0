//! `D = epilogue(alpha · op(A) · op(B) + beta · C + bias)`: the question whether
//! there is an algorithm, and the product itself.

use std::ffi::c_void;

use standin_abi::Gemm;
use standin_blas_common::{DataType, Handle, Operation, Status, launch, say_once, scalar};

use crate::api;
use crate::descriptors::{self, Matrix, Product};

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
pub struct HeuristicResult {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: i32,
    waves: f32,
    reserved: [i32; 4],
}

/// `cublasLtEpilogue_t`: none, or any of ReLU (2), bias (4), GELU (32) that
/// the kernel has.
const EPILOGUES: [i32; 6] = [1, 2, 4, 6, 32, 36];
const EPILOGUE_BIAS: i32 = 4;

/// A product as described, checked to be one that the kernel computes; the
/// addresses and scalars are still 0. Says what it cannot do.
fn prepare(product: &Product, [a, b, c, d]: [&Matrix; 4]) -> Result<Gemm, Status> {
    let refuse = |what: &str| {
        say_once("cuBLASLt", what);
        Err(Status::NOT_SUPPORTED)
    };
    if product.beyond_us || product.pointer_mode != 0 {
        return refuse("a product with scales, auxiliary outputs or scalars in device memory");
    }
    if [a, b, c, d].iter().any(|matrix| matrix.order != 0) {
        return refuse("matrices that are not column-major");
    }
    if a.kind != b.kind || c.kind != d.kind {
        return refuse(&format!("types A {}, B {}, C {}, D {}", a.kind, b.kind, c.kind, d.kind));
    }
    let (Ok(ab_type), Ok(d_type), Ok(_)) = (
        DataType::from_number(a.kind),
        DataType::from_number(d.kind),
        DataType::from_number(product.scale_type),
    ) else {
        return refuse(&format!(
            "types A {}, D {}, scalars {}",
            a.kind, d.kind, product.scale_type
        ));
    };
    if !EPILOGUES.contains(&product.epilogue) {
        return refuse(&format!("epilogue {}", product.epilogue));
    }
    let with_bias = product.epilogue & EPILOGUE_BIAS != 0;
    if with_bias && product.bias_type != -1 && product.bias_type != d.kind {
        return refuse(&format!("a bias of type {} for D of type {}", product.bias_type, d.kind));
    }
    let trans_a = Operation::from_number(product.trans_a)?;
    let trans_b = Operation::from_number(product.trans_b)?;
    let (m, k) = oriented(a, trans_a);
    let (k_of_b, n) = oriented(b, trans_b);
    if k != k_of_b || (d.rows, d.columns) != (m, n) || (c.rows, c.columns) != (m, n) {
        return Err(Status::INVALID_VALUE);
    }
    let extent = |n: u64| i64::try_from(n).map_err(|_| Status::INVALID_VALUE);
    Ok(Gemm {
        a: 0,
        b: 0,
        c: 0,
        d: 0,
        bias: if with_bias { product.bias } else { 0 },
        aux: 0,
        alpha: 0.0,
        beta: 0.0,
        m: extent(m)?,
        n: extent(n)?,
        k: extent(k)?,
        lda: a.ld,
        ldb: b.ld,
        ldc: c.ld,
        ldd: d.ld,
        stride_a: a.stride,
        stride_b: b.stride,
        stride_c: c.stride,
        stride_d: d.stride,
        batch: d.batch,
        trans_a: trans_a.number(),
        trans_b: trans_b.number(),
        ab_type: ab_type.number(),
        d_type: d_type.number(),
        epilogue: product.epilogue,
    })
}

/// Rows and columns of op(matrix).
fn oriented(matrix: &Matrix, op: Operation) -> (u64, u64) {
    match op {
        Operation::Plain => (matrix.rows, matrix.columns),
        Operation::Transposed => (matrix.columns, matrix.rows),
    }
}

/// # Safety
/// All are null or live descriptors of their kinds.
unsafe fn prepare_from(product: Handle, layouts: [Handle; 4]) -> Result<Gemm, Status> {
    let [a, b, c, d] = layouts;
    // SAFETY: the caller's promise.
    unsafe {
        prepare(
            descriptors::get(product)?,
            [
                descriptors::get(a)?,
                descriptors::get(b)?,
                descriptors::get(c)?,
                descriptors::get(d)?,
            ],
        )
    }
}

api! {
    /// One result if the product can be computed, none (and `NOT_SUPPORTED`) if not.
    fn cublasLtMatmulAlgoGetHeuristic(
        _handle: Handle, product: Handle, a: Handle, b: Handle, c: Handle, d: Handle,
        _preference: Handle, wanted: i32, results: *mut HeuristicResult, found: *mut i32,
    ) {
        if results.is_null() || found.is_null() || wanted < 1 {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller's to write.
        unsafe { *found = 0 };
        // SAFETY: the caller's descriptors.
        unsafe { prepare_from(product, [a, b, c, d])? };
        // SAFETY: room for at least one result, as the caller says.
        unsafe {
            *results = HeuristicResult { algorithm: [0; 8], workspace_bytes: 0, state: 0, waves: 1.0, reserved: [0; 4] };
            *found = 1;
        }
        Ok(())
    }

    fn cublasLtMatmul(
        _handle: Handle, product: Handle, alpha: *const c_void, a: u64, a_layout: Handle, b: u64, b_layout: Handle,
        beta: *const c_void, c: u64, c_layout: Handle, d: u64, d_layout: Handle,
        _algorithm: *const c_void, _workspace: u64, _workspace_bytes: usize, stream: Handle,
    ) {
        // SAFETY: the caller's descriptors.
        let gemm = unsafe { prepare_from(product, [a_layout, b_layout, c_layout, d_layout])? };
        // SAFETY: the caller's descriptor, checked by `prepare_from`.
        let scalars = DataType::from_number(unsafe { descriptors::get::<Product>(product)? }.scale_type)?;
        // SAFETY: host scalars of the descriptor's scale type.
        let (alpha, beta) = unsafe { (scalar(alpha, scalars)?, scalar(beta, scalars)?) };
        launch(&Gemm { a, b, c, d, alpha, beta, ..gemm }, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> Product {
        Product {
            compute_type: 68,
            scale_type: 0,
            pointer_mode: 0,
            trans_a: 1,
            trans_b: 0,
            epilogue: EPILOGUE_BIAS,
            bias: 0x1000,
            bias_type: -1,
            beyond_us: false,
        }
    }

    fn matrix(kind: i32, rows: u64, columns: u64) -> Matrix {
        Matrix { kind, order: 0, rows, columns, ld: rows as i64, batch: 1, stride: 0 }
    }

    #[test]
    fn a_linear_layer_becomes_one_gemm() {
        let (weight, x, y) = (matrix(0, 3, 5), matrix(0, 3, 7), matrix(0, 5, 7));
        let gemm = prepare(&product(), [&weight, &x, &y, &y]).unwrap();
        assert_eq!((gemm.m, gemm.n, gemm.k), (5, 7, 3));
        assert_eq!((gemm.trans_a, gemm.trans_b, gemm.bias, gemm.epilogue), (1, 0, 0x1000, 4));
    }

    #[test]
    fn shapes_that_do_not_fit_are_invalid() {
        let (weight, x, y) = (matrix(0, 3, 5), matrix(0, 4, 7), matrix(0, 5, 7));
        assert_eq!(prepare(&product(), [&weight, &x, &y, &y]).unwrap_err(), Status::INVALID_VALUE);
    }

    #[test]
    fn what_the_kernel_lacks_is_refused() {
        let fp8 = 28;
        let (weight, x, y) = (matrix(fp8, 3, 5), matrix(fp8, 3, 7), matrix(0, 5, 7));
        assert_eq!(prepare(&product(), [&weight, &x, &y, &y]).unwrap_err(), Status::NOT_SUPPORTED);
        let (weight, x) = (matrix(0, 3, 5), matrix(0, 3, 7));
        let gelu_with_auxiliary_output = Product { epilogue: 164, ..product() };
        assert_eq!(
            prepare(&gelu_with_auxiliary_output, [&weight, &x, &y, &y]).unwrap_err(),
            Status::NOT_SUPPORTED
        );
    }
}
