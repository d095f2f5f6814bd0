//! Streams: their life, waiting, host functions, memory operations.

use crate::abi::{
    Handle, HostFn, INVALID_HANDLE, INVALID_VALUE, NOT_READY, NOT_SUPPORTED, Outcome,
    STREAM_NON_BLOCKING, StreamCallback,
};
use crate::edge::{In, Out};
use crate::engine::gpu::{self, DefaultStream, Session};
use crate::engine::scheduler::OpId;
use crate::engine::stream::StreamKind;
use crate::engine::work::Work;
use std::ffi::c_void;

/// `CU_EVENT_WAIT_EXTERNAL`: in a capture, a node of its own.
const WAIT_EXTERNAL: u32 = 1;
const WRITE_VALUE_NO_BARRIER: u32 = 1;

pub fn create(out: Out<Handle>, flags: u32) -> Outcome {
    create_with_priority(out, flags, 0)
}

pub fn create_with_priority(out: Out<Handle>, flags: u32, priority: i32) -> Outcome {
    if flags & !STREAM_NON_BLOCKING != 0 {
        return Err(INVALID_VALUE);
    }
    let mut session = gpu::lock()?;
    let context = session.current()?;
    out.set(session.add_stream(context, StreamKind::Ordinary, flags, priority.clamp(-5, 0))?)
}

/// Work already queued still runs; nobody waits for it.
pub fn destroy(handle: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.stream(handle)?;
    if stream.kind != StreamKind::Ordinary {
        return Err(INVALID_HANDLE);
    }
    if let Some(capture) = stream.capture {
        session.invalidate_capture(capture);
    }
    let Some(stream) = session.streams.remove(&handle) else { return Err(INVALID_HANDLE) };
    // What the legacy stream would have had to wait for, it still does.
    if stream.is_blocking() {
        let legacy = session.context(stream.context)?.legacy;
        let legacy = session.stream_mut(legacy)?;
        legacy.tail.extend(stream.tail);
        legacy.wait_end_ns = legacy.wait_end_ns.max(stream.work_end_ns).max(stream.wait_end_ns);
    }
    Ok(())
}

/// What a wait for the whole stream waits for, and until when.
fn tail(session: &mut Session, stream: Handle) -> Outcome<(Vec<OpId>, u64)> {
    let front = session.front(stream)?;
    Ok((front.ops, front.ready_ns))
}

pub fn synchronize(default: DefaultStream, stream: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.forbid_on_capturing(stream)?;
    let context = session.stream(stream)?.context;
    let (ops, ns) = tail(&mut session, stream)?;
    let mut session = session.block(&ops, ns);
    session.live_context(context)?;
    session.trim_to_thresholds()
}

pub fn query(default: DefaultStream, stream: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.forbid_on_capturing(stream)?;
    let context = session.stream(stream)?.context;
    let (ops, ns) = tail(&mut session, stream)?;
    let (session, done) = session.poll(&ops, ns);
    session.live_context(context)?;
    if done { Ok(()) } else { Err(NOT_READY) }
}

pub fn wait_event(default: DefaultStream, stream: Handle, event: Handle, flags: u32) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    if session.capture_wait(stream, event, flags & WAIT_EXTERNAL != 0)? {
        return Ok(());
    }
    let recording = session.events.get(&event).ok_or(INVALID_HANDLE)?.recording.clone();
    let Some(recording) = recording else { return Ok(()) };
    session.clock.host_call();
    let waiting = session.stream_mut(stream)?;
    waiting.tail.extend(recording.ops);
    waiting.wait_end_ns = waiting.wait_end_ns.max(recording.ns);
    if let Some(op) = session.hold_queue(stream)? {
        session.stream_mut(stream)?.tail = vec![op];
    }
    Ok(())
}

pub fn get_ctx(default: DefaultStream, stream: Handle, out: Out<Handle>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    out.set(session.stream(stream)?.context)
}

pub fn get_device(default: DefaultStream, stream: Handle, out: Out<i32>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    let context = session.stream(stream)?.context;
    out.set(session.context(context)?.device as i32)
}

pub fn get_flags(default: DefaultStream, stream: Handle, out: Out<u32>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    out.set(session.stream(stream)?.flags)
}

