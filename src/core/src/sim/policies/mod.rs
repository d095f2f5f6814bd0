//! What decides which chunk is where: ours, and what others do.
//!
//! Each peer is modelled at its best: it counts on bytes, not on places; it
//! knows that weights are not written to; its copies are pinned unless its text
//! says otherwise; and those that work per module know the modules' order.
//!
//! ```text
//!   planned         a plan of `plan`, carried out by one who knows the position
//!   resident        everything stays: the yardstick where it fits
//! ```

pub mod planned;
pub mod resident;

pub use planned::Planned;
pub use resident::Resident;
