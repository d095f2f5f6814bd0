//! Ours: the library's own [`Streamer`], which learns, plans and streams while
//! the program runs, over the simulated device instead of a driver.
//!
//! What the library's engine does around it is modelled here: which copies
//! wait for what, what mapping costs, how times are measured, that planning
//! happens beside the program and takes its time. What a kernel receives it may
//! have written, as far as the streamer is told: weights are told from what was
//! written by the library's own kernel, before their frames are overwritten.
//!
//! It checks the streamer: no copy lands on frames whose last use it does not
//! wait for, a launch finds on every frame of its chunks what is theirs, and what
//! counts as one copy goes from one piece of host memory to one run of frames.

use crate::sim::device::Waits;
use crate::sim::oracle::{self, FRAME_BYTES};
use crate::sim::run::{Gpu, Infeasible, Launching, Policy, Writes};
use crate::workload::{Nanos, Trace, TraceChunk, Use};
use autooffload_core::agent::{Agent, Answer, Job, Search};
use autooffload_core::fingerprint::{History, Saving};
use autooffload_core::memory::{
    Counters, Effect, FrameId, MemoryOps, Refused, Shortage, Streamer, Window,
};
use autooffload_core::order::Named;
use autooffload_core::plan::{Effort, Place, Plan, SLAB_FRAMES};
use std::collections::VecDeque;
use std::ops::Range;

/// Host time to map or unmap one frame. Assumption.
const MAP_NS: Nanos = 2_000;
/// Pinning of host memory that was touched before,
/// bytes per second. Assumption: twice what is published without.
const PIN_BYTES_PER_S: f64 = 10e9;
/// Time that the searched plan takes, per chunk: about half a second for ten
/// thousand (`scripts/bench plan` prints what it is).
const SEARCH_NS_PER_CHUNK: Nanos = 50_000;
/// That of the quick plan.
const QUICK_NS_PER_CHUNK: Nanos = 4_000;
/// Every kernel touches activations: here one chunk that nobody moves. The
/// trace's are accounted for already, so its size does not matter.
const ACTIVATION_FRAMES: u32 = 1;

pub struct Ours {
    streamer: Streamer,
    memory: Memory,
    touches: Vec<(TraceChunk, Effect)>,
    /// The same, by the addresses that are named of them.
    named: Vec<Named>,
    agent: Agent,
    search: SimSearch,
    /// Probes under way: the operation that each stands before, and whether
    /// that one is timed. And of the last that was passed, with the kernels'
    /// time by then.
    probes: VecDeque<(u64, bool)>,
    passed: Option<(u64, Nanos)>,
    timing: bool,
    activation_bytes: u64,
}

impl Ours {
    pub fn new(trace: &Trace, setup: &crate::sim::Setup) -> Self {
        let machine = oracle::machine(trace, setup);
        let mut streamer = Streamer::new(machine.frames + ACTIVATION_FRAMES, Window::Auto);
        streamer.set_machine(machine);
        let activations = trace.chunks.len() as TraceChunk;
        let count = trace.chunks.len() + 1;
        Self {
            streamer,
            memory: Memory {
                places: vec![Vec::new(); count],
                hosts: vec![None; count],
                known: vec![Vec::new(); count],
                remote: vec![0; count],
                activations,
                ..Memory::default()
            },
            touches: Vec::new(),
            named: Vec::new(),
            agent: Agent::default(),
            search: SimSearch::default(),
            probes: VecDeque::new(),
            passed: None,
            timing: false,
            activation_bytes: trace.activation_bytes,
        }
    }

    pub fn counters(&self) -> Counters {
        self.streamer.counters()
    }

    pub fn streamer(&self) -> &Streamer {
        &self.streamer
    }

