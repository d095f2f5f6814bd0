//! Contexts: primary and explicit, the thread's current one, limits.

use super::device::device;
use crate::abi::{
    Code, Handle, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED, Outcome,
};
use crate::edge::Out;
use crate::engine::gpu::{self, Session, current_context, pop_context, push_context, set_context};
use crate::engine::workers;

const PEER_ACCESS_ALREADY_ENABLED: Code = Code(704);
const PEER_ACCESS_NOT_ENABLED: Code = Code(705);
const PRIMARY_CONTEXT_ACTIVE: Code = Code(708);

fn start_workers(session: &mut Session) {
    let gpu = session.gpu;
    workers::start(gpu, session);
}

pub fn primary_retain(out: Out<Handle>, ordinal: i32) -> Outcome {
    let mut session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    start_workers(&mut session);
    let handle = match session.devices[index].primary {
        Some(handle) => handle,
        None => {
            let flags = session.devices[index].primary_flags;
            let handle = session.new_context(index, true, flags);
            session.devices[index].primary = Some(handle);
            handle
        }
    };
    session.devices[index].primary_references += 1;
    out.set(handle)
}

pub fn primary_release(ordinal: i32) -> Outcome {
    let mut session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    match session.devices[index].primary_references {
        0 => return Err(INVALID_CONTEXT),
        1 => {
            session = tear_down_primary(session, index)?;
            session.devices[index].primary_references = 0;
        }
        _ => session.devices[index].primary_references -= 1,
    }
    Ok(())
}

pub fn primary_reset(ordinal: i32) -> Outcome {
    let session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    tear_down_primary(session, index).map(drop)
}

fn tear_down_primary(mut session: Session, device: usize) -> Outcome<Session> {
    match session.devices[device].primary.take() {
        Some(context) => tear_down(session, context),
        None => Ok(session),
    }
}

/// Waits for a context's work, then removes it with its streams and, on the
/// last context of a device, the device's allocations.
fn tear_down(mut session: Session, context: Handle) -> Outcome<Session> {
    let device = session.context(context)?.device;
    let ops: Vec<_> = session
        .scheduler
        .live()
        .filter(|(_, op)| op.context == context)
        .map(|(&id, _)| id)
        .collect();
    session = session.block(&ops, 0);
    session.streams.retain(|_, stream| stream.context != context);
    session.contexts.remove(&context);
    if session.contexts.values().all(|c| c.device != device) {
        let plain: Vec<u64> = session
            .allocations
            .iter()
            .filter(|(_, a)| a.device == device)
            .map(|(&address, _)| address)
            .collect();
        for address in plain {
            // A pooled block is refused here and lives with its pool.
            let _ = session.free_plain(address);
        }
    }
    Ok(session)
}

pub fn primary_set_flags(ordinal: i32, flags: u32) -> Outcome {
    let mut session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    if session.devices[index].primary.is_some() && session.devices[index].primary_flags != flags {
        let primary = session.devices[index].primary;
        if let Some(context) = primary.and_then(|p| session.contexts.get_mut(&p)) {
            context.flags = flags;
        } else {
            return Err(PRIMARY_CONTEXT_ACTIVE);
        }
    }
    session.devices[index].primary_flags = flags;
    Ok(())
}

pub fn primary_state(ordinal: i32, flags: Out<u32>, active: Out<i32>) -> Outcome {
    let session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    flags.set(session.devices[index].primary_flags)?;
    active.set(i32::from(session.devices[index].primary.is_some()))
}

pub fn create(out: Out<Handle>, flags: u32, ordinal: i32) -> Outcome {
    let mut session = gpu::lock()?;
    let index = device(session.gpu, ordinal)?;
    start_workers(&mut session);
    let handle = session.new_context(index, false, flags);
    push_context(handle);
    out.set(handle)
}

pub fn create_v3(out: Out<Handle>, _affinity: *mut u8, count: i32, flags: u32, d: i32) -> Outcome {
    if count == 0 { create(out, flags, d) } else { Err(NOT_SUPPORTED) }
}

pub fn create_v4(out: Out<Handle>, params: *mut u8, flags: u32, d: i32) -> Outcome {
    if params.is_null() { create(out, flags, d) } else { Err(NOT_SUPPORTED) }
}

pub fn destroy(handle: Handle) -> Outcome {
    let session = gpu::lock()?;
    if session.context(handle)?.primary {
        return Err(INVALID_CONTEXT);
    }
    tear_down(session, handle)?;
    if current_context() == Some(handle) {
        pop_context();
    }
    Ok(())
}

pub fn get_current(out: Out<Handle>) -> Outcome {
    gpu::gpu()?;
    out.set(current_context().unwrap_or(0))
}

