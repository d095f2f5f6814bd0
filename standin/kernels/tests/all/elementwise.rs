//! Elementwise kernels, launched with hand-made parameter blocks.

use crate::common::{Bytes, Host, launch, noise};
use standin_kernels::{Fault, find};

const ADD: &str = "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEESt5arrayIPcLm3EEEEviT0_T1_";
const ADD_STRIDED: &str = "_ZN2at6native18elementwise_kernelILi128ELi2EZNS0_22gpu_kernel_impl_nocastINS0_15CUDAFunctor_addIfEEEEvRNS_18TensorIteratorBaseERKT_EUliE_EEviT1_";
const ADD_CAST: &str = "_ZN2at6native18elementwise_kernelILi128ELi4EZNS0_15gpu_kernel_implINS0_15CUDAFunctor_addIfEEEEvRNS_18TensorIteratorBaseERKT_EUliE_EEviT1_";
const FILL: &str = "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEESt5arrayIPcLm1EEEEviT0_T1_";

fn pointers(addresses: &[u64]) -> Bytes {
    addresses.iter().fold(Bytes::default(), |bytes, &address| bytes.u64(address))
}

#[test]
fn contiguous_add_with_alpha() {
    let memory = Host::default();
    // More than one block, and not a multiple of it.
    let (mut a, mut b, mut out) = (noise(5000, 1), noise(5000, 2), vec![0f32; 5000]);
    let data = pointers(&[memory.map(&mut out), memory.map(&mut a), memory.map(&mut b)]);
    launch(
        ADD,
        [5, 1, 1],
        &[Bytes::default().i32(5000), Bytes::default().f32(-2.0), data],
        &memory,
    )
    .unwrap();
    for i in 0..5000 {
        assert_eq!(out[i], a[i] - 2.0 * b[i]);
    }
}

#[test]
fn strided_add_broadcasts_and_transposes() {
    let memory = Host::default();
    let (mut a, mut b, mut out) = (noise(12, 1), noise(3, 2), vec![0f32; 12]);
    // out[4][3] = a.T (a is 3 × 4) + b broadcast over rows; dimension 0 is the fastest.
    let lambda = Bytes::default()
        .offsets(&[3, 4], &[&[4, 12], &[16, 4], &[4, 0]])
        .u64(memory.map(&mut out))
        .u64(memory.map(&mut a))
        .u64(memory.map(&mut b))
        .f32(1.0)
        .u64(0xdead);
    launch(ADD_STRIDED, [1, 1, 1], &[Bytes::default().i32(12), lambda], &memory).unwrap();
    for i in 0..4 {
        for j in 0..3 {
            assert_eq!(out[i * 3 + j], a[j * 4 + i] + b[j]);
        }
    }
}

#[test]
fn element_types_told_at_run_time_are_converted() {
    let memory = Host::default();
    let (mut a, mut b, mut out) =
        (vec![1i64, -2, 3], vec![half::bf16::from_f32(0.5); 3], vec![0f64; 3]);
    let lambda = Bytes::default()
        .offsets(&[3], &[&[8], &[8], &[2]])
        .u64(memory.map(&mut out))
        .u64(memory.map(&mut a))
        .u64(memory.map(&mut b))
        .f32(2.0)
        // c10::ScalarType: Double, Long, BFloat16.
        .u8(7)
        .u8(4)
        .u8(15)
        .u64(0xdead);
    launch(ADD_CAST, [1, 1, 1], &[Bytes::default().i32(3), lambda], &memory).unwrap();
    assert_eq!(out, [2.0, -1.0, 4.0]);
}

#[test]
fn memory_that_is_not_mapped_is_a_fault() {
    let memory = Host::default();
    let mut out = vec![0f32; 8];
    let address = memory.map(&mut out);
    let parameters =
        |count| [Bytes::default().i32(count), Bytes::default().f32(1.5), pointers(&[address])];
    launch(FILL, [1, 1, 1], &parameters(8), &memory).unwrap();
    assert_eq!(out, [1.5; 8]);
    assert_eq!(
        launch(FILL, [1, 1, 1], &parameters(9), &memory),
        Err(Fault::IllegalAddress { address, bytes: 36, write: true })
    );
}

#[test]
fn a_parameter_block_of_another_shape_is_refused() {
    let memory = Host::default();
    let mut out = vec![0f32; 8];
    let data = pointers(&[memory.map(&mut out)]);
    let wrong =
        launch(FILL, [1, 1, 1], &[Bytes::default().i32(8), Bytes::default().u64(0), data], &memory);
    assert!(matches!(wrong, Err(Fault::Unsupported(_))), "{wrong:?}");
    assert!(find("_Z12unknown_kernelPf").is_none());
    assert!(find("").is_none());
}
