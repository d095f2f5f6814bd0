//! What the engine counts, and what the program and the user are told.

pub mod page;
mod passed;
mod progress;
pub mod report;
mod stats;
pub mod told;
mod trace;

pub use page::Publisher;
pub use passed::{Passed, PassedOn};
pub use progress::Progress;
pub use stats::{Stats, WaitReason};
pub use told::Told;
pub use trace::{Event, Memory, Recorded, Trace, What, recorded};
