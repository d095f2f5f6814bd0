//! What decides which chunk is where: ours, and what others do.
//!
//! Each peer is modelled at its best: it counts on bytes, not on places; it
//! knows that weights are not written to; its copies are pinned unless its text
//! says otherwise; and those that work per module know the modules' order.
//!
//! ```text
//!   ours            the library's streamer: learns, plans and streams live
//!   planned         a plan of `plan`, carried out by one who knows the position
//!   resident        everything stays: the yardstick where it fits
//!   prefix          leading layers stay, the others through a double buffer
//!   block_swap      block by block, one ahead, the host waits at each
//!   leaf            layer by layer, one ahead, nothing stays
//!   window          a window of layers, each copied back: the seed's
//!   lru             least recently used; on demand, or prefetched perfectly
//!   demand_paging   managed memory
//!   zero_copy       kernels read over the link
//!   clairvoyant     knows the future, whole chunks
//!
//!   order, feed     what those per module have in common
//!   future, cache   what those per chunk have in common;  pool  memory in bytes
//! ```

mod block_swap;
mod cache;
mod clairvoyant;
mod demand_paging;
mod feed;
mod future;
mod leaf;
mod lru;
mod order;
mod ours;
mod planned;
mod pool;
mod prefix;
mod resident;
mod window;
mod zero_copy;

pub use ours::Ours;
pub use planned::Planned;
pub use resident::Resident;

use block_swap::BlockSwap;
use demand_paging::DemandPaging;
use leaf::leaf;
use prefix::prefix;
use window::window;
use zero_copy::ZeroCopy;

use super::run::{Infeasible, Outcome, Setup, run};
use crate::workload::Trace;

/// Names of the policies that others use, in the order of the tables.
pub const PEERS: &[&str] = &[
    "resident",
    "prefix",
    "block-swap",
    "leaf",
    "window",
    "lru",
    "lru-prefetch",
    "demand-paging",
    "zero-copy",
    "clairvoyant",
];

/// Runs the policy called `name`, one of [`PEERS`], over `trace`.
pub fn run_peer(name: &str, trace: &Trace, setup: &Setup) -> Result<Outcome, Infeasible> {
    match name {
        "resident" => run(trace, setup, &mut Resident::default()),
        "prefix" => run(trace, setup, &mut prefix(trace)),
        "block-swap" => run(trace, setup, &mut BlockSwap::new(trace)),
        "leaf" => run(trace, setup, &mut leaf(trace)),
        "window" => run(trace, setup, &mut window(trace)),
        "lru" => run(trace, setup, &mut lru::on_demand(trace)),
        "lru-prefetch" => run(trace, setup, &mut lru::prefetching(trace, setup)),
        "demand-paging" => run(trace, setup, &mut DemandPaging::new(trace)),
        "zero-copy" => run(trace, setup, &mut ZeroCopy::new(trace)),
        "clairvoyant" => clairvoyant::best(trace, setup),
        _ => Err(Infeasible::new(format!("there is no policy {name}"))),
    }
}
