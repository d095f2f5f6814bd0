//! What a planner would be told if everything were known beforehand: the
//! phases of a trace, and where in them each launch stands.
//!
//! A phase's iteration is described by one of its iterations, the middle one.
//! Launches of iterations that differ are matched in order; what matches
//! nothing has no position.
//!
//! Not here: finding phases without marks (see `learn`).

use super::run::{Setup, Writes, launches};
use crate::workload::{Event, Launch, Nanos, Trace, TraceChunk, Use};
use autooffload_core::plan::{Chunk, Machine, Phase, Problem};

/// Frames of the simulated device, as the library's.
pub const FRAME_BYTES: u64 = 2 << 20;

#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Chunk ids are those of the trace.
    pub problem: Problem,
    /// The marks of the trace as phase numbers of the trace: phase `i` of the
    /// problem is the trace's `phases[i]`.
    pub phases: Vec<u16>,
    /// Of each iteration of the trace: the phase of the problem.
    pub iterations: Vec<u32>,
    /// Of each launch: iteration and step, if it has a place.
    pub positions: Vec<Option<(u32, u32)>>,
    /// Chunks that launches use and the problem does not know.
    pub unplanned: Vec<TraceChunk>,
}

/// Launches in a row that touch the same.
struct Run {
    /// Of the first; stands for what they touch.
    launch: Launch,
    first: usize,
    count: usize,
    ns: Nanos,
    /// Bytes that they read of what they touch.
    read: u64,
}

/// What `setup` makes of `trace`.
pub fn oracle(trace: &Trace, setup: &Setup) -> Oracle {
    let touches = |launch: &Launch| {
        let mut chunks: Vec<TraceChunk> = trace.touches(launch).iter().map(|u| u.chunk).collect();
        chunks.sort_unstable();
        chunks
    };
    let same = |a: &Launch, b: &Launch| {
        (a.first_use, a.use_count) == (b.first_use, b.use_count)
            || (a.use_count == b.use_count && touches(a) == touches(b))
    };

    // Iterations as runs of launches.
    let mut numbers: Vec<u16> = Vec::new();
    let mut runs: Vec<Vec<Run>> = Vec::new();
    let mut number = 0;
    for event in &trace.events {
        match event {
            Event::Iteration { phase } => {
                numbers.push(*phase);
                runs.push(Vec::new());
            }
            Event::Launch(launch) => {
                if let Some(iteration) = runs.last_mut() {
                    let ns = setup.card.kernel_time(launch);
                    let read = |used: &Use| {
                        trace.chunks[used.chunk as usize] * u64::from(used.permille) / 1000
                    };
                    let read: u64 = trace.touches(launch).iter().map(read).sum();
                    match iteration.last_mut() {
                        Some(run) if same(&run.launch, launch) => {
                            run.count += 1;
                            run.ns += ns;
                            run.read += read;
                        }
                        _ => {
                            let launch = *launch;
                            iteration.push(Run { launch, first: number, count: 1, ns, read });
                        }
                    }
                }
                number += 1;
            }
            _ => {}
        }
    }

    let mut phases = numbers.clone();
    phases.sort_unstable();
    phases.dedup();
    let index_of = |phase: u16| phases.binary_search(&phase).expect("a phase of the trace");
    let iterations: Vec<u32> = numbers.iter().map(|&phase| index_of(phase) as u32).collect();

    let mut known: Vec<Option<u32>> = vec![None; trace.chunks.len()];
    let mut problem = Problem { machine: machine(trace, setup), ..Problem::default() };
    let mut positions = vec![None; number];
    for phase in 0..phases.len() {
        let members: Vec<usize> =
            (0..iterations.len()).filter(|&i| iterations[i] as usize == phase).collect();
        let visits =
            members.iter().filter(|&&i| i == 0 || iterations[i - 1] as usize != phase).count();
        let example = &runs[members[members.len() / 2]];
        let repeats = (members.len() / visits) as u32;
        let mut described = Phase { repeats, visits: visits as u32, ..Phase::default() };
        for run in example {
            let chunks: Vec<u32> = touches(&run.launch)
                .iter()
                .map(|&chunk| {
                    *known[chunk as usize].get_or_insert_with(|| {
                        let frames = trace.chunks[chunk as usize].div_ceil(FRAME_BYTES) as u32;
                        problem.chunks.push(Chunk { id: chunk, frames, ..Chunk::default() });
                        problem.chunks.len() as u32 - 1
                    })
                })
                .collect();
            described.push_reading(run.ns, run.read, 0, &chunks);
        }
        problem.phases.push(described);
        for &iteration in &members {
            let mut cursor = 0;
            for run in &runs[iteration] {
                let ahead = example[cursor..].iter().position(|e| same(&e.launch, &run.launch));
                let Some(ahead) = ahead else { continue };
                let position = Some((iteration as u32, (cursor + ahead) as u32));
                positions[run.first..][..run.count].fill(position);
                cursor += ahead + 1;
            }
        }
    }

    let mut unplanned: Vec<TraceChunk> = launches(trace)
        .flat_map(|launch| trace.touches(launch))
        .map(|used| used.chunk)
        .filter(|&chunk| known[chunk as usize].is_none())
        .collect();
    unplanned.sort_unstable();
    unplanned.dedup();
    let reserved: u64 =
        unplanned.iter().map(|&c| trace.chunks[c as usize].div_ceil(FRAME_BYTES)).sum();
    problem.machine.frames = u64::from(problem.machine.frames).saturating_sub(reserved) as u32;
    Oracle { problem, phases, iterations, positions, unplanned }
}

/// The machine of `setup`, what the trace's activations leave of it.
pub fn machine(trace: &Trace, setup: &Setup) -> Machine {
    let capacity = setup.budget_bytes.saturating_sub(trace.activation_bytes);
    let Setup { costs, link_bytes_per_s, .. } = *setup;
    let (release_ns, release_bytes_per_s, release_gpu_share) = match setup.writes {
        Writes::LookedFor => {
            let taken = costs.hash_bytes_per_s / setup.card.memory_bytes_per_s;
            (costs.hash_ns, costs.hash_bytes_per_s, taken.min(1.0))
        }
        Writes::CopiedBack => (0, link_bytes_per_s, 0.0),
        Writes::Known => (0, f64::INFINITY, 0.0),
    };
    Machine {
        frames: (capacity / FRAME_BYTES) as u32,
        frame_bytes: FRAME_BYTES,
        link_bytes_per_s,
        copy_ns: costs.copy_ns,
        release_ns,
        release_bytes_per_s,
        device_bytes_per_s: setup.card.memory_bytes_per_s,
        zero_copy_bytes_per_s: Some(link_bytes_per_s * costs.zero_copy_share),
        release_gpu_share,
        ..Machine::default()
    }
}
