//! What the engine counts, and what the program and the user are told.

pub mod report;
mod stats;

pub use stats::{Stats, WaitReason};
