//! Runs one [`Policy`] over one trace, and checks it while it does.
//!
//! The policy acts through a [`Gpu`], which keeps the books of what is present
//! where and derives from them what must wait for what: a launch for the
//! copies of what it uses, an eviction for the last use. So a policy cannot
//! forget to wait for a copy. What it can still do wrong is found:
//! - a launch whose chunks are not all present by the policy's claims: panic;
//! - more claimed than there is, in the order of submission: panic;
//! - bytes or memory that the device and the books count differently: panic;
//! - memory overwritten while in use: then two contents occupy it at the same
//!   virtual time, and [`Outcome::over_budget`] is set.
//!
//! Memory is counted in bytes wherever it lies: a policy that counts on bytes
//! and not on places never suffers from fragmentation, which flatters it.

use super::device::{Device, Parameters, Stalls, Stamp, Stream, Totals, Waits};
use crate::workload::cards::{Card, Costs, copy_time};
use crate::workload::{Event, Launch, Nanos, Trace, TraceChunk, Use};

/// How it comes out what kernels wrote, of what ours gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// By a kernel of ours that reads it: what the library does.
    LookedFor,
    /// Not at all: everything is copied to the host. What the library does where
    /// its kernel is not to be had.
    CopiedBack,
    /// It is known, at no cost.
    Known,
}

/// Where a trace is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    pub card: Card,
    pub link_bytes_per_s: f64,
    /// For everything: the activations of the trace come out of it.
    pub budget_bytes: u64,
    pub costs: Costs,
    pub writes: Writes,
    /// Durations vary by up to these shares.
    pub kernel_jitter: f64,
    pub copy_jitter: f64,
    pub seed: u64,
}

impl Setup {
    /// `card` on a link, with the usual costs and no noise.
    pub fn new(card: &Card, link_bytes_per_s: f64, budget_bytes: u64) -> Self {
        Self {
            card: *card,
            link_bytes_per_s,
            budget_bytes,
            costs: Costs::default(),
            writes: Writes::LookedFor,
            kernel_jitter: 0.0,
            copy_jitter: 0.0,
            seed: 0,
        }
    }

    pub fn parameters(&self) -> Parameters {
        Parameters {
            in_bytes_per_s: self.link_bytes_per_s,
            out_bytes_per_s: self.link_bytes_per_s,
            in_while_out: self.costs.duplex_share,
            kernel_while_copy: 1.0 / (1.0 + self.costs.copy_slowdown),
            copy_ns: self.costs.copy_ns,
            launch_ns: self.costs.launch_ns,
            submit_ns: self.costs.submit_ns,
            event_ns: self.costs.event_ns,
            sync_ns: self.costs.sync_ns,
            launch_queue: self.costs.queue_depth,
            kernel_jitter: self.kernel_jitter,
            copy_jitter: self.copy_jitter,
            seed: self.seed,
        }
    }
}

/// The policy cannot run this trace in this budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infeasible {
    pub why: String,
}

impl Infeasible {
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// From one mark of the trace to the next, on the device's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IterationResult {
    pub phase: u16,
    pub ns: Nanos,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub copies_in: u64,
    /// Time in which kernels ran.
    pub kernel_ns: Nanos,
    pub stall_ns: Nanos,
    pub stalls: Stalls,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub iterations: Vec<IterationResult>,
    /// From the first operation to the end of the last.
    pub total_ns: Nanos,
    pub totals: Totals,
    /// Activations included, at the worst moment of virtual time.
    pub peak_bytes: u64,
    pub over_budget: bool,
    pub launches: u64,
}

impl Outcome {
    /// Mean length of the last `count` iterations of `phase`, ns; `None` if it
    /// had fewer.
    pub fn steady_ns(&self, phase: u16, count: usize) -> Option<f64> {
        let of_phase = self.iterations.iter().rev().filter(|i| i.phase == phase);
        let last: Vec<Nanos> = of_phase.take(count).map(|i| i.ns).collect();
        (last.len() == count && count > 0).then(|| last.iter().sum::<Nanos>() as f64 / count as f64)
    }
}

