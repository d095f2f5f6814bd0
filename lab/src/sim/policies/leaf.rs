//! Leaf by leaf, one ahead on a stream, nothing stays but what many leaves
//! share: group offloading at leaf level as diffusers has it. Before a leaf
//! runs, the host waits for its copy; after it has run its memory is dropped,
//! weights are never copied back.

use super::feed::{Feed, PerModule, shared_only};
use super::order::Order;
use crate::sim::run::Evict;
use crate::workload::Trace;

pub fn leaf(trace: &Trace) -> PerModule {
    let feed = Feed::new(Order::of(trace), 1, Evict::Clean, true);
    PerModule { name: "leaf", feed, stay: shared_only, pageable: false }
}
