//! One device in virtual time: a host thread, streams, and the engines that
//! serve them.
//!
//! ```text
//!   host --submits--> streams (in order each) --hand over what is ready--> engines
//!   host:    runs ahead by at most `launch_queue` kernels, or waits
//!   streams: Compute, Side (the program's); In, Out, Release (the offloader's)
//!   engines: kernels, copies in, copies out: one operation at a time, in the
//!            order in which operations became ready
//! ```
//!
//! An operation is ready when what it waits for is done and its predecessor on
//! the stream is done, or is a copy that is ready for the same engine. So a
//! small copy of the program's, which becomes ready when the kernel before it
//! ends, queues behind every copy of ours that was ready by then: what the
//! limit on the ready backlog is for.
//!
//! Time advances only to where the host has got, so that nothing submitted
//! later can be missed. A wait names work that was submitted before; therefore
//! nothing here can deadlock.
//!
//! Invariants: `done <= submitted` on each stream; an engine runs the front
//! operation of some stream; `memory` is what was acquired and not released,
//! at this virtual time, and `peak` the most it ever was.
//!
//! Not here: chunks, what is present, who decides (see `run`).

use crate::workload::Nanos;
use std::collections::VecDeque;

/// Of the device, the link and the driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    pub in_bytes_per_s: f64,
    pub out_bytes_per_s: f64,
    /// What is left of the rate in while a copy out runs.
    pub in_while_out: f64,
    /// What is left of a kernel's speed while a copy runs.
    pub kernel_while_copy: f64,
    /// Every copy takes this and its bytes.
    pub copy_ns: Nanos,
    /// Host time to submit a kernel, a copy, an event or a wait for one.
    pub launch_ns: Nanos,
    pub submit_ns: Nanos,
    pub event_ns: Nanos,
    /// From the end of the work to the host's return from waiting for it.
    pub sync_ns: Nanos,
    /// Kernels submitted and not begun, at most.
    pub launch_queue: u32,
    /// Durations vary by up to these shares, evenly.
    pub kernel_jitter: f64,
    pub copy_jitter: f64,
    pub seed: u64,
}

impl Default for Parameters {
    /// PCIe 4 without noise; the sources are in `workload::cards`.
    fn default() -> Self {
        Self {
            in_bytes_per_s: 26e9,
            out_bytes_per_s: 26e9,
            in_while_out: 18.6 / 26.0,
            kernel_while_copy: 1.0,
            copy_ns: 8_000,
            launch_ns: 4_000,
            submit_ns: 4_000,
            event_ns: 500,
            sync_ns: 15_000,
            launch_queue: 1024,
            kernel_jitter: 0.0,
            copy_jitter: 0.0,
            seed: 0,
        }
    }
}

/// Operations of one stream begin in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The program's.
    Compute,
    /// Another of the program's.
    Side,
    /// The offloader's copies, one stream each way.
    In,
    Out,
    /// From the end of our kernel's reading to when it is known what was written.
    Release,
}

const STREAMS: usize = 5;

/// The end of one operation. The default: nothing, long over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    stream: Stream,
    /// Operations of the stream up to and with this one.
    index: u64,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { stream: Stream::Compute, index: 0 }
    }
}

/// Several operations that must be over; streams are in order, so the last of
/// each is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits([u64; STREAMS]);

impl Waits {
    pub const NONE: Self = Self([0; STREAMS]);

    pub fn add(&mut self, stamp: Stamp) {
        let index = &mut self.0[stamp.stream as usize];
        *index = (*index).max(stamp.index);
    }

    pub fn merge(&mut self, other: &Waits) {
        for (index, &theirs) in self.0.iter_mut().zip(&other.0) {
            *index = (*index).max(theirs);
        }
    }
}

impl Waits {
    /// Whether everything that `other` waits for is waited for.
    pub fn cover(&self, other: &Waits) -> bool {
        self.0.iter().zip(&other.0).all(|(ours, theirs)| ours >= theirs)
    }
}

