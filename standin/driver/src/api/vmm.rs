//! Virtual memory management: reserve, create, map, access.

use crate::abi::{
    AccessDesc, AllocationProp, Handle, INVALID_DEVICE, INVALID_VALUE, LOCATION_DEVICE,
    LOCATION_HOST_NUMA, LOCATION_HOST_NUMA_CURRENT, Location, NOT_PERMITTED, NOT_SUPPORTED,
    Outcome,
};
use crate::edge::{In, Out};
use crate::engine::gpu;
use crate::engine::prices::Call;
use crate::engine::settings::{HostLocated, MAX_DEVICES};
use crate::engine::space::{FRAME, check_frames};

fn device_of(location: Location) -> Outcome<usize> {
    let index = usize::try_from(location.id).map_err(|_| INVALID_DEVICE)?;
    match location.kind {
        LOCATION_DEVICE if index < gpu::gpu()?.settings.devices => Ok(index),
        LOCATION_DEVICE => Err(INVALID_DEVICE),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Where memory asked for at `location` lies: on a device, or (`None`) in the
/// host, which is one NUMA node, number 0.
fn place_of(location: Location) -> Outcome<Option<usize>> {
    let has = gpu::gpu()?.settings.host_located != HostLocated::No;
    match location.kind {
        LOCATION_HOST_NUMA if has && location.id != 0 => Err(INVALID_VALUE),
        LOCATION_HOST_NUMA if has => Ok(None),
        // For pools and preferred locations only (cuda.h, cuMemCreate).
        LOCATION_HOST_NUMA_CURRENT if has => Err(INVALID_VALUE),
        _ => device_of(location).map(Some),
    }
}

pub fn granularity(out: Out<usize>, prop: In<AllocationProp>, _option: i32) -> Outcome {
    place_of(prop.get()?.location)?;
    out.set(FRAME as usize)
}

pub fn address_reserve(
    out: Out<u64>,
    bytes: usize,
    align: usize,
    hint: u64,
    flags: u64,
) -> Outcome {
    check_frames(bytes as u64)?;
    if flags != 0 || (align != 0 && !align.is_power_of_two()) {
        return Err(INVALID_VALUE);
    }
    let session = gpu::lock()?;
    let address = session.gpu.space_mut().reserve(bytes as u64, align as u64, hint)?;
    out.set(address)
}

pub fn address_free(address: u64, bytes: usize) -> Outcome {
    let session = gpu::lock()?;
    session.gpu.space_mut().unreserve(address, bytes as u64)
}

pub fn create(out: Out<u64>, bytes: usize, prop: In<AllocationProp>, flags: u64) -> Outcome {
    check_frames(bytes as u64)?;
    let prop = prop.get()?;
    const PINNED: i32 = 1;
    if flags != 0 || prop.kind != PINNED {
        return Err(INVALID_VALUE);
    }
    let place = place_of(prop.location)?;
    if place.is_none() && gpu::gpu()?.settings.host_located == HostLocated::Refused {
        return Err(NOT_PERMITTED);
    }
    // PyTorch asks for exportable memory whether or not it ever exports it;
    // the export itself is what is refused.
    const POSIX_FILE_DESCRIPTOR: i32 = 1;
    if prop.handle_types & !POSIX_FILE_DESCRIPTOR != 0 {
        return Err(NOT_SUPPORTED);
    }
    let mut session = gpu::lock()?.implied_wait();
    session.faults.check("alloc")?;
    let gpu = session.gpu;
    let mut space = gpu.space_mut();
    session.clock.pays(Call::Create, bytes as u64);
    out.set(session.memory.create(&mut space, place, bytes as u64, prop)?)
}

pub fn release(handle: u64) -> Outcome {
    let mut session = gpu::lock()?.implied_wait();
    let gpu = session.gpu;
    session.memory.release(&gpu.space(), handle)
}

pub fn map(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64) -> Outcome {
    let mut session = gpu::lock()?.implied_wait();
    let physical = session.memory.handles.get(&handle).ok_or(INVALID_VALUE)?;
    if offset != 0 || flags != 0 || physical.bytes != bytes as u64 || physical.references == 0 {
        return Err(INVALID_VALUE);
    }
    if !address.is_multiple_of(FRAME) {
        return Err(INVALID_VALUE);
    }
    session.clock.pays(Call::Map, bytes as u64);
    let gpu = session.gpu;
    session.memory.map(&mut gpu.space_mut(), address, handle, false)
}

/// Acts at once: queued work that still needs the range is a violation.
pub fn unmap(address: u64, bytes: usize) -> Outcome {
    let mut session = gpu::lock()?.implied_wait();
    let gpu = session.gpu;
    gpu.space().whole_mappings(address, bytes as u64)?;
    session.clock.pays(Call::Unmap, bytes as u64);
    session.check_unneeded(address, bytes as u64, "cuMemUnmap");
    session.uses.forget(address, address + bytes as u64);
    session.memory.unmap(&mut gpu.space_mut(), address, bytes as u64)
}

pub fn set_access(address: u64, bytes: usize, descs: In<AccessDesc>, count: usize) -> Outcome {
    let mut session = gpu::lock()?.implied_wait();
    session.clock.pays(Call::SetAccess, bytes as u64);
    let mut space = session.gpu.space_mut();
    for desc in descs.list(count)? {
        let device = device_of(desc.location)?;
        if !matches!(desc.flags, 0 | 1 | 3) {
            return Err(INVALID_VALUE);
        }
        space.set_access(address, bytes as u64, device, desc.flags as u8)?;
    }
    Ok(())
}

pub fn get_access(out: Out<u64>, location: In<Location>, address: u64) -> Outcome {
    let device = device_of(location.get()?)?;
    debug_assert!(device < MAX_DEVICES);
    let session = gpu::lock()?;
    let (_, mapping) = session.gpu.space().mapping(address).ok_or(INVALID_VALUE)?;
    out.set(u64::from(mapping.access[device]))
}

pub fn properties(out: Out<AllocationProp>, handle: u64) -> Outcome {
    let session = gpu::lock()?;
    out.set(session.memory.handles.get(&handle).ok_or(INVALID_VALUE)?.prop)
}

pub fn retain_handle(out: Out<u64>, address: u64) -> Outcome {
    let mut session = gpu::lock()?;
    let (_, mapping) = session.gpu.space().mapping(address).ok_or(INVALID_VALUE)?;
    if mapping.shared {
        return Err(INVALID_VALUE);
    }
    let physical = session.memory.handles.get_mut(&mapping.handle).ok_or(INVALID_VALUE)?;
    physical.references += 1;
    out.set(mapping.handle)
}

pub fn export_handle(_out: Out<u64>, _handle: Handle, _kind: i32, _flags: u64) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn import_handle(_out: Out<u64>, _os: *mut u8, _kind: i32) -> Outcome {
    Err(NOT_SUPPORTED)
}