    fn allocate(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        let frames = gpu.bytes(chunk).div_ceil(FRAME_BYTES) as u32;
        let mut ops = SimMemoryOps { gpu, memory: &mut self.memory };
        self.streamer.allocate(chunk, frames, true, &mut ops).map_err(explain)?;
        // Whatever is there counts as its own.
        let Memory { places, content, known, .. } = &mut self.memory;
        known[chunk as usize] = vec![Known::default(); frames as usize];
        for (index, &frame) in places[chunk as usize].iter().enumerate() {
            content[frame as usize] = Some((chunk, index as u32));
        }
        Ok(())
    }

    fn allocate_activations(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let chunk = self.memory.activations;
        self.memory.paid = ACTIVATION_FRAMES;
        let mut ops = SimMemoryOps { gpu, memory: &mut self.memory };
        self.streamer.allocate(chunk, ACTIVATION_FRAMES, true, &mut ops).map_err(explain)?;
        self.streamer.pin(chunk, &mut ops).map_err(explain)?;
        Ok(())
    }

    fn touch(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        let mut ops = SimMemoryOps { gpu, memory: &mut self.memory };
        self.streamer.touch_named(&self.touches, &self.named, &mut ops).map_err(explain)
    }

    /// What a kernel receives, or a copy writes.
    fn name(&mut self, chunk: TraceChunk) {
        // The activations of a step are anywhere in their memory: by no address.
        let address = if chunk == self.memory.activations { 0 } else { base(chunk) };
        self.touches.push((chunk, Effect::Write));
        self.named.push(Named { chunk, address });
    }

    fn name_nothing(&mut self) {
        self.touches.clear();
        self.named.clear();
    }

    fn release(&mut self, gpu: &mut Gpu) {
        self.streamer.release(&self.touches);
        let mut ops = SimMemoryOps { gpu, memory: &mut self.memory };
        self.streamer.look_ahead(&mut ops);
    }

    /// Plans beside the program, and carries the plan out when it is there.
    fn think(&mut self, gpu: &mut Gpu) {
        if self.agent.is_due(&self.streamer) {
            self.search.now = gpu.device().host_ns();
            let mut ops = SimMemoryOps { gpu, memory: &mut self.memory };
            let step = self.agent.step(&mut self.streamer, &mut self.search, &mut ops);
            step.expect("whatever must end first is waited for");
        }
    }

    /// Times operations, those in a row that touch the same as one, and with
    /// the kernels after them that touch nothing of ours; ops the times over
    /// late, as the device gets there.
    fn measure(&mut self, gpu: &mut Gpu, launch: Launching<'_>) {
        let passed: Vec<_> = gpu.device().probes().collect();
        for probe in passed {
            let (operation, timed) = self.probes.pop_front().expect("it was set");
            let now = probe.totals.kernel_ns;
            if let Some((before, then)) = self.passed {
                self.streamer.measured(before..operation, now - then);
            }
            self.passed = timed.then_some((operation, now));
        }
        let before = self.touches.iter().map(|&(chunk, _)| chunk);
        let now = launch.uses.iter().map(|used| used.chunk).chain([self.memory.activations]);
        if before.eq(now) {
            return;
        }
        let wanted = self.streamer.wants_times();
        if wanted || self.timing {
            gpu.device().probe(0);
            self.probes.push_back((self.streamer.operations(), wanted));
        }
        self.timing = wanted;
    }
}

fn explain(shortage: Shortage) -> Infeasible {
    Infeasible::new(match shortage {
        Shortage::Device { needed_frames, cap_frames } => {
            format!("{needed_frames} frames are needed at once, of {cap_frames}")
        }
        Shortage::Host => "no host memory".to_string(),
        Shortage::Busy | Shortage::Unfinished => "busy".to_string(),
    })
}

