//! What the planner is told, and what it answers.
//!
//! Not here: whether an answer is right (`proof`).

use std::fmt;

use crate::address_map::{ChunkId, FRAME_SHIFT};
use crate::units::format_bytes;

/// A duration.
pub type Nanos = u64;

/// What the planner is told.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Every chunk of any phase, each once.
    pub chunks: Vec<Chunk>,
    pub phases: Vec<Phase>,
    pub machine: Machine,
    /// The user's wish for the frames through which a phase streams, if any.
    pub window_frames: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    pub id: ChunkId,
    pub frames: u32,
    /// Must have frames of its own: captured in a graph, or its address escaped.
    pub pinned: bool,
    /// Where its host memory is, if others' may be beside it.
    pub place: Option<Place>,
}

/// Frames of a slab: host memory in one piece, for several small chunks.
pub const SLAB_FRAMES: u32 = 16;

/// Rate of kernels that read host memory over the link, as a share of the rate
/// of pinned copies. Published figures are 0.40 to 0.75; no card has been asked.
pub const IN_PLACE_LINK_SHARE: f64 = 0.45;

/// Where in which slab a chunk's first frame is; the others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub slab: u32,
    /// Frames from the slab's start.
    pub at: u32,
}

impl Place {
    /// Whether it begins where `frames` frames from `before` on end.
    pub fn follows(self, before: Place, frames: u32) -> bool {
        self.slab == before.slab && self.at == before.at + frames
    }
}

/// One iteration of a phase.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    pub steps: Vec<Step>,
    /// Indices into [`Problem::chunks`].
    pub uses: Vec<u32>,
    /// Iterations per visit; weighs the phases against each other.
    pub repeats: u32,
    /// Visits so far: what came once may never come back.
    pub visits: u32,
}

/// Launches in a row that touch the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// `uses[first_use..][..use_count]` of the phase, each chunk once.
    pub first_use: u32,
    pub use_count: u32,
    /// GPU time, everything it touches on the device.
    pub ns: Nanos,
    /// It reads no more of the chunks it touches. From outside nobody sees what
    /// a kernel reads, but in the time that it took it cannot have read more
    /// than device memory yields. `u64::MAX`: nothing is known.
    pub read_bytes: u64,
    /// Of the time, in which its kernels read host memory over the link.
    pub link_ns: Nanos,
}

impl Phase {
    /// Appends a step.
    pub fn push(&mut self, ns: Nanos, chunks: &[u32]) {
        self.push_reading(ns, u64::MAX, 0, chunks);
    }

    /// Appends a step with all that is known of it.
    pub fn push_reading(&mut self, ns: Nanos, read_bytes: u64, link_ns: Nanos, chunks: &[u32]) {
        let first_use = self.uses.len() as u32;
        self.uses.extend_from_slice(chunks);
        let use_count = chunks.len() as u32;
        self.steps.push(Step { first_use, use_count, ns, read_bytes, link_ns });
    }

    /// What `step` touches.
    pub fn touches(&self, step: &Step) -> &[u32] {
        &self.uses[step.first_use as usize..][..step.use_count as usize]
    }
}

/// The device and the link, measured or assumed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Frames for everything: residents and what is shared.
    pub frames: u32,
    pub frame_bytes: u64,
    /// Host to device, large copies.
    pub link_bytes_per_s: f64,
    /// Added to every copy.
    pub copy_ns: Nanos,
    /// From the end of a chunk's last use to the moment its frames may be
    /// overwritten: fixed, and by size (fingerprint, or copy to the host).
    pub release_ns: Nanos,
    pub release_bytes_per_s: f64,
    /// The share of that time which is taken from kernels: a fingerprint reads
    /// device memory beside them.
    pub release_gpu_share: f64,
    /// Bytes of copies that may be ready to run at the same time: what a copy
    /// of the program's may have to wait behind.
    pub backlog_bytes: u64,
    /// The most that kernels read of device memory: what a kernel that took a
    /// while may have read, and no more. Infinite if unknown.
    pub device_bytes_per_s: f64,
    /// What kernels read of host memory, over the link, where it is mapped for
    /// them. `None`: that cannot be done.
    pub zero_copy_bytes_per_s: Option<f64>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            frames: 0,
            frame_bytes: 2 << 20,
            link_bytes_per_s: 26e9,
            copy_ns: 8_000,
            release_ns: 0,
            release_bytes_per_s: f64::INFINITY,
            release_gpu_share: 0.0,
            backlog_bytes: 32 << 20,
            device_bytes_per_s: f64::INFINITY,
            zero_copy_bytes_per_s: None,
        }
    }
}