pub fn set_current(handle: Handle) -> Outcome {
    let session = gpu::lock()?;
    if handle != 0 {
        session.context(handle)?;
    }
    set_context(handle);
    Ok(())
}

pub fn push_current(handle: Handle) -> Outcome {
    gpu::lock()?.context(handle)?;
    push_context(handle);
    Ok(())
}

pub fn pop_current(out: Out<Handle>) -> Outcome {
    gpu::gpu()?;
    let handle = pop_context().ok_or(INVALID_CONTEXT)?;
    out.set_if_asked(handle);
    Ok(())
}

pub fn get_device(out: Out<i32>) -> Outcome {
    let session = gpu::lock()?;
    let context = current_context().ok_or(INVALID_CONTEXT)?;
    out.set(session.context(context)?.device as i32)
}

pub fn get_device_of(out: Out<i32>, context: Handle) -> Outcome {
    if context == 0 {
        return get_device(out);
    }
    out.set(gpu::lock()?.context(context)?.device as i32)
}

pub fn synchronize() -> Outcome {
    let session = gpu::lock()?;
    let context = session.current()?;
    synchronize_session(session, context)
}

pub fn synchronize_of(context: Handle) -> Outcome {
    if context == 0 {
        return synchronize();
    }
    let session = gpu::lock()?;
    synchronize_session(session, context)
}

fn synchronize_session(mut session: Session, context: Handle) -> Outcome {
    session.forbid_while_capturing(context)?;
    session.block_on_context(context)?.trim_to_thresholds()
}

pub fn get_flags(out: Out<u32>) -> Outcome {
    let session = gpu::lock()?;
    let context = session.current()?;
    out.set(session.context(context)?.flags)
}

pub fn set_flags(flags: u32) -> Outcome {
    let mut session = gpu::lock()?;
    let context = session.current()?;
    if let Some(context) = session.contexts.get_mut(&context) {
        context.flags = flags;
    }
    Ok(())
}

pub fn get_id(context: Handle, out: Out<u64>) -> Outcome {
    let session = gpu::lock()?;
    let context = if context == 0 { session.current()? } else { context };
    session.context(context)?;
    out.set(context)
}

pub fn api_version(context: Handle, out: Out<u32>) -> Outcome {
    let session = gpu::lock()?;
    if context != 0 {
        session.context(context)?;
    }
    out.set(super::init::DRIVER_VERSION as u32)
}

pub fn stream_priority_range(least: Out<i32>, greatest: Out<i32>) -> Outcome {
    gpu::lock()?.current()?;
    least.set_if_asked(0);
    greatest.set_if_asked(-5);
    Ok(())
}

pub fn get_limit(out: Out<usize>, limit: i32) -> Outcome {
    let session = gpu::lock()?;
    let context = session.current()?;
    let limits = &session.context(context)?.limits;
    let index = usize::try_from(limit).map_err(|_| INVALID_VALUE)?;
    out.set(*limits.get(index).ok_or(INVALID_VALUE)?)
}

pub fn set_limit(limit: i32, value: usize) -> Outcome {
    let mut session = gpu::lock()?;
    let context = session.current()?;
    let index = usize::try_from(limit).map_err(|_| INVALID_VALUE)?;
    let context = session.contexts.get_mut(&context).ok_or(INVALID_CONTEXT)?;
    *context.limits.get_mut(index).ok_or(INVALID_VALUE)? = value;
    Ok(())
}

/// Cache and shared-memory preferences: there is nothing to prefer.
pub fn get_preference(out: Out<i32>) -> Outcome {
    gpu::lock()?.current()?;
    out.set(0)
}

pub fn set_preference(_value: i32) -> Outcome {
    gpu::lock()?.current().map(drop)
}

pub fn reset_persisting_l2() -> Outcome {
    gpu::lock()?.current().map(drop)
}

pub fn enable_peer_access(peer: Handle, flags: u32) -> Outcome {
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    set_peer_access(peer, true)
}

pub fn disable_peer_access(peer: Handle) -> Outcome {
    set_peer_access(peer, false)
}

fn set_peer_access(peer: Handle, allowed: bool) -> Outcome {
    let session = gpu::lock()?;
    let here = session.current_device()?;
    let there = session.context(peer)?.device;
    if here == there {
        return Err(INVALID_DEVICE);
    }
    let mut space = session.gpu.space_mut();
    if space.peers[here][there] == allowed {
        let enabled = allowed;
        return Err(if enabled { PEER_ACCESS_ALREADY_ENABLED } else { PEER_ACCESS_NOT_ENABLED });
    }
    space.peers[here][there] = allowed;
    Ok(())
}
