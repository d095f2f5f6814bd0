//! Device allocations that the program names by address: `cuMemAlloc`, and
//! stream-ordered pools.
//!
//! A plain allocation is a handle of its own, mapped for its device. A pool
//! holds *segments* (such allocations) cut into blocks. A freed block carries
//! what its next owner must wait for: the same stream takes it at once, others
//! when it is over, or, for lack of memory, with a wait inserted.
//! Invariant: in each segment, blocks in use + free blocks = the segment.

use super::gpu::Session;
use super::scheduler::OpId;
use super::space::round_to_frames;
use super::work::Work;
use crate::abi::{
    ACCESS_READWRITE, AllocationProp, Handle, INVALID_VALUE, LOCATION_DEVICE, Location, Outcome,
};
use std::collections::BTreeMap;

pub enum AllocationKind {
    Plain {
        handle: u64,
    },
    Pooled {
        pool: Handle,
    },
    /// Of an allocation node. It goes with the graph, unless the program still
    /// has it then: `live` from the launch that allocates it until it is freed.
    Graph {
        handle: u64,
        live: bool,
    },
}

pub struct Allocation {
    pub device: usize,
    /// As asked for.
    pub bytes: u64,
    /// As taken.
    pub reserved_bytes: u64,
    pub kind: AllocationKind,
}

/// Granularity of blocks in a pool.
const BLOCK: u64 = 512;

struct FreeBlock {
    bytes: u64,
    /// Stream it was freed on; 0 when parts come from several.
    stream: Handle,
    ops: Vec<OpId>,
    ns: u64,
}

struct Segment {
    bytes: u64,
    handle: u64,
}

pub struct Pool {
    pub device: usize,
    segments: BTreeMap<u64, Segment>,
    free: BTreeMap<u64, FreeBlock>,
    pub used: u64,
    pub used_high: u64,
    pub reserved: u64,
    pub reserved_high: u64,
    /// Bytes kept across a synchronisation.
    pub release_threshold: u64,
    /// Attributes 1 to 3: follow events, opportunistic, internal dependencies.
    pub reuse: [i32; 3],
    pub destroyed: bool,
}

impl Pool {
    pub fn new(device: usize) -> Pool {
        Pool {
            device,
            segments: BTreeMap::new(),
            free: BTreeMap::new(),
            used: 0,
            used_high: 0,
            reserved: 0,
            reserved_high: 0,
            release_threshold: 0,
            reuse: [1; 3],
            destroyed: false,
        }
    }

    /// The smallest free block of at least `bytes` that `suits`.
    fn best(&self, bytes: u64, suits: impl Fn(&FreeBlock) -> bool) -> Option<u64> {
        self.free
            .iter()
            .filter(|(_, b)| b.bytes >= bytes && suits(b))
            .min_by_key(|(_, b)| b.bytes)
            .map(|(&start, _)| start)
    }

    /// Puts a block back, joined with free neighbours of its segment.
    fn put(&mut self, mut start: u64, mut block: FreeBlock) {
        let in_segment = |a: u64| self.segments.range(..=a).next_back().map(|(&s, _)| s);
        let join = |a: &mut FreeBlock, b: FreeBlock| {
            // Memory nobody used yet is anyone's.
            if a.ops.is_empty() && a.ns == 0 {
                a.stream = b.stream;
            } else if !(b.ops.is_empty() && b.ns == 0) && a.stream != b.stream {
                a.stream = 0;
            }
            a.bytes += b.bytes;
            a.ops.extend(b.ops);
            a.ns = a.ns.max(b.ns);
        };
        let before = self.free.range(..start).next_back().map(|(&s, b)| (s, s + b.bytes));
        if let Some((s, end)) = before
            && end == start
            && in_segment(s) == in_segment(start)
            && let Some(neighbour) = self.free.remove(&s)
        {
            join(&mut block, neighbour);
            start = s;
        }
        let end = start + block.bytes;
        if in_segment(end) == in_segment(start)
            && let Some(neighbour) = self.free.remove(&end)
        {
            join(&mut block, neighbour);
        }
        self.free.insert(start, block);
    }
}

fn device_prop(device: usize) -> AllocationProp {
    AllocationProp {
        kind: 1,
        handle_types: 0,
        location: Location { kind: LOCATION_DEVICE, id: device as i32 },
        win32: std::ptr::null_mut(),
        flags: [0; 8],
    }
}