impl From<Stamp> for Waits {
    fn from(stamp: Stamp) -> Self {
        let mut waits = Self::NONE;
        waits.add(stamp);
        waits
    }
}

/// Time in which no kernel of the program's ran although one was to come, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// The link was at work.
    pub copy_ns: Nanos,
    /// The link stood still: a copy waited for frames, or for its planned start.
    pub slot_ns: Nanos,
    /// The host had not submitted it yet.
    pub host_ns: Nanos,
    /// A copy of the program's: its wait and its own time.
    pub program_copy_ns: Nanos,
    /// Our kernel ran that looks for what was written.
    pub release_ns: Nanos,
}

impl Stalls {
    pub fn total(&self) -> Nanos {
        self.copy_ns + self.slot_ns + self.host_ns + self.program_copy_ns + self.release_ns
    }

    /// What came after `earlier`, a total of the same run.
    pub fn since(&self, earlier: &Stalls) -> Stalls {
        Stalls {
            copy_ns: self.copy_ns - earlier.copy_ns,
            slot_ns: self.slot_ns - earlier.slot_ns,
            host_ns: self.host_ns - earlier.host_ns,
            program_copy_ns: self.program_copy_ns - earlier.program_copy_ns,
            release_ns: self.release_ns - earlier.release_ns,
        }
    }
}

/// Everything that happened up to some virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The offloader's bytes over the link, copies that ended.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub copies_in: u64,
    pub copies_out: u64,
    /// The program's own, both ways.
    pub program_bytes: u64,
    /// Time in which a kernel of the program's ran.
    pub kernel_ns: Nanos,
    /// Time in which the engine of copies in was at work.
    pub link_ns: Nanos,
    pub stalls: Stalls,
}

impl Totals {
    /// What came after `earlier`, of the same run.
    pub fn since(&self, earlier: &Totals) -> Totals {
        Totals {
            bytes_in: self.bytes_in - earlier.bytes_in,
            bytes_out: self.bytes_out - earlier.bytes_out,
            copies_in: self.copies_in - earlier.copies_in,
            copies_out: self.copies_out - earlier.copies_out,
            program_bytes: self.program_bytes - earlier.program_bytes,
            kernel_ns: self.kernel_ns - earlier.kernel_ns,
            link_ns: self.link_ns - earlier.link_ns,
            stalls: self.stalls.since(&earlier.stalls),
        }
    }
}

/// The compute stream has come to a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    pub tag: u64,
    pub at: Nanos,
    pub totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// On the kernel engine, for this long when alone.
    Kernel(Nanos),
    CopyIn(u64),
    CopyOut(u64),
    /// On no engine; any number at once.
    Delay(Nanos),
    /// To be noted for the runner, or for whoever measures.
    Mark(u64),
    Probe(u64),
}

#[derive(Clone, Debug)]
struct Operation {
    work: Work,
    waits: Waits,
    /// Order of submission over all streams.
    serial: u64,
    submitted: Nanos,
    /// Kernels it counts for in the launch queue.
    kernels: u32,
    /// Memory taken when it begins, and given up when it ends.
    acquires: u64,
    releases: u64,
    /// Of the link's rate, for a copy.
    share: f32,
    /// Bytes that a kernel itself moves over the link, and the share of its
    /// time in which it keeps the link busy.
    moves: (u64, u64),
    link_share: f64,
}

#[derive(Default)]
struct Queue {
    /// Not over. The first `handed` of them are with an engine.
    operations: VecDeque<Operation>,
    handed: usize,
    submitted: u64,
    done: u64,
    /// Kernels among those not begun.
    waiting_kernels: u32,
}

#[derive(Clone, Copy)]
struct Running {
    stream: usize,
    began: Nanos,
    /// As of `since`: nanoseconds of work left, done at `rate`.
    left: f64,
    rate: f64,
    since: Nanos,
    end: Nanos,
}

/// What an engine has been given and has not begun.
#[derive(Clone, Copy)]
struct Handed {
    stream: usize,
    ready: Nanos,
    serial: u64,
}

