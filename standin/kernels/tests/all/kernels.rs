//! The other kernel families, launched with hand-made parameter blocks.

use crate::common::{Bytes, Host, launch, noise};
use standin_abi::{ADD_U32_KERNEL, FILL_U32_KERNEL, GEMM_KERNEL, Gemm};
use standin_kernels::Fault;

fn near(actual: f32, expected: f64, tolerance: f64) {
    assert!(
        (actual as f64 - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{actual} is not {expected}"
    );
}

fn pointer(address: u64) -> Bytes {
    Bytes::default().u64(address)
}

fn gemm(gemm: Gemm, memory: &Host) -> Result<(), Fault> {
    // SAFETY: a Gemm is plain numbers without padding that matters here.
    let bytes =
        unsafe { std::slice::from_raw_parts((&raw const gemm).cast::<u8>(), size_of::<Gemm>()) };
    launch(GEMM_KERNEL, [1, 1, 1], &[Bytes(bytes.to_vec())], memory)
}

fn plain(m: i64, n: i64, k: i64) -> Gemm {
    Gemm {
        a: 0,
        b: 0,
        c: 0,
        d: 0,
        bias: 0,
        aux: 0,
        alpha: 1.0,
        beta: 0.0,
        m,
        n,
        k,
        lda: m,
        ldb: k,
        ldc: m,
        ldd: m,
        stride_a: m * k,
        stride_b: k * n,
        stride_c: m * n,
        stride_d: m * n,
        batch: 1,
        trans_a: 0,
        trans_b: 0,
        ab_type: 0,
        d_type: 0,
        epilogue: 1,
    }
}

#[test]
fn matrix_multiply_transposed_batched_with_beta() {
    let (m, n, k, batch) = (37usize, 19, 53, 3);
    let memory = Host::default();
    let (mut a, mut b, mut d) =
        (noise(m * k * batch, 1), noise(k * n * batch, 2), noise(m * n * batch, 3));
    let old = d.clone();
    for (trans_a, trans_b) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        d.copy_from_slice(&old);
        let to = memory.map(&mut d);
        gemm(
            Gemm {
                a: memory.map(&mut a),
                b: memory.map(&mut b),
                c: to,
                d: to,
                alpha: 0.5,
                beta: 2.0,
                batch: batch as i32,
                trans_a,
                trans_b,
                lda: if trans_a == 0 { m } else { k } as i64,
                ldb: if trans_b == 0 { k } else { n } as i64,
                ..plain(m as i64, n as i64, k as i64)
            },
            &memory,
        )
        .unwrap();
        for i in 0..batch {
            for column in 0..n {
                for row in 0..m {
                    let product: f64 = (0..k)
                        .map(|x| {
                            let a_at = if trans_a == 0 { x * m + row } else { row * k + x };
                            let b_at = if trans_b == 0 { column * k + x } else { x * n + column };
                            a[i * m * k + a_at] as f64 * b[i * k * n + b_at] as f64
                        })
                        .sum();
                    let at = i * m * n + column * m + row;
                    near(d[at], 0.5 * product + 2.0 * old[at] as f64, 1e-5);
                }
            }
        }
    }
}

#[test]
fn matrix_multiply_in_bfloat16_with_bias_and_activation() {
    let (m, n, k) = (24usize, 7, 40);
    let memory = Host::default();
    let narrow =
        |values: Vec<f32>| values.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>();
    let (mut a, mut b, mut bias) =
        (narrow(noise(m * k, 1)), narrow(noise(k * n, 2)), narrow(noise(m, 3)));
    let mut d = vec![half::bf16::ZERO; m * n];
    for (epilogue, activate) in [(6, (|x| x.max(0.0)) as fn(f64) -> f64), (4, |x| x)] {
        gemm(
            Gemm {
                a: memory.map(&mut a),
                b: memory.map(&mut b),
                d: memory.map(&mut d),
                bias: memory.map(&mut bias),
                ab_type: 14,
                d_type: 14,
                epilogue,
                ..plain(m as i64, n as i64, k as i64)
            },
            &memory,
        )
        .unwrap();
        for column in 0..n {
            for row in 0..m {
                let product: f64 =
                    (0..k).map(|x| a[x * m + row].to_f64() * b[column * k + x].to_f64()).sum();
                near(d[column * m + row].to_f32(), activate(product + bias[row].to_f64()), 1e-2);
            }
        }
    }
    let refused = gemm(Gemm { epilogue: 128, ..plain(1, 1, 1) }, &memory);
    assert!(matches!(refused, Err(Fault::Unsupported(_))));
}