impl Policy for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    /// The program loads its weights: that is seen, too, and learned from.
    fn begin(&mut self, gpu: &mut Gpu) -> Result<(), Infeasible> {
        assert_eq!(self.activation_bytes, gpu.device().memory_bytes(), "of the same trace");
        for chunk in 0..gpu.chunk_count() as TraceChunk {
            gpu.make_remote(chunk);
            if gpu.exists(chunk) {
                self.allocate(gpu, chunk)?;
                self.streamer.filled(chunk, base(chunk)..base(chunk) + gpu.bytes(chunk));
                self.name_nothing();
                self.name(chunk);
                self.touch(gpu)?;
                gpu.fill(chunk);
                self.release(gpu);
            }
        }
        self.allocate_activations(gpu)?;
        gpu.wait_for_kernels();
        Ok(())
    }

    fn allocated(&mut self, gpu: &mut Gpu, chunk: TraceChunk) -> Result<(), Infeasible> {
        self.allocate(gpu, chunk)
    }

    fn freed(&mut self, gpu: &mut Gpu, chunk: TraceChunk) {
        let mut ops = SimMemoryOps { gpu, memory: &mut self.memory };
        self.streamer.free(chunk, &mut ops).expect("whatever must end first is waited for");
    }

    fn before(&mut self, gpu: &mut Gpu, launch: Launching<'_>) -> Result<(), Infeasible> {
        self.measure(gpu, launch);
        self.think(gpu);
        self.name_nothing();
        for used in launch.uses {
            self.name(used.chunk);
        }
        self.name(self.memory.activations);
        self.touch(gpu)?;
        for used in launch.uses {
            self.memory.check(used.chunk);
            if used.writes {
                self.memory.known[used.chunk as usize].iter_mut().for_each(|it| it.written = true);
            }
        }
        Ok(())
    }

    /// What lies on the host is read over the link, as by the policy `zero_copy`.
    fn duration(&mut self, gpu: &mut Gpu, launch: Launching<'_>, ns: Nanos) -> Nanos {
        let read =
            |used: &Use| self.memory.remote[used.chunk as usize] * u64::from(used.permille) / 1000;
        gpu.read_over_link(launch.uses.iter().map(read).sum(), ns)
    }

    fn after(&mut self, gpu: &mut Gpu, _: Launching<'_>) {
        self.release(gpu);
    }
}

/// A search in virtual time, on a thread of its own.
#[derive(Default)]
struct SimSearch {
    now: Nanos,
    /// What is found, and when.
    found: VecDeque<(Nanos, Plan)>,
}

impl Search for SimSearch {
    fn begin(&mut self, job: Job) -> bool {
        let chunks = job.problem().chunks.len() as Nanos;
        let mut ready = self.now;
        self.found.clear();
        job.run(|effort, found| {
            ready += chunks
                * match effort {
                    Effort::Quick => QUICK_NS_PER_CHUNK,
                    Effort::Searched => SEARCH_NS_PER_CHUNK,
                };
            self.found.extend(found.ok().map(|plan| (ready, plan)));
            true
        });
        true
    }

    fn poll(&mut self) -> Answer {
        match self.found.front() {
            None => Answer::Over,
            Some(&(ready, _)) if ready > self.now => Answer::Pending,
            Some(_) => self.found.pop_front().map_or(Answer::Over, |(_, plan)| Answer::Found(plan)),
        }
    }
}

/// Frames, what is mapped to them, and what the next copy must wait for.
#[derive(Default)]
struct Memory {
    /// Of each chunk, while mapped.
    places: Vec<Vec<FrameId>>,
    /// The chunk after all of the trace's.
    activations: TraceChunk,
    /// Frames still to come out of memory that is accounted for already.
    paid: u32,
    /// Which chunk's bytes are in each frame, and at which index.
    content: Vec<Option<(TraceChunk, u32)>>,
    /// Which frames are host memory; and of each chunk, while mapped, how many
    /// bytes are in such.
    on_host: Vec<bool>,
    remote: Vec<u64>,
    unborn: Vec<FrameId>,
    /// By slot of the ring; and where each chunk's host memory is.
    ring: Vec<FrameId>,
    hosts: Vec<Option<Place>>,
    /// Of each frame of a chunk, what is known of its bytes on the host.
    known: Vec<Vec<Known>>,
    /// The chunk that was saved last, if it is written so often that nobody looks.
    rewritten: Option<TraceChunk>,
    /// What later copies in wait for; what earlier ones waited for, and so
    /// they all do.
    pending: Waits,
    passed: Waits,
}

