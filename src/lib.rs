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
//!                                 engine         chunks present, waits queued
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
//! - [`left_behind`]: what there is to read should the process be killed;
//! - [`trace_file`], [`metrics`]: for who wants to look on; [`private_file`];
//! - [`lifecycle`]: when all of this is in force;
//! - [`thread`]: what each thread keeps for itself.
//!
//! One word means one thing, here and in `docs/`:
//!
//! - *frame*: one physical handle of 2 MiB; *budget*: how many there may be.
//! - *chunk*: one managed allocation, the unit of access: a launch that names
//!   any byte of it may touch all of it. PyTorch's *segment* is a chunk.
//! - *resident*: a chunk all of whose frames are its own; *streamed*: one with
//!   frames in the ring. *In place*: frames that are host memory, which kernels
//!   read over the link.
//! - *ring*: the frames that streamed chunks share; *slot*: one of them, by its
//!   number. *Part*: a run of a chunk's frames on consecutive slots, copied as
//!   one; *run*: parts of several chunks that one copy brings.
//! - *piece*: host memory of a run of a chunk's frames.
//! - *operation*: a launch, copy or memset of the program; *use*: what it does
//!   to one chunk, on one stream of one context; *fence*: the wait that a use
//!   of freshly copied bytes needs.
//! - *fetch*: a copy in; *prefetch*: ahead of its use; *demand fetch*: one that
//!   an operation has to wait for; *write-back*: a copy out of what has changed.
//! - *evict*: take a chunk's frames; *pin*: never evict; *hold*: not while this
//!   operation is being queued.
//! - *iteration*: one repetition of the order of uses; *step*: operations in a
//!   row that touch the same; *phase*: iterations over the same chunks; *visit*:
//!   one stretch of them.
//! - *page*: what a process tells of itself to those who watch, 4 KiB of memory
//!   that they share.
//! - *plan*: what is resident, what shares which slots, when each copy starts;
//!   *lead*: how many steps before its use a copy may start.
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
mod left_behind;
mod lifecycle;
mod metrics;
mod private_file;
mod thread;
mod trace_file;
