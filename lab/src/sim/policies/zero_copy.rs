//! The leading layers stay; kernels read the others over the link, whenever
//! they read them.

use super::feed::{leading, place_unmanaged};
use super::order::Order;
use crate::sim::device::Waits;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Nanos, Trace, TraceChunk};

pub struct ZeroCopy {
    order: Order,
    freed: Waits,
}

impl ZeroCopy {
    pub fn new(trace: &Trace) -> Self {
        Self { order: Order::of(trace), freed: Waits::NONE }
    }
}

impl Policy for ZeroCopy {
    fn name(&self) -> &'static str {
        "zero-copy"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let capacity = self.order.capacity(gpu)?;
        for chunk in leading(gpu, &self.order.weights(), capacity) {
            gpu.place(chunk, gpu.bytes(chunk), Waits::NONE);
        }
        place_unmanaged(&self.order, gpu);
        (0..gpu.chunk_count() as TraceChunk).for_each(|chunk| gpu.make_remote(chunk));
        Ok(())
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        gpu.place(chunk, gpu.bytes(chunk), self.freed);
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let freed = gpu.evict(chunk, gpu.present(chunk), Evict::Clean);
        self.freed.merge(&freed);
    }

    fn before(&mut self, _: &mut Gpu, _: Launching<'_>) -> Result<(), Infeasible> {
        Ok(())
    }

    fn duration(&mut self, gpu: &mut Gpu, launch: Launching<'_>, ns: Nanos) -> Nanos {
        let read: u64 = (launch.uses.iter())
            .filter(|used| !gpu.is_present(used.chunk))
            .map(|used| gpu.bytes(used.chunk) * u64::from(used.permille) / 1000)
            .sum();
        gpu.read_over_link(read, ns)
    }
}