#[derive(Default)]
struct Engine {
    ready: VecDeque<Handed>,
    running: Option<Running>,
    /// Time at work, up to the end of the last operation that ended.
    busy_ns: Nanos,
}

impl Engine {
    fn busy_until(&self, now: Nanos) -> Nanos {
        self.busy_ns + self.running.map_or(0, |running| now - running.began)
    }
}

const KERNELS: usize = 0;
const COPIES_IN: usize = 1;
const COPIES_OUT: usize = 2;

/// See the module's text.
pub struct Device {
    parameters: Parameters,
    now: Nanos,
    host: Nanos,
    queues: [Queue; STREAMS],
    engines: [Engine; 3],
    /// Delays under way: end, stream; by end. And the last end of each stream.
    delays: VecDeque<(Nanos, usize)>,
    last_delay: [Nanos; STREAMS],
    serial: u64,
    totals: Totals,
    marks: Vec<Marked>,
    probes: Vec<Marked>,
    memory: u64,
    peak: u64,
    /// Since when the compute stream has had nothing done, and how long the
    /// engine of copies in had worked by then.
    still_since: Nanos,
    link_then: Nanos,
    kernels_begun: u64,
    copies_begun: u64,
    copy_share: f32,
    /// Some kernel ever read over the link.
    kernels_on_link: bool,
}

