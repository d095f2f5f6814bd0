//! What the stand-in's cuBLAS and cuBLASLt share: result codes and number
//! types, and the launch of the one kernel everything comes down to.
//!
//! Every matrix product becomes one `cuLaunchKernel` of `standin_gemm`, with
//! all its arguments in one by-value struct, as in cuBLAS's own kernels. What
//! cannot be expressed that way is refused with `NOT_SUPPORTED`, by name.
//!
//! Not here: the arithmetic (`standin/kernels`), the exported functions
//! (`standin/blas`, `standin/blas/lt`).

mod driver;
mod launch;
mod types;
mod unsupported;

pub use launch::launch;
pub use types::{DataType, Handle, Operation, Status, guard, scalar};
pub use unsupported::say_once;
