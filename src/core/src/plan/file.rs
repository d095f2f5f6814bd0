//! A learned order and its plan, saved for the next start of the same program.
//!
//! ```text
//!   file         "aoplan\r\n"  version u16  signature u64  body  crc32 u32
//!   body         machine  layouts  runs  plan  description
//!   machine      the fields of [`Machine`], in order; rates and shares as f64,
//!                a rate that does not exist as 0
//!   layouts      shared_frames  count  of each:
//!                  ±id  frames  host_frames  count of parts, of each:
//!                    ±first  frames  ±at  ±wrap
//!   runs         count of runs, of each:
//!                  count of parts, of each:  ±chunk  part
//!   plan         count of phases, of each:
//!                  ring_frames  period_ns  stall_ns  streamed_bytes
//!                  count of copies, of each:  ±chunk  part  ±need  lead  joined
//!   description  present + 1, or 0  count of phases, of each:
//!                  repeats  visits  count of steps, of each:
//!                    operations  ns  count of uses, of each:  ±id
//! ```
//!
//! What has its type named is little-endian and of that size; all else is a
//! number of variable length: seven bits a byte, lowest first, the top bit set
//! where more follow. `±`: the difference to the one before (for `first` and
//! `at`, to where the part before ended), doubled, all bits turned if negative.
//! The checksum covers every byte before it.
//!
//! Whoever reads has no reason to trust: [`decode`] refuses, with its reason,
//! whatever is damaged, of another version or of another program, and content
//! that [`Saved::check`] finds inconsistent even under a valid checksum. It
//! takes memory in proportion to the file's length.
//!
//! Not here: reading and writing files; whether the plan suits the present
//! budget and problem (see [`Plan::verify`]).

use super::{Copy, Layout, Machine, Part, PhasePlan, Plan};
use crate::address_map::ChunkId;
use crate::learn::{self, Description};
use std::fmt;

/// What is kept. Chunks are numbered in the order of their allocation, so that
/// a number means the same chunk at the next start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// Of the program; see [`signature`].
    pub signature: u64,
    /// What the plan was made for.
    pub machine: Machine,
    pub description: Description,
    /// Empty, or for the phases of the description, in their order.
    pub plan: Plan,
}

/// Names a program by the sizes of its allocations, in bytes, in order.
///
/// FNV-1a, 64 bits, over each size's eight little-endian bytes, then the
/// number of sizes likewise. Files depend on it: a change of it is a change of
/// [`VERSION`].
pub fn signature(sizes: impl Iterator<Item = u64>) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let add = |hash: u64, word: u64| {
        let with = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        word.to_le_bytes().iter().fold(hash, with)
    };
    let (mut hash, mut count) = (BASIS, 0);
    for size in sizes {
        hash = add(hash, size);
        count += 1;
    }
    add(hash, count)
}

const MAGIC: [u8; 8] = *b"aoplan\r\n"; // a transfer as text would damage it
pub const VERSION: u16 = 3;
const HEADER: usize = MAGIC.len() + 2 + 8;
const CHECKSUM: usize = 4;

/// Frames of all chunks together: 32 TiB at 2 MiB each. Bounds whatever is
/// later done frame by frame.
pub const MAX_FRAMES: u64 = 1 << 24;
/// Bounds tables by chunk number.
pub const MAX_CHUNKS: u64 = 1 << 24;
/// Length of a file. No program comes near; nothing overflows below it.
pub const MAX_BYTES: usize = 1 << 30;

/// Why a file is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Does not begin as a saved plan does.
    NotAPlan,
    /// Written by another version of this library.
    Version(u16),
    /// Cut short, or changed since it was written.
    Damaged,
    /// Made for a program with other allocations.
    OtherProgram,
    /// Whole, but what it says cannot be.
    Inconsistent(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPlan => write!(f, "not a saved plan"),
            Self::Version(version) => write!(f, "of version {version}, not {VERSION}"),
            Self::Damaged => write!(f, "damaged or cut short"),
            Self::OtherProgram => write!(f, "made for other allocations"),
            Self::Inconsistent(what) => write!(f, "inconsistent: {what}"),
        }
    }
}

impl std::error::Error for Refused {}

// --- writing --------------------------------------------------------------

