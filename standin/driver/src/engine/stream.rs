//! Contexts, streams and events, and the order they stand for.
//!
//! A stream keeps its *tail*: the operations its next one must wait for. A
//! wait on an event adds that recording's operations to the tail; a recording
//! is a copy of the tail. Neither is an operation of its own.
//! The legacy stream waits for every blocking stream of its context, and they
//! for it.

use super::scheduler::{OpId, Scheduler};
use crate::abi::{Code, Handle};
use std::thread::ThreadId;

pub struct Context {
    pub device: usize,
    pub primary: bool,
    pub flags: u32,
    /// Set by an operation that failed; every later call answers it.
    pub error: Option<Code>,
    /// The stream that `CU_STREAM_LEGACY` means here.
    pub legacy: Handle,
    /// `CUlimit` values as set, by enumerator.
    pub limits: [usize; 11],
    /// Streams made so far.
    pub streams_made: u32,
}

/// Defaults of `CUlimit`: stack, printf, heap, sync depth, pending launches,
/// L2 granularity, persisting L2, …
pub const DEFAULT_LIMITS: [usize; 11] = [1024, 1 << 20, 8 << 20, 2, 2048, 128, 0, 0, 0, 0, 0];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    Legacy,
    PerThread(ThreadId),
    Ordinary,
}

pub struct Stream {
    pub context: Handle,
    pub kind: StreamKind,
    pub flags: u32,
    pub priority: i32,
    /// Counted within its context from 0: which hardware queues it uses.
    pub number: u32,
    pub tail: Vec<OpId>,
    /// Virtual end of the last work, and of the latest event waited for.
    pub work_end_ns: u64,
    pub wait_end_ns: u64,
    /// The capture this stream takes part in.
    pub capture: Option<Handle>,
}

impl Context {
    /// A stream of this context, whose handle is `own`.
    pub fn stream(&mut self, own: Handle, kind: StreamKind, flags: u32, priority: i32) -> Stream {
        self.streams_made += 1;
        Stream::new(own, kind, flags, priority, self.streams_made - 1)
    }
}

impl Stream {
    fn new(context: Handle, kind: StreamKind, flags: u32, priority: i32, number: u32) -> Stream {
        Stream {
            context,
            kind,
            flags,
            priority,
            number,
            tail: Vec::new(),
            work_end_ns: 0,
            wait_end_ns: 0,
            capture: None,
        }
    }

    /// Whether it and the legacy stream wait for each other.
    pub fn is_blocking(&self) -> bool {
        self.flags & crate::abi::STREAM_NON_BLOCKING == 0
    }

    pub fn prune(&mut self, scheduler: &Scheduler) {
        self.tail.retain(|&op| scheduler.is_live(op));
    }
}

/// What a stream's next operation must wait for, and when it may start.
#[derive(Clone, Debug, Default)]
pub struct Front {
    pub ops: Vec<OpId>,
    /// Virtual end of earlier work, event waits not counted.
    pub work_end_ns: u64,
    /// The same, event waits counted.
    pub ready_ns: u64,
    /// It is a graph's node that will be submitted.
    pub in_graph: bool,
    /// Number of the stream through whose hardware queue it goes; a graph's
    /// nodes have queues of their own.
    pub stream_number: Option<u32>,
}

impl Front {
    pub fn join(&mut self, stream: &Stream) {
        self.ops.extend_from_slice(&stream.tail);
        self.work_end_ns = self.work_end_ns.max(stream.work_end_ns);
        self.ready_ns = self.ready_ns.max(stream.work_end_ns).max(stream.wait_end_ns);
    }
}

#[derive(Clone)]
pub struct Recording {
    pub ops: Vec<OpId>,
    pub ns: u64,
}

pub struct Event {
    pub flags: u32,
    pub recording: Option<Recording>,
    /// Recorded in a capture: the graph nodes it stands for.
    pub captured: Option<(Handle, Vec<Handle>)>,
}

pub const EVENT_DISABLE_TIMING: u32 = 2;
