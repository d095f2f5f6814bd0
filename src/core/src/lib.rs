//! The pure core of autooffload: everything that can be decided without a
//! driver, a clock or a thread, so that it can be reasoned about, simulated
//! and fuzzed.
//!
//! ```text
//!   params       which addresses a launch names
//!   address_map  whose they are
//!   learn        in which order symbols come
//!   order        what chunks and addresses are symbols; what symbols say of chunks
//!   recall       the order of a program, kept for its next start
//!   plan         what stays, what streams, where in the ring, and when
//!   memory       the state of one device's memory, and every decision
//!   agent        when to plan, and what becomes of the answer
//!   zone         who may reuse stream-ordered memory, and after whom
//!   fingerprint  by which a clean weight is told from a written one
//!   host_limits  how much host memory may be taken
//!   unmanaged    what else this process holds of a card
//!   config       the settings table;  units  sizes in words
//! ```
//!
//! Not here: CUDA, threads, clocks, files; models, traces and the simulator (`lab/`).

#![forbid(unsafe_code)]

pub mod address_map;
pub mod agent;
pub mod config;
pub mod fingerprint;
pub mod host_limits;
pub mod learn;
pub mod memory;
pub mod order;
pub mod params;
pub mod plan;
pub mod recall;
pub mod slots;
pub mod units;
pub mod unmanaged;
pub mod zone;