/// The file of `saved`. Uses that no step refers to are not written.
pub fn encode(saved: &Saved) -> Vec<u8> {
    let mut out = Writer(Vec::new());
    out.0.extend_from_slice(&MAGIC);
    out.0.extend_from_slice(&VERSION.to_le_bytes());
    out.0.extend_from_slice(&saved.signature.to_le_bytes());
    write_machine(&mut out, &saved.machine);
    write_layouts(&mut out, &saved.plan);
    write_runs(&mut out, &saved.plan);
    write_copies(&mut out, &saved.plan);
    write_description(&mut out, &saved.description);
    let checksum = crc32fast::hash(&out.0);
    out.0.extend_from_slice(&checksum.to_le_bytes());
    out.0
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, value: impl Into<u64>) {
        let mut value = value.into();
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// `value`, told from `*before`, which it becomes.
    fn change(&mut self, value: u32, before: &mut u32) {
        let difference = i64::from(value) - i64::from(*before);
        self.number(((difference << 1) ^ (difference >> 63)) as u64);
        *before = value;
    }

    fn float(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn write_machine(out: &mut Writer, machine: &Machine) {
    out.number(machine.frames);
    out.number(machine.frame_bytes);
    out.float(machine.link_bytes_per_s);
    out.number(machine.copy_ns);
    out.number(machine.release_ns);
    out.float(machine.release_bytes_per_s);
    out.float(machine.release_gpu_share);
    out.number(machine.backlog_bytes);
    out.float(machine.device_bytes_per_s);
    out.float(machine.zero_copy_bytes_per_s.unwrap_or(0.0));
}

fn write_layouts(out: &mut Writer, plan: &Plan) {
    out.number(plan.shared_frames);
    out.count(plan.layouts.len());
    let (mut id, mut end, mut wrap) = (0, 0, 0);
    for layout in &plan.layouts {
        out.change(layout.id, &mut id);
        out.number(layout.frames);
        out.number(layout.host_frames);
        out.count(layout.parts.len());
        let mut first = 0;
        for part in &layout.parts {
            // Mostly, one part begins where another ends, in chunk and ring.
            out.change(part.first, &mut first);
            out.number(part.frames);
            out.change(part.at, &mut end);
            out.change(part.wrap, &mut wrap);
            first = part.first.saturating_add(part.frames);
            end = part.at.saturating_add(part.frames);
        }
    }
}

fn write_runs(out: &mut Writer, plan: &Plan) {
    out.count(plan.runs.len());
    let mut before = 0;
    for run in &plan.runs {
        out.count(run.len());
        for &(chunk, part) in run {
            out.change(chunk, &mut before);
            out.number(part);
        }
    }
}

fn write_copies(out: &mut Writer, plan: &Plan) {
    out.count(plan.phases.len());
    for phase in &plan.phases {
        out.number(phase.ring_frames);
        out.number(phase.period_ns);
        out.number(phase.stall_ns);
        out.number(phase.streamed_bytes);
        out.count(phase.copies.len());
        let (mut chunk, mut need) = (0, 0);
        for copy in &phase.copies {
            out.change(copy.chunk, &mut chunk);
            out.number(copy.part);
            out.change(copy.need, &mut need);
            out.number(copy.lead);
            out.number(copy.joined);
        }
    }
}

fn write_description(out: &mut Writer, description: &Description) {
    out.number(description.present.map_or(0, |phase| phase as u64 + 1));
    out.count(description.phases.len());
    for phase in &description.phases {
        out.number(phase.repeats);
        out.number(phase.visits);
        out.count(phase.steps.len());
        let mut id = 0;
        for step in &phase.steps {
            out.number(step.operations);
            out.number(step.ns);
            out.number(step.use_count);
            for &used in &phase.uses[step.first_use as usize..][..step.use_count as usize] {
                out.change(used, &mut id);
            }
        }
    }
}

// --- reading --------------------------------------------------------------

/// What `file` holds, if it is whole, of this version, made for the program
/// with this signature, and consistent.
pub fn decode(file: &[u8], signature: u64) -> Result<Saved, Refused> {
    if !file.starts_with(&MAGIC) {
        return Err(Refused::NotAPlan);
    }
    if file.len() > MAX_BYTES {
        return Err(Refused::Inconsistent("it is too long"));
    }
    let version = file.get(MAGIC.len()..MAGIC.len() + 2).ok_or(Refused::Damaged)?;
    let version = u16::from_le_bytes([version[0], version[1]]);
    if version != VERSION {
        return Err(Refused::Version(version));
    }
    let (covered, checksum) = file
        .split_last_chunk::<CHECKSUM>()
        .filter(|(c, _)| c.len() >= HEADER)
        .ok_or(Refused::Damaged)?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*checksum) {
        return Err(Refused::Damaged);
    }
    let (header, body) = covered.split_at(HEADER);
    let written = header.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    if written != Some(signature) {
        return Err(Refused::OtherProgram);
    }
    let mut input = Reader(body);
    let machine = read_machine(&mut input)?;
    let (shared_frames, layouts) = read_layouts(&mut input)?;
    let runs = read_runs(&mut input)?;
    let phases = read_copies(&mut input)?;
    let description = read_description(&mut input)?;
    if !input.0.is_empty() {
        return Err(Refused::Inconsistent("something follows"));
    }
    let plan = Plan { layouts, shared_frames, runs, phases };
    let saved = Saved { signature, machine, description, plan };
    saved.check()?;
    Ok(saved)
}

struct Reader<'a>(&'a [u8]);

