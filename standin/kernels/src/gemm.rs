//! `standin_gemm`, the matrix multiply our cuBLAS launches.
//!
//! The product itself is the `gemm` crate's, single-threaded, so that the same
//! bytes in give the same bytes out. Half types are widened to f32 a whole
//! matrix at a time; the sum is rounded once, as tensor cores do.

use gemm::Parallelism;
use standin_abi::{GEMM_KERNEL, Gemm};

use crate::arithmetic::Real;
use crate::name::Name;
use crate::params::unsupported;
use crate::value::{DType, Lane, load_lanes, store_lanes};
use crate::{Cost, Fault, Kernel, Launch, Memory};

struct Multiply;

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    (name.base == GEMM_KERNEL).then(|| Box::new(Multiply) as Box<dyn Kernel>)
}

/// cublasLtEpilogue_t, as bits.
const RELU: i32 = 2;
const BIAS: i32 = 4;
const GELU: i32 = 32;
/// The auxiliary output of the epilogues a training run asks for.
const AUX: i32 = 128;

impl Kernel for Multiply {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let gemm = decode(launch)?;
        let (Some(input), Some(output)) = (dtype(gemm.ab_type), dtype(gemm.d_type)) else {
            return Err(unsupported(
                launch,
                &format!("cudaDataType {} to {}", gemm.ab_type, gemm.d_type),
            ));
        };
        // 1 is CUBLASLT_EPILOGUE_DEFAULT, not a bit.
        let epilogue = if gemm.epilogue == 1 { 0 } else { gemm.epilogue };
        if epilogue & !(RELU | BIAS | GELU) != 0 || epilogue & AUX != 0 {
            return Err(unsupported(launch, &format!("epilogue {}", gemm.epilogue)));
        }
        if gemm.m < 0 || gemm.n < 0 || gemm.k < 0 || gemm.batch < 0 {
            return Err(unsupported(launch, "a negative size"));
        }
        if input == DType::F64 {
            multiply::<f64>(&gemm, input, output, epilogue, memory)
        } else {
            multiply::<f32>(&gemm, input, output, epilogue, memory)
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let Ok(gemm) = decode(launch) else {
            return Cost::default();
        };
        let (m, n, k, batch) = (gemm.m as f64, gemm.n as f64, gemm.k as f64, gemm.batch as f64);
        let size = |code| dtype(code).map_or(4.0, |dtype| dtype.size() as f64);
        let outputs = if gemm.beta == 0.0 { 1.0 } else { 2.0 };
        Cost {
            bytes: batch
                * (size(gemm.ab_type) * (m * k + k * n) + outputs * size(gemm.d_type) * m * n),
            flops: 2.0 * batch * m * n * k,
        }
    }
}

fn decode(launch: &Launch) -> Result<Gemm, Fault> {
    let expected = size_of::<Gemm>();
    match launch.layout {
        [(0, size)] if *size as usize == expected && launch.params.len() >= expected => {
            // SAFETY: `params` holds at least a Gemm, which is plain numbers: any bytes are a valid one.
            Ok(unsafe { launch.params.as_ptr().cast::<Gemm>().read_unaligned() })
        }
        _ => Err(unsupported(
            launch,
            &format!("parameters that are not one struct of {expected} bytes"),
        )),
    }
}

/// cudaDataType.
fn dtype(code: i32) -> Option<DType> {
    match code {
        0 => Some(DType::F32),
        1 => Some(DType::F64),
        2 => Some(DType::F16),
        14 => Some(DType::BF16),
        _ => None,
    }
}

/// A column-major matrix stack in device memory, checked as a whole.
struct Matrix {
    base: *mut u8,
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Elements between columns, and between matrices of the batch.
    leading: i64,
    stride: i64,
}

impl Matrix {
    #[allow(clippy::too_many_arguments)]
    fn new(
        memory: &dyn Memory,
        address: u64,
        write: bool,
        dtype: DType,
        rows: i64,
        columns: i64,
        leading: i64,
        stride: i64,
        batch: i32,
    ) -> Result<Self, Fault> {
        let empty = rows == 0 || columns == 0 || batch == 0;
        if leading < 0 || stride < 0 {
            return Err(Fault::Unsupported(format!("{GEMM_KERNEL}: a negative stride")));
        }
        let span =
            if empty { 0 } else { (columns - 1) * leading + rows + (batch as i64 - 1) * stride };
        let bytes = span as u64 * dtype.size() as u64;
        let base = if write {
            memory.write(address, bytes)?
        } else {
            memory.read(address, bytes)?.cast_mut()
        };
        Ok(Matrix { base, dtype, rows: rows as usize, columns: columns as usize, leading, stride })
    }

    /// Host pointer of column `column` of matrix `batch`.
    fn column(&self, batch: usize, column: usize) -> *mut u8 {
        let element = batch as i64 * self.stride + column as i64 * self.leading;
        self.base.wrapping_offset(element as isize * self.dtype.size() as isize)
    }

    /// The matrix in lanes, and the distance between its columns: in place if
    /// it is stored that way, else converted into `buffer`.
    fn lanes<L: Lane>(
        &self,
        native: DType,
        batch: usize,
        buffer: &mut Vec<L>,
    ) -> (*const L, isize) {
        if self.dtype == native {
            return (self.column(batch, 0).cast_const().cast(), self.leading as isize);
        }
        buffer.resize(self.rows * self.columns, L::default());
        for (column, lanes) in buffer.chunks_exact_mut(self.rows.max(1)).enumerate() {
            // SAFETY: `new` had every column of every matrix checked.
            unsafe {
                load_lanes(
                    self.dtype,
                    self.column(batch, column),
                    self.dtype.size() as isize,
                    lanes,
                )
            };
        }
        (buffer.as_ptr(), self.rows as isize)
    }
}

