//! Pinned host memory: allocated or registered. The device address of such
//! memory is its host address.

use crate::abi::{
    HOST_MEMORY_ALREADY_REGISTERED, HOST_MEMORY_NOT_REGISTERED, INVALID_VALUE, OUT_OF_MEMORY,
    Outcome,
};
use crate::edge::Out;
use crate::engine::gpu::{self, Session};
use crate::engine::prices::Call;
use crate::engine::space::Pinned;
use std::ffi::c_void;

type Pointer = *mut c_void;

/// PORTABLE, DEVICEMAP, WRITECOMBINED.
const ALLOC_FLAGS: u32 = 1 | 2 | 4;
/// PORTABLE, DEVICEMAP, IOMEMORY, READ_ONLY.
const REGISTER_FLAGS: u32 = 1 | 2 | 4 | 8;

pub fn alloc(out: Out<Pointer>, bytes: usize) -> Outcome {
    alloc_with_flags(out, bytes, 0)
}

pub fn alloc_with_flags(out: Out<Pointer>, bytes: usize, flags: u32) -> Outcome {
    if bytes == 0 || flags & !ALLOC_FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    session.current()?;
    session.faults.check("hostalloc")?;
    session.may_pin(bytes)?;
    let mut session = session.implied_wait();
    // SAFETY: a fresh anonymous mapping.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(OUT_OF_MEMORY);
    }
    let bytes = bytes as u64;
    let pinned = Pinned { bytes, flags, owned: true };
    session.gpu.space_mut().pinned.insert(memory as u64, pinned);
    session.account.pinned(bytes);
    session.clock.pays(Call::HostAlloc, bytes);
    out.set(memory)
}

pub fn free(pointer: Pointer) -> Outcome {
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    let address = pointer as u64;
    let known = session.gpu.space().pinned.get(&address).copied();
    let pinned = known.filter(|p| p.owned).ok_or(INVALID_VALUE)?;
    let mut session = wait_for_all(session);
    session.gpu.space_mut().pinned.remove(&address);
    session.account.pinned_bytes -= pinned.bytes;
    // SAFETY: exactly the mapping made for this entry, which is now removed;
    // all queued work that could use it is done.
    unsafe { libc::munmap(pointer, pinned.bytes as usize) };
    Ok(())
}

pub fn register(pointer: Pointer, bytes: usize, flags: u32) -> Outcome {
    if pointer.is_null() || bytes == 0 || flags & !REGISTER_FLAGS != 0 {
        return Err(INVALID_VALUE);
    }
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    session.current()?;
    session.faults.check("hostregister")?;
    session.may_pin(bytes)?;
    let mut session = session.implied_wait();
    let (start, end) = (pointer as u64, pointer as u64 + bytes as u64);
    let gpu = session.gpu;
    let mut space = gpu.space_mut();
    if space.is_device(start) {
        return Err(INVALID_VALUE);
    }
    if space.pinned.range(..end).next_back().is_some_and(|(&s, p)| s + p.bytes > start) {
        return Err(HOST_MEMORY_ALREADY_REGISTERED);
    }
    space.pinned.insert(start, Pinned { bytes: bytes as u64, flags, owned: false });
    drop(space);
    session.account.pinned(bytes as u64);
    session.clock.pays(Call::HostRegister, bytes as u64);
    Ok(())
}

pub fn unregister(pointer: Pointer) -> Outcome {
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    let address = pointer as u64;
    let known = session.gpu.space().pinned.get(&address).copied();
    let pinned = known.filter(|p| !p.owned).ok_or(HOST_MEMORY_NOT_REGISTERED)?;
    let mut session = wait_for_all(session);
    session.gpu.space_mut().pinned.remove(&address);
    session.account.pinned_bytes -= pinned.bytes;
    Ok(())
}

impl Session {
    /// Some systems bound what may be pinned (a virtual machine's share, as on WSL2).
    fn may_pin(&self, bytes: usize) -> Outcome {
        let after = self.account.pinned_bytes.saturating_add(bytes as u64);
        if after > self.gpu.settings.pinned_limit { Err(OUT_OF_MEMORY) } else { Ok(()) }
    }
}

/// Giving up pinned memory waits for the device, as the driver does.
fn wait_for_all(session: Session) -> Session {
    let ops: Vec<_> = session.scheduler.live().map(|(&id, _)| id).collect();
    let ns = session.clock.device_ns;
    session.block(&ops, ns)
}

pub fn device_pointer(out: Out<u64>, pointer: Pointer, flags: u32) -> Outcome {
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    let session = gpu::lock()?;
    session.gpu.space().pinned_at(pointer as u64).ok_or(INVALID_VALUE)?;
    out.set(pointer as u64)
}

pub fn flags(out: Out<u32>, pointer: Pointer) -> Outcome {
    let session = gpu::lock()?;
    const DEVICE_MAP: u32 = 2;
    let (_, pinned) = session.gpu.space().pinned_at(pointer as u64).ok_or(INVALID_VALUE)?;
    out.set(pinned.flags | DEVICE_MAP)
}
