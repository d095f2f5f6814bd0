//! Everything stays. Infeasible where it does not fit.

use crate::sim::device::Waits;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::TraceChunk;

#[derive(Default)]
pub struct Resident {
    /// What freed memory must be waited for with.
    freed: Waits,
}

impl Resident {
    fn place(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        if gpu.free() < gpu.bytes(chunk) {
            return Err(Infeasible::new("more chunks than memory"));
        }
        gpu.place(chunk, gpu.bytes(chunk), self.freed);
        Ok(())
    }
}

impl Policy for Resident {
    fn name(&self) -> &'static str {
        "resident"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        (0..gpu.chunk_count() as TraceChunk)
            .filter(|&chunk| gpu.exists(chunk))
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|chunk| self.place(gpu, chunk))
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        self.place(gpu, chunk)
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let waits = gpu.evict(chunk, gpu.present(chunk), Evict::Clean);
        self.freed.merge(&waits);
    }

    fn before(&mut self, _: &mut Gpu, _: Launching<'_>) -> Result<(), Infeasible> {
        Ok(())
    }
}
