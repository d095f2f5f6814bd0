//! The stand-in's libcublasLt: matrix products with an epilogue.
//!
//! [`descriptors`] keeps what the program set; [`matmul`] turns it into one
//! launch (see `standin-blas-common`). What the GEMM kernel has no case for
//! is refused when the program asks for an algorithm, so that it can choose
//! another way.

#![allow(non_snake_case, reason = "CUDA's names are kept as they are")]

mod descriptors;
mod matmul;

/// Defines exported cuBLASLt functions; the body is a `Result<(), Status>`.
macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments, reason = "cuBLASLt's own signature")]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> i32 {
            standin_blas_common::guard(|| $body)
        }
    )*};
}
pub(crate) use api;

/// The version whose behaviour is imitated: cuBLAS 13.0.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    130_000
}