#[test]
fn without_beta_the_old_result_is_not_read() {
    let memory = Host::default();
    let (mut a, mut b, mut d) = (vec![1f32; 4], vec![1f32; 4], vec![f32::NAN; 4]);
    let parameters = Gemm {
        a: memory.map(&mut a),
        b: memory.map(&mut b),
        d: memory.map(&mut d),
        ..plain(2, 2, 2)
    };
    gemm(parameters, &memory).unwrap();
    assert_eq!(d, [2.0; 4]);
}

const LAYER_NORM: &str =
    "_ZN2at6native12_GLOBAL__N_128vectorized_layer_norm_kernelIffLb0EEEviT0_PKT_S5_S5_PS2_S6_PS3_";

#[test]
fn layer_norm_rows() {
    let (rows, row) = (3usize, 64usize);
    let memory = Host::default();
    let (mut x, mut gamma) = (noise(rows * row, 1), noise(row, 2));
    let (mut mean, mut rstd, mut y) = (vec![0f32; rows], vec![0f32; rows], vec![0f32; rows * row]);
    let parameters = [
        Bytes::default().i32(row as i32),
        Bytes::default().f32(1e-5),
        pointer(memory.map(&mut x)),
        pointer(memory.map(&mut gamma)),
        pointer(0),
        pointer(memory.map(&mut mean)),
        pointer(memory.map(&mut rstd)),
        pointer(memory.map(&mut y)),
    ];
    launch(LAYER_NORM, [rows as u32, 1, 1], &parameters, &memory).unwrap();
    for i in 0..rows {
        let values: Vec<f64> = x[i * row..][..row].iter().map(|&x| x as f64).collect();
        let average = values.iter().sum::<f64>() / row as f64;
        let variance = values.iter().map(|x| (x - average).powi(2)).sum::<f64>() / row as f64;
        near(mean[i], average, 1e-6);
        near(rstd[i], 1.0 / (variance + 1e-5).sqrt(), 1e-6);
        for j in 0..row {
            near(
                y[i * row + j],
                (values[j] - average) / (variance + 1e-5).sqrt() * gamma[j] as f64,
                1e-5,
            );
        }
    }
}

const SUM: &str = "_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpIfNS0_14func_wrapper_tIfNS0_12_GLOBAL__N_114ReductionAddOpIfEEEEjfLi4ELi4EEEEEvT1_";

/// A ReduceOp over `ops`, laid out as PyTorch does.
fn reduce_op(
    head: Bytes,
    inputs: (&[u32], &[u32]),
    outputs: (&[u32], &[&[u32]]),
    source: u64,
    target: u64,
) -> Bytes {
    let counts =
        [inputs.0.iter().product::<u32>() as i32, outputs.0.iter().product::<u32>() as i32];
    let mut bytes = head.align(4).i32(4).i32(counts[0]).i32(counts[1]);
    for word in [1, 1, 1, 0, 0, 0, 0, 0, 32, 4, 128, 0, 1] {
        bytes = bytes.i32(word);
    }
    bytes
        .offsets(inputs.0, &[inputs.1])
        .offsets(outputs.0, outputs.1)
        .u64(source)
        .u64(target)
        .u64(0)
        .u64(0)
        .u64(0)
        .u64(0)
        .i64(0)
        .u8(0)
        .u8(1)
        .i32(1)
        .align(8)
}

