//! Stream capture: streams whose work becomes nodes of a graph.
//!
//! Each capturing stream has a front of nodes the next one will depend on.
//! Other streams join by waiting on an event recorded in the capture, and must
//! be joined back before it ends. A call that is unsafe while somebody
//! captures fails and invalidates the capture, as the thread's mode and the
//! capture's mode say.

use super::gpu::{HandleKind, Session};
use super::graph::{GraphMemory, NodeKind};
use super::stream::StreamKind;
use super::submit::Submitted;
use super::work::Work;
use crate::abi::{
    CAPTURED_EVENT, Handle, INVALID_HANDLE, INVALID_VALUE, Outcome, STREAM_CAPTURE_IMPLICIT,
    STREAM_CAPTURE_INVALIDATED, STREAM_CAPTURE_ISOLATION, STREAM_CAPTURE_UNJOINED,
    STREAM_CAPTURE_UNMATCHED, STREAM_CAPTURE_UNSUPPORTED, STREAM_CAPTURE_WRONG_THREAD,
};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::thread::{self, ThreadId};

/// `CUstreamCaptureMode`.
pub const MODE_GLOBAL: i32 = 0;
pub const MODE_THREAD_LOCAL: i32 = 1;
pub const MODE_RELAXED: i32 = 2;

/// `CUstreamCaptureStatus`.
pub const STATUS_NONE: i32 = 0;
pub const STATUS_ACTIVE: i32 = 1;
pub const STATUS_INVALIDATED: i32 = 2;

thread_local! {
    static THREAD_MODE: Cell<i32> = const { Cell::new(MODE_GLOBAL) };
}

/// Sets the calling thread's mode and returns the one before.
pub fn exchange_thread_mode(mode: i32) -> Outcome<i32> {
    if !(MODE_GLOBAL..=MODE_RELAXED).contains(&mode) {
        return Err(INVALID_VALUE);
    }
    Ok(THREAD_MODE.replace(mode))
}

pub struct Capture {
    pub graph: Handle,
    origin: Handle,
    mode: i32,
    thread: ThreadId,
    /// Given by the program (BeginCaptureToGraph), so it outlives a failure.
    to_graph: bool,
    pub invalid: bool,
    /// Per capturing stream, the nodes its next one depends on.
    pub fronts: BTreeMap<Handle, Vec<Handle>>,
}

impl Session {
    /// Queues work on a stream or, if that captures, adds it to the graph.
    pub fn enqueue(&mut self, stream: Handle, work: Work) -> Outcome<Option<Submitted>> {
        let Some(capture) = self.stream(stream)?.capture else {
            self.forbid_legacy_while_capturing(stream)?;
            return self.submit(stream, work).map(Some);
        };
        self.capture_node(capture, stream, NodeKind::Work(work))?;
        Ok(None)
    }