fn multiply<R: Real>(
    gemm: &Gemm,
    input: DType,
    output: DType,
    epilogue: i32,
    memory: &dyn Memory,
) -> Result<(), Fault> {
    let native = if size_of::<R>() == 8 { DType::F64 } else { DType::F32 };
    let (m, n, k, batch) = (gemm.m, gemm.n, gemm.k, gemm.batch);
    let shape = |transposed: i32, rows, columns| {
        if transposed == 0 { (rows, columns) } else { (columns, rows) }
    };
    let (a_rows, a_columns) = shape(gemm.trans_a, m, k);
    let (b_rows, b_columns) = shape(gemm.trans_b, k, n);
    let a = Matrix::new(
        memory,
        gemm.a,
        false,
        input,
        a_rows,
        a_columns,
        gemm.lda,
        gemm.stride_a,
        batch,
    )?;
    let b = Matrix::new(
        memory,
        gemm.b,
        false,
        input,
        b_rows,
        b_columns,
        gemm.ldb,
        gemm.stride_b,
        batch,
    )?;
    let d = Matrix::new(memory, gemm.d, true, output, m, n, gemm.ldd, gemm.stride_d, batch)?;
    let c = match gemm.beta {
        // BLAS does not read C when beta is zero: it may hold NaNs.
        0.0 => None,
        _ => {
            Some(Matrix::new(memory, gemm.c, false, output, m, n, gemm.ldc, gemm.stride_c, batch)?)
        }
    };
    let mut bias = vec![R::of(0.0); m as usize];
    if epilogue & BIAS != 0 {
        let source = Matrix::new(memory, gemm.bias, false, output, m, 1, m, 0, 1)?;
        // SAFETY: the line above had the m values checked.
        unsafe { load_lanes(output, source.base, output.size() as isize, &mut bias) };
    }
    if m == 0 || n == 0 {
        return Ok(());
    }

    let (mut a_lanes, mut b_lanes) = (Vec::new(), Vec::new());
    let mut column = vec![R::of(0.0); m as usize];
    // D is written in place when that needs no conversion and C is D or absent.
    let in_place = d.dtype == native
        && (c.is_none()
            || (gemm.c == gemm.d && gemm.ldc == gemm.ldd && gemm.stride_c == gemm.stride_d));
    let mut product = if in_place { Vec::new() } else { vec![R::of(0.0); m as usize * n as usize] };
    for i in 0..batch as usize {
        let (a_at, a_step) = a.lanes(native, i, &mut a_lanes);
        let (b_at, b_step) = b.lanes(native, i, &mut b_lanes);
        let (a_column, a_row) = if gemm.trans_a == 0 { (a_step, 1) } else { (1, a_step) };
        let (b_column, b_row) = if gemm.trans_b == 0 { (b_step, 1) } else { (1, b_step) };
        let (to, to_step, read, beta) = if in_place {
            (d.column(i, 0).cast::<R>(), d.leading as isize, c.is_some(), R::of(gemm.beta))
        } else {
            (product.as_mut_ptr(), m as isize, false, R::of(0.0))
        };
        // SAFETY: the operands' bytes were checked (or are buffers of that
        // size), `to` does not overlap the inputs unless the program's own
        // call does, and the type is f32 or f64, which the crate implements.
        unsafe {
            gemm::gemm(
                m as usize,
                n as usize,
                k as usize,
                to,
                to_step,
                1,
                read,
                a_at,
                a_column,
                a_row,
                b_at,
                b_column,
                b_row,
                beta,
                R::of(gemm.alpha),
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        if in_place && epilogue == 0 {
            continue;
        }
        for j in 0..n as usize {
            // SAFETY: column j of D was checked, or is in `product`.
            unsafe {
                if in_place {
                    load_lanes(native, d.column(i, j), native.size() as isize, &mut column);
                } else {
                    column.copy_from_slice(&product[j * m as usize..][..m as usize]);
                }
            }
            if let Some(c) = c.as_ref().filter(|_| !in_place) {
                let mut old = vec![R::of(0.0); m as usize];
                // SAFETY: column j of C was checked.
                unsafe { load_lanes(output, c.column(i, j), output.size() as isize, &mut old) };
                for (value, old) in column.iter_mut().zip(old) {
                    *value = value.add(R::of(gemm.beta).mul(old));
                }
            }
            finish(&mut column, &bias, epilogue);
            // SAFETY: column j of D was checked for writing.
            unsafe { store_lanes(output, d.column(i, j), output.size() as isize, &column) };
        }
    }
    Ok(())
}

/// Bias, then activation.
fn finish<R: Real>(column: &mut [R], bias: &[R], epilogue: i32) {
    if epilogue & BIAS != 0 {
        for (value, &bias) in column.iter_mut().zip(bias) {
            *value = value.add(bias);
        }
    }
    if epilogue & RELU != 0 {
        for value in column.iter_mut() {
            *value = value.maximum(R::of(0.0));
        }
    }
    if epilogue & GELU != 0 {
        // cuBLASLt's GELU is the tanh approximation.
        for value in column.iter_mut() {
            *value = value.gelu_tanh();
        }
    }
}
