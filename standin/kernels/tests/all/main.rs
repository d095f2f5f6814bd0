//! The kernels over hand-made parameter blocks: one binary, so that all of
//! what the tests share is used.

mod addresses;
mod common;
mod elementwise;
mod kernels;
mod ptx;
