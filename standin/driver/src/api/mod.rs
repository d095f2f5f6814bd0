//! What each entry point does, one file per group of the driver API.
//!
//! Bodies take arguments already converted by `edge`, hold one session, and
//! return a code. Which symbols exist, and with which arguments, is in
//! `exports`; how the GPU behaves is in `engine`.

pub mod capture;
pub mod context;
pub mod copy;
pub mod device;
pub mod event;
pub mod graph;
pub mod graph_nodes;
pub mod host;
pub mod init;
pub mod launch;
pub mod memory;
pub mod module;
pub mod pointer;
pub mod pool;
pub mod stream;
pub mod vmm;
