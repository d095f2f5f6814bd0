//! The seed's way: a window of leaves from the trace of the first run. When a
//! leaf runs, the one a window ahead is loaded on a second stream and the one
//! before is copied back to the host, changed or not. Unloading allocates
//! pageable memory, so the copies run at that rate; nothing stays but what many layers share.

use super::feed::Feed;
use super::order::Order;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Trace, TraceChunk};

pub struct Window {
    feed: Feed,
}

impl Window {
    pub fn new(trace: &Trace) -> Self {
        // The seed's default.
        const LEAVES: usize = 8;
        Self { feed: Feed::new(Order::of(trace), LEAVES, Evict::CopyBack, false) }
    }
}

impl Policy for Window {
    fn name(&self) -> &'static str {
        "window"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let share = gpu.setup().costs.pageable_share;
        gpu.device().set_copy_share(share);
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
