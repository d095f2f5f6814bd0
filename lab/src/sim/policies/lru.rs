//! Least recently used goes first: fetched on demand, or ahead by someone who
//! knows every use to come.

use super::cache::{Merit, PerChunk};
use super::future::{Future, NEVER};
use crate::sim::run::Setup;
use crate::workload::Trace;
use std::rc::Rc;

pub fn on_demand(trace: &Trace) -> PerChunk {
    PerChunk::new("lru", trace, Merit::Recent, None)
}

/// Sees the future, and uses it to fetch, not to evict.
pub fn prefetching(trace: &Trace, setup: &Setup) -> PerChunk {
    let future = Rc::new(Future::of(trace, &setup.card));
    PerChunk::new("lru-prefetch", trace, Merit::Recent, Some((future, NEVER)))
}
