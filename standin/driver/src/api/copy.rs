//! Copies and memsets.
//!
//! When the host may go on: a copy from pageable memory is staged before the
//! call returns, one to pageable memory is done before it returns; from and
//! to pinned memory nothing waits. The synchronous forms wait whenever the
//! host is on either side; between device addresses, and for memsets, nobody
//! waits.

use crate::abi::{
    Handle, INVALID_VALUE, MEMORYTYPE_DEVICE, MEMORYTYPE_HOST, MEMORYTYPE_UNIFIED, Memcpy2D,
    Memcpy3D, NOT_SUPPORTED, Outcome,
};
use crate::edge::In;
use crate::engine::gpu::{self, DefaultStream, Session};
use crate::engine::prices::Call;
use crate::engine::work::{Copy, Fill, Side, Work};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Sync,
    Async,
}

fn copy(default: DefaultStream, stream: Handle, copy: Copy, mode: Mode) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    if mode == Mode::Sync {
        session.forbid_on_capturing(stream)?;
        session.forbid_unsafe_call()?;
    }
    enqueue_copy(session, stream, copy, mode).map(drop)
}

/// Queues a copy on a resolved stream and waits as far as the host must.
fn enqueue_copy(
    mut session: Session,
    stream: Handle,
    mut copy: Copy,
    mode: Mode,
) -> Outcome<Session> {
    let context = session.stream(stream)?.context;
    session.live_context(context)?;
    if copy.bytes() == 0 {
        return Ok(session);
    }
    let (src_host, dst_host) = (is_host(&session, &copy.src), is_host(&session, &copy.dst));
    let capturing = session.is_capturing(stream)?;
    let pageable = |side: &Side| match side {
        Side::Address(a) => session.gpu.space().pinned_at(*a).is_none(),
        Side::Staged(_) => false,
    };
    let from_pageable = src_host && pageable(&copy.src);
    let to_pageable = dst_host && pageable(&copy.dst);
    if from_pageable
        && mode == Mode::Async
        && !capturing
        && let Side::Address(src) = copy.src
    {
        let extent = copy.src_extent() as usize;
        // SAFETY: the caller's source, readable for the extent of the copy.
        let bytes = unsafe { std::slice::from_raw_parts(src as *const u8, extent) };
        copy.src = Side::Staged(Arc::from(bytes));
    }
    let bytes = copy.bytes();
    if from_pageable && !capturing {
        session.clock.pays(Call::HostCopy, bytes);
    }
    let wait = !capturing
        && match mode {
            Mode::Sync => src_host || dst_host,
            Mode::Async => to_pageable,
        };
    let queued = session.enqueue(stream, Work::Copy(copy))?;
    match queued {
        Some(submitted) if wait => {
            let mut session = session.block(&[submitted.op], submitted.end_ns);
            session.live_context(context)?;
            if to_pageable {
                session.clock.pays(Call::HostCopy, bytes);
            }
            Ok(session)
        }
        _ => Ok(session),
    }
}

fn is_host(session: &Session, side: &Side) -> bool {
    match side {
        Side::Address(address) => !session.gpu.space().is_device(*address),
        Side::Staged(_) => true,
    }
}

fn linear(d: DefaultStream, s: Handle, dst: u64, src: u64, bytes: usize, mode: Mode) -> Outcome {
    copy(d, s, Copy::linear(Side::Address(dst), Side::Address(src), bytes as u64), mode)
}

/// An address that must be on the device.
fn on_device(address: u64, bytes: usize) -> Outcome {
    let gpu = gpu::gpu()?;
    let space = gpu.space();
    let usable = bytes == 0 || space.is_device(address) || space.pinned_at(address).is_some();
    if usable { Ok(()) } else { Err(INVALID_VALUE) }
}

pub fn any(d: DefaultStream, dst: u64, src: u64, bytes: usize) -> Outcome {
    linear(d, 0, dst, src, bytes, Mode::Sync)
}

pub fn any_async(d: DefaultStream, dst: u64, src: u64, bytes: usize, s: Handle) -> Outcome {
    linear(d, s, dst, src, bytes, Mode::Async)
}

pub fn htod(d: DefaultStream, dst: u64, src: u64, bytes: usize) -> Outcome {
    on_device(dst, bytes)?;
    linear(d, 0, dst, src, bytes, Mode::Sync)
}

pub fn htod_async(d: DefaultStream, dst: u64, src: u64, bytes: usize, s: Handle) -> Outcome {
    on_device(dst, bytes)?;
    linear(d, s, dst, src, bytes, Mode::Async)
}

pub fn dtoh(d: DefaultStream, dst: u64, src: u64, bytes: usize) -> Outcome {
    on_device(src, bytes)?;
    linear(d, 0, dst, src, bytes, Mode::Sync)
}

pub fn dtoh_async(d: DefaultStream, dst: u64, src: u64, bytes: usize, s: Handle) -> Outcome {
    on_device(src, bytes)?;
    linear(d, s, dst, src, bytes, Mode::Async)
}