const ENDS: Refused = Refused::Inconsistent("it ends too early");

impl Reader<'_> {
    fn wide(&mut self) -> Result<u64, Refused> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(ENDS)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Refused::Inconsistent("a number is too long"))
    }

    fn number(&mut self) -> Result<u32, Refused> {
        u32::try_from(self.wide()?).map_err(|_| Refused::Inconsistent("a number is too large"))
    }

    fn flag(&mut self) -> Result<bool, Refused> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refused::Inconsistent("a flag is neither 0 nor 1")),
        }
    }

    /// A count of things of at least `bytes` each: no more than can follow.
    fn count(&mut self, bytes: usize) -> Result<usize, Refused> {
        let count = self.wide()?;
        if count > (self.0.len() / bytes) as u64 { Err(ENDS) } else { Ok(count as usize) }
    }

    fn change(&mut self, before: &mut u32) -> Result<u32, Refused> {
        let zigzag = self.wide()?;
        let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let value = i64::from(*before).checked_add(difference);
        *before = value
            .and_then(|value| u32::try_from(value).ok())
            .ok_or(Refused::Inconsistent("a number is out of range"))?;
        Ok(*before)
    }

    fn float(&mut self) -> Result<f64, Refused> {
        let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(ENDS)?;
        self.0 = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*bytes)))
    }
}

fn read_machine(input: &mut Reader) -> Result<Machine, Refused> {
    Ok(Machine {
        frames: input.number()?,
        frame_bytes: input.wide()?,
        link_bytes_per_s: input.float()?,
        copy_ns: input.wide()?,
        release_ns: input.wide()?,
        release_bytes_per_s: input.float()?,
        release_gpu_share: input.float()?,
        backlog_bytes: input.wide()?,
        device_bytes_per_s: input.float()?,
        zero_copy_bytes_per_s: Some(input.float()?).filter(|&rate| rate != 0.0),
    })
}

fn read_layouts(input: &mut Reader) -> Result<(u32, Vec<Layout>), Refused> {
    let shared_frames = input.number()?;
    let count = input.count(4)?;
    let mut layouts = Vec::with_capacity(count);
    let (mut id, mut end, mut wrap) = (0, 0, 0);
    for _ in 0..count {
        let id = input.change(&mut id)?;
        let frames = input.number()?;
        let host_frames = input.number()?;
        let parts_count = input.count(4)?;
        let mut parts = Vec::with_capacity(parts_count);
        let mut next = 0;
        for _ in 0..parts_count {
            let first = input.change(&mut next)?;
            let frames = input.number()?;
            let at = input.change(&mut end)?;
            let wrap = input.change(&mut wrap)?;
            parts.push(Part { first, frames, at, wrap });
            next = first.saturating_add(frames);
            end = at.saturating_add(frames);
        }
        layouts.push(Layout { id, frames, parts, host_frames });
    }
    Ok((shared_frames, layouts))
}

fn read_runs(input: &mut Reader) -> Result<Vec<Vec<(u32, u32)>>, Refused> {
    let count = input.count(1)?;
    let mut runs = Vec::with_capacity(count);
    let mut before = 0;
    for _ in 0..count {
        let count = input.count(2)?;
        let mut run = Vec::with_capacity(count);
        for _ in 0..count {
            run.push((input.change(&mut before)?, input.number()?));
        }
        runs.push(run);
    }
    Ok(runs)
}