/// Of one frame, as in the library's `host::record`.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    history: History,
    /// A kernel wrote to it since it was last saved. Only the kernel that looks
    /// at it finds that out.
    written: bool,
    /// It had been written when it was looked at last.
    stored: bool,
}

/// Of a chunk: where kernels find it.
fn base(chunk: TraceChunk) -> u64 {
    (u64::from(chunk) + 1) << 40
}

impl Memory {
    fn born(&mut self, on_host: bool) -> FrameId {
        let frame = self.unborn.pop().unwrap_or_else(|| {
            self.content.push(None);
            self.on_host.push(false);
            self.content.len() as FrameId - 1
        });
        self.on_host[frame as usize] = on_host;
        frame
    }

    /// Panics unless one copy can bring all of `pieces`: host memory in one
    /// piece, and frames that follow each other in the ring from `slot` on.
    fn check_run(&self, pieces: &[(TraceChunk, Range<u32>)], slot: u32) {
        let mut slots = self.ring.get(slot as usize..).unwrap_or_default().iter();
        let mut expected: Option<Place> = None;
        for (chunk, frames) in pieces {
            let place = self.hosts[*chunk as usize].expect("in a slab");
            let first = Place { at: place.at + frames.start, ..place };
            assert!(expected.is_none_or(|place| place == first), "chunk {chunk} is elsewhere");
            expected = Some(Place { at: place.at + frames.end, ..place });
            for index in frames.clone() {
                let frame = self.places[*chunk as usize][index as usize];
                assert_eq!(slots.next(), Some(&frame), "chunk {chunk} leaves the run's slots");
            }
        }
        assert!(expected.is_some_and(|end| end.at <= SLAB_FRAMES), "out of the slab");
    }

    /// Panics unless all of `chunk` is where it is mapped.
    fn check(&self, chunk: TraceChunk) {
        for (index, &frame) in self.places[chunk as usize].iter().enumerate() {
            let content = self.content[frame as usize];
            assert_eq!(
                content,
                Some((chunk, index as u32)),
                "chunk {chunk}, frame {index}: another's bytes"
            );
        }
    }
}

/// What the streamer acts through.
struct SimMemoryOps<'a> {
    gpu: &'a mut Gpu,
    memory: &'a mut Memory,
}