/// A launch about to be issued, or just issued.
#[derive(Clone, Copy, Debug)]
pub struct Launching<'a> {
    /// How many launches came before it.
    pub number: usize,
    /// No chunk twice.
    pub uses: &'a [Use],
}

/// What a policy is asked and told, in the order in which the host issues.
///
/// A policy sees allocations, launches and what they use. It sees no marks and
/// no future, but for those that say so in their own text.
pub trait Policy {
    fn name(&self) -> &'static str;
    /// Before the first event: every chunk that exists from the start does.
    /// What is placed now costs nothing: loading is not what is measured.
    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible>;
    /// `chunk` exists from now on, with undefined content.
    fn allocated(&mut self, _gpu: &mut Gpu, _chunk: TraceChunk) -> Result<(), Infeasible> {
        Ok(())
    }
    /// `chunk` is about to go, its content is void: evict what is present of it.
    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk);
    /// Makes everything that the launch uses present.
    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible>;
    /// How long the kernel takes that takes `ns` when all is in place.
    fn duration(&mut self, _gpu: &mut Gpu, _launch: Launching<'_>, ns: Nanos) -> Nanos {
        ns
    }
    fn after(&mut self, _gpu: &mut Gpu, _launch: Launching<'_>) {}
}

/// What becomes of the content of memory that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evict {
    /// Nobody wrote to it, and the policy knows: dropped at once. What the
    /// trace says was written is copied out nonetheless.
    Clean,
    /// As [`Setup::writes`] has it.
    AsWritten,
    /// Copied out in any case.
    CopyBack,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    bytes: u64,
    present: u64,
    exists: bool,
    /// Nothing was ever written to it: bringing it in takes no copy.
    undefined: bool,
    /// Bytes on the device that the host copy lacks.
    dirty: u64,
    /// Kernels may reach it where it is, present or not.
    remote: bool,
    last_use: Stamp,
    /// Its copies in; the last of them, if no kernel has used it since.
    arrived: Waits,
    unused: Option<Stamp>,
    /// Its copies out: before they are over there is nothing to fetch.
    saved: Waits,
}

/// The device as a policy sees it, with the books.
pub struct Gpu {
    device: Device,
    setup: Setup,
    chunks: Vec<Chunk>,
    /// For chunks.
    capacity: u64,
    claimed: u64,
    /// Of which by a policy with books of its own.
    reserved: u64,
    started: bool,
    /// Taken by the next kernel itself; moved by it over the link.
    kernel_takes: u64,
    kernel_waits: Waits,
    kernel_moves: (u64, u64),
    kernel_link_share: f64,
    /// Bytes in and out that were submitted.
    moved: (u64, u64),
    /// The copies that the compute stream has waited for.
    waited: Waits,
}

impl Gpu {
    fn new(trace: &Trace, setup: &Setup) -> Self {
        let chunks = trace.chunks.iter().zip(trace.initially_live());
        let chunks = chunks
            .map(|(&bytes, exists)| Chunk { bytes, exists, undefined: !exists, ..Chunk::default() })
            .collect();
        let mut device = Device::new(setup.parameters());
        device.acquire(trace.activation_bytes);
        Self {
            device,
            setup: *setup,
            chunks,
            capacity: setup.budget_bytes.saturating_sub(trace.activation_bytes),
            claimed: 0,
            reserved: 0,
            started: false,
            kernel_takes: 0,
            kernel_waits: Waits::NONE,
            kernel_moves: (0, 0),
            kernel_link_share: 0.0,
            moved: (0, 0),
            waited: Waits::NONE,
        }
    }

    // --- what there is -------------------------------------------------------

    /// Bytes for chunks.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Of which nothing is claimed.
    pub fn free(&self) -> u64 {
        self.capacity - self.claimed
    }

