//! Records for a trace what the device does, and when: each copy, and each wait
//! of a launch, between two timed events, which are read when they are long past.
//!
//! Only where a trace was asked for. Reading never waits; what is not over when
//! the program ends is recorded without its end.
//! Not here: what becomes of the records (`account::trace`).

use std::collections::{HashMap, VecDeque};

use autooffload_core::address_map::ChunkId;

use super::timed_events::TimedEvents;
use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::account::{Event, Memory, Trace, What};

/// Kept until they are over; the oldest are given up first.
const PENDING: usize = 8192;
/// Read at a time.
const READ: usize = 4;
/// Milliseconds between events are 32-bit floats: over so many they are still
/// exact to a tenth of a microsecond.
const ANCHOR_NS: f64 = 1e9;
/// A wait that is shorter kept nobody waiting.
const WAIT_NS: u64 = 1000;

struct Pending {
    start: CUevent,
    /// `None`: a moment.
    end: Option<CUevent>,
    what: What,
}

pub struct Recorder {
    trace: &'static Trace,
    device: i32,
    ctx: CUcontext,
    /// An event that is over, and its time; none before the first record.
    anchor: Option<(CUevent, f64)>,
    /// The end of the latest record that was read.
    latest_ns: f64,
    pending: VecDeque<Pending>,
    spare: TimedEvents,
    /// Of what came last: whether on demand.
    demanded: HashMap<ChunkId, bool>,
    memory: Memory,
}

impl Recorder {
    pub fn new(trace: &'static Trace, device: i32, ctx: CUcontext) -> Self {
        trace.push(Event { device, start_ns: 0, ns: None, what: What::Begin });
        Self {
            trace,
            device,
            ctx,
            anchor: None,
            latest_ns: trace.latest_ns() as f64,
            pending: VecDeque::new(),
            spare: TimedEvents::default(),
            demanded: HashMap::new(),
            memory: Memory::default(),
        }
    }

    /// Before something is queued on `stream`, which is of the device's context.
    pub fn begin(&mut self, driver: &Driver, stream: CUstream) -> Option<CUevent> {
        self.read(driver);
        self.spare.record(driver, stream)
    }

    /// After it was.
    pub fn end(&mut self, driver: &Driver, stream: CUstream, start: Option<CUevent>, what: What) {
        if let What::Copy { into: true, chunk, demanded, .. } = what {
            self.demanded.insert(chunk, demanded);
        }
        let Some(start) = start else { return self.trace.lost(1) };
        let Some(end) = self.spare.record(driver, stream) else {
            self.spare.give_back([start]);
            return self.trace.lost(1);
        };
        self.keep(Pending { start, end: Some(end), what });
    }

    /// A launch waits for `chunk`: whether it was fetched on demand.
    pub fn was_demanded(&self, chunk: ChunkId) -> bool {
        self.demanded.get(&chunk).copied().unwrap_or(false)
    }

    /// Whether events of `stream`'s context are of ours.
    pub fn is_of(&self, driver: &Driver) -> bool {
        driver.ctx_get_current() == Ok(self.ctx)
    }

    /// Something happened when `stream` had come as far as it has been queued.
    pub fn moment(&mut self, driver: &Driver, stream: CUstream, what: What) {
        self.read(driver);
        match self.spare.record(driver, stream) {
            Some(start) => self.keep(Pending { start, end: None, what }),
            None => self.trace.lost(1),
        }
    }

    /// A moment at which memory was like this, if that is news.
    pub fn memory(&mut self, driver: &Driver, stream: CUstream, memory: Memory) {
        if self.memory != memory {
            self.memory = memory;
            self.moment(driver, stream, What::Memory(memory));
        }
    }

    fn keep(&mut self, pending: Pending) {
        self.pending.push_back(pending);
        if self.pending.len() > PENDING
            && let Some(oldest) = self.pending.pop_front()
        {
            self.spare.give_back([oldest.start]);
            self.spare.give_back(oldest.end);
            self.trace.lost(1);
        }
    }

    /// Those that are over, from the oldest on.
    fn read(&mut self, driver: &Driver) {
        for _ in 0..READ {
            let Some(&Pending { start, end, what }) = self.pending.front() else { return };
            // Of one that is not over the driver does not know the time.
            let elapsed = |from, to| driver.event_elapsed_ms(from, to).ok().map(f64::from);
            let Some(ms) = elapsed(start, end.unwrap_or(start)) else { return };
            let (anchor, anchor_ns) = self.anchor.unwrap_or((start, self.latest_ns));
            let since = if anchor == start { Some(0.0) } else { elapsed(anchor, start) };
            let Some(since) = since else { return };
            self.pending.pop_front();
            // Records of several streams are not in the order of their beginnings.
            let start_ns = (anchor_ns + since * 1e6).max(0.0);
            let ns = ms * 1e6;
            self.latest_ns = self.latest_ns.max(start_ns + ns);
            self.record(start_ns as u64, Some(ns as u64), what);
            match self.anchor {
                None => {
                    self.anchor = Some((start, start_ns));
                    self.spare.give_back(end);
                }
                Some((old, _)) if start_ns - anchor_ns > ANCHOR_NS => {
                    self.anchor = Some((start, start_ns));
                    self.spare.give_back([old]);
                    self.spare.give_back(end);
                }
                Some(_) => {
                    self.spare.give_back([start]);
                    self.spare.give_back(end);
                }
            }
        }
    }

    fn record(&self, start_ns: u64, ns: Option<u64>, what: What) {
        if matches!(what, What::Wait { .. }) && ns.is_none_or(|ns| ns < WAIT_NS) {
            return;
        }
        self.trace.push(Event { device: self.device, start_ns, ns, what });
    }

    /// The program ends; the driver may be gone.
    pub fn finish(&mut self) {
        let at = self.latest_ns as u64;
        for pending in std::mem::take(&mut self.pending) {
            self.record(at, None, pending.what);
        }
    }

    /// Gives the events back, but for the one that the next are measured from.
    pub fn release(&mut self, driver: &Driver) {
        self.read_all(driver);
        self.spare.release(driver);
    }

    fn read_all(&mut self, driver: &Driver) {
        let mut left = usize::MAX;
        while self.pending.len() < left {
            left = self.pending.len();
            self.read(driver);
        }
    }
}
