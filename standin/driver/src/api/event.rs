//! Events.

use crate::abi::{CAPTURED_EVENT, Handle, INVALID_HANDLE, INVALID_VALUE, NOT_READY, Outcome};
use crate::edge::Out;
use crate::engine::gpu::{self, DefaultStream, HandleKind, Session};
use crate::engine::stream::{EVENT_DISABLE_TIMING, Event, Recording};

const RECORD_EXTERNAL: u32 = 1;

pub fn create(out: Out<Handle>, flags: u32) -> Outcome {
    let mut session = gpu::lock()?;
    session.current()?;
    if flags & !7 != 0 {
        return Err(INVALID_VALUE);
    }
    let handle = session.handle(HandleKind::Event);
    session.events.insert(handle, Event { flags, recording: None, captured: None });
    out.set(handle)
}

pub fn destroy(event: Handle) -> Outcome {
    gpu::lock()?.events.remove(&event).map(drop).ok_or(INVALID_HANDLE)
}

pub fn record(default: DefaultStream, event: Handle, stream: Handle) -> Outcome {
    record_with_flags(default, event, stream, 0)
}

pub fn record_with_flags(
    default: DefaultStream,
    event: Handle,
    stream: Handle,
    flags: u32,
) -> Outcome {
    let mut session = gpu::lock()?;
    if !session.events.contains_key(&event) {
        return Err(INVALID_HANDLE);
    }
    let stream = session.resolve(stream, default)?;
    if session.capture_record(stream, event, flags & RECORD_EXTERNAL != 0)? {
        return Ok(());
    }
    session.record_event(stream, event)
}

impl Session {
    /// Makes `event` stand for everything queued on `stream` so far.
    pub fn record_event(&mut self, stream: Handle, event: Handle) -> Outcome {
        let front = self.front(stream)?;
        let held = self.hold_queue(stream)?;
        self.clock.host_call();
        let ns = front.ready_ns.max(self.clock.host_ns);
        let event = self.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
        event.captured = None;
        let ops = held.map_or(front.ops, |op| vec![op]);
        event.recording = Some(Recording { ops, ns });
        Ok(())
    }

    fn recording(&self, event: Handle) -> Outcome<Option<Recording>> {
        let event = self.events.get(&event).ok_or(INVALID_HANDLE)?;
        if event.captured.is_some() {
            return Err(CAPTURED_EVENT);
        }
        Ok(event.recording.clone())
    }
}

pub fn query(event: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    let Some(recording) = session.recording(event)? else {
        session.account.query_polls += 1;
        return Ok(());
    };
    let (session, done) = session.poll(&recording.ops, recording.ns);
    if let Ok(context) = session.current() {
        session.live_context(context)?;
    }
    if done { Ok(()) } else { Err(NOT_READY) }
}

pub fn synchronize(event: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    session.forbid_unsafe_call()?;
    let recording = session.recording(event)?.unwrap_or(Recording { ops: Vec::new(), ns: 0 });
    let mut session = session.block(&recording.ops, recording.ns);
    if let Some(context) = gpu::current_context() {
        session.live_context(context)?;
    }
    session.trim_to_thresholds()
}

pub fn elapsed_time(out: Out<f32>, start: Handle, end: Handle) -> Outcome {
    let session = gpu::lock()?;
    let time = |event: Handle| {
        let flags = session.events.get(&event).ok_or(INVALID_HANDLE)?.flags;
        let recording = session.recording(event)?.ok_or(INVALID_HANDLE)?;
        if flags & EVENT_DISABLE_TIMING != 0 { Err(INVALID_HANDLE) } else { Ok(recording) }
    };
    let (start, end) = (time(start)?, time(end)?);
    if start.ns.max(end.ns) > session.clock.host_ns {
        return Err(NOT_READY);
    }
    out.set((end.ns as f64 - start.ns as f64) as f32 / 1e6)
}