    /// Chunks of the trace, existing or not.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub fn exists(&self, chunk: TraceChunk) -> bool {
        self.chunks[chunk as usize].exists
    }

    pub fn bytes(&self, chunk: TraceChunk) -> u64 {
        self.chunks[chunk as usize].bytes
    }

    /// Bytes of `chunk` that are there or on their way.
    pub fn present(&self, chunk: TraceChunk) -> u64 {
        self.chunks[chunk as usize].present
    }

    pub fn is_present(&self, chunk: TraceChunk) -> bool {
        self.present(chunk) == self.bytes(chunk)
    }

    /// Whether nothing was ever written to it.
    pub fn is_undefined(&self, chunk: TraceChunk) -> bool {
        self.chunks[chunk as usize].undefined
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    /// The last kernel that uses `chunk`.
    pub fn last_use(&self, chunk: TraceChunk) -> Stamp {
        self.chunks[chunk as usize].last_use
    }

    /// Everything that the program has issued: a copy that waits for it does
    /// not become ready before its planned start.
    pub fn gate(&self) -> Waits {
        self.device.last(Stream::Compute).into()
    }

    // --- what can be done ------------------------------------------------------

    /// `bytes` of `chunk` are there without a copy: at the start, or while its
    /// content is undefined. The memory is free once `after` is over.
    pub fn place(&mut self, chunk: TraceChunk, bytes: u64, after: Waits) {
        assert!(
            !self.started || self.chunks[chunk as usize].undefined,
            "chunk {chunk} has content: it must be fetched"
        );
        self.claim(chunk, bytes);
        if self.started {
            let arrived = self.device.delay(Stream::In, 0, after, bytes);
            self.note_arrival(chunk, arrived);
        } else {
            self.device.acquire(bytes);
        }
    }

    /// Copies `bytes` of `chunk` in, once `after` is over: what frees the memory.
    pub fn fetch(&mut self, chunk: TraceChunk, bytes: u64, mut after: Waits) -> Stamp {
        if self.chunks[chunk as usize].undefined {
            self.place(chunk, bytes, after);
            return self.device.last(Stream::In);
        }
        self.claim(chunk, bytes);
        after.merge(&self.chunks[chunk as usize].saved);
        let arrived = self.device.copy_in(Stream::In, bytes, after, bytes);
        self.moved.0 += bytes;
        self.note_arrival(chunk, arrived);
        arrived
    }

    fn note_arrival(&mut self, chunk: TraceChunk, arrived: Stamp) {
        let chunk = &mut self.chunks[chunk as usize];
        chunk.arrived.add(arrived);
        chunk.unused = Some(arrived);
    }

    /// Gives up the memory of `bytes` of `chunk`. Whoever takes it waits for
    /// the answer.
    pub fn evict(&mut self, chunk: TraceChunk, bytes: u64, how: Evict) -> Waits {
        let entry = &mut self.chunks[chunk as usize];
        assert!(bytes <= entry.present, "chunk {chunk}: evicted what is not present");
        entry.present -= bytes;
        self.claimed -= bytes;
        // Nobody overwrites what is still arriving, even if it was never used.
        let mut waits = entry.arrived;
        waits.add(entry.last_use);
        let unsaved = entry.dirty.min(bytes);
        entry.dirty -= unsaved;
        let back = match how {
            _ if entry.undefined => 0,
            Evict::CopyBack => bytes,
            Evict::AsWritten if self.setup.writes == Writes::CopiedBack => bytes,
            Evict::Clean | Evict::AsWritten => unsaved,
        };
        let over = entry.unused.unwrap_or(entry.last_use);
        let freed = if back > 0 {
            let saved = self.device.copy_out(Stream::Out, back, waits);
            self.moved.1 += back;
            self.chunks[chunk as usize].saved.add(saved);
            saved
        } else if how == Evict::AsWritten && self.setup.writes == Writes::LookedFor {
            self.look(bytes, waits)
        } else {
            self.device.release_after(over, bytes);
            return waits;
        };
        self.device.release_after(freed, bytes);
        freed.into()
    }

    /// Kernels may use `chunk` from now on without its being present: over the
    /// link, or by page faults. [`Policy::duration`] says what that costs.
    pub fn make_remote(&mut self, chunk: TraceChunk) {
        self.chunks[chunk as usize].remote = true;
    }

    /// The next kernel brings `chunk` in by itself, once `after` is over.
    pub fn page_in(&mut self, chunk: TraceChunk, after: Waits) {
        let bytes = self.bytes(chunk);
        self.claim(chunk, bytes);
        self.kernel_takes += bytes;
        self.kernel_waits.merge(&after);
        self.kernel_waits.merge(&self.chunks[chunk as usize].saved);
    }

    /// The next kernel moves these bytes over the link by itself.
    pub fn kernel_moves(&mut self, bytes_in: u64, bytes_out: u64) {
        self.kernel_moves.0 += bytes_in;
        self.kernel_moves.1 += bytes_out;
    }

    /// The next kernel, which takes `ns` with everything in place, reads `bytes`
    /// of host memory over the link: how long it takes then. What else it does
    /// goes on meanwhile.
    pub fn read_over_link(&mut self, bytes: u64, ns: Nanos) -> Nanos {
        if bytes == 0 {
            return ns;
        }
        self.kernel_moves(bytes, 0);
        let rate = self.setup.link_bytes_per_s * self.setup.costs.zero_copy_share;
        let link_ns = (bytes as f64 * 1e9 / rate) as Nanos;
        self.kernel_link_share = link_ns as f64 / ns.max(link_ns).max(1) as f64;
        ns.max(link_ns)
    }

    /// The host waits for the last copy in of `chunk`, if no kernel used it yet.
    pub fn wait_for_arrival(&mut self, chunk: TraceChunk) {
        if let Some(arrived) = self.chunks[chunk as usize].unused {
            self.device.wait_for(arrived);
        }
    }

    /// The host waits for `stamp`.
    pub fn wait_for(&mut self, stamp: Stamp) {
        self.device.wait_for(stamp);
    }

    /// The host waits for everything the program has issued.
    pub fn wait_for_kernels(&mut self) {
        self.device.wait_for_stream(Stream::Compute);
    }

    /// Our kernel reads `bytes` once `waits` is over and the kernel under way is.
    /// What it takes from other kernels is the reading, at the rate of memory; with
    /// its few blocks it lasts longer, beside them.
    fn look(&mut self, bytes: u64, waits: Waits) -> Stamp {
        let Setup { card, costs, .. } = &self.setup;
        let taken = copy_time(bytes, card.memory_share * card.memory_bytes_per_s, 0);
        let lasts = copy_time(bytes, costs.hash_bytes_per_s, costs.hash_ns);
        let read = self.device.kernel(Stream::Out, taken, 1, waits, 0);
        self.device.delay(Stream::Release, lasts.saturating_sub(taken), read.into(), 0)
    }

    fn claim(&mut self, chunk: TraceChunk, bytes: u64) {
        let entry = &mut self.chunks[chunk as usize];
        assert!(entry.exists, "chunk {chunk} does not exist");
        entry.present += bytes;
        assert!(entry.present <= entry.bytes, "chunk {chunk}: present twice");
        self.claimed += bytes;
        assert!(
            self.claimed <= self.capacity,
            "chunk {chunk}: {} bytes claimed of {}",
            self.claimed,
            self.capacity
        );
    }

    // --- for a policy with books of its own --------------------------------------

    /// Memory that is taken at this moment, whatever is in it.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved += bytes;
        self.claimed += bytes;
        assert!(self.claimed <= self.capacity, "{} bytes of {}", self.claimed, self.capacity);
        self.device.acquire(bytes);
    }

    /// Memory that nothing uses any more.
    pub fn unreserve(&mut self, bytes: u64) {
        self.reserved -= bytes;
        self.claimed -= bytes;
        self.device.release_after(Stamp::default(), bytes);
    }

    /// Copies `bytes` of `chunks` into memory that is reserved, in one; 0: only
    /// the order of things.
    pub fn bring(&mut self, chunks: &[TraceChunk], bytes: u64, after: Waits) -> Stamp {
        let arrived = if bytes == 0 {
            self.device.delay(Stream::In, 0, after, 0)
        } else {
            self.moved.0 += bytes;
            self.device.copy_in(Stream::In, bytes, after, 0)
        };
        chunks.iter().for_each(|&chunk| self.note_arrival(chunk, arrived));
        arrived
    }

    /// Brings to the host what was written of `chunks`, after all their uses and
    /// copies so far, in the order of these: `copied` bytes in one copy, `looked`
    /// by our kernel, which reads them and stores `stored` of them.
    pub fn save(&mut self, chunks: &[TraceChunk], copied: u64, looked: u64, stored: u64) {
        let mut after = Waits::NONE;
        chunks.iter().for_each(|&chunk| after.merge(&self.uses(chunk)));
        let mut saved = Waits::NONE;
        if looked > 0 && self.setup.writes == Writes::LookedFor {
            saved.add(self.look(looked, after));
        }
        for bytes in [copied, stored] {
            if bytes > 0 {
                self.moved.1 += bytes;
                saved.add(self.device.copy_out(Stream::Out, bytes, after));
            }
        }
        chunks.iter().for_each(|&chunk| self.chunks[chunk as usize].saved.merge(&saved));
    }

    /// All uses of `chunk` so far, its copies in among them.
    pub fn uses(&self, chunk: TraceChunk) -> Waits {
        let chunk = &self.chunks[chunk as usize];
        let mut waits = chunk.arrived;
        waits.add(chunk.last_use);
        waits
    }

    /// All copies out of `chunk` so far.
    pub fn saves(&self, chunk: TraceChunk) -> Waits {
        self.chunks[chunk as usize].saved
    }

    /// The program fills `chunk` by a copy, in order on its stream.
    pub fn fill(&mut self, chunk: TraceChunk) {
        let (bytes, arrived) = (self.bytes(chunk), self.chunks[chunk as usize].arrived);
        let filled = self.device.copy_in(Stream::Compute, bytes, arrived, 0);
        let chunk = &mut self.chunks[chunk as usize];
        chunk.last_use = filled;
        chunk.unused = None;
    }

    // --- what the program does ------------------------------------------------

    fn launch(&mut self, policy: &str, launch: Launching<'_>, ns: Nanos, kernels: u16) {
        let mut waits = std::mem::take(&mut self.kernel_waits);
        for used in launch.uses {
            let chunk = &self.chunks[used.chunk as usize];
            assert!(
                chunk.exists && (chunk.remote || chunk.present == chunk.bytes),
                "{policy}: launch {} uses chunk {}, of which {} of {} bytes are present",
                launch.number,
                used.chunk,
                chunk.present,
                chunk.bytes
            );
            waits.merge(&chunk.arrived);
        }
        let mut all = self.waited;
        all.merge(&waits);
        if all != self.waited {
            self.waited = all;
            self.device.host_busy(self.setup.costs.event_ns);
        }
        let takes = std::mem::take(&mut self.kernel_takes);
        let stamp = self.device.kernel(Stream::Compute, ns, kernels, waits, takes);
        let moves = std::mem::take(&mut self.kernel_moves);
        if moves != (0, 0) {
            self.moved = (self.moved.0 + moves.0, self.moved.1 + moves.1);
            let share = std::mem::take(&mut self.kernel_link_share);
            self.device.kernel_moves(moves.0, moves.1, share);
        }
        for used in launch.uses {
            let chunk = &mut self.chunks[used.chunk as usize];
            chunk.last_use = stamp;
            chunk.unused = None;
            if used.writes {
                chunk.undefined = false;
                chunk.dirty = chunk.bytes;
            }
        }
    }

    /// Lets everything come to its end, and compares the device with the books.
    fn balance(&mut self, activation_bytes: u64) {
        for stream in [Stream::In, Stream::Release, Stream::Out, Stream::Compute] {
            self.device.wait_for_stream(stream);
        }
        let totals = self.device.totals();
        assert_eq!((totals.bytes_in, totals.bytes_out), self.moved, "bytes over the link");
        assert_eq!(self.device.memory_bytes(), activation_bytes + self.claimed, "memory");
        let present: u64 = self.chunks.iter().map(|chunk| chunk.present).sum();
        assert_eq!(self.claimed, self.reserved + present);
    }

    fn allocate(&mut self, chunk: TraceChunk) {
        let bytes = self.bytes(chunk);
        let remote = self.chunks[chunk as usize].remote;
        self.chunks[chunk as usize] =
            Chunk { bytes, exists: true, undefined: true, remote, ..Chunk::default() };
    }
}