    fn capture_node(&mut self, capture: Handle, stream: Handle, kind: NodeKind) -> Outcome<Handle> {
        let state = self.captures.get(&capture).ok_or(STREAM_CAPTURE_INVALIDATED)?;
        if state.invalid {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        let (graph, front) = (state.graph, state.fronts.get(&stream).cloned().unwrap_or_default());
        let node = self.add_node(graph, kind, front)?;
        self.set_front(capture, stream, vec![node]);
        Ok(node)
    }

    pub fn set_front(&mut self, capture: Handle, stream: Handle, nodes: Vec<Handle>) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.fronts.insert(stream, nodes);
        }
    }

    pub fn is_capturing(&self, stream: Handle) -> Outcome<bool> {
        Ok(self.stream(stream)?.capture.is_some())
    }

    pub fn capture_status(&self, stream: Handle) -> Outcome<i32> {
        let Some(capture) = self.stream(stream)?.capture else { return Ok(STATUS_NONE) };
        let invalid = self.captures.get(&capture).is_none_or(|c| c.invalid);
        Ok(if invalid { STATUS_INVALIDATED } else { STATUS_ACTIVE })
    }

    // ---- beginning and ending -----------------------------------------

    pub fn begin_capture(
        &mut self,
        stream: Handle,
        mode: i32,
        target: Option<(Handle, Vec<Handle>)>,
    ) -> Outcome {
        let found = self.stream(stream)?;
        if !(MODE_GLOBAL..=MODE_RELAXED).contains(&mode) {
            return Err(INVALID_VALUE);
        }
        if found.kind == StreamKind::Legacy {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        if found.capture.is_some() {
            return Err(INVALID_VALUE);
        }
        let to_graph = target.is_some();
        let (graph, front) = match target {
            Some((graph, nodes)) => {
                self.graph(graph)?;
                (graph, nodes)
            }
            None => (self.new_graph(), Vec::new()),
        };
        let handle = self.handle(HandleKind::Capture);
        let capture = Capture {
            graph,
            origin: stream,
            mode,
            thread: thread::current().id(),
            to_graph,
            invalid: false,
            fronts: BTreeMap::from([(stream, front)]),
        };
        self.captures.insert(handle, capture);
        self.stream_mut(stream)?.capture = Some(handle);
        Ok(())
    }

    /// The captured graph. Whatever the outcome, the capture is over, except
    /// when the wrong stream or thread asks.
    pub fn end_capture(&mut self, stream: Handle) -> Outcome<Handle> {
        let handle = self.stream(stream)?.capture.ok_or(INVALID_VALUE)?;
        let capture = self.captures.get(&handle).ok_or(INVALID_VALUE)?;
        if capture.mode != MODE_RELAXED && capture.thread != thread::current().id() {
            return Err(STREAM_CAPTURE_WRONG_THREAD);
        }
        let matched = capture.origin == stream;
        if !matched {
            self.invalidate_capture(handle);
            return Err(STREAM_CAPTURE_UNMATCHED);
        }
        let capture = self.captures.remove(&handle).ok_or(INVALID_VALUE)?;
        for stream in capture.fronts.keys() {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.capture = None;
            }
        }
        let verdict = if capture.invalid {
            Err(STREAM_CAPTURE_INVALIDATED)
        } else if !self.is_joined(&capture) {
            Err(STREAM_CAPTURE_UNJOINED)
        } else {
            Ok(capture.graph)
        };
        if verdict.is_err() && !capture.to_graph {
            self.destroy_graph(capture.graph)?;
        }
        verdict
    }

    /// Whether everything other streams added comes before the origin's front.
    fn is_joined(&self, capture: &Capture) -> bool {
        let mut seen: HashSet<Handle> = HashSet::new();
        let mut todo = capture.fronts.get(&capture.origin).cloned().unwrap_or_default();
        while let Some(node) = todo.pop() {
            if seen.insert(node)
                && let Some(node) = self.nodes.get(&node)
            {
                todo.extend_from_slice(&node.dependencies);
            }
        }
        capture.fronts.values().flatten().all(|node| seen.contains(node))
    }

    pub fn invalidate_capture(&mut self, capture: Handle) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid = true;
        }
    }

    // ---- what may not be done while somebody captures -------------------

    /// Calls that cannot be captured and act on this stream.
    pub fn forbid_on_capturing(&mut self, stream: Handle) -> Outcome {
        if let Some(capture) = self.stream(stream)?.capture {
            self.invalidate_capture(capture);
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        self.forbid_legacy_while_capturing(stream)
    }

    /// Waiting for a context in which a stream captures.
    pub fn forbid_while_capturing(&mut self, context: Handle) -> Outcome {
        let found: Vec<Handle> = self
            .streams
            .values()
            .filter(|s| s.context == context)
            .filter_map(|s| s.capture)
            .collect();
        found.iter().for_each(|&capture| self.invalidate_capture(capture));
        if found.is_empty() { Ok(()) } else { Err(STREAM_CAPTURE_UNSUPPORTED) }
    }

    /// The legacy stream would depend on a blocking stream that captures.
    fn forbid_legacy_while_capturing(&mut self, stream: Handle) -> Outcome {
        let stream = self.stream(stream)?;
        if stream.kind != StreamKind::Legacy || self.captures.is_empty() {
            return Ok(());
        }
        let context = stream.context;
        let capturing = |s: &&super::stream::Stream| s.context == context && s.is_blocking();
        let found = self.streams.values().filter(capturing).find_map(|s| s.capture);
        match found {
            Some(capture) => {
                self.invalidate_capture(capture);
                Err(STREAM_CAPTURE_IMPLICIT)
            }
            None => Ok(()),
        }
    }

    /// Calls that may disturb a capture elsewhere (allocation, registration,
    /// event queries): forbidden by this thread's mode and the captures' modes.
    pub fn forbid_unsafe_call(&mut self) -> Outcome {
        if self.captures.is_empty() {
            return Ok(());
        }
        let here = thread::current().id();
        let mode = THREAD_MODE.get();
        let conflicts = |c: &&mut Capture| match mode {
            MODE_RELAXED => false,
            MODE_THREAD_LOCAL => c.thread == here && c.mode != MODE_RELAXED,
            _ => c.mode == MODE_GLOBAL || (c.thread == here && c.mode == MODE_THREAD_LOCAL),
        };
        let mut disturbed = 0;
        for capture in self.captures.values_mut().filter(conflicts) {
            capture.invalid = true;
            disturbed += 1;
        }
        if disturbed > 0 { Err(STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    // ---- events and memory in a capture ---------------------------------

    /// Records in a capture; false if the stream does not capture.
    pub fn capture_record(
        &mut self,
        stream: Handle,
        event: Handle,
        external: bool,
    ) -> Outcome<bool> {
        let Some(capture) = self.stream(stream)?.capture else {
            self.forbid_legacy_while_capturing(stream)?;
            return Ok(false);
        };
        let state = self.captures.get(&capture).ok_or(STREAM_CAPTURE_INVALIDATED)?;
        if state.invalid {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        if external {
            self.capture_node(capture, stream, NodeKind::Work(Work::RecordEvent(event)))?;
            return Ok(true);
        }
        let front = state.fronts.get(&stream).cloned().unwrap_or_default();
        let event = self.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
        event.captured = Some((capture, front));
        event.recording = None;
        Ok(true)
    }

    /// A wait that belongs to a capture; false if it is an ordinary wait.
    pub fn capture_wait(&mut self, stream: Handle, event: Handle, external: bool) -> Outcome<bool> {
        let own = self.stream(stream)?.capture;
        let state = self.events.get(&event).ok_or(INVALID_HANDLE)?;
        let recorded = state.recording.is_some();
        match (own, state.captured.clone()) {
            (Some(capture), _) if external => {
                self.capture_node(capture, stream, NodeKind::Work(Work::WaitEvent(event)))?;
                Ok(true)
            }
            (Some(capture), Some((theirs, nodes))) if capture == theirs => {
                let state = self.captures.get_mut(&capture).ok_or(STREAM_CAPTURE_INVALIDATED)?;
                state.fronts.entry(stream).or_default().extend(nodes);
                Ok(true)
            }
            (Some(capture), captured) => {
                if captured.is_none() && !recorded {
                    return Ok(true);
                }
                self.invalidate_capture(capture);
                Err(STREAM_CAPTURE_ISOLATION)
            }
            (None, Some((theirs, nodes))) => {
                let state = self.captures.get_mut(&theirs).ok_or(CAPTURED_EVENT)?;
                state.fronts.insert(stream, nodes);
                self.stream_mut(stream)?.capture = Some(theirs);
                Ok(true)
            }
            (None, None) => Ok(false),
        }
    }

    /// Stream-ordered allocation in a capture: an allocation node.
    pub fn capture_alloc(
        &mut self,
        stream: Handle,
        device: usize,
        bytes: u64,
    ) -> Outcome<Option<u64>> {
        let Some(capture) = self.stream(stream)?.capture else { return Ok(None) };
        let memory = Arc::new(self.new_graph_memory(device, bytes)?);
        let address = memory.address;
        self.capture_node(capture, stream, NodeKind::Alloc { memory })?;
        Ok(Some(address))
    }

    pub fn capture_free(&mut self, stream: Handle, address: u64) -> Outcome<bool> {
        let Some(capture) = self.stream(stream)?.capture else { return Ok(false) };
        self.capture_node(capture, stream, NodeKind::Free { address })?;
        Ok(true)
    }

    pub fn new_graph_memory(&mut self, device: usize, bytes: u64) -> Outcome<GraphMemory> {
        Ok(GraphMemory { address: self.allocate_for_graph(device, bytes)? })
    }
}
