//! The stand-in's libcudart: the CUDA runtime API of CUDA 13 and, in
//! [`cuda12`], what CUDA 12 declares otherwise, as far as PyTorch
//! uses it, over the public driver API.
//!
//! A translation and nothing more: it holds no memory, no queues and no
//! device state. What it does hold is what the runtime API adds to the
//! driver's: the current device and last error of a thread ([`context`],
//! [`error`]) and the kernels a program registered at start-up ([`registry`]).
//!
//! Every driver function is obtained through `cuGetProcAddress_v2`, as NVIDIA's
//! runtime does, so that whatever watches the driver API on a real machine
//! sees the same kinds of calls here.
//!
//! The API groups, one file each: [`device`], [`memory`], [`copy`], [`pool`],
//! [`stream`], [`event`], [`launch`], [`function`], [`graph`], [`ipc`], [`entry`].
//!
//! Not here: what a call does (that is `standin/driver`).

#![allow(non_snake_case, reason = "CUDA's names are kept as they are")]

mod abi;
mod context;
mod copy;
mod cuda12;
mod device;
mod driver;
mod entry;
mod error;
mod event;
mod function;
mod graph;
mod ipc;
mod launch;
mod memory;
mod pool;
mod properties;
mod registry;
mod stream;

/// Tells the stand-in's driver that the libcudart in this process is ours: it
/// refuses to serve NVIDIA's.
#[unsafe(no_mangle)]
pub static standin_runtime_marker: u32 = 1;

/// Defines exported runtime functions that return a `cudaError_t`.
///
/// The body is a `Result<(), Status>`; a failure becomes the thread's last
/// error, and a panic becomes `cudaErrorUnknown` instead of unwinding into C.
macro_rules! api {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> i32 {
            $crate::error::guard(|| $body)
        }
    )*};
}
pub(crate) use api;