impl Session {
    /// Memory of its own, mapped for its device: (address, handle).
    fn take(&mut self, device: usize, bytes: u64) -> Outcome<(u64, u64)> {
        let gpu = self.gpu;
        let mut space = gpu.space_mut();
        let handle = self.memory.create(&mut space, Some(device), bytes, device_prop(device))?;
        let mapped = (|| {
            let address = space.reserve(bytes, 0, 0)?;
            if let Err(code) = self.memory.map(&mut space, address, handle, true) {
                space.unreserve(address, bytes)?;
                return Err(code);
            }
            space.set_access(address, bytes, device, ACCESS_READWRITE)?;
            Ok(address)
        })();
        match mapped {
            Ok(address) => Ok((address, handle)),
            Err(code) => {
                self.memory.release(&space, handle)?;
                Err(code)
            }
        }
    }

    fn give_back(&mut self, address: u64, bytes: u64, handle: u64) -> Outcome {
        let gpu = self.gpu;
        let mut space = gpu.space_mut();
        self.taint.clear(&space, (address, address + bytes));
        self.memory.unmap(&mut space, address, bytes)?;
        space.unreserve(address, bytes)?;
        self.uses.forget(address, address + bytes);
        self.memory.release(&space, handle)
    }

    /// cuMemAlloc. Out of capacity, unused memory of pools is given up first.
    pub fn allocate(&mut self, device: usize, bytes: u64) -> Outcome<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let reserved_bytes = round_to_frames(bytes)?;
        let (address, handle) = self.take(device, reserved_bytes).or_else(|code| {
            let pools: Vec<Handle> = self.pools.keys().copied().collect();
            for pool in pools {
                self.trim(pool, 0)?;
            }
            if reserved_bytes > self.memory.free_bytes(device) {
                return Err(code);
            }
            self.take(device, reserved_bytes)
        })?;
        self.units.insert(address, reserved_bytes);
        let kind = AllocationKind::Plain { handle };
        self.allocations.insert(address, Allocation { device, bytes, reserved_bytes, kind });
        Ok(address)
    }

    /// cuMemFree of a plain allocation, at once.
    pub fn free_plain(&mut self, address: u64) -> Outcome {
        let allocation = self.allocations.get(&address).ok_or(INVALID_VALUE)?;
        let AllocationKind::Plain { handle } = allocation.kind else { return Err(INVALID_VALUE) };
        let bytes = allocation.reserved_bytes;
        self.allocations.remove(&address);
        self.units.remove(&address);
        self.give_back(address, bytes, handle)
    }

    /// Memory of an allocation node.
    pub fn allocate_for_graph(&mut self, device: usize, bytes: u64) -> Outcome<u64> {
        let address = self.allocate(device, bytes)?;
        if let Some(allocation) = self.allocations.get_mut(&address)
            && let AllocationKind::Plain { handle } = allocation.kind
        {
            allocation.kind = AllocationKind::Graph { handle, live: false };
        }
        Ok(address)
    }

    /// An allocation or free node was launched, or the program frees.
    pub fn set_graph_memory_live(&mut self, address: u64, now: bool) {
        if let Some(allocation) = self.allocations.get_mut(&address)
            && let AllocationKind::Graph { live, .. } = &mut allocation.kind
        {
            *live = now;
        }
    }

    /// The last graph that had it is gone.
    pub fn drop_graph_memory(&mut self, address: u64) -> Outcome {
        let allocation = self.allocations.get_mut(&address).ok_or(INVALID_VALUE)?;
        let bytes = allocation.reserved_bytes;
        if let AllocationKind::Graph { handle, live } = allocation.kind {
            allocation.kind = AllocationKind::Plain { handle };
            if live {
                return Ok(());
            }
        }
        self.check_unneeded(address, bytes, "destroying a graph's memory");
        self.free_plain(address)
    }

    /// A block of `pool` for work on `stream`.
    pub fn allocate_async(&mut self, pool: Handle, bytes: u64, stream: Handle) -> Outcome<u64> {
        let size = bytes.max(1).next_multiple_of(BLOCK);
        let host_ns = self.clock.host_ns;
        let held = self.pools.get(&pool).filter(|p| !p.destroyed).ok_or(INVALID_VALUE)?;
        let device = held.device;
        let opportunistic = held.reuse[1] != 0;
        let internal = held.reuse[2] != 0;
        let mut start = held.best(size, |b| b.stream == stream).or_else(|| {
            held.best(size, |b| opportunistic && b.ns <= host_ns && !self.scheduler.is_held(&b.ops))
        });
        if start.is_none() {
            start = match self.grow(pool, device, size) {
                Ok(start) => Some(start),
                // Memory is short: wait, on the device, for someone's free.
                Err(code) => {
                    let waiting = self.pools[&pool].best(size, |_| internal);
                    Some(waiting.ok_or(code)?)
                }
            };
        }
        let (Some(start), Some(held)) = (start, self.pools.get_mut(&pool)) else {
            return Err(INVALID_VALUE);
        };
        let Some(mut block) = held.free.remove(&start) else { return Err(INVALID_VALUE) };
        held.used += size;
        held.used_high = held.used_high.max(held.used);
        let (ops, ns, owner) = (block.ops.clone(), block.ns, block.stream);
        if block.bytes > size {
            block.bytes -= size;
            held.free.insert(start + size, block);
        }
        if owner != stream {
            let target = self.stream_mut(stream)?;
            target.tail.extend(ops);
            target.wait_end_ns = target.wait_end_ns.max(if ns > host_ns { ns } else { 0 });
        }
        self.units.insert(start, size);
        let kind = AllocationKind::Pooled { pool };
        self.allocations.insert(start, Allocation { device, bytes, reserved_bytes: size, kind });
        Ok(start)
    }

    /// A new segment, as one free block. Unused segments of all pools are
    /// given up if there is no other room.
    fn grow(&mut self, pool: Handle, device: usize, size: u64) -> Outcome<u64> {
        let bytes = round_to_frames(size)?;
        let (address, handle) = self.take(device, bytes).or_else(|code| {
            let pools: Vec<Handle> = self.pools.keys().copied().collect();
            for pool in pools {
                self.trim(pool, 0)?;
            }
            if bytes > self.memory.free_bytes(device) {
                return Err(code);
            }
            self.take(device, bytes)
        })?;
        let held = self.pools.get_mut(&pool).ok_or(INVALID_VALUE)?;
        held.segments.insert(address, Segment { bytes, handle });
        held.free.insert(address, FreeBlock { bytes, stream: 0, ops: Vec::new(), ns: 0 });
        held.reserved += bytes;
        held.reserved_high = held.reserved_high.max(held.reserved);
        Ok(address)
    }

    /// cuMemFreeAsync of a pooled block: it is poisoned in stream order.
    pub fn free_async(&mut self, address: u64, stream: Handle) -> Outcome {
        let allocation = self.allocations.get(&address).ok_or(INVALID_VALUE)?;
        let AllocationKind::Pooled { pool } = allocation.kind else { return Err(INVALID_VALUE) };
        let bytes = allocation.reserved_bytes;
        let done = self.submit(stream, Work::Poison { address, bytes })?;
        self.allocations.remove(&address);
        self.units.remove(&address);
        let gpu = self.gpu;
        self.taint.clear(&gpu.space(), (address, address + bytes));
        if let Some(held) = self.pools.get_mut(&pool) {
            held.used -= bytes;
            let block = FreeBlock { bytes, stream, ops: vec![done.op], ns: done.end_ns };
            held.put(address, block);
        }
        self.drop_pool_if_over(pool)
    }

    /// Gives up unused segments until at most `keep` bytes are reserved.
    pub fn trim(&mut self, pool: Handle, keep: u64) -> Outcome {
        loop {
            let Some(held) = self.pools.get(&pool) else { return Ok(()) };
            if held.reserved <= keep {
                return Ok(());
            }
            let idle = held.segments.iter().find(|(start, segment)| {
                held.free.get(start).is_some_and(|b| {
                    b.bytes == segment.bytes
                        && b.ns <= self.clock.host_ns.max(1)
                        && !b.ops.iter().any(|&op| self.scheduler.is_live(op))
                })
            });
            let Some((&start, segment)) = idle else { return Ok(()) };
            let (bytes, handle) = (segment.bytes, segment.handle);
            if let Some(held) = self.pools.get_mut(&pool) {
                held.segments.remove(&start);
                held.free.remove(&start);
                held.reserved -= bytes;
            }
            self.give_back(start, bytes, handle)?;
        }
    }

    /// After a synchronisation: pools go back to their release threshold.
    pub fn trim_to_thresholds(&mut self) -> Outcome {
        let pools: Vec<(Handle, u64)> =
            self.pools.iter().map(|(&pool, held)| (pool, held.release_threshold)).collect();
        pools.into_iter().try_for_each(|(pool, keep)| self.trim(pool, keep))
    }

    /// A destroyed pool goes when its last block is freed.
    pub fn drop_pool_if_over(&mut self, pool: Handle) -> Outcome {
        if self.pools.get(&pool).is_some_and(|p| p.destroyed && p.used == 0) {
            self.trim(pool, 0)?;
            if self.pools.get(&pool).is_some_and(|p| p.segments.is_empty()) {
                self.pools.remove(&pool);
            }
        }
        Ok(())
    }

    /// Reports queued work that still needs an address range that goes away.
    pub fn check_unneeded(&mut self, address: u64, bytes: u64, what: &str) {
        let end = address + bytes;
        let pending = self
            .scheduler
            .live()
            .filter(|(_, op)| op.ranges.iter().any(|&(s, e)| s < end && e > address))
            .count();
        if pending > 0 {
            self.account.violation(format!(
                "{what} of [{address:#x}, {end:#x}) while {pending} queued operation(s) still need it"
            ));
        }
    }
}
