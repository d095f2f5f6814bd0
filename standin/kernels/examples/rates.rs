//! How fast the hot kernels run here: the matrix multiply, and copies.
//!
//!     cargo run --release -p standin-kernels --example rates

use std::time::Instant;

use standin_abi::{GEMM_KERNEL, Gemm};
use standin_kernels::{Fault, Launch, Memory, find};

/// Device addresses are host addresses, unchecked: the buffers below outlive the launches.
struct Host;

impl Memory for Host {
    fn read(&self, address: u64, _bytes: u64) -> Result<*const u8, Fault> {
        Ok(address as *const u8)
    }

    fn write(&self, address: u64, _bytes: u64) -> Result<*mut u8, Fault> {
        Ok(address as *mut u8)
    }
}

fn time(name: &str, layout: &[(u32, u32)], params: &[u8]) -> (f64, f64, f64) {
    let kernel = find(name).expect("a kernel of ours");
    let launch = Launch { name, grid: [1; 3], block: [1; 3], shared_bytes: 0, params, layout };
    let cost = kernel.cost(&launch);
    kernel.run(&launch, &Host).expect("a warm-up");
    let start = Instant::now();
    let mut runs = 0;
    while start.elapsed().as_secs_f64() < 0.5 {
        kernel.run(&launch, &Host).expect("a run");
        runs += 1;
    }
    let seconds = start.elapsed().as_secs_f64() / runs as f64;
    (seconds, cost.flops / seconds / 1e9, cost.bytes / seconds / 1e9)
}

fn main() {
    for (m, n, k, dtype) in [
        (1024, 1024, 1024, 0),
        (4096, 16, 1024, 0),
        (1024, 128, 4096, 0),
        (1024, 1, 1024, 0),
        (4096, 16, 1024, 14),
        (1024, 1024, 1024, 14),
    ] {
        let size = if dtype == 0 { 4 } else { 2 };
        let (a, b) = (vec![0u8; (m * k * size) as usize], vec![0u8; (k * n * size) as usize]);
        let d = vec![0u8; (m * n * size) as usize];
        // As torch's Linear has it: the weight transposed.
        let gemm = Gemm {
            a: a.as_ptr() as u64,
            b: b.as_ptr() as u64,
            c: 0,
            d: d.as_ptr() as u64,
            bias: 0,
            aux: 0,
            alpha: 1.0,
            beta: 0.0,
            m,
            n,
            k,
            lda: k,
            ldb: k,
            ldc: m,
            ldd: m,
            stride_a: 0,
            stride_b: 0,
            stride_c: 0,
            stride_d: 0,
            batch: 1,
            trans_a: 1,
            trans_b: 0,
            ab_type: dtype,
            d_type: dtype,
            epilogue: 1,
        };
        // SAFETY: a Gemm is plain numbers; its bytes are only read.
        let params = unsafe {
            std::slice::from_raw_parts((&raw const gemm).cast::<u8>(), size_of::<Gemm>())
        };
        let (seconds, gflops, gbytes) = time(GEMM_KERNEL, &[(0, size_of::<Gemm>() as u32)], params);
        println!(
            "gemm {m} x {n} x {k} type {dtype}: {:.2} ms, {gflops:.1} GFLOP/s, {gbytes:.1} GB/s",
            seconds * 1e3
        );
    }

    let count = 16usize << 20;
    let (a, b) = (vec![0f32; count], vec![0f32; count]);
    for (label, name, inputs) in [
        (
            "fill f32",
            "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEESt5arrayIPcLm1EEEEviT0_T1_",
            0,
        ),
        (
            "add f32",
            "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEESt5arrayIPcLm3EEEEviT0_T1_",
            2,
        ),
        (
            "add bf16",
            "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIN3c108BFloat16EEESt5arrayIPcLm3EEEEviT0_T1_",
            2,
        ),
    ] {
        let mut params = (count as i32).to_le_bytes().to_vec();
        params.extend(1f32.to_le_bytes());
        for pointer in [b.as_ptr(), a.as_ptr(), a.as_ptr()].iter().take(inputs + 1) {
            params.extend((*pointer as u64).to_le_bytes());
        }
        let (seconds, _, gbytes) =
            time(name, &[(0, 4), (4, 4), (8, 8 * (inputs as u32 + 1))], &params);
        println!("{label}: {:.2} ms, {gbytes:.1} GB/s", seconds * 1e3);
    }
}
