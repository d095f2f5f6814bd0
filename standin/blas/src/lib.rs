//! The stand-in's libcublas: real-valued matrix products, matrix-vector
//! products and dot products in single, double, half and bfloat16 precision.
//!
//! Each is one launch (see `standin-blas-common`). The rest of what PyTorch
//! imports is a generated stub (`standin/stubs`).
//!
//! [`handle`]: handles and their settings · [`level3`]: matrix · matrix ·
//! [`level2`]: matrix · vector, vector · vector.

#![allow(non_snake_case, reason = "CUDA's names are kept as they are")]

mod handle;
mod level2;
mod level3;

/// Defines exported cuBLAS functions; the body is a `Result<(), Status>`.
macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments, reason = "BLAS's own signature")]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> i32 {
            standin_blas_common::guard(|| {
                let outcome: Result<(), standin_blas_common::Status> = $body;
                if outcome == Err(standin_blas_common::Status::NOT_SUPPORTED) {
                    standin_blas_common::say_once("cuBLAS", concat!(stringify!($name), " with these arguments"));
                }
                outcome
            })
        }
    )*};
}
pub(crate) use api;
