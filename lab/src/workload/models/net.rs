//! A network as a list of operations over tensors: what the tables of
//! `image`, `video` and `language` are written in.
//!
//! Work is counted as published: a product of an `m × k` with a `k × n` matrix
//! is 2mkn operations; traffic is operands and result once, at two bytes an
//! element. Attention counts 4·q·kv·width, its traffic q, k, v and the result
//! (the scores stay on chip).

use super::allocator::Allocator;
use crate::workload::{Builder, Event, Launch, Use};

/// Bytes of one element: bf16 everywhere.
pub const ELEMENT: u64 = 2;

/// One tensor of the weights.
struct Tensor {
    bytes: u64,
    /// Modules are registered, and so allocated, in the order of this number;
    /// within it in the order of use.
    section: u8,
}

/// One operation: a launch of its own.
struct Operation {
    /// Tensors, and how much of each is read.
    reads: Vec<(u32, u16)>,
    flops: u64,
    bytes: u64,
    kernels: u16,
}

/// A network in the making.
#[derive(Default)]
pub struct Net {
    tensors: Vec<Tensor>,
    operations: Vec<Operation>,
    /// First operation of each block.
    blocks: Vec<usize>,
    section: u8,
}

impl Net {
    /// Modules from here on are registered in section `section`.
    pub fn section(&mut self, section: u8) {
        self.section = section;
    }

    /// A block begins: what step caches skip and offloaders move as one.
    pub fn block(&mut self) {
        self.blocks.push(self.operations.len());
    }

    fn tensor(&mut self, elements: u64) -> u32 {
        self.tensors.push(Tensor { bytes: elements * ELEMENT, section: self.section });
        self.tensors.len() as u32 - 1
    }

    fn operation(&mut self, reads: Vec<(u32, u16)>, flops: u64, bytes: u64, kernels: u16) {
        self.operations.push(Operation { reads, flops, bytes, kernels });
    }

    /// `rows × inputs` by a weight of `inputs × outputs`.
    pub fn linear(&mut self, rows: u64, inputs: u64, outputs: u64, bias: bool) {
        let mut reads = vec![(self.tensor(inputs * outputs), 1000)];
        if bias {
            reads.push((self.tensor(outputs), 1000));
        }
        let bytes = ELEMENT * (rows * inputs + inputs * outputs + rows * outputs);
        self.operation(reads, 2 * rows * inputs * outputs, bytes, 1);
    }

    /// A convolution with square kernels over `pixels` of output, all images
    /// of the batch together.
    pub fn conv(&mut self, pixels: u64, inputs: u64, outputs: u64, kernel: u64) {
        let taps = kernel * kernel;
        let reads =
            vec![(self.tensor(inputs * outputs * taps), 1000), (self.tensor(outputs), 1000)];
        let bytes = ELEMENT * (pixels * inputs + inputs * outputs * taps + pixels * outputs);
        self.operation(reads, 2 * pixels * inputs * outputs * taps, bytes, 1);
    }

    /// `batch` times attention of `queries` to `keys`, heads together `width`
    /// wide, keys and values `key_width`.
    pub fn attention(&mut self, batch: u64, queries: u64, keys: u64, width: u64, key_width: u64) {
        let flops = 4 * batch * queries * keys * width;
        let bytes = ELEMENT * batch * (2 * queries * width + 2 * keys * key_width);
        self.operation(Vec::new(), flops, bytes, 1);
    }

    /// `kernels` elementwise ones, each reading and writing `elements`.
    pub fn elementwise(&mut self, elements: u64, kernels: u16) {
        let bytes = 2 * ELEMENT * elements * u64::from(kernels);
        self.operation(Vec::new(), 0, bytes, kernels);
    }

    /// A norm over rows of `width` with a scale (and a shift) of its own.
    pub fn norm(&mut self, rows: u64, width: u64, shift: bool) {
        let mut reads = vec![(self.tensor(width), 1000)];
        if shift {
            reads.push((self.tensor(width), 1000));
        }
        self.operation(reads, 0, 2 * ELEMENT * rows * width, 1);
    }