pub fn dtod(d: DefaultStream, dst: u64, src: u64, bytes: usize) -> Outcome {
    on_device(dst, bytes)?;
    on_device(src, bytes)?;
    linear(d, 0, dst, src, bytes, Mode::Sync)
}

pub fn dtod_async(d: DefaultStream, dst: u64, src: u64, bytes: usize, s: Handle) -> Outcome {
    on_device(dst, bytes)?;
    on_device(src, bytes)?;
    linear(d, s, dst, src, bytes, Mode::Async)
}

pub fn peer(d: DefaultStream, dst: u64, dc: Handle, src: u64, sc: Handle, bytes: usize) -> Outcome {
    check_contexts(dc, sc)?;
    linear(d, 0, dst, src, bytes, Mode::Sync)
}

pub fn peer_async(
    d: DefaultStream,
    dst: u64,
    dc: Handle,
    src: u64,
    sc: Handle,
    bytes: usize,
    s: Handle,
) -> Outcome {
    check_contexts(dc, sc)?;
    linear(d, s, dst, src, bytes, Mode::Async)
}

fn check_contexts(a: Handle, b: Handle) -> Outcome {
    let session = gpu::lock()?;
    session.context(a)?;
    session.context(b).map(drop)
}

// ---- rectangles -------------------------------------------------------

/// The address one side of a rectangle starts from.
fn origin(kind: u32, host: u64, device: u64) -> Outcome<u64> {
    match kind {
        MEMORYTYPE_HOST => Ok(host),
        MEMORYTYPE_DEVICE | MEMORYTYPE_UNIFIED => Ok(device),
        _ => Err(NOT_SUPPORTED),
    }
}

pub fn box_of(m: &Memcpy3D) -> Outcome<Copy> {
    let src_pitch = if m.src_pitch == 0 { m.src_x + m.width } else { m.src_pitch };
    let dst_pitch = if m.dst_pitch == 0 { m.dst_x + m.width } else { m.dst_pitch };
    let src_slice = src_pitch * if m.src_height == 0 { m.src_y + m.height } else { m.src_height };
    let dst_slice = dst_pitch * if m.dst_height == 0 { m.dst_y + m.height } else { m.dst_height };
    if m.width > src_pitch || m.width > dst_pitch {
        return Err(INVALID_VALUE);
    }
    let src = origin(m.src_type, m.src_host, m.src_device)?;
    let dst = origin(m.dst_type, m.dst_host, m.dst_device)?;
    Ok(Copy {
        src: Side::Address(src + (m.src_z * src_slice + m.src_y * src_pitch + m.src_x) as u64),
        dst: Side::Address(dst + (m.dst_z * dst_slice + m.dst_y * dst_pitch + m.dst_x) as u64),
        width: m.width as u64,
        height: m.height as u64,
        depth: m.depth as u64,
        src_pitch: src_pitch as u64,
        src_slice: src_slice as u64,
        dst_pitch: dst_pitch as u64,
        dst_slice: dst_slice as u64,
    })
}

fn rectangle(m: &Memcpy2D) -> Outcome<Copy> {
    box_of(&Memcpy3D {
        src_x: m.src_x,
        src_y: m.src_y,
        src_z: 0,
        src_lod: 0,
        src_type: m.src_type,
        src_host: m.src_host,
        src_device: m.src_device,
        src_array: m.src_array,
        reserved0: 0,
        src_pitch: m.src_pitch,
        src_height: 0,
        dst_x: m.dst_x,
        dst_y: m.dst_y,
        dst_z: 0,
        dst_lod: 0,
        dst_type: m.dst_type,
        dst_host: m.dst_host,
        dst_device: m.dst_device,
        dst_array: m.dst_array,
        reserved1: 0,
        dst_pitch: m.dst_pitch,
        dst_height: 0,
        width: m.width,
        height: m.height,
        depth: 1,
    })
}

pub fn copy_2d(d: DefaultStream, m: In<Memcpy2D>) -> Outcome {
    copy(d, 0, rectangle(&m.get()?)?, Mode::Sync)
}

pub fn copy_2d_async(d: DefaultStream, m: In<Memcpy2D>, s: Handle) -> Outcome {
    copy(d, s, rectangle(&m.get()?)?, Mode::Async)
}

pub fn copy_3d(d: DefaultStream, m: In<Memcpy3D>) -> Outcome {
    copy(d, 0, box_of(&m.get()?)?, Mode::Sync)
}

pub fn copy_3d_async(d: DefaultStream, m: In<Memcpy3D>, s: Handle) -> Outcome {
    copy(d, s, box_of(&m.get()?)?, Mode::Async)
}

// ---- batches ----------------------------------------------------------