impl SimMemoryOps<'_> {
    fn bytes(&self, chunk: TraceChunk, frames: &Range<u32>) -> u64 {
        if chunk == self.memory.activations {
            return 0;
        }
        let end = (u64::from(frames.end) * FRAME_BYTES).min(self.gpu.bytes(chunk));
        end.saturating_sub(u64::from(frames.start) * FRAME_BYTES)
    }

    /// Brings what was written of the frames of `pieces` to the host: one copy,
    /// or one kernel that looks, of all that is to be saved in the same way.
    fn save(&mut self, pieces: &[(TraceChunk, Range<u32>)]) {
        let finds = self.gpu.setup().writes;
        let [mut copied, mut looked, mut stored] = [0; 3];
        self.memory.rewritten = None;
        for (chunk, frames) in pieces {
            for index in frames.clone() {
                let bytes = self.bytes(*chunk, &(index..index + 1));
                let known = &mut self.memory.known[*chunk as usize][index as usize];
                let saving = match finds {
                    Writes::LookedFor => known.history.next(known.stored),
                    Writes::CopiedBack => Saving::All,
                    Writes::Known => Saving::Written,
                };
                known.stored = std::mem::take(&mut known.written) && saving == Saving::Written;
                if saving == Saving::All && finds == Writes::LookedFor && pieces.len() == 1 {
                    self.memory.rewritten = Some(*chunk);
                }
                copied += if saving == Saving::Written { 0 } else { bytes };
                looked += if saving == Saving::All { 0 } else { bytes };
                stored += if known.stored { bytes } else { 0 };
            }
        }
        let chunks: Vec<TraceChunk> = pieces.iter().map(|&(chunk, _)| chunk).collect();
        self.gpu.save(&chunks, copied, looked, stored);
    }

    /// What one copy onto the frames of `pieces` waits for; then their bytes are there.
    fn before_copy(&mut self, pieces: &[(TraceChunk, Range<u32>)]) -> Waits {
        let mut after = std::mem::take(&mut self.memory.pending);
        self.memory.passed.merge(&after);
        for (chunk, frames) in pieces {
            let chunk = *chunk;
            for index in frames.clone() {
                let frame = self.memory.places[chunk as usize][index as usize];
                let content = &mut self.memory.content[frame as usize];
                let before = content.replace((chunk, index));
                // What was unmapped has retired, and copies in are in order anyway.
                if let Some((before, at)) = before
                    && before != chunk
                    && self.memory.places[before as usize].get(at as usize) == Some(&frame)
                {
                    assert!(
                        self.memory.passed.cover(&self.gpu.last_use(before).into()),
                        "chunk {chunk} overwrites chunk {before}, which is in use"
                    );
                }
            }
            after.merge(&self.gpu.saves(chunk));
        }
        after
    }
}

