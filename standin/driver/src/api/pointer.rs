//! What is known about a pointer.

use crate::abi::{INVALID_VALUE, MEMORYTYPE_DEVICE, MEMORYTYPE_HOST, Outcome};
use crate::edge::{In, Out};
use crate::engine::gpu::{self, Session};
use crate::engine::memory::AllocationKind;

/// `CUpointer_attribute`.
mod attribute {
    pub const CONTEXT: i32 = 1;
    pub const MEMORY_TYPE: i32 = 2;
    pub const DEVICE_POINTER: i32 = 3;
    pub const HOST_POINTER: i32 = 4;
    pub const SYNC_MEMOPS: i32 = 6;
    pub const BUFFER_ID: i32 = 7;
    pub const IS_MANAGED: i32 = 8;
    pub const DEVICE_ORDINAL: i32 = 9;
    pub const IPC_CAPABLE: i32 = 10;
    pub const RANGE_START: i32 = 11;
    pub const RANGE_SIZE: i32 = 12;
    pub const MAPPED: i32 = 13;
    pub const ALLOWED_HANDLE_TYPES: i32 = 14;
    pub const RDMA_CAPABLE: i32 = 15;
    pub const ACCESS_FLAGS: i32 = 16;
    pub const MEMPOOL: i32 = 17;
    pub const MAPPING_SIZE: i32 = 18;
    pub const MAPPING_BASE: i32 = 19;
    pub const MEMORY_BLOCK_ID: i32 = 20;
    pub const HW_DECOMPRESS: i32 = 21;
}

/// Everything the attributes are answered from.
struct Known {
    host: bool,
    device: usize,
    start: u64,
    bytes: u64,
    pool: u64,
    id: u64,
}

impl Session {
    fn known(&self, pointer: u64) -> Option<Known> {
        let (start, bytes) = self.range_of(pointer)?;
        let space = self.gpu.space();
        if !space.is_device(pointer) {
            let device = self.current_device().unwrap_or(0);
            return Some(Known { host: true, device, start, bytes, pool: 0, id: start });
        }
        let (_, mapping) = space.mapping(pointer)?;
        let pool = match self.allocations.get(&start).map(|a| &a.kind) {
            Some(AllocationKind::Pooled { pool }) => *pool,
            _ => 0,
        };
        let id = mapping.handle;
        // A device address all the same where the memory behind it is the host's.
        let device = mapping.device.unwrap_or_else(|| self.current_device().unwrap_or(0));
        Some(Known { host: false, device, start, bytes, pool, id })
    }

    fn write_attribute(&self, k: &Known, pointer: u64, attribute: i32, out: Out<u64>) -> Outcome {
        use attribute::*;
        let flag = out.cast::<u8>();
        let int = out.cast::<i32>();
        match attribute {
            CONTEXT => {
                let primary = self.devices[k.device].primary.unwrap_or(0);
                out.set(primary)
            }
            MEMORY_TYPE => int.set(if k.host { MEMORYTYPE_HOST } else { MEMORYTYPE_DEVICE } as i32),
            DEVICE_POINTER => out.set(pointer),
            HOST_POINTER if k.host => out.set(pointer),
            HOST_POINTER => {
                out.set(0)?;
                Err(INVALID_VALUE)
            }
            SYNC_MEMOPS | IS_MANAGED | IPC_CAPABLE | RDMA_CAPABLE | HW_DECOMPRESS => flag.set(0),
            MAPPED => flag.set(1),
            BUFFER_ID | MEMORY_BLOCK_ID => out.set(k.id),
            DEVICE_ORDINAL => int.set(k.device as i32),
            RANGE_START | MAPPING_BASE => out.set(k.start),
            RANGE_SIZE | MAPPING_SIZE => out.set(k.bytes),
            ALLOWED_HANDLE_TYPES => int.set(0),
            ACCESS_FLAGS => int.set(3),
            MEMPOOL => out.set(k.pool),
            _ => Err(INVALID_VALUE),
        }
    }

    /// What is answered for a pointer the driver does not know.
    fn write_unknown(&self, attribute: i32, out: Out<u64>) -> Outcome {
        use attribute::*;
        match attribute {
            MEMORY_TYPE | ALLOWED_HANDLE_TYPES | ACCESS_FLAGS => out.cast::<i32>().set(0),
            DEVICE_ORDINAL => out.cast::<i32>().set(-2),
            SYNC_MEMOPS | IS_MANAGED | IPC_CAPABLE | MAPPED | RDMA_CAPABLE | HW_DECOMPRESS => {
                out.cast::<u8>().set(0)
            }
            _ => out.set(0),
        }
    }
}

pub fn get(out: Out<u64>, attribute: i32, pointer: u64) -> Outcome {
    let session = gpu::lock()?;
    let known = session.known(pointer).ok_or(INVALID_VALUE)?;
    session.write_attribute(&known, pointer, attribute, out)
}

/// Succeeds for any pointer; what is unknown is answered with zeros.
pub fn get_many(count: u32, attributes: In<i32>, outs: In<Out<u64>>, pointer: u64) -> Outcome {
    let session = gpu::lock()?;
    let known = session.known(pointer);
    for i in 0..count as usize {
        let (attribute, out) = (attributes.at(i)?, outs.at(i)?);
        match &known {
            Some(known) if attribute != attribute::HOST_POINTER || known.host => {
                session.write_attribute(known, pointer, attribute, out)?;
            }
            _ => session.write_unknown(attribute, out)?,
        }
    }
    Ok(())
}

/// Only SYNC_MEMOPS can be set: copies then wait, which pageable ones do anyway.
pub fn set(_value: *const u8, attribute: i32, pointer: u64) -> Outcome {
    let session = gpu::lock()?;
    session.known(pointer).ok_or(INVALID_VALUE)?;
    if attribute == attribute::SYNC_MEMOPS { Ok(()) } else { Err(INVALID_VALUE) }
}
