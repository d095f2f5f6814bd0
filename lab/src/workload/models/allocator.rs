//! How tensors come to lie in device allocations.
//!
//! The rules are those of PyTorch's native caching allocator, as its design
//! notes publish them: sizes are rounded up to 512 bytes; a request below 1 MiB
//! is cut from a 2 MiB segment, one below 10 MiB from a 20 MiB segment, a larger
//! one has a segment of its own, rounded up to 2 MiB; the smallest free block
//! that fits is taken first (the lower address on a tie), and what is left of it
//! stays free when it is worth keeping. Weights are loaded once and stay, so
//! nothing is freed here.

use crate::workload::{Builder, TraceChunk};

const MIB: u64 = 1 << 20;

/// How tensors are put into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As PyTorch does: a chunk may hold several tensors.
    Caching,
    /// Each tensor of 1 MiB or more is a chunk, rounded up to 2 MiB; smaller
    /// ones are packed as [`Self::Caching`] packs them.
    PerTensor,
    /// Each tensor a chunk of its very size.
    #[cfg(test)]
    Exact,
}

/// Puts tensors into chunks, in the order of their allocation.
pub struct Allocator {
    packing: Packing,
    small: Vec<Block>,
    large: Vec<Block>,
}

/// The free end of a segment.
struct Block {
    chunk: TraceChunk,
    bytes: u64,
}

impl Allocator {
    pub fn new(packing: Packing) -> Self {
        Self { packing, small: Vec::new(), large: Vec::new() }
    }

    /// The chunk that holds a new tensor of `bytes`.
    pub fn place(&mut self, builder: &mut Builder, bytes: u64) -> TraceChunk {
        #[cfg(test)]
        if self.packing == Packing::Exact {
            return builder.chunk(bytes);
        }
        let bytes = bytes.max(1).next_multiple_of(512);
        let is_small = bytes <= MIB;
        if self.packing == Packing::PerTensor && !is_small {
            return builder.chunk(bytes.next_multiple_of(2 * MIB));
        }
        let free = if is_small { &mut self.small } else { &mut self.large };
        // Chunks are numbered by address, and each has at most one free block.
        let best = (0..free.len())
            .filter(|block| free[*block].bytes >= bytes)
            .min_by_key(|block| (free[*block].bytes, free[*block].chunk));
        let best = best.unwrap_or_else(|| {
            let segment = match bytes {
                _ if is_small => 2 * MIB,
                ..10_485_760 => 20 * MIB,
                _ => bytes.next_multiple_of(2 * MIB),
            };
            free.push(Block { chunk: builder.chunk(segment), bytes: segment });
            free.len() - 1
        });
        let chunk = free[best].chunk;
        free[best].bytes -= bytes;
        // A remainder of 1 MiB or less is not split off a large block, one of
        // less than 512 bytes not off a small one: it is lost.
        if free[best].bytes < 512 || (!is_small && free[best].bytes <= MIB) {
            free.swap_remove(best);
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(packing: Packing, sizes: &[u64]) -> (Vec<TraceChunk>, Vec<u64>) {
        let mut builder = Builder::new("", 0);
        let mut allocator = Allocator::new(packing);
        let chunks = sizes.iter().map(|bytes| allocator.place(&mut builder, *bytes)).collect();
        (chunks, builder.finish().chunks)
    }

    #[test]
    fn segments_are_shared_by_size() {
        let sizes = [1000, 18 * MIB, 3 * MIB, MIB, 9 * MIB, 8 * MIB, 11 * MIB - 7, 512];
        let (chunks, segments) = place(Packing::Caching, &sizes);
        // The one of 1 MiB fits beside the first; 3 + 9 + 8 make 20; 11 MiB has
        // its own.
        assert_eq!(chunks, [0, 1, 2, 0, 2, 2, 3, 0]);
        assert_eq!(segments, [2 * MIB, 18 * MIB, 20 * MIB, 12 * MIB]);
    }

    #[test]
    fn the_smallest_gap_that_fits_is_taken() {
        // Two segments of 20 MiB with 11.5 and 12 MiB left.
        let sizes = [17 * MIB / 2, 17 * MIB / 2, 8 * MIB, 9 * MIB, 3 * MIB];
        let (chunks, segments) = place(Packing::Caching, &sizes);
        assert_eq!(chunks[0], chunks[1]);
        assert_eq!(chunks[2], chunks[3]);
        assert_eq!(segments, [20 * MIB, 20 * MIB]);
        // 3 MiB are left in both: the lower address.
        assert_eq!(chunks[4], chunks[0]);
    }

    #[test]
    fn each_large_tensor_for_itself() {
        let (chunks, segments) = place(Packing::PerTensor, &[3 * MIB, 3 * MIB, 100, 200]);
        assert_eq!(chunks, [0, 1, 2, 2]);
        assert_eq!(segments, [4 * MIB, 4 * MIB, 2 * MIB]);
    }
}
