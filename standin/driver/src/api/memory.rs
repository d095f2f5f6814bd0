//! Device memory by address: allocation, information.

use crate::abi::{Handle, INVALID_VALUE, NOT_FOUND, NOT_SUPPORTED, Outcome};
use crate::edge::Out;
use crate::engine::gpu::{self, DefaultStream};
use crate::engine::memory::AllocationKind;

/// Rows of a pitched allocation start at multiples of this.
const PITCH: usize = 512;

pub fn alloc(out: Out<u64>, bytes: usize) -> Outcome {
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    let device = session.current_device()?;
    session.faults.check("alloc")?;
    let mut session = session.implied_wait();
    out.set(session.allocate(device, bytes as u64)?)
}

pub fn alloc_pitch(
    out: Out<u64>,
    pitch: Out<usize>,
    width: usize,
    height: usize,
    element: u32,
) -> Outcome {
    if !matches!(element, 4 | 8 | 16) {
        return Err(INVALID_VALUE);
    }
    let row = width.checked_next_multiple_of(PITCH).ok_or(INVALID_VALUE)?;
    alloc(out, row.checked_mul(height).ok_or(INVALID_VALUE)?)?;
    pitch.set(row)
}

pub fn alloc_managed(_out: Out<u64>, _bytes: usize, _flags: u32) -> Outcome {
    Err(NOT_SUPPORTED)
}

/// Waits for all work of the context, as the driver does.
pub fn free(address: u64) -> Outcome {
    let mut session = gpu::lock()?;
    if address == 0 {
        return Ok(());
    }
    session.forbid_unsafe_call()?;
    let allocation = session.allocations.get(&address).ok_or(INVALID_VALUE)?;
    let device = allocation.device;
    let pooled = matches!(allocation.kind, AllocationKind::Pooled { .. });
    let of_graph = matches!(allocation.kind, AllocationKind::Graph { .. });
    let context = session.current()?;
    let mut session = session.block_on_context(context)?;
    if pooled {
        let legacy = session.context(context)?.legacy;
        return session.free_async(address, legacy);
    }
    if of_graph {
        session.set_graph_memory_live(address, false);
        return Ok(());
    }
    // Work of other contexts and devices is not waited for.
    let bytes = session.allocations.get(&address).map_or(0, |a| a.reserved_bytes);
    session.check_unneeded(address, bytes, &format!("cuMemFree on device {device}"));
    session.free_plain(address)
}

pub fn info(free: Out<usize>, total: Out<usize>) -> Outcome {
    let session = gpu::lock()?;
    let device = session.current_device()?;
    free.set(session.memory.free_bytes(device) as usize)?;
    total.set(session.memory.capacity as usize)
}

/// The allocation that contains an address; for the program's own VMM, the
/// mapping.
pub fn address_range(base: Out<u64>, size: Out<usize>, address: u64) -> Outcome {
    let session = gpu::lock()?;
    session.current()?;
    let (start, bytes) = session.range_of(address).ok_or(NOT_FOUND)?;
    base.set_if_asked(start);
    size.set_if_asked(bytes as usize);
    Ok(())
}

impl gpu::Session {
    /// (start, bytes) of the allocation, mapping or pinned range at `address`.
    pub fn range_of(&self, address: u64) -> Option<(u64, u64)> {
        if let Some((&start, allocation)) = self.allocations.range(..=address).next_back()
            && address < start + allocation.bytes
        {
            return Some((start, allocation.bytes));
        }
        let space = self.gpu.space();
        let mapped = space.mapping(address).filter(|(_, m)| !m.shared).map(|(s, m)| (s, m.bytes));
        mapped.or_else(|| space.pinned_at(address).map(|(s, p)| (s, p.bytes)))
    }
}

/// Managed memory and its advice: not supported, so there is nothing to advise.
pub fn advise(_address: u64, _bytes: usize, _advice: i32, _device: i32) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn advise_v2(_address: u64, _bytes: usize, _advice: i32, _location: u64) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn prefetch(_d: DefaultStream, _p: u64, _bytes: usize, _device: i32, _s: Handle) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn prefetch_v2(
    _d: DefaultStream,
    _p: u64,
    _bytes: usize,
    _location: u64,
    _flags: u32,
    _s: Handle,
) -> Outcome {
    Err(NOT_SUPPORTED)
}

/// Legacy inter-process sharing: not supported.
pub fn ipc_get_handle(_out: Out<[u8; 64]>, _address: u64) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn multicast_bind(_m: u64, _offset: usize, _p: u64, _bytes: usize, _flags: u64) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn endpoint_bind(
    _e: u32,
    _dev: i32,
    _offset: u64,
    _p: u64,
    _bytes: u64,
    _flags: u64,
) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn ipc_close_handle(_address: u64) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn handle_for_range(
    _out: Out<u64>,
    _p: u64,
    _bytes: usize,
    _kind: i32,
    _flags: u64,
) -> Outcome {
    Err(NOT_SUPPORTED)
}
