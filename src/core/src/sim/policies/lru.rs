//! Least recently used goes first: fetched on demand, or ahead by someone who
//! knows every use to come.

use super::cache::{Cache, Merit};
use super::future::{Future, NEVER};
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy, Setup};
use crate::workload::{Trace, TraceChunk};

pub struct Lru {
    cache: Cache,
    future: Option<Future>,
}

impl Lru {
    pub fn on_demand(trace: &Trace) -> Self {
        Self { cache: Cache::new(Merit::Recent, Evict::Clean, trace.chunks.len()), future: None }
    }

    /// Sees the future, and uses it to fetch, not to evict.
    pub fn prefetching(trace: &Trace, setup: &Setup) -> Self {
        Self { future: Some(Future::of(trace, &setup.card)), ..Self::on_demand(trace) }
    }
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        if self.future.is_some() { "lru-prefetch" } else { "lru" }
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        self.cache.begin(gpu, self.future.as_ref());
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.cache.freed(gpu, chunk);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        self.cache.demand(gpu, launch, |gpu, chunk, after| {
            gpu.fetch(chunk, gpu.bytes(chunk), after);
        })
    }

    fn after(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        if let Some(future) = &self.future {
            self.cache.used(future, launch.number);
            self.cache.look_ahead(gpu, future, NEVER);
        }
    }
}
