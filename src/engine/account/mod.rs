//! What the engine counts, and what the program and the user are told.

mod passed;
pub mod report;
mod stats;

pub use passed::{Passed, PassedOn};
pub use stats::{Stats, WaitReason};