    /// A bare parameter added to `rows` of `width`.
    pub fn parameter(&mut self, elements: u64, rows: u64, width: u64) {
        let reads = vec![(self.tensor(elements), 1000)];
        self.operation(reads, 0, 2 * ELEMENT * rows * width, 1);
    }

    /// `rows` looked up in a table of `vocabulary`.
    pub fn embedding(&mut self, rows: u64, vocabulary: u64, width: u64) {
        let permille = (1000 * rows / vocabulary).clamp(1, 1000) as u16;
        let table = self.tensor(vocabulary * width);
        self.operation(vec![(table, permille)], 0, 2 * ELEMENT * rows * width, 1);
    }

    /// `count` matrices in one tensor, of which `used` are read by one grouped
    /// product of `rows` rows in all.
    pub fn stacked(&mut self, rows: u64, inputs: u64, outputs: u64, count: u64, used: u64) {
        let stack = self.tensor(inputs * outputs * count);
        let bytes = ELEMENT * (rows * inputs + used * inputs * outputs + rows * outputs);
        let permille = (1000 * used).div_ceil(count) as u16;
        self.operation(vec![(stack, permille)], 2 * rows * inputs * outputs, bytes, 1);
    }

    /// Allocates the tensors, in the order of registration.
    pub fn place(self, builder: &mut Builder, allocator: &mut Allocator) -> Placed {
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|tensor| self.tensors[*tensor].section);
        let mut chunk_of = vec![0; self.tensors.len()];
        for tensor in order {
            chunk_of[tensor] = allocator.place(builder, self.tensors[tensor].bytes);
        }
        let launches = self.operations.iter().map(|operation| {
            let mut uses: Vec<Use> = Vec::new();
            for &(tensor, permille) in &operation.reads {
                let chunk = chunk_of[tensor as usize];
                // Of a chunk with several tensors the kernel reads only this
                // one's share.
                let size = builder.trace().chunks[chunk as usize];
                let read = self.tensors[tensor as usize].bytes as f64 * f64::from(permille);
                let permille = ((read / size as f64).ceil() as u16).clamp(1, 1000);
                match uses.iter_mut().find(|known| known.chunk == chunk) {
                    Some(known) => known.permille = (known.permille + permille).min(1000),
                    None => uses.push(Use { chunk, permille, writes: false }),
                }
            }
            let work = Launch {
                first_use: 0,
                use_count: 0,
                ns: 0,
                flops: operation.flops,
                bytes: operation.bytes,
                kernels: operation.kernels,
            };
            (work, uses)
        });
        Placed { launches: launches.collect(), blocks: self.blocks }
    }
}

/// A network with its weights in chunks, ready to run.
pub struct Placed {
    launches: Vec<(Launch, Vec<Use>)>,
    blocks: Vec<usize>,
}

impl Placed {
    /// One pass, marked as an iteration of `phase`.
    pub fn run(&self, builder: &mut Builder, phase: u16) {
        self.run_blocks(builder, phase, |_| 1);
    }

    /// One pass in which block `i` runs `times(i)` times. What stands before
    /// the first block always runs; what stands after the last belongs to it.
    pub fn run_blocks(&self, builder: &mut Builder, phase: u16, times: impl Fn(usize) -> usize) {
        builder.event(Event::Iteration { phase });
        let head = self.blocks.first().copied().unwrap_or(self.launches.len());
        self.range(builder, 0..head);
        for block in 0..self.blocks.len() {
            for _ in 0..times(block) {
                self.range(builder, self.block_range(block));
            }
        }
    }

    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// What a block touches and does, launch by launch.
    pub fn block_launches(&self, block: usize) -> &[(Launch, Vec<Use>)] {
        &self.launches[self.block_range(block)]
    }

    /// Without a mark.
    pub fn run_block(&self, builder: &mut Builder, block: usize) {
        self.range(builder, self.block_range(block));
    }

    fn block_range(&self, block: usize) -> std::ops::Range<usize> {
        self.blocks[block]..self.blocks.get(block + 1).copied().unwrap_or(self.launches.len())
    }

    fn range(&self, builder: &mut Builder, range: std::ops::Range<usize>) {
        for (work, uses) in &self.launches[range] {
            builder.launch(*work, uses);
        }
    }
}