#[test]
fn sums_over_rows_and_over_columns() {
    let memory = Host::default();
    let (mut x, mut out) = (noise(5 * 7, 1), vec![0f32; 7]);
    let (source, target) = (memory.map(&mut x), memory.map(&mut out));
    // An empty functor, then the identity.
    let head = Bytes::default().u8(0).f32(0.0);
    let over_rows = reduce_op(head.clone(), (&[5], &[28]), (&[7], &[&[4], &[4]]), source, target);
    launch(SUM, [1, 1, 1], &[over_rows], &memory).unwrap();
    for (column, sum) in out.iter().enumerate() {
        near(*sum, (0..5).map(|row| x[row * 7 + column] as f64).sum(), 1e-6);
    }
    let over_columns = reduce_op(head, (&[7], &[4]), (&[5], &[&[4], &[28]]), source, target);
    launch(SUM, [1, 1, 1], &[over_columns], &memory).unwrap();
    for row in 0..5 {
        near(out[row], x[row * 7..][..7].iter().map(|&x| x as f64).sum(), 1e-6);
    }
}

const GATHER_ROWS: &str = "_ZN2at6native24vectorized_gather_kernelILi16ElEEvPcS2_PT0_illllb";

#[test]
fn rows_are_gathered_and_bad_indices_refused() {
    let memory = Host::default();
    let (mut table, mut indices, mut out) = (noise(6 * 4, 1), vec![5i64, 0, 3], vec![0f32; 12]);
    let parameters = |indices: u64, table: u64, out: u64| {
        [
            pointer(out),
            pointer(table),
            pointer(indices),
            Bytes::default().i32(3),
            Bytes::default().i64(16),
            Bytes::default().i64(6),
            Bytes::default().i64(16),
            Bytes::default().i64(16),
            Bytes::default().u8(0),
        ]
    };
    let (at, from, to) = (memory.map(&mut indices), memory.map(&mut table), memory.map(&mut out));
    launch(GATHER_ROWS, [3, 1, 1], &parameters(at, from, to), &memory).unwrap();
    assert_eq!(out[..4], table[20..]);
    assert_eq!(out[4..8], table[..4]);
    assert_eq!(out[8..], table[12..16]);
    indices[1] = 6;
    let refused = launch(GATHER_ROWS, [3, 1, 1], &parameters(at, from, to), &memory);
    assert!(
        matches!(&refused, Err(Fault::Unsupported(why)) if why.contains("out of bounds")),
        "{refused:?}"
    );
}

const TRIL: &str = "_ZN2at6native16triu_tril_kernelIfiLb0ELi2ELb0EEEvNS_4cuda6detail10TensorInfoIT_T0_EENS4_IKS5_S6_EEllS6_";

#[test]
fn a_triangle_is_kept() {
    let memory = Host::default();
    let (mut x, mut out) = (noise(12, 1), vec![9f32; 12]);
    let parameters = [
        Bytes::default().tensor(memory.map(&mut out), &[3, 4], &[4, 1]),
        Bytes::default().tensor(memory.map(&mut x), &[3, 4], &[4, 1]),
        Bytes::default().i64(0),
        Bytes::default().i64(12),
        Bytes::default().i32(4),
    ];
    launch(TRIL, [1, 1, 1], &parameters, &memory).unwrap();
    for i in 0..12 {
        assert_eq!(out[i], if i % 4 <= i / 4 { x[i] } else { 0.0 });
    }
}

#[test]
fn the_stand_ins_own_kernels() {
    let memory = Host::default();
    let (mut a, mut b) = (vec![0u32; 5000], vec![u32::MAX; 5000]);
    let (to, from) = (memory.map(&mut a), memory.map(&mut b));
    launch(
        FILL_U32_KERNEL,
        [1, 1, 1],
        &[pointer(to), Bytes::default().u64(5000), Bytes::default().i32(7)],
        &memory,
    )
    .unwrap();
    assert_eq!(a, [7; 5000]);
    launch(
        ADD_U32_KERNEL,
        [1, 1, 1],
        &[pointer(to), pointer(from), Bytes::default().u64(5000)],
        &memory,
    )
    .unwrap();
    assert_eq!(a, [6; 5000]);
}
