//! A discrete-event simulator of one device, and the policies that it compares.
//!
//! Planning is checked with it, benchmarks and forecasts are made of it.
//!
//! ```text
//!   device    the host, streams, engines and memory of one device, in virtual time
//!   run       one policy over one trace: `run(&trace, &setup, &mut policy)`
//!   oracle    what a planner would be told if everything were known
//!   policies  ours, and those that others use
//! ```
//!
//! Not here: what no policy can beat (`workload::bounds`).

pub mod device;
pub mod oracle;
pub mod policies;
pub mod run;

pub use run::{Gpu, Infeasible, Outcome, Policy, Setup, run};