impl MemoryOps for SimMemoryOps<'_> {
    fn create_frame(&mut self) -> Result<FrameId, Refused> {
        if self.memory.paid > 0 {
            self.memory.paid -= 1;
            return Ok(self.memory.born(false));
        }
        if self.gpu.free() < FRAME_BYTES {
            return Err(Refused);
        }
        self.gpu.reserve(FRAME_BYTES);
        Ok(self.memory.born(false))
    }

    fn create_host_frame(&mut self) -> Result<FrameId, Refused> {
        let ns = FRAME_BYTES as f64 * 1e9 / PIN_BYTES_PER_S;
        self.gpu.device().host_busy(ns as Nanos);
        Ok(self.memory.born(true))
    }

    fn release_frame(&mut self, frame: FrameId) {
        if !std::mem::take(&mut self.memory.on_host[frame as usize]) {
            self.gpu.unreserve(FRAME_BYTES);
        }
        self.memory.content[frame as usize] = None;
        self.memory.unborn.push(frame);
    }

    fn map(&mut self, chunk: TraceChunk, frames: &[FrameId]) -> Result<(), Refused> {
        self.gpu.device().host_busy(MAP_NS * frames.len() as Nanos);
        self.memory.places[chunk as usize] = frames.to_vec();
        let remote = |index: u32| self.memory.on_host[frames[index as usize] as usize];
        let remote = (0..frames.len() as u32).filter(|&index| remote(index));
        let remote = remote.map(|index| self.bytes(chunk, &(index..index + 1))).sum();
        self.memory.remote[chunk as usize] = remote;
        Ok(())
    }

    fn unmap(&mut self, chunk: TraceChunk) {
        let frames = std::mem::take(&mut self.memory.places[chunk as usize]);
        self.gpu.device().host_busy(MAP_NS * frames.len() as Nanos);
    }

    /// Every launch here goes through the streamer.
    fn about_to_evict(&mut self) {}

    fn reserve_host(
        &mut self,
        chunk: TraceChunk,
        frames: Range<u32>,
        place: Option<Place>,
    ) -> Result<(), Refused> {
        self.memory.hosts[chunk as usize] = place;
        let ns = self.bytes(chunk, &frames) as f64 * 1e9 / PIN_BYTES_PER_S;
        self.gpu.device().host_busy(ns as Nanos);
        Ok(())
    }

    fn release_host(&mut self, _: TraceChunk, _: Range<u32>) {}

    fn ring(&mut self, slots: &[FrameId]) {
        let (memory, length) = (&mut self.memory, slots.len());
        let gone = memory.ring.split_off(length.min(memory.ring.len()));
        let changed = memory.ring.iter().zip(slots).filter(|(old, new)| old != new).count();
        let mapped = gone.len() + changed + length - memory.ring.len();
        self.gpu.device().host_busy(MAP_NS * mapped as Nanos);
        self.memory.ring = slots.to_vec();
    }

    fn write_back(&mut self, chunk: TraceChunk, frames: Range<u32>) {
        self.save(&[(chunk, frames)]);
    }

    fn write_back_run(&mut self, pieces: &[(TraceChunk, Range<u32>)], slot: u32) {
        self.memory.check_run(pieces, slot);
        self.save(pieces);
    }

    fn is_rewritten(&self, chunk: TraceChunk) -> bool {
        self.memory.rewritten == Some(chunk)
    }

    fn fetch_after_uses(&mut self, chunk: TraceChunk) {
        let uses = self.gpu.uses(chunk);
        self.memory.pending.merge(&uses);
        self.memory.pending.merge(&self.gpu.saves(chunk));
    }

    fn fetch_after_program(&mut self) {
        let gate = self.gpu.gate();
        self.memory.pending.merge(&gate);
    }

    fn fetch(&mut self, chunk: TraceChunk, frames: Range<u32>, content: bool, _: bool) {
        let bytes = if content { self.bytes(chunk, &frames) } else { 0 };
        let after = self.before_copy(&[(chunk, frames)]);
        self.gpu.bring(&[chunk], bytes, after);
    }

    fn fetch_run(&mut self, pieces: &[(TraceChunk, Range<u32>)], slot: u32, _: bool) {
        self.memory.check_run(pieces, slot);
        // From the first byte to the last: whole frames, but for the end.
        let frames: u64 = pieces.iter().map(|(_, frames)| frames.len() as u64).sum();
        let (last, end) = pieces.last().expect("pieces");
        let missing = end.len() as u64 * FRAME_BYTES - self.bytes(*last, end);
        let bytes = frames * FRAME_BYTES - missing;
        let after = self.before_copy(pieces);
        let chunks: Vec<TraceChunk> = pieces.iter().map(|&(chunk, _)| chunk).collect();
        self.gpu.bring(&chunks, bytes, after);
    }

    /// Waits until it is so.
    fn retire(&mut self, chunk: TraceChunk) -> bool {
        let mut waits = self.gpu.uses(chunk);
        waits.merge(&self.gpu.saves(chunk));
        self.gpu.device().wait_for_all(&waits);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two chunks of two frames side by side in slab 3, on slots 1 to 4.
    fn memory() -> Memory {
        Memory {
            ring: vec![9, 5, 6, 7, 8],
            places: vec![vec![5, 6], vec![7, 8]],
            hosts: [4, 6].map(|at| Some(Place { slab: 3, at })).to_vec(),
            ..Memory::default()
        }
    }

    #[test]
    fn neighbours_are_one_copy() {
        memory().check_run(&[(0, 0..2), (1, 0..2)], 1);
        memory().check_run(&[(0, 1..2), (1, 0..1)], 2);
    }

    #[test]
    #[should_panic = "leaves the run's slots"]
    fn frames_elsewhere_are_not() {
        memory().check_run(&[(0, 0..2), (1, 0..2)], 0);
    }

    #[test]
    #[should_panic = "is elsewhere"]
    fn host_memory_elsewhere_is_not() {
        let mut memory = memory();
        memory.hosts[1] = Some(Place { slab: 4, at: 6 });
        memory.check_run(&[(0, 0..2), (1, 0..2)], 1);
    }
}