pub fn get_id(default: DefaultStream, stream: Handle, out: Out<u64>) -> Outcome {
    let mut session = gpu::lock()?;
    out.set(session.resolve(stream, default)?)
}

pub fn get_priority(default: DefaultStream, stream: Handle, out: Out<i32>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    out.set(session.stream(stream)?.priority)
}

pub fn launch_host(
    default: DefaultStream,
    stream: Handle,
    function: Option<HostFn>,
    data: *mut c_void,
) -> Outcome {
    let function = function.ok_or(INVALID_VALUE)?;
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.enqueue(stream, Work::Host { function, data: data as usize }).map(drop)
}

pub fn add_callback(
    default: DefaultStream,
    stream: Handle,
    function: Option<StreamCallback>,
    data: *mut c_void,
    flags: u32,
) -> Outcome {
    let function = function.filter(|_| flags == 0).ok_or(INVALID_VALUE)?;
    let mut session = gpu::lock()?;
    let seen = stream;
    let stream = session.resolve(stream, default)?;
    session.forbid_on_capturing(stream)?;
    let work = Work::Callback { function, stream: seen, data: data as usize };
    session.enqueue(stream, work).map(drop)
}

pub fn wait_value32(
    d: DefaultStream,
    stream: Handle,
    address: u64,
    value: u32,
    flags: u32,
) -> Outcome {
    wait_value(d, stream, address, u64::from(value), flags, false)
}

pub fn wait_value64(
    d: DefaultStream,
    stream: Handle,
    address: u64,
    value: u64,
    flags: u32,
) -> Outcome {
    wait_value(d, stream, address, value, flags, true)
}

fn wait_value(
    default: DefaultStream,
    stream: Handle,
    address: u64,
    value: u64,
    flags: u32,
    wide: bool,
) -> Outcome {
    check_value_address(address, wide)?;
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.enqueue(stream, Work::WaitValue { address, value, wide, flags }).map(drop)
}

pub fn write_value32(
    d: DefaultStream,
    stream: Handle,
    address: u64,
    value: u32,
    flags: u32,
) -> Outcome {
    write_value(d, stream, address, u64::from(value), flags, false)
}

pub fn write_value64(
    d: DefaultStream,
    stream: Handle,
    address: u64,
    value: u64,
    flags: u32,
) -> Outcome {
    write_value(d, stream, address, value, flags, true)
}

fn write_value(
    default: DefaultStream,
    stream: Handle,
    address: u64,
    value: u64,
    flags: u32,
    wide: bool,
) -> Outcome {
    if flags & !WRITE_VALUE_NO_BARRIER != 0 {
        return Err(INVALID_VALUE);
    }
    check_value_address(address, wide)?;
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.enqueue(stream, Work::WriteValue { address, value, wide }).map(drop)
}

fn check_value_address(address: u64, wide: bool) -> Outcome {
    let size = if wide { 8 } else { 4 };
    if address == 0 || !address.is_multiple_of(size) { Err(INVALID_VALUE) } else { Ok(()) }
}

pub fn attach_mem(_d: DefaultStream, _s: Handle, _p: u64, _bytes: usize, _flags: u32) -> Outcome {
    Err(NOT_SUPPORTED)
}

/// `CUstreamAttrID`: 1 access policy window, 3 synchronization policy, 4
/// priority, 8 memory sync domain. None but the priority has an effect here.
pub fn get_attribute(
    d: DefaultStream,
    stream: Handle,
    attribute: i32,
    out: Out<[u8; 64]>,
) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, d)?;
    let mut value = [0u8; 64];
    match attribute {
        1 | 3 | 7 | 8 => {}
        4 => value[..4].copy_from_slice(&session.stream(stream)?.priority.to_le_bytes()),
        _ => return Err(INVALID_VALUE),
    }
    out.set(value)
}

pub fn set_attribute(
    d: DefaultStream,
    stream: Handle,
    attribute: i32,
    _value: In<[u8; 64]>,
) -> Outcome {
    gpu::lock()?.resolve(stream, d)?;
    if matches!(attribute, 1 | 3 | 4 | 7 | 8) { Ok(()) } else { Err(INVALID_VALUE) }
}

pub fn copy_attributes(d: DefaultStream, dst: Handle, src: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    session.resolve(dst, d)?;
    session.resolve(src, d).map(drop)
}