/// Attributes only hint at locations and at when sources are read; reading
/// them in stream order satisfies every value.
fn batch(
    d: DefaultStream,
    dsts: In<u64>,
    srcs: In<u64>,
    sizes: In<usize>,
    count: usize,
    s: Handle,
) -> Outcome {
    if s == 0 || count == 0 {
        return Err(INVALID_VALUE);
    }
    let mut session = gpu::lock()?;
    let stream = session.resolve(s, d)?;
    for i in 0..count {
        let (dst, src) = (Side::Address(dsts.at(i)?), Side::Address(srcs.at(i)?));
        let copy = Copy::linear(dst, src, sizes.at(i)? as u64);
        session = enqueue_copy(session, stream, copy, Mode::Async)?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn batch_v1(
    d: DefaultStream,
    dsts: In<u64>,
    srcs: In<u64>,
    sizes: In<usize>,
    count: usize,
    _attributes: *mut u8,
    _indices: In<usize>,
    _attribute_count: usize,
    fail_index: crate::edge::Out<usize>,
    s: Handle,
) -> Outcome {
    let result = batch(d, dsts, srcs, sizes, count, s);
    if result.is_err() {
        fail_index.set_if_asked(usize::MAX);
    }
    result
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn batch_v2(
    d: DefaultStream,
    dsts: In<u64>,
    srcs: In<u64>,
    sizes: In<usize>,
    count: usize,
    _attributes: *mut u8,
    _indices: In<usize>,
    _attribute_count: usize,
    s: Handle,
) -> Outcome {
    batch(d, dsts, srcs, sizes, count, s)
}

// ---- memsets ----------------------------------------------------------

fn fill(d: DefaultStream, s: Handle, fill: Fill) -> Outcome {
    on_device(fill.dst, fill.width as usize)?;
    if !fill.dst.is_multiple_of(u64::from(fill.element)) {
        return Err(INVALID_VALUE);
    }
    let mut session = gpu::lock()?;
    let stream = session.resolve(s, d)?;
    if fill.width == 0 || fill.height == 0 {
        return Ok(());
    }
    session.enqueue(stream, Work::Fill(fill)).map(drop)
}

fn row(dst: u64, value: u32, element: u32, count: usize) -> Fill {
    let pitch = count as u64 * u64::from(element);
    Fill { dst, value, element, width: count as u64, height: 1, pitch }
}

pub fn set_8(d: DefaultStream, dst: u64, value: u8, count: usize) -> Outcome {
    fill(d, 0, row(dst, value.into(), 1, count))
}

pub fn set_16(d: DefaultStream, dst: u64, value: u16, count: usize) -> Outcome {
    fill(d, 0, row(dst, value.into(), 2, count))
}

pub fn set_32(d: DefaultStream, dst: u64, value: u32, count: usize) -> Outcome {
    fill(d, 0, row(dst, value, 4, count))
}

pub fn set_8_async(d: DefaultStream, dst: u64, value: u8, count: usize, s: Handle) -> Outcome {
    fill(d, s, row(dst, value.into(), 1, count))
}

pub fn set_16_async(d: DefaultStream, dst: u64, value: u16, count: usize, s: Handle) -> Outcome {
    fill(d, s, row(dst, value.into(), 2, count))
}

pub fn set_32_async(d: DefaultStream, dst: u64, value: u32, count: usize, s: Handle) -> Outcome {
    fill(d, s, row(dst, value, 4, count))
}

fn rows(dst: u64, pitch: usize, value: u32, element: u32, w: usize, h: usize) -> Fill {
    Fill { dst, value, element, width: w as u64, height: h as u64, pitch: pitch as u64 }
}

pub fn set_2d_8(
    d: DefaultStream,
    dst: u64,
    pitch: usize,
    value: u8,
    w: usize,
    h: usize,
) -> Outcome {
    fill(d, 0, rows(dst, pitch, value.into(), 1, w, h))
}

pub fn set_2d_16(
    d: DefaultStream,
    dst: u64,
    pitch: usize,
    value: u16,
    w: usize,
    h: usize,
) -> Outcome {
    fill(d, 0, rows(dst, pitch, value.into(), 2, w, h))
}

pub fn set_2d_32(
    d: DefaultStream,
    dst: u64,
    pitch: usize,
    value: u32,
    w: usize,
    h: usize,
) -> Outcome {
    fill(d, 0, rows(dst, pitch, value, 4, w, h))
}

pub fn set_2d_8_async(
    d: DefaultStream,
    dst: u64,
    pitch: usize,
    value: u8,
    w: usize,
    h: usize,
    s: Handle,
) -> Outcome {
    fill(d, s, rows(dst, pitch, value.into(), 1, w, h))
}

pub fn set_2d_16_async(
    d: DefaultStream,
    dst: u64,
    pitch: usize,
    value: u16,
    w: usize,
    h: usize,
    s: Handle,
) -> Outcome {
    fill(d, s, rows(dst, pitch, value.into(), 2, w, h))
}

pub fn set_2d_32_async(
    d: DefaultStream,
    dst: u64,
    pitch: usize,
    value: u32,
    w: usize,
    h: usize,
    s: Handle,
) -> Outcome {
    fill(d, s, rows(dst, pitch, value, 4, w, h))
}