fn read_copies(input: &mut Reader) -> Result<Vec<PhasePlan>, Refused> {
    let count = input.count(4)?;
    let mut phases = Vec::with_capacity(count);
    for _ in 0..count {
        let ring_frames = input.number()?;
        let (period_ns, stall_ns, streamed_bytes) = (input.wide()?, input.wide()?, input.wide()?);
        let count = input.count(5)?;
        let mut copies = Vec::with_capacity(count);
        let (mut chunk, mut need) = (0, 0);
        for _ in 0..count {
            copies.push(Copy {
                chunk: input.change(&mut chunk)?,
                part: input.number()?,
                need: input.change(&mut need)?,
                lead: input.number()?,
                joined: input.flag()?,
            });
        }
        phases.push(PhasePlan { copies, ring_frames, period_ns, stall_ns, streamed_bytes });
    }
    Ok(phases)
}

fn read_description(input: &mut Reader) -> Result<Description, Refused> {
    let present = input.wide()?.checked_sub(1).map(|phase| phase as usize);
    let count = input.count(3)?;
    let mut phases = Vec::with_capacity(count);
    for _ in 0..count {
        let (repeats, visits) = (input.number()?, input.number()?);
        let count = input.count(3)?;
        let mut phase =
            learn::Phase { repeats, visits, steps: Vec::with_capacity(count), uses: Vec::new() };
        let mut id = 0;
        for _ in 0..count {
            let (operations, ns) = (input.number()?, input.wide()?);
            let use_count = input.count(1)?;
            let first_use = phase.uses.len() as u32;
            for _ in 0..use_count {
                phase.uses.push(input.change(&mut id)?);
            }
            phase.steps.push(learn::Step {
                first_use,
                use_count: use_count as u32,
                operations,
                ns,
            });
        }
        phases.push(phase);
    }
    Ok(Description { phases, present })
}

// --- what must hold ---------------------------------------------------------

impl Saved {
    /// Whether everything named exists, once, within its bounds, so that
    /// whoever uses it may index without a second look. `O(n log n)`.
    pub fn check(&self) -> Result<(), Refused> {
        check_machine(&self.machine)?;
        let planned = check_layouts(&self.plan, self.machine.frames)?;
        let remote = self.plan.layouts.iter().any(|layout| layout.host_frames > 0);
        let possible = !remote || self.machine.zero_copy_bytes_per_s.is_some();
        must(possible, "frames on the host that kernels cannot read")?;
        check_runs(&self.plan)?;
        check_description(&self.description, &planned)?;
        check_copies(&self.plan, &self.description)
    }
}

fn must(holds: bool, what: &'static str) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused::Inconsistent(what)) }
}

fn check_machine(machine: &Machine) -> Result<(), Refused> {
    // A NaN is above nothing. Without measured speeds, infinite ones are told.
    let rates = [
        machine.link_bytes_per_s,
        machine.release_bytes_per_s,
        machine.device_bytes_per_s,
        machine.zero_copy_bytes_per_s.unwrap_or(f64::INFINITY),
    ];
    must(rates.iter().all(|&rate| rate > 0.0), "a rate is not above zero")?;
    must((0.0..=1.0).contains(&machine.release_gpu_share), "a share is no share")?;
    must(machine.frame_bytes > 0, "frames have no bytes")?;
    let bytes = u64::from(machine.frames).checked_mul(machine.frame_bytes);
    must(bytes.is_some(), "memory is too large")
}

/// Answers the chunks that have a layout, sorted by number.
fn check_layouts(plan: &Plan, frames: u32) -> Result<Vec<ChunkId>, Refused> {
    let mut ids: Vec<ChunkId> = plan.layouts.iter().map(|layout| layout.id).collect();
    ids.sort_unstable();
    must(ids.windows(2).all(|pair| pair[0] != pair[1]), "a chunk has two layouts")?;
    must(ids.last().is_none_or(|&id| u64::from(id) < MAX_CHUNKS), "a chunk's number")?;
    must(plan.layouts.iter().all(|layout| layout.frames > 0), "a chunk has no frames")?;
    let total: u64 = plan.layouts.iter().map(|layout| u64::from(layout.frames)).sum();
    must(total <= MAX_FRAMES, "chunks are too large")?;

    let mut needed = u64::from(plan.shared_frames);
    let mut taken: Vec<(u32, u32)> = Vec::new(); // shared frames, start and end
    for layout in &plan.layouts {
        must(layout.host_frames <= layout.frames, "more on the host than there is")?;
        let on_device = layout.frames - layout.host_frames;
        needed += u64::from(on_device);
        taken.clear();
        let mut end = 0;
        for part in &layout.parts {
            must(part.frames > 0, "a part is empty")?;
            must(part.first >= end, "parts of a chunk overlap")?;
            must(part.frames <= on_device.saturating_sub(part.first), "a part leaves its chunk")?;
            end = part.first + part.frames;
            must(part.wrap <= plan.shared_frames, "a part wraps beyond the shared frames")?;
            must(part.at < part.wrap && part.frames <= part.wrap, "a part leaves its frames")?;
            needed -= u64::from(part.frames);
            let straight = part.frames.min(part.wrap - part.at);
            taken.push((part.at, part.at + straight));
            if straight < part.frames {
                taken.push((0, part.frames - straight));
            }
        }
        taken.sort_unstable();
        let apart = taken.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        must(apart, "parts of a chunk meet on a shared frame")?;
    }
    must(needed <= u64::from(frames), "it does not fit")?;
    Ok(ids)
}

