//! Stream-ordered allocation and its pools.

use super::device::device;
use crate::abi::{
    ACCESS_READWRITE, AccessDesc, Handle, INVALID_VALUE, LOCATION_DEVICE, Location, NOT_SUPPORTED,
    OUT_OF_MEMORY, Outcome, PoolProps,
};
use crate::edge::{In, Out};
use crate::engine::gpu::{self, DefaultStream, HandleKind, Session};
use crate::engine::memory::{AllocationKind, Pool};

pub fn alloc_async(default: DefaultStream, out: Out<u64>, bytes: usize, stream: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    let context = session.stream(stream)?.context;
    let device = session.context(context)?.device;
    let pool = session.devices[device].current_pool;
    alloc(session, out, bytes, pool, stream)
}

pub fn alloc_from_pool_async(
    default: DefaultStream,
    out: Out<u64>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    alloc(session, out, bytes, pool, stream)
}

fn alloc(
    mut session: Session,
    out: Out<u64>,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Outcome {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    session.faults.check("alloc")?;
    if bytes as u64 > session.memory.capacity {
        return Err(OUT_OF_MEMORY);
    }
    let device = session.pools.get(&pool).ok_or(INVALID_VALUE)?.device;
    if let Some(address) = session.capture_alloc(stream, device, bytes as u64)? {
        return out.set(address);
    }
    out.set(session.allocate_async(pool, bytes as u64, stream)?)
}

pub fn free_async(default: DefaultStream, address: u64, stream: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    if session.capture_free(stream, address)? {
        return Ok(());
    }
    let allocation = session.allocations.get(&address).ok_or(INVALID_VALUE)?;
    match allocation.kind {
        AllocationKind::Pooled { .. } => return session.free_async(address, stream),
        AllocationKind::Graph { .. } => {
            session.set_graph_memory_live(address, false);
            return Ok(());
        }
        AllocationKind::Plain { .. } => {}
    }
    // Plain memory: freed once the stream is done with it.
    let front = session.front(stream)?;
    let mut session = session.block(&front.ops, front.ready_ns);
    session.free_plain(address)
}

pub fn create(out: Out<Handle>, props: In<PoolProps>) -> Outcome {
    let props = props.get()?;
    if props.location.kind != LOCATION_DEVICE || props.handle_types != 0 {
        return Err(NOT_SUPPORTED);
    }
    let mut session = gpu::lock()?;
    let device = device(session.gpu, props.location.id)?;
    let handle = session.handle(HandleKind::Pool);
    session.pools.insert(handle, Pool::new(device));
    out.set(handle)
}

pub fn destroy(pool: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    if session.devices.iter().any(|d| d.default_pool == pool) {
        return Err(INVALID_VALUE);
    }
    for device in &mut session.devices {
        if device.current_pool == pool {
            device.current_pool = device.default_pool;
        }
    }
    session.pools.get_mut(&pool).ok_or(INVALID_VALUE)?.destroyed = true;
    session.drop_pool_if_over(pool)
}

pub fn device_default(out: Out<Handle>, ordinal: i32) -> Outcome {
    let session = gpu::lock()?;
    out.set(session.devices[device(session.gpu, ordinal)?].default_pool)
}

pub fn device_get(out: Out<Handle>, ordinal: i32) -> Outcome {
    let session = gpu::lock()?;
    out.set(session.devices[device(session.gpu, ordinal)?].current_pool)
}

pub fn device_set(ordinal: i32, pool: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    if session.pools.get(&pool).is_none_or(|p| p.device != index) {
        return Err(INVALID_VALUE);
    }
    session.devices[index].current_pool = pool;
    Ok(())
}

pub fn location_default(out: Out<Handle>, location: In<Location>, _kind: i32) -> Outcome {
    let location = location.get()?;
    if location.kind != LOCATION_DEVICE {
        return Err(NOT_SUPPORTED);
    }
    device_default(out, location.id)
}

pub fn location_get(out: Out<Handle>, location: In<Location>, _kind: i32) -> Outcome {
    let location = location.get()?;
    if location.kind != LOCATION_DEVICE {
        return Err(NOT_SUPPORTED);
    }
    device_get(out, location.id)
}

pub fn location_set(location: In<Location>, _kind: i32, pool: Handle) -> Outcome {
    let location = location.get()?;
    if location.kind != LOCATION_DEVICE {
        return Err(NOT_SUPPORTED);
    }
    device_set(location.id, pool)
}

/// `CUmemPool_attribute`: 1–3 reuse policies (int), 4 release threshold, 5/6
/// reserved now/high, 7/8 used now/high (64-bit).
pub fn get_attribute(pool: Handle, attribute: i32, out: Out<u64>) -> Outcome {
    let session = gpu::lock()?;
    let pool = session.pools.get(&pool).ok_or(INVALID_VALUE)?;
    match attribute {
        1..=3 => out.cast::<i32>().set(pool.reuse[attribute as usize - 1]),
        4 => out.set(pool.release_threshold),
        5 => out.set(pool.reserved),
        6 => out.set(pool.reserved_high),
        7 => out.set(pool.used),
        8 => out.set(pool.used_high),
        _ => Err(INVALID_VALUE),
    }
}

pub fn set_attribute(pool: Handle, attribute: i32, value: Out<u64>) -> Outcome {
    let mut session = gpu::lock()?;
    let pool = session.pools.get_mut(&pool).ok_or(INVALID_VALUE)?;
    match attribute {
        1..=3 => pool.reuse[attribute as usize - 1] = value.cast::<i32>().get()?,
        4 => pool.release_threshold = value.get()?,
        // High-water marks can only be reset.
        6 if value.get()? == 0 => pool.reserved_high = pool.reserved,
        8 if value.get()? == 0 => pool.used_high = pool.used,
        _ => return Err(INVALID_VALUE),
    }
    Ok(())
}

pub fn trim_to(pool: Handle, keep: usize) -> Outcome {
    let mut session = gpu::lock()?;
    if !session.pools.contains_key(&pool) {
        return Err(INVALID_VALUE);
    }
    session.trim(pool, keep as u64)
}

/// A pool's memory follows peer access; its own device always has access.
pub fn set_access(pool: Handle, descs: In<AccessDesc>, count: usize) -> Outcome {
    let session = gpu::lock()?;
    let owner = session.pools.get(&pool).ok_or(INVALID_VALUE)?.device;
    for desc in descs.list(count)? {
        let peer = device(session.gpu, desc.location.id)?;
        let granted = desc.flags as u8 == ACCESS_READWRITE;
        if peer == owner && !granted {
            return Err(INVALID_VALUE);
        }
        session.gpu.space_mut().peers[peer][owner] = granted;
    }
    Ok(())
}

pub fn get_access(out: Out<i32>, pool: Handle, location: In<Location>) -> Outcome {
    let session = gpu::lock()?;
    let owner = session.pools.get(&pool).ok_or(INVALID_VALUE)?.device;
    let peer = device(session.gpu, location.get()?.id)?;
    let granted = session.gpu.space().peers[peer][owner];
    out.set(if granted { i32::from(ACCESS_READWRITE) } else { 0 })
}
