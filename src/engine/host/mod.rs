//! Host memory: where it comes from, within which limits, and how it is laid
//! side by side. Not here: which chunk needs it, and when (see `device`).

pub mod fair;
mod populate;
mod record;
mod shared_blocks;
mod store;

pub use record::{Record, Span};
pub use shared_blocks::SharedBlocks;
pub use store::{HostBuffer, HostStore};