/// How long the planner may think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// One good guess: tens of milliseconds for ten thousand chunks.
    Quick,
    /// The best of a family, by simulation: a second or two for as many.
    Searched,
}

/// Carried out by `memory`; checked by [`Plan::verify`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// One per chunk of the problem, in the same order.
    pub layouts: Vec<Layout>,
    /// Frames shared by the parts that stream.
    pub shared_frames: u32,
    /// Parts that come in one copy: index into `layouts`, and into its parts.
    /// In each run they lie side by side in a slab and, in the same order, on
    /// consecutive shared frames. No part is in two.
    pub runs: Vec<Vec<(u32, u32)>>,
    /// One per phase of the problem, in the same order.
    pub phases: Vec<PhasePlan>,
}

/// Where a chunk's frames are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub id: ChunkId,
    pub frames: u32,
    /// The parts that share frames with other chunks, in order, each copied as
    /// one. Frames of the chunk that no part names are its own: resident.
    pub parts: Vec<Part>,
    /// So many of its last frames are host memory, which kernels read in place.
    pub host_frames: u32,
}

/// A run of a chunk's frames, on shared frames for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First frame within the chunk.
    pub first: u32,
    pub frames: u32,
    /// The shared frame of the first; the others follow, and after frame
    /// `wrap - 1` comes frame 0.
    pub at: u32,
    pub wrap: u32,
}

impl Part {
    /// The shared frame of the part's frame `index`.
    pub fn slot(&self, index: u32) -> u32 {
        (self.at + index) % self.wrap
    }
}

/// The copies of one iteration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhasePlan {
    /// In the order in which the link takes them.
    pub copies: Vec<Copy>,
    /// Of the shared frames, those from 0 on that this phase streams through;
    /// the others hold what is brought in once per visit. 0, and yet copies:
    /// there is no ring, each use fetches what it does not find.
    pub ring_frames: u32,
    /// By the planner's own clock: one iteration in the steady state.
    pub period_ns: Nanos,
    /// Of which no kernel ran.
    pub stall_ns: Nanos,
    /// Bytes that cross the link in one iteration.
    pub streamed_bytes: u64,
}

/// One copy of one part, in every iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Index into [`Plan::layouts`].
    pub chunk: u32,
    /// Index into its parts.
    pub part: u32,
    /// The step that needs it.
    pub need: u32,
    /// How many steps before `need` begins the planned start: the copy becomes
    /// ready when the step `need - lead` (of the iteration before, if negative) begins.
    pub lead: u32,
    /// In one with the copy before it, which has the same `need` and `lead`.
    pub joined: bool,
}

impl Layout {
    /// Frames of the device that are the chunk's own: resident.
    pub fn own_frames(&self) -> u32 {
        self.frames - self.host_frames - self.parts.iter().map(|part| part.frames).sum::<u32>()
    }
}

impl Plan {
    /// The chunks of which kernels read some over the link.
    pub fn read_in_place(&self) -> Vec<ChunkId> {
        let there = self.layouts.iter().filter(|layout| layout.host_frames > 0);
        there.map(|layout| layout.id).collect()
    }

    /// Frames of their own, of all chunks.
    pub fn resident_frames(&self) -> u32 {
        self.layouts.iter().map(Layout::own_frames).sum()
    }

    /// How many frames would change their mapping if this plan followed
    /// `previous`: what a change of plan costs.
    pub fn moved_frames(&self, previous: &Plan) -> u32 {
        let mut known: Vec<&Layout> = previous.layouts.iter().collect();
        known.sort_by_key(|layout| layout.id);
        let moved = |layout: &Layout| match known.binary_search_by_key(&layout.id, |l| l.id) {
            Ok(index) if known[index] == layout => 0,
            _ => layout.frames,
        };
        self.layouts.iter().map(moved).sum()
    }
}

/// No plan was found. Where what is pinned and the largest step fit at all,
/// that takes twice as many frames at the most: a ring must hold two steps'
/// chunks without one in the way of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub needed_frames: u32,
    pub available_frames: u32,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed_frames, available_frames } = *self;
        write!(
            f,
            "what stays and the largest step need {} at once, and there are {}",
            format_bytes(u64::from(needed_frames) << FRAME_SHIFT),
            format_bytes(u64::from(available_frames) << FRAME_SHIFT),
        )
    }
}

impl std::error::Error for Unfit {}
