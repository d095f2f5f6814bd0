//! What the processes of one user share: a page each in the runtime directory,
//! and files in the cache directory.
//!
//! ```text
//!   private  directories and files that are the user's own, and nobody else's
//!   page     what a page holds, and how it is read while it is written
//!   live     whose page it is, and whether that process still is
//! ```
//!
//! Whoever reads has no reason to trust what is written: a page's words are
//! numbers to show, never lengths or places.
//!
//! Not here: what the library writes (`engine::account::page`), how it is shown
//! (`cli/src/top`).

pub mod live;
pub mod page;
pub mod private;
