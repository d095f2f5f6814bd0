//! What stays, what streams, through which frames, and when each copy starts.
//!
//! Pure and deterministic: the same [`Problem`], previous plan and effort give
//! the same [`Plan`].

use crate::address_map::ChunkId;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub id: ChunkId,
    pub frames: u32,
    /// Must have frames of its own: captured in a graph, or its address escaped.
    pub pinned: bool,
}

/// One iteration of a phase.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    pub steps: Vec<Step>,
    /// Indices into [`Problem::chunks`].
    pub uses: Vec<u32>,
    /// Iterations per visit; weighs the phases against each other.
    pub repeats: u32,
}

/// Launches in a row that touch the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// `uses[first_use..][..use_count]` of the phase, each chunk once.
    pub first_use: u32,
    pub use_count: u32,
    /// GPU time.
    pub ns: Nanos,
}

impl Phase {
    /// Appends a step.
    pub fn push(&mut self, ns: Nanos, chunks: &[u32]) {
        let first_use = self.uses.len() as u32;
        self.uses.extend_from_slice(chunks);
        self.steps.push(Step { first_use, use_count: chunks.len() as u32, ns });
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
    /// Bytes of copies that may be ready to run at the same time: what a copy
    /// of the program's may have to wait behind.
    pub backlog_bytes: u64,
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
            backlog_bytes: 32 << 20,
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

/// Carried out by `streamer`; checked by [`Plan::verify`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// One per chunk of the problem, in the same order.
    pub layouts: Vec<Layout>,
    /// Frames shared by the parts that stream.
    pub shared_frames: u32,
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
}

/// A run of a chunk's frames, on shared frames for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First frame within the chunk.
    pub first: u32,
    pub frames: u32,
    /// The shared frame of the first; the others follow, and after frame
    /// `lap - 1` comes frame 0.
    pub at: u32,
    pub lap: u32,
}

impl Part {
    /// The shared frame of the part's frame `index`.
    pub fn slot(&self, index: u32) -> u32 {
        (self.at + index) % self.lap
    }
}

/// The copies of one iteration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhasePlan {
    /// In the order in which the link takes them.
    pub copies: Vec<Copy>,
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
}
