//! Managed memory: kernels run into page faults and wait for the pages, at the
//! few per cent of the link's rate that faults reach, once the least recently
//! used pages have gone back over the link. Whole chunks stand for pages.

use super::cache::{Cache, Merit};
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Nanos, Trace, TraceChunk};

pub struct DemandPaging {
    cache: Cache,
    /// Bytes that the next kernel faults in.
    missing: u64,
}

impl DemandPaging {
    pub fn new(trace: &Trace) -> Self {
        Self { cache: Cache::new(Merit::Recent, Evict::CopyBack, trace.chunks.len()), missing: 0 }
    }
}

impl Policy for DemandPaging {
    fn name(&self) -> &'static str {
        "demand-paging"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        self.cache.begin(gpu, None);
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        self.cache.freed(gpu, chunk);
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        let mut missing = 0;
        self.cache.demand(gpu, launch, |gpu, chunk, after| {
            let used = launch.uses.iter().find(|used| used.chunk == chunk);
            let permille = used.map_or(1000, |used| u64::from(used.permille));
            // Only what is read is faulted in, and nothing if nothing was ever written.
            if !gpu.is_undefined(chunk) {
                missing += gpu.bytes(chunk) * permille / 1000;
            }
            gpu.page_in(chunk, after);
        })?;
        gpu.kernel_moves(missing, 0);
        self.missing = missing;
        Ok(())
    }

    fn duration(&mut self, gpu: &mut Gpu, _: Launching<'_>, ns: Nanos) -> Nanos {
        let rate = gpu.setup().link_bytes_per_s * gpu.setup().costs.fault_share;
        ns + (self.missing as f64 * 1e9 / rate) as Nanos
    }
}
