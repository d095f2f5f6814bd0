//! Leaf by leaf, one ahead on a stream, nothing stays but what many leaves
//! share: group offloading at leaf level as diffusers has it. Before a leaf runs, the host waits for its
//! copy; after it has run its memory is dropped, weights are never copied back.

use super::feed::Feed;
use super::order::Order;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Trace, TraceChunk};

pub struct Leaf {
    feed: Feed,
}

impl Leaf {
    pub fn new(trace: &Trace) -> Self {
        Self { feed: Feed::new(Order::of(trace), 1, Evict::Clean, true) }
    }
}

impl Policy for Leaf {
    fn name(&self) -> &'static str {
        "leaf"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let capacity = self.feed.order().capacity(gpu)?;
        let kept = self.feed.order().keep_shared(gpu, capacity / 4);
        let bytes: u64 = kept.iter().map(|&chunk| gpu.bytes(chunk)).sum();
        self.feed.begin(gpu, &kept, capacity - bytes);
        Ok(())
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        self.feed.allocated(gpu, chunk);
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.feed.freed(gpu, chunk);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        self.feed.before(gpu, launch)
    }

    fn after(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        self.feed.after(gpu, launch);
    }
}
