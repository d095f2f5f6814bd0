//! What a program does to a device: the launches, what they touch and how much
//! work each is. Traces are recorded or generated; nothing here plans.
//!
//! ```text
//!   mod      Trace: chunks, and events in the order the host issues them
//!   build    puts a trace together; checks one
//!   format   the trace file
//!   cards    what cards and links can do, with sources
//!   models   traces of published architectures
//!   bounds   what no policy can beat
//! ```

pub mod bounds;
mod build;
pub mod cards;
pub mod format;
pub mod models;

pub use build::{Builder, limits};

/// Virtual time and durations.
pub type Nanos = u64;

/// An allocation of the program, by index into [`Trace::chunks`].
pub type TraceChunk = u32;

/// A program's run, free of any card: durations follow from [`cards::Card::kernel_time`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    pub name: String,
    /// Size of each allocation. Those that no [`Event::Allocate`] names exist
    /// from the start.
    pub chunks: Vec<u64>,
    pub events: Vec<Event>,
    /// What the launches touch, one after the other; see [`Trace::touches`].
    pub uses: Vec<Use>,
    /// Device memory in use beside the chunks, at its peak: it is the
    /// program's, whatever the policy.
    pub activation_bytes: u64,
}

/// One chunk of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Use {
    pub chunk: TraceChunk,
    /// How much of the chunk the kernel reads, in 1/1000: 1000 for a weight,
    /// a few for a stacked expert or an embedding.
    pub permille: u16,
    /// Whether it writes to it.
    pub writes: bool,
}

/// In the order in which the host issues them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Launch(Launch),
    /// The host waits for all work queued so far, then is busy for `host_ns`
    /// before it issues anything else (`.item()`, a sampler on the host).
    HostSync {
        host_ns: Nanos,
    },
    /// The program's own copy between host and device, in order on the compute stream.
    Copy {
        bytes: u64,
        to_device: bool,
    },
    Allocate {
        chunk: TraceChunk,
    },
    Free {
        chunk: TraceChunk,
    },
    /// An iteration of phase `phase` begins here. For whoever scores a policy;
    /// no policy may look at it.
    Iteration {
        phase: u16,
    },
}

/// A kernel launch, or several in a row that touch the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// `uses[first_use..][..use_count]` of the trace.
    pub first_use: u32,
    pub use_count: u32,
    /// Duration on any card, added to what follows from the work.
    pub ns: Nanos,
    /// Work: floating-point operations and bytes of device memory moved.
    pub flops: u64,
    pub bytes: u64,
    /// Kernels that this stands for; each costs [`cards::Card::kernel_ns`], and
    /// the host [`cards::Costs::launch_ns`].
    pub kernels: u16,
}

impl Trace {
    /// What `launch` touches.
    pub fn touches(&self, launch: &Launch) -> &[Use] {
        &self.uses[launch.first_use as usize..][..launch.use_count as usize]
    }
}
