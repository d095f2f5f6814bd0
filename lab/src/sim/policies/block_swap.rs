//! Block swap: a model's layers in blocks, the leading blocks stay, the others
//! take turns in two slots. On entering one of these the host waits for the
//! device, drops the block before, and starts the copy of the block after.
//!
//! A block is a run of layers with a fortieth of the model's bytes: large
//! transformers have 30 to 60. What several blocks use stays.

use super::feed::place_unmanaged;
use super::order::Order;
use crate::sim::device::Waits;
use crate::sim::run::{Evict, Gpu, Infeasible, Launching, Policy};
use crate::workload::{Trace, TraceChunk};

pub struct BlockSwap {
    order: Order,
    /// Chunks of each block; the blocks of each model in order.
    blocks: Vec<Vec<TraceChunk>>,
    models: Vec<Vec<usize>>,
    /// Block of each chunk, and model of each block.
    block_of: Vec<Option<usize>>,
    model_of: Vec<usize>,
    /// What several blocks use.
    shared: Vec<TraceChunk>,
    resident: Vec<bool>,
    now: Option<usize>,
    /// Blocks that are swapped in.
    held: Vec<usize>,
    freed: Waits,
}

impl BlockSwap {
    pub fn new(trace: &Trace) -> Self {
        const BLOCKS: u64 = 40;
        let order = Order::of(trace);
        let mut blocks: Vec<Vec<TraceChunk>> = Vec::new();
        let mut models = Vec::new();
        let mut model_of = Vec::new();
        let mut block_of: Vec<Option<usize>> = vec![None; trace.chunks.len()];
        for model in 0..order.sequences.len() {
            let own: Vec<TraceChunk> = (order.modules(model).into_iter())
                .filter(|&chunk| block_of[chunk as usize].is_none())
                .collect();
            let bytes = |chunk: TraceChunk| trace.chunks[chunk as usize];
            let least = own.iter().map(|&chunk| bytes(chunk)).sum::<u64>() / BLOCKS;
            let mut list = Vec::new();
            let mut left = 0;
            for chunk in own {
                if left == 0 {
                    list.push(blocks.len());
                    model_of.push(model);
                    blocks.push(Vec::new());
                    left = least.max(1);
                }
                let last = blocks.len() - 1;
                blocks[last].push(chunk);
                block_of[chunk as usize] = Some(last);
                left = left.saturating_sub(bytes(chunk));
            }
            models.push(list);
        }
        let mut shared = Vec::new();
        for sequence in &order.sequences {
            // The block that the layers have come to.
            let mut now = None;
            for &chunk in sequence {
                let own = block_of[chunk as usize];
                if own > now {
                    now = own;
                } else if let Some(own) = own
                    && Some(own) != now
                {
                    blocks[own].retain(|&other| other != chunk);
                    block_of[chunk as usize] = None;
                    shared.push(chunk);
                }
            }
        }
        let resident = vec![false; blocks.len()];
        Self {
            order,
            blocks,
            models,
            block_of,
            model_of,
            shared,
            resident,
            now: None,
            held: Vec::new(),
            freed: Waits::NONE,
        }
    }

    fn bytes(&self, gpu: &Gpu, block: usize) -> u64 {
        self.blocks[block].iter().map(|&chunk| gpu.bytes(chunk)).sum()
    }

    /// The swapped block after `block`, round and round.
    fn next(&self, block: usize) -> Option<usize> {
        let list = &self.models[self.model_of[block]];
        let at = list.iter().position(|&other| other == block)?;
        let following = list[at + 1..].iter().chain(&list[..at]).copied();
        following.into_iter().find(|&other| !self.resident[other])
    }

    fn drop(&mut self, gpu: &mut Gpu, block: usize) {
        for &chunk in &self.blocks[block] {
            let freed = gpu.evict(chunk, gpu.present(chunk), Evict::Clean);
            self.freed.merge(&freed);
        }
        self.held.retain(|&other| other != block);
    }

    fn fetch(&mut self, gpu: &mut Gpu, block: usize) -> Result<(), Infeasible> {
        if self.bytes(gpu, block) > gpu.free() {
            return Err(Infeasible::new("two blocks do not fit"));
        }
        for &chunk in &self.blocks[block] {
            gpu.fetch(chunk, gpu.bytes(chunk), self.freed);
        }
        self.held.push(block);
        Ok(())
    }

    fn enter(&mut self, gpu: &mut Gpu, block: usize) -> Result<(), Infeasible> {
        self.now = Some(block);
        if !self.resident[block] {
            gpu.wait_for_kernels();
        }
        let ahead = self.next(block);
        let over: Vec<usize> = (self.held.iter().copied())
            .filter(|&held| held != block && Some(held) != ahead)
            .collect();
        over.into_iter().for_each(|held| self.drop(gpu, held));
        if !self.resident[block] && !self.held.contains(&block) {
            self.fetch(gpu, block)?;
        }
        if let Some(ahead) = ahead
            && ahead != block
            && !self.held.contains(&ahead)
        {
            self.fetch(gpu, ahead)?;
        }
        Ok(())
    }
}

impl Policy for BlockSwap {
    fn name(&self) -> &'static str {
        "block-swap"
    }

    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let two = || Infeasible::new("two blocks do not fit");
        let shared: u64 = self.shared.iter().map(|&chunk| gpu.bytes(chunk)).sum();
        let capacity = self.order.capacity(gpu)?.checked_sub(shared).ok_or_else(two)?;
        for &chunk in &self.shared {
            gpu.place(chunk, gpu.bytes(chunk), Waits::NONE);
        }
        let all: u64 = (0..self.blocks.len()).map(|block| self.bytes(gpu, block)).sum();
        let largest = (0..self.blocks.len()).map(|block| self.bytes(gpu, block)).max();
        let slots = if all <= capacity { 0 } else { 2 * largest.unwrap_or(0) };
        let mut left = capacity.checked_sub(slots).ok_or_else(two)?;
        // The model that runs most first.
        let mut known = vec![false; self.models.len()];
        for chunk in self.order.weights() {
            let Some(block) = self.block_of[chunk as usize] else { continue };
            let model = self.model_of[block];
            if std::mem::replace(&mut known[model], true) {
                continue;
            }
            for index in 0..self.models[model].len() {
                let block = self.models[model][index];
                let Some(rest) = left.checked_sub(self.bytes(gpu, block)) else { break };
                left = rest;
                self.resident[block] = true;
                for &chunk in &self.blocks[block] {
                    gpu.place(chunk, gpu.bytes(chunk), Waits::NONE);
                }
            }
        }
        place_unmanaged(&self.order, gpu);
        Ok(())
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        gpu.place(chunk, gpu.bytes(chunk), self.freed);
        Ok(())
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let freed = gpu.evict(chunk, gpu.present(chunk), Evict::Clean);
        self.freed.merge(&freed);
        if let Some(block) = self.block_of[chunk as usize].take() {
            self.blocks[block].retain(|&other| other != chunk);
        }
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        for used in launch.uses {
            if self.order.unmanaged(used.chunk) {
                continue;
            }
            if let Some(block) = self.block_of[used.chunk as usize]
                && self.now != Some(block)
            {
                self.enter(gpu, block)?;
            }
        }
        if launch.uses.iter().any(|used| !gpu.is_present(used.chunk)) {
            return Err(Infeasible::new("one launch uses several blocks"));
        }
        Ok(())
    }
}