/// The mark that [`run`] sets before the first event.
const START: u64 = u64::MAX;

/// Runs `policy` over `trace`.
pub fn run(trace: &Trace, setup: &Setup, policy: &mut dyn Policy) -> Result<Outcome, Infeasible> {
    if setup.budget_bytes < trace.activation_bytes {
        return Err(Infeasible::new("the activations alone exceed the budget"));
    }
    let mut gpu = Gpu::new(trace, setup);
    let mut number = 0;
    let mut phases: Vec<u16> = Vec::new();
    policy.begin(&mut gpu)?;
    gpu.started = true;
    gpu.device.mark(START);
    for event in &trace.events {
        match *event {
            Event::Launch(launch) => {
                let kernel_ns = setup.card.kernel_time(&launch);
                let kernels = launch.kernels;
                let launch = Launching { number, uses: trace.touches(&launch) };
                policy.before(&mut gpu, launch)?;
                let ns = policy.duration(&mut gpu, launch, kernel_ns);
                gpu.launch(policy.name(), launch, ns, kernels);
                policy.after(&mut gpu, launch);
                number += 1;
            }
            Event::HostSync { host_ns } => {
                gpu.device.wait_for_stream(Stream::Compute);
                gpu.device.host_busy(host_ns);
            }
            Event::Copy { bytes, to_device: true } => {
                gpu.device.copy_in(Stream::Compute, bytes, Waits::NONE, 0);
            }
            Event::Copy { bytes, to_device: false } => {
                gpu.device.copy_out(Stream::Compute, bytes, Waits::NONE);
            }
            Event::Allocate { chunk } => {
                gpu.allocate(chunk);
                policy.allocated(&mut gpu, chunk)?;
            }
            Event::Free { chunk } => {
                gpu.chunks[chunk as usize].undefined = true;
                policy.freed(&mut gpu, chunk);
                let entry = &mut gpu.chunks[chunk as usize];
                assert_eq!(entry.present, 0, "chunk {chunk} was freed, but not evicted");
                entry.exists = false;
            }
            Event::Iteration { phase } => {
                gpu.device.mark(phases.len() as u64);
                phases.push(phase);
            }
        }
    }
    gpu.device.mark(phases.len() as u64);
    gpu.device.wait_for_stream(Stream::Compute);
    let marks: Vec<_> = gpu.device.marks().collect();
    let (start, marks) = marks.split_first().expect("the start");
    assert_eq!(start.tag, START);
    assert_eq!(marks.len(), phases.len() + 1, "the device has come to every mark");
    let last = marks[phases.len()];
    let peak_bytes = gpu.device.peak_bytes();
    gpu.balance(trace.activation_bytes);
    let iterations = marks.windows(2).zip(&phases);
    let iterations = iterations.map(|(pair, &phase)| {
        let [from, to] = [&pair[0], &pair[1]];
        let totals = to.totals.since(&from.totals);
        IterationResult {
            phase,
            ns: to.at - from.at,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            copies_in: totals.copies_in,
            kernel_ns: totals.kernel_ns,
            stall_ns: totals.stalls.total(),
            stalls: totals.stalls,
        }
    });
    Ok(Outcome {
        iterations: iterations.collect(),
        total_ns: last.at - start.at,
        totals: last.totals.since(&start.totals),
        peak_bytes,
        over_budget: peak_bytes > setup.budget_bytes,
        launches: number as u64,
    })
}

/// The duration of every launch of `trace` on `card`, in order.
pub fn durations<'a>(trace: &'a Trace, card: &'a Card) -> impl Iterator<Item = Nanos> + 'a {
    launches(trace).map(|launch| card.kernel_time(launch))
}

/// Every launch of `trace`, in order.
pub fn launches(trace: &Trace) -> impl Iterator<Item = &Launch> {
    trace.events.iter().filter_map(|event| match event {
        Event::Launch(launch) => Some(launch),
        _ => None,
    })
}
