//! The seed's way: a window of leaves from the trace of the first run. When a
//! leaf runs, the one a window ahead is loaded on a second stream and the one
//! before is copied back to the host, changed or not. Unloading allocates
//! pageable memory, so the copies run at that rate; nothing stays but what many
//! layers share.

use super::feed::{Feed, PerModule, shared_only};
use super::order::Order;
use crate::sim::run::Evict;
use crate::workload::Trace;

pub fn window(trace: &Trace) -> PerModule {
    // The seed's default.
    const LEAVES: usize = 8;
    let feed = Feed::new(Order::of(trace), LEAVES, Evict::CopyBack, false);
    PerModule { name: "window", feed, stay: shared_only, pageable: true }
}
