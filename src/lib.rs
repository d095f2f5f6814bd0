//! autooffload: an LD_PRELOADed library between a program and the CUDA driver
//! API. It hands out device addresses that never change, keeps the bytes
//! behind them in host memory or VRAM as a plan says, and copies each weight
//! in ahead of the launch that needs it.
//!
//! One launch, from outside in:
//!
//! ```text
//!   program ── cuLaunchKernel ──► hooks::table   the exported symbol
//!                                 hooks::launch  parameters → managed chunks
//!                                 engine::begin  chunks present, waits queued
//!   libcuda ◄── the original ──── hooks          the program's own call
//!                                 engine         last use noted, next copies
//! ```
//!
//! The rooms, in the order of that flow; arrows point one way only,
//! `hooks → engine → {core, driver}` and `hooks → driver`:
//!
//! - [`hooks`]: `extern "C"`, one list of entry points, thin bodies;
//! - [`engine`]: carries plans out: memory, copies, events, account;
//! - `autooffload_core`: decides; pure, a crate of its own (`src/core`);
//! - [`driver`]: the only room that calls CUDA, through originals;
//! - [`config`]: the settings of this process;
//! - [`exports`]: the C functions for tools, the report at exit;
//! - [`lifecycle`]: when all of this is in force.
//!
//! Lifecycle: lookups by constructors, `dlsym` and `cuGetProcAddress` are
//! answered from the first moment, without lock, thread or log. The first
//! `cuInit` that succeeds reads the settings, echoes them and starts the
//! engine. A forked child of such a process is a pass-through. At exit the
//! account is written, without a call to CUDA.

// A test binary exports nothing, or it would interpose itself; so nothing uses
// the hooks there.
#![cfg_attr(test, allow(dead_code, unused_imports))]

mod config;
mod driver;
mod engine;
mod exports;
mod hooks;
mod lifecycle;