impl Device {
    pub fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            now: 0,
            host: 0,
            queues: Default::default(),
            engines: Default::default(),
            delays: VecDeque::new(),
            last_delay: [0; STREAMS],
            serial: 0,
            totals: Totals::default(),
            marks: Vec::new(),
            probes: Vec::new(),
            memory: 0,
            peak: 0,
            still_since: 0,
            link_then: 0,
            kernels_begun: 0,
            copies_begun: 0,
            copy_share: 1.0,
            kernels_on_link: false,
        }
    }

    // --- what the host does ------------------------------------------------

    /// Submits a kernel that takes `ns`, which is `kernels` launches, and
    /// `acquires` memory when it begins.
    pub fn kernel(
        &mut self,
        stream: Stream,
        ns: Nanos,
        kernels: u16,
        waits: Waits,
        acquires: u64,
    ) -> Stamp {
        let kernels = u32::from(kernels.max(1));
        let host_ns = self.parameters.launch_ns * Nanos::from(kernels);
        self.submit(stream, Work::Kernel(ns), kernels, waits, acquires, host_ns)
    }

    /// Submits a copy to the device, into `acquires` bytes of memory that
    /// nobody holds by the time it begins.
    pub fn copy_in(&mut self, stream: Stream, bytes: u64, waits: Waits, acquires: u64) -> Stamp {
        self.submit(stream, Work::CopyIn(bytes), 0, waits, acquires, self.parameters.submit_ns)
    }

    pub fn copy_out(&mut self, stream: Stream, bytes: u64, waits: Waits) -> Stamp {
        self.submit(stream, Work::CopyOut(bytes), 0, waits, 0, self.parameters.submit_ns)
    }

    /// Submits the passing of `ns` after `waits`, which occupies nothing;
    /// `acquires` as with a copy.
    pub fn delay(&mut self, stream: Stream, ns: Nanos, waits: Waits, acquires: u64) -> Stamp {
        self.submit(stream, Work::Delay(ns), 0, waits, acquires, self.parameters.event_ns)
    }

    /// The kernel submitted last to the compute stream moves bytes over the
    /// link itself; its duration says how long that takes, of which the link is
    /// busy with it for `link_share` when no copy is.
    pub fn kernel_moves(&mut self, bytes_in: u64, bytes_out: u64, link_share: f64) {
        let kernel = self.queues[Stream::Compute as usize].operations.back_mut();
        let kernel = kernel.expect("submitted just now: nothing has happened since");
        kernel.moves = (bytes_in, bytes_out);
        kernel.link_share = link_share;
        self.kernels_on_link |= link_share > 0.0;
        self.settle();
    }

    /// Copies submitted from now on get this share of the link's rate: from
    /// pageable memory, for example.
    pub fn set_copy_share(&mut self, share: f64) {
        self.copy_share = share as f32;
    }

    /// Notes time and totals when the compute stream comes here: no cost.
    pub fn mark(&mut self, tag: u64) {
        self.submit(Stream::Compute, Work::Mark(tag), 0, Waits::NONE, 0, 0);
    }

    /// As [`Self::mark`], for a policy that measures; costs an event.
    pub fn probe(&mut self, tag: u64) {
        let ns = self.parameters.event_ns;
        self.submit(Stream::Compute, Work::Probe(tag), 0, Waits::NONE, 0, ns);
    }

    /// The host is busy with something else.
    pub fn host_busy(&mut self, ns: Nanos) {
        self.host += ns;
    }

    /// The host waits until `stamp` is over.
    pub fn wait_for(&mut self, stamp: Stamp) {
        self.advance(self.host);
        while !self.over(stamp) {
            self.step();
        }
        self.host = self.host.max(self.now) + self.parameters.sync_ns;
    }

    /// The host waits until all of `waits` are over; at no cost if they are.
    pub fn wait_for_all(&mut self, waits: &Waits) {
        self.advance(self.host);
        let over = |device: &Self| {
            waits.0.iter().zip(&device.queues).all(|(&index, queue)| index <= queue.done)
        };
        if over(self) {
            return;
        }
        while !over(self) {
            self.step();
        }
        self.host = self.host.max(self.now) + self.parameters.sync_ns;
    }

    /// The host waits for everything that was submitted to `stream`.
    pub fn wait_for_stream(&mut self, stream: Stream) {
        self.wait_for(self.last(stream));
    }

    /// `bytes` of memory are taken at this moment.
    pub fn acquire(&mut self, bytes: u64) {
        self.advance(self.host);
        self.take(bytes);
    }

    /// `bytes` of memory are given up when `stamp` is over.
    pub fn release_after(&mut self, stamp: Stamp, bytes: u64) {
        self.advance(self.host);
        let queue = &mut self.queues[stamp.stream as usize];
        if stamp.index <= queue.done {
            self.memory -= bytes;
        } else {
            queue.operations[(stamp.index - queue.done - 1) as usize].releases += bytes;
        }
    }

    // --- what can be seen ---------------------------------------------------

    /// The last operation submitted to `stream`.
    pub fn last(&self, stream: Stream) -> Stamp {
        Stamp { stream, index: self.queues[stream as usize].submitted }
    }

    /// Whether it is over, as far as the device has got.
    pub fn over(&self, stamp: Stamp) -> bool {
        stamp.index <= self.queues[stamp.stream as usize].done
    }

    pub fn host_ns(&self) -> Nanos {
        self.host
    }

    /// Up to where the device has got.
    pub fn now(&self) -> Nanos {
        self.now
    }

    pub fn totals(&self) -> Totals {
        let link_ns = self.engines[COPIES_IN].busy_until(self.now);
        Totals { link_ns, ..self.totals }
    }

    pub fn peak_bytes(&self) -> u64 {
        self.peak
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Marks that the compute stream has come to, each once.
    pub fn marks(&mut self) -> impl Iterator<Item = Marked> + '_ {
        self.marks.drain(..)
    }

    /// Probes that the compute stream has come to, each once.
    pub fn probes(&mut self) -> impl Iterator<Item = Marked> + '_ {
        self.probes.drain(..)
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Bytes of copies in that are ready and not begun.
    pub fn backlog_bytes(&self) -> u64 {
        let of_stream = |stream: usize, queue: &Queue| {
            let begun = self.engines[COPIES_IN].running.is_some_and(|r| r.stream == stream);
            queue
                .operations
                .iter()
                .take(queue.handed)
                .skip(usize::from(begun))
                .map(|operation| match operation.work {
                    Work::CopyIn(bytes) => bytes,
                    _ => 0,
                })
                .sum::<u64>()
        };
        self.queues.iter().enumerate().map(|(stream, queue)| of_stream(stream, queue)).sum()
    }

    // --- the machinery -------------------------------------------------------

    fn submit(
        &mut self,
        stream: Stream,
        work: Work,
        kernels: u32,
        waits: Waits,
        acquires: u64,
        host_ns: Nanos,
    ) -> Stamp {
        self.host += host_ns;
        self.advance(self.host);
        let limit = self.parameters.launch_queue;
        // One operation is let in however many kernels it stands for.
        while self.queues[stream as usize].waiting_kernels > 0
            && self.queues[stream as usize].waiting_kernels + kernels > limit
            && kernels > 0
        {
            self.step();
            self.host = self.host.max(self.now);
        }
        debug_assert!(
            waits.0.iter().zip(&self.queues).all(|(&index, queue)| index <= queue.submitted),
            "a wait names work that was submitted"
        );
        self.serial += 1;
        let queue = &mut self.queues[stream as usize];
        if stream == Stream::Compute && queue.operations.is_empty() {
            self.link_then = self.engines[COPIES_IN].busy_until(self.now);
        }
        queue.submitted += 1;
        queue.waiting_kernels += kernels;
        queue.operations.push_back(Operation {
            work,
            waits,
            serial: self.serial,
            submitted: self.now,
            kernels,
            acquires,
            releases: 0,
            share: self.copy_share,
            moves: (0, 0),
            link_share: 0.0,
        });
        let stamp = Stamp { stream, index: queue.submitted };
        self.settle();
        stamp
    }

    /// Everything that happens up to `to`.
    fn advance(&mut self, to: Nanos) {
        while let Some(end) = self.next_end()
            && end <= to
        {
            self.complete(end);
        }
        self.now = self.now.max(to);
    }

    /// The next thing that happens.
    fn step(&mut self) {
        let end =
            self.next_end().expect("what is waited for was submitted, and waits for nothing later");
        self.complete(end);
    }

    fn next_end(&self) -> Option<Nanos> {
        let mut next = self.delays.front().map_or(Nanos::MAX, |&(end, _)| end);
        for engine in &self.engines {
            if let Some(running) = &engine.running {
                next = next.min(running.end);
            }
        }
        (next != Nanos::MAX).then_some(next)
    }

    /// Ends what ends at `now`, all of it before anything new begins.
    fn complete(&mut self, now: Nanos) {
        self.now = now;
        for index in 0..self.engines.len() {
            let engine = &mut self.engines[index];
            if let Some(running) = engine.running
                && running.end == now
            {
                engine.running = None;
                engine.busy_ns += now - running.began;
                self.end_front(running.stream, now - running.began);
            }
        }
        while let Some(&(end, stream)) = self.delays.front()
            && end == now
        {
            self.delays.pop_front();
            self.end_front(stream, 0);
        }
        self.settle();
    }

    /// The first operation of `stream`, which ran for `ns`, is over.
    fn end_front(&mut self, stream: usize, ns: Nanos) {
        let queue = &mut self.queues[stream];
        let operation = queue.operations.pop_front().expect("an operation that runs");
        queue.handed -= 1;
        queue.done += 1;
        self.memory -= operation.releases;
        let own = stream >= Stream::In as usize;
        match operation.work {
            Work::Kernel(_) if !own => {
                self.totals.kernel_ns += ns;
                self.totals.bytes_in += operation.moves.0;
                self.totals.bytes_out += operation.moves.1;
            }
            Work::CopyIn(bytes) if own => {
                self.totals.bytes_in += bytes;
                self.totals.copies_in += 1;
            }
            Work::CopyOut(bytes) if own => {
                self.totals.bytes_out += bytes;
                self.totals.copies_out += 1;
            }
            Work::CopyIn(bytes) | Work::CopyOut(bytes) => {
                self.totals.program_bytes += bytes;
                if stream == Stream::Compute as usize {
                    // Until it was submitted, the host was late; from then on it is the copy.
                    let from = operation.submitted.max(self.still_since);
                    self.totals.stalls.host_ns += from - self.still_since;
                    self.totals.stalls.program_copy_ns += self.now - from;
                }
            }
            _ => {}
        }
        if stream == Stream::Compute as usize {
            self.still_since = self.now;
            self.link_then = self.engines[COPIES_IN].busy_until(self.now);
        }
    }

    /// SimMemoryOps over what has become ready, and starts engines that stand still.
    fn settle(&mut self) {
        loop {
            let mut marked = false;
            for stream in 0..STREAMS {
                while self.queues[stream].handed < self.queues[stream].operations.len() {
                    if !self.front_is_ready(stream) {
                        break;
                    }
                    marked |= self.hand_over(stream);
                }
            }
            // Only the passing of a mark can make other streams ready.
            if !marked {
                break;
            }
        }
        let mut started = false;
        for index in 0..self.engines.len() {
            if self.engines[index].running.is_none()
                && let Some(handed) = self.engines[index].ready.pop_front()
            {
                self.start(index, handed);
                started = true;
            }
        }
        let p = &self.parameters;
        if p.in_while_out != 1.0 || p.kernel_while_copy != 1.0 || self.kernels_on_link {
            self.adjust_rates();
        } else if started {
            debug_assert!(self.engines.iter().flat_map(|e| e.running).all(|r| r.rate == 1.0));
        }
    }

    /// Whether the first operation of `stream` that no engine has can be handed over.
    fn front_is_ready(&self, stream: usize) -> bool {
        let queue = &self.queues[stream];
        let operation = &queue.operations[queue.handed];
        if queue.handed > 0 {
            let before = &queue.operations[queue.handed - 1].work;
            let same = matches!(
                (before, &operation.work),
                (Work::CopyIn(_), Work::CopyIn(_))
                    | (Work::CopyOut(_), Work::CopyOut(_))
                    | (Work::Delay(_), Work::Delay(_))
            );
            if !same {
                return false;
            }
        }
        operation.waits.0.iter().zip(&self.queues).all(|(&index, queue)| index <= queue.done)
    }

    /// Answers whether a mark was passed.
    fn hand_over(&mut self, stream: usize) -> bool {
        let queue = &mut self.queues[stream];
        let operation = &queue.operations[queue.handed];
        let serial = operation.serial;
        queue.handed += 1;
        let engine = match operation.work {
            Work::Kernel(_) => KERNELS,
            Work::CopyIn(_) => COPIES_IN,
            Work::CopyOut(_) => COPIES_OUT,
            Work::Delay(ns) => {
                let acquires = operation.acquires;
                let end = (self.now + ns).max(self.last_delay[stream]);
                self.last_delay[stream] = end;
                let at = self.delays.partition_point(|&(other, _)| other <= end);
                self.delays.insert(at, (end, stream));
                self.take(acquires);
                return false;
            }
            work @ (Work::Mark(tag) | Work::Probe(tag)) => {
                queue.handed -= 1;
                queue.done += 1;
                let operation = queue.operations.pop_front().expect("the mark");
                self.memory -= operation.releases;
                // It had nothing to wait for but its submission.
                self.totals.stalls.host_ns += self.now - self.still_since;
                self.still_since = self.now;
                self.link_then = self.engines[COPIES_IN].busy_until(self.now);
                let totals = self.totals();
                let list = match work {
                    Work::Probe(_) => &mut self.probes,
                    _ => &mut self.marks,
                };
                list.push(Marked { tag, at: self.now, totals });
                return true;
            }
        };
        let ready = &mut self.engines[engine].ready;
        let handed = Handed { stream, ready: self.now, serial };
        let at = ready.partition_point(|other| (other.ready, other.serial) < (self.now, serial));
        ready.insert(at, handed);
        false
    }

    fn start(&mut self, engine: usize, handed: Handed) {
        let queue = &mut self.queues[handed.stream];
        let operation = &mut queue.operations[0];
        queue.waiting_kernels -= std::mem::take(&mut operation.kernels);
        let acquires = std::mem::take(&mut operation.acquires);
        let (work, submitted, share) = (operation.work, operation.submitted, operation.share);
        let p = &self.parameters;
        let work_ns = match work {
            Work::Kernel(ns) => {
                // Those of the program: numbered alike whatever the policy adds.
                self.kernels_begun += u64::from(handed.stream == Stream::Compute as usize);
                jittered(ns as f64, p.kernel_jitter, p.seed, self.kernels_begun)
            }
            Work::CopyIn(bytes) | Work::CopyOut(bytes) => {
                let rate = if engine == COPIES_IN { p.in_bytes_per_s } else { p.out_bytes_per_s };
                let own = handed.stream >= Stream::In as usize;
                let share = if own { f64::from(share) } else { 1.0 };
                let ns = p.copy_ns as f64 + bytes as f64 * 1e9 / (rate * share);
                self.copies_begun += 1;
                jittered(ns, p.copy_jitter, !p.seed, self.copies_begun)
            }
            Work::Delay(_) | Work::Mark(_) | Work::Probe(_) => unreachable!("needs no engine"),
        };
        let now = self.now;
        if handed.stream == Stream::Compute as usize && matches!(work, Work::Kernel(_)) {
            self.account_stall(submitted, handed.ready);
        }
        self.engines[engine].running = Some(Running {
            stream: handed.stream,
            began: now,
            left: work_ns,
            rate: 1.0,
            since: now,
            end: now + work_ns.ceil() as Nanos,
        });
        self.take(acquires);
    }

    /// A kernel begins: what kept the compute stream from it.
    fn account_stall(&mut self, submitted: Nanos, ready: Nanos) {
        let since = self.still_since;
        if self.now == since {
            return;
        }
        let stalls = &mut self.totals.stalls;
        let from = submitted.clamp(since, self.now);
        stalls.host_ns += from - since;
        stalls.release_ns += self.now - ready;
        let waited = ready - from.min(ready);
        let link = (self.engines[COPIES_IN].busy_until(self.now) - self.link_then).min(waited);
        stalls.copy_ns += link;
        stalls.slot_ns += waited - link;
    }

    /// Copies out slow down copies in, and any copy slows down kernels. A kernel
    /// that reads over the link and a copy in share it evenly, unless the kernel
    /// wants less than half.
    fn adjust_rates(&mut self) {
        let out = self.engines[COPIES_OUT].running.is_some();
        let any = out || self.engines[COPIES_IN].running.is_some();
        let mut in_rate = if out { self.parameters.in_while_out } else { 1.0 };
        let mut kernel_rate = if any { self.parameters.kernel_while_copy } else { 1.0 };
        let wanted = self.engines[KERNELS]
            .running
            .map_or(0.0, |kernel| self.queues[kernel.stream].operations[0].link_share);
        if wanted > 0.0 && self.engines[COPIES_IN].running.is_some() {
            let got = wanted.min(0.5);
            in_rate *= 1.0 - got;
            kernel_rate *= got / wanted;
        }
        for (engine, rate) in [(COPIES_IN, in_rate), (KERNELS, kernel_rate)] {
            if let Some(running) = &mut self.engines[engine].running
                && running.rate != rate
            {
                running.left -= (self.now - running.since) as f64 * running.rate;
                running.since = self.now;
                running.rate = rate;
                running.end = self.now + (running.left.max(0.0) / rate).ceil() as Nanos;
            }
        }
    }

    fn take(&mut self, bytes: u64) {
        self.memory += bytes;
        self.peak = self.peak.max(self.memory);
    }
}

/// `ns`, more or less by up to `share`; the same for the same seed and number.
fn jittered(ns: f64, share: f64, seed: u64, number: u64) -> f64 {
    if share == 0.0 {
        return ns;
    }
    let unit = (scramble(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 11) as f64
        / (1u64 << 53) as f64;
    ns * (1.0 + share * (2.0 * unit - 1.0))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the
/// answer depends on every bit of `z`.
pub(super) fn scramble(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
