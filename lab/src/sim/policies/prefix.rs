//! Resident prefix and a double buffer: the leading layers stay, the others
//! pass through a buffer of twice the largest of them, as far ahead as it
//! allows. A few outliers stay as well where they fit: embeddings, heads,
//! small tensors of many layers in one allocation.

use super::feed::{Feed, PerModule, leading};
use super::order::Order;
use crate::sim::run::{Evict, Gpu, Infeasible};
use crate::workload::{Trace, TraceChunk};

pub fn prefix(trace: &Trace) -> PerModule {
    // As deep as two slots of the largest reach in the smallest: enough.
    const DEPTH: usize = 32;
    let feed = Feed::new(Order::of(trace), DEPTH, Evict::Clean, false);
    PerModule { name: "prefix", feed, stay, pageable: false }
}

fn stay(order: &Order, gpu: &Gpu) -> Result<(Vec<TraceChunk>, u64), Infeasible> {
    let capacity = order.capacity(gpu)?;
    let weights = order.weights();
    if weights.iter().map(|&chunk| gpu.bytes(chunk)).sum::<u64>() <= capacity {
        return Ok((weights, 0));
    }
    let mut residents = order.keep_shared(gpu, capacity / 4);
    residents.extend(outliers(gpu, &weights, capacity / 2));
    residents.sort_unstable();
    residents.dedup();
    let rest: Vec<TraceChunk> =
        weights.into_iter().filter(|chunk| residents.binary_search(chunk).is_err()).collect();
    let kept: u64 = residents.iter().map(|&chunk| gpu.bytes(chunk)).sum();
    // A shorter prefix may leave larger ones to be streamed: the buffer is
    // for the largest of what is streamed in the end.
    let mut slots = 0;
    loop {
        let left = (capacity - kept)
            .checked_sub(slots)
            .ok_or_else(|| Infeasible::new("two slots of the largest layer do not fit"))?;
        let leading = leading(gpu, &rest, left);
        let largest = rest[leading.len()..].iter().map(|&c| gpu.bytes(c)).max().unwrap_or(0);
        if 2 * largest <= slots {
            let prefix: u64 = leading.iter().map(|&chunk| gpu.bytes(chunk)).sum();
            residents.extend(leading);
            return Ok((residents, capacity - kept - prefix));
        }
        slots = 2 * largest;
    }
}

/// Weights that are much larger than the others, as many as fit into `bytes`.
fn outliers(gpu: &Gpu, weights: &[TraceChunk], bytes: u64) -> Vec<TraceChunk> {
    let mut by_size: Vec<TraceChunk> = weights.to_vec();
    by_size.sort_by_key(|&chunk| std::cmp::Reverse(gpu.bytes(chunk)));
    let total: u64 = weights.iter().map(|&chunk| gpu.bytes(chunk)).sum();
    // Half of all bytes are in chunks of this size or larger.
    let mut seen = 0;
    let typical = by_size.iter().map(|&chunk| gpu.bytes(chunk)).find(|&bytes| {
        seen += bytes;
        2 * seen >= total
    });
    let large = 4 * typical.unwrap_or(0);
    let mut left = bytes;
    by_size
        .into_iter()
        .take_while(|&chunk| gpu.bytes(chunk) > large)
        .filter(|&chunk| {
            let rest = left.checked_sub(gpu.bytes(chunk));
            left = rest.unwrap_or(left);
            rest.is_some()
        })
        .collect()
}