/// Where chunks are in slabs is not saved: [`Plan::verify`] looks at that.
fn check_runs(plan: &Plan) -> Result<(), Refused> {
    let mut members: Vec<(u32, u32)> = plan.runs.iter().flatten().copied().collect();
    members.sort_unstable();
    must(members.windows(2).all(|pair| pair[0] != pair[1]), "a part is in two runs")?;
    for run in &plan.runs {
        let part = |&(chunk, part): &(u32, u32)| {
            plan.layouts.get(chunk as usize)?.parts.get(part as usize).copied()
        };
        let parts: Option<Vec<Part>> = run.iter().map(part).collect();
        let parts = parts.ok_or(Refused::Inconsistent("a run of nothing"))?;
        must(parts.len() > 1, "a run of one part")?;
        let straight = parts.iter().all(|part| part.frames <= part.wrap - part.at);
        let beside = || parts.windows(2).all(|pair| pair[1].at == pair[0].at + pair[0].frames);
        must(straight && beside(), "a run has gaps")?;
    }
    Ok(())
}

fn check_description(description: &Description, planned: &[ChunkId]) -> Result<(), Refused> {
    let phases = &description.phases;
    must(description.present.is_none_or(|phase| phase < phases.len()), "no such phase")?;
    let mut operations = 0_u64;
    let mut ns = 0_u64;
    let mut uses = 0;
    let mut together = Vec::new();
    for phase in phases {
        let mut end = 0;
        for step in &phase.steps {
            must(step.first_use == end, "uses are out of order")?;
            let range = end as usize..end as usize + step.use_count as usize;
            let used = phase.uses.get(range).ok_or(Refused::Inconsistent("no such use"))?;
            end += step.use_count;
            together.clear();
            together.extend_from_slice(used);
            together.sort_unstable();
            must(together.windows(2).all(|p| p[0] != p[1]), "a step uses a chunk twice")?;
            operations += u64::from(step.operations);
            ns = ns.saturating_add(step.ns);
        }
        must(end as usize == phase.uses.len(), "uses of no step")?;
        uses += phase.uses.len();
        must(phase.uses.iter().all(|&id| u64::from(id) < MAX_CHUNKS), "a chunk's number")?;
        if !planned.is_empty() {
            let known = phase.uses.iter().all(|id| planned.binary_search(id).is_ok());
            must(known, "a chunk has no layout")?;
        }
    }
    must(uses <= u32::MAX as usize && operations <= u32::MAX.into(), "too many operations")?;
    must(ns <= i64::MAX as u64, "steps take too long")
}

fn check_copies(plan: &Plan, description: &Description) -> Result<(), Refused> {
    let alike = plan.phases.is_empty() || plan.phases.len() == description.phases.len();
    must(alike, "other phases are planned than described")?;
    for (phase, described) in plan.phases.iter().zip(&description.phases) {
        must(phase.ring_frames <= plan.shared_frames, "a ring leaves the shared frames")?;
        for copy in &phase.copies {
            let layout = plan.layouts.get(copy.chunk as usize);
            let part = layout.and_then(|layout| layout.parts.get(copy.part as usize));
            must(part.is_some(), "a copy of nothing")?;
            must((copy.need as usize) < described.steps.len(), "a copy for no step")?;
            must(copy.lead as usize <= described.steps.len(), "a copy starts too early")?;
        }
        must(phase.copies.first().is_none_or(|copy| !copy.joined), "a copy joined to none")?;
    }
    Ok(())
}
