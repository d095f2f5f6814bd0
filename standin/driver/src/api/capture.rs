//! Stream capture: beginning, ending, asking about it, changing its front.

use crate::abi::{Handle, INVALID_VALUE, Outcome, STREAM_CAPTURE_IMPLICIT};
use crate::edge::{In, Out};
use crate::engine::capture::{MODE_GLOBAL, STATUS_ACTIVE, STATUS_NONE, exchange_thread_mode};
use crate::engine::gpu::{self, DefaultStream, Session};
use crate::engine::stream::StreamKind;
use std::cell::RefCell;

/// Edges have no data here: `CUgraphEdgeData` of zeros.
pub type EdgeData = [u8; 8];

/// Exchanges the calling thread's mode with `mode`.
pub fn exchange_mode(mode: Out<i32>) -> Outcome {
    gpu::gpu()?;
    mode.set(exchange_thread_mode(mode.get()?)?)
}

pub fn begin(default: DefaultStream, stream: Handle, mode: i32) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.begin_capture(stream, mode, None)
}

pub fn begin_v1(default: DefaultStream, stream: Handle) -> Outcome {
    begin(default, stream, MODE_GLOBAL)
}

pub fn begin_to_graph(
    default: DefaultStream,
    stream: Handle,
    graph: Handle,
    dependencies: In<Handle>,
    _edges: In<EdgeData>,
    count: usize,
    mode: i32,
) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.begin_capture(stream, mode, Some((graph, dependencies.list(count)?)))
}

pub fn end(default: DefaultStream, stream: Handle, out: Out<Handle>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    match session.end_capture(stream) {
        Ok(graph) => out.set(graph),
        Err(code) => {
            out.set_if_asked(0);
            Err(code)
        }
    }
}

pub fn is_capturing(default: DefaultStream, stream: Handle, out: Out<i32>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    let status = session.capture_status(stream)?;
    if status == STATUS_NONE && legacy_is_blocked(&session, stream)? {
        return Err(STREAM_CAPTURE_IMPLICIT);
    }
    out.set(status)
}

/// The legacy stream cannot tell while a blocking stream captures.
fn legacy_is_blocked(session: &Session, stream: Handle) -> Outcome<bool> {
    let stream = session.stream(stream)?;
    Ok(stream.kind == StreamKind::Legacy
        && session
            .streams
            .values()
            .any(|s| s.context == stream.context && s.is_blocking() && s.capture.is_some()))
}

pub fn info_v1(d: DefaultStream, stream: Handle, status: Out<i32>, id: Out<u64>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, d)?;
    status.set(session.capture_status(stream)?)?;
    id.set_if_asked(session.stream(stream)?.capture.unwrap_or(0));
    Ok(())
}

thread_local! {
    /// The list a caller of GetCaptureInfo was pointed to; valid until it
    /// asks again or changes the capture, as documented.
    static FRONT: RefCell<(Vec<Handle>, Vec<EdgeData>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

pub fn info_v2(
    d: DefaultStream,
    stream: Handle,
    status: Out<i32>,
    id: Out<u64>,
    graph: Out<Handle>,
    dependencies: Out<*const Handle>,
    count: Out<usize>,
) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, d)?;
    let now = session.capture_status(stream)?;
    status.set(now)?;
    if now != STATUS_ACTIVE {
        return Ok(());
    }
    let handle = session.stream(stream)?.capture.unwrap_or(0);
    let capture = session.captures.get(&handle).ok_or(INVALID_VALUE)?;
    id.set_if_asked(handle);
    graph.set_if_asked(capture.graph);
    let front = capture.fronts.get(&stream).cloned().unwrap_or_default();
    count.set_if_asked(front.len());
    FRONT.with_borrow_mut(|kept| {
        kept.1 = vec![EdgeData::default(); front.len()];
        kept.0 = front;
        dependencies.set_if_asked(kept.0.as_ptr());
    });
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn info_v3(
    d: DefaultStream,
    stream: Handle,
    status: Out<i32>,
    id: Out<u64>,
    graph: Out<Handle>,
    dependencies: Out<*const Handle>,
    edges: Out<*const EdgeData>,
    count: Out<usize>,
) -> Outcome {
    info_v2(d, stream, status, id, graph, dependencies, count)?;
    FRONT.with_borrow(|kept| edges.set_if_asked(kept.1.as_ptr()));
    Ok(())
}

/// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`; 0 adds to the front.
const SET_DEPENDENCIES: u32 = 1;

pub fn update(
    d: DefaultStream,
    stream: Handle,
    dependencies: In<Handle>,
    count: usize,
    flags: u32,
) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, d)?;
    let handle = session.stream(stream)?.capture.ok_or(INVALID_VALUE)?;
    let capture = session.captures.get(&handle).filter(|c| !c.invalid).ok_or(INVALID_VALUE)?;
    let nodes = dependencies.list(count)?;
    if nodes.iter().any(|n| session.nodes.get(n).is_none_or(|n| n.graph != capture.graph)) {
        return Err(INVALID_VALUE);
    }
    let mut front = match flags {
        SET_DEPENDENCIES => Vec::new(),
        0 => capture.fronts.get(&stream).cloned().unwrap_or_default(),
        _ => return Err(INVALID_VALUE),
    };
    front.extend(nodes);
    session.set_front(handle, stream, front);
    Ok(())
}

pub fn update_v2(
    d: DefaultStream,
    stream: Handle,
    dependencies: In<Handle>,
    _edges: In<EdgeData>,
    count: usize,
    flags: u32,
) -> Outcome {
    update(d, stream, dependencies, count, flags)
}
