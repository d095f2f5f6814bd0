//! What kernels had better read in host memory, over the link, each time.
//!
//! A chunk that streams crosses the link whole, however little of it is read: a
//! few rows of an embedding, two of eight experts in one allocation. Read in
//! place, only what is read crosses, but the kernel waits for it: nothing is
//! brought ahead, and kernels reach less than the link's rate. So it pays where
//! little is read, and only there.
//!
//! What is read cannot be seen, but [`Step::read_bytes`] bounds it. The bound is
//! taken for the truth: a chunk of which less is read costs less than planned.
//! Where nothing was measured there is no bound, and everything streams.
//!
//! ```text
//!   read in place    frames * share / zero_copy rate    kernel time and link
//!   streamed         frames / link rate                 link alone
//! ```
//!
//! Which chunks, and how many of their frames, is decided on a fluid model: an
//! iteration takes the longer of its kernels and of its bytes over the link.
//! Chunks are taken in the order of what they gain; device memory goes to
//! those that would stream first, and to those read in place by what each of
//! their frames would cost. The search then compares the best with streaming
//! everything, by the clock.
//!
//! Not here: how a chunk comes to lie there (`memory`), ring and copies: what
//! is read in place is out of the game, and [`reduced`] says what is left.

use super::{Nanos, Problem, Step};

/// What is read in place must cost less than this of what streaming costs: a
/// few estimates stand against a known rate.
const WORTH_IT: f64 = 0.8;
/// A smaller chunk may be read from the device's cache, faster than from its
/// memory (up to 72 MB on a GeForce, "NVIDIA Ada GPU Architecture"): then time
/// is no bound.
const LEAST_BYTES: u64 = 128 << 20;
/// Prefixes of the candidates that are looked at, and divisions of memory for
/// each.
const PREFIXES: usize = 64;
const DIVISIONS: u64 = 32;
/// Chunks whose frames cost the same but for so much share memory evenly.
const ALIKE: f64 = 0.8;

/// The share of a chunk of `bytes` that a use by `step` reads, at the most.
fn share(step: &Step, bytes: u64) -> f64 {
    (step.read_bytes as f64 / bytes.max(1) as f64).min(1.0)
}

/// A chunk that may be read in place.
struct Candidate {
    chunk: usize,
    frames: u32,
    /// Per frame, over one round of all phases, ns: read in place, streamed.
    read_ns: f64,
    streamed_ns: f64,
}

/// How many frames of each chunk to keep in host memory, if any at all.
pub(super) fn choose(problem: &Problem) -> Option<Vec<u32>> {
    let machine = &problem.machine;
    let rate = machine.zero_copy_bytes_per_s?;
    let frame_bytes = machine.frame_bytes as f64;
    let count = problem.chunks.len();
    // Chunkfuls read, and times brought in, over one round of all phases.
    let (mut read, mut brought) = (vec![0.0; count], vec![0.0; count]);
    let mut compute = 0.0;
    let mut largest_step = 0;
    let mut seen = vec![usize::MAX; count];
    for (number, phase) in problem.phases.iter().enumerate() {
        let repeats = f64::from(phase.repeats.max(1));
        for step in &phase.steps {
            compute += repeats * step.ns as f64;
            let mut frames = 0;
            for &chunk in phase.touches(step) {
                let chunk = chunk as usize;
                let bytes = u64::from(problem.chunks[chunk].frames) * machine.frame_bytes;
                read[chunk] += repeats * share(step, bytes);
                if std::mem::replace(&mut seen[chunk], number) != number {
                    brought[chunk] += repeats;
                }
                frames += problem.chunks[chunk].frames;
            }
            largest_step = largest_step.max(frames);
        }
    }
    let mut memory = f64::from(machine.frames);
    // What is not read in place, and what bringing in all of it takes.
    let (mut others, mut others_ns) = (0.0, 0.0);
    let mut candidates = Vec::new();
    for (chunk, known) in problem.chunks.iter().enumerate() {
        if known.pinned || brought[chunk] == 0.0 {
            memory -= f64::from(known.frames);
            continue;
        }
        others += f64::from(known.frames);
        let read_ns = read[chunk] * frame_bytes * 1e9 / rate;
        let streamed_ns = brought[chunk] * frame_bytes * 1e9 / machine.link_bytes_per_s;
        others_ns += f64::from(known.frames) * streamed_ns;
        let bytes = u64::from(known.frames) * machine.frame_bytes;
        if bytes >= LEAST_BYTES && read_ns < WORTH_IT * streamed_ns {
            candidates.push(Candidate { chunk, frames: known.frames, read_ns, streamed_ns });
        }
    }
    if memory < 0.0 || others <= memory || candidates.is_empty() {
        return None;
    }
    let gain = |candidate: &Candidate| candidate.read_ns / candidate.streamed_ns;
    candidates.sort_by(|a, b| gain(a).total_cmp(&gain(b)).then(a.chunk.cmp(&b.chunk)));

    let everything = others;
    let time = |others: f64, others_ns: f64, device: f64, read_ns: f64| {
        let mut beyond = others - (memory - device);
        if beyond > 0.0 {
            // What streams does so through something.
            beyond += f64::from(2 * largest_step).min(others / 8.0);
        }
        let each = if others > 0.0 { others_ns / others } else { 0.0 };
        (compute + read_ns).max(beyond.max(0.0) * each + read_ns)
    };
    // Time, and with what: frames on the host, candidates, frames given to them.
    let mut best: (f64, Option<(u64, usize, u64)>) = (time(everything, others_ns, 0.0, 0.0), None);
    let mut taken = 0;
    for prefix in 1..=PREFIXES.min(candidates.len()) {
        let upto = candidates.len() * prefix / PREFIXES.min(candidates.len());
        for candidate in &candidates[taken..upto] {
            others -= f64::from(candidate.frames);
            others_ns -= f64::from(candidate.frames) * candidate.streamed_ns;
        }
        taken = upto;
        let mut chosen: Vec<&Candidate> = candidates[..upto].iter().collect();
        chosen.sort_by(|a, b| b.read_ns.total_cmp(&a.read_ns).then(a.chunk.cmp(&b.chunk)));
        let frames: u64 = chosen.iter().map(|candidate| u64::from(candidate.frames)).sum();
        let room = (memory - others).max(0.0) as u64;
        let most = (memory as u64).min(frames);
        let divisions = (0..=DIVISIONS).map(|part| most * part / DIVISIONS);
        for device in divisions.chain([room.min(most)]) {
            let on_host = on_host(&chosen, device);
            let read_ns: f64 = (chosen.iter().zip(&on_host))
                .map(|(candidate, &frames)| f64::from(frames) * candidate.read_ns)
                .sum();
            let time = time(others, others_ns, device as f64, read_ns);
            // Of what is as good, that with less on the host, from more chunks.
            let least = |frames: u64| best.1.as_ref().is_none_or(|&(known, ..)| frames <= known);
            let better = time < best.0 * (1.0 - 1e-3);
            if better || (time <= best.0 && best.1.is_some() && least(frames - device)) {
                best = (time, Some((frames - device, upto, device)));
            }
        }
    }
    let (_, upto, device) = best.1?;
    let mut chosen: Vec<&Candidate> = candidates[..upto].iter().collect();
    chosen.sort_by(|a, b| b.read_ns.total_cmp(&a.read_ns).then(a.chunk.cmp(&b.chunk)));
    let mut host = vec![0; count];
    for (candidate, frames) in chosen.iter().zip(on_host(&chosen, device)) {
        host[candidate.chunk] = frames;
    }
    host.iter().any(|&frames| frames > 0).then_some(host)
}

/// The frames of each of `chosen` that are left on the host when `device` frames
/// are given out, dearest first: evenly among those that cost about the same,
/// so that no kernel reads more over the link than another.
fn on_host(chosen: &[&Candidate], device: u64) -> Vec<u32> {
    let mut left = device;
    let mut host: Vec<u32> = Vec::with_capacity(chosen.len());
    let mut rest = chosen;
    while let Some(first) = rest.first() {
        let alike = rest.iter().take_while(|other| other.read_ns >= first.read_ns * ALIKE).count();
        let (tier, behind) = rest.split_at(alike);
        let frames: u64 = tier.iter().map(|candidate| u64::from(candidate.frames)).sum();
        let given = left.min(frames);
        // By running sums, so that what is given out is exactly that.
        let (mut before, mut handed) = (0, 0);
        for candidate in tier {
            before += u64::from(candidate.frames);
            let upto = (u128::from(before) * u128::from(given) / u128::from(frames)) as u64;
            host.push(candidate.frames - (upto - handed) as u32);
            handed = upto;
        }
        left -= given;
        rest = behind;
    }
    host
}

/// What is left to plan when `host[c]` frames of chunk `c` are read in place: its
/// other frames stay, and the steps that use it take longer.
pub(super) fn reduced(problem: &Problem, host: &[u32]) -> Problem {
    let mut reduced = problem.clone();
    let Some(rate) = problem.machine.zero_copy_bytes_per_s else { return reduced };
    let bytes = |frames: u32| u64::from(frames) * problem.machine.frame_bytes;
    for phase in &mut reduced.phases {
        for step in &mut phase.steps {
            let touched = &phase.uses[step.first_use as usize..][..step.use_count as usize];
            let read: f64 = touched
                .iter()
                .map(|&chunk| chunk as usize)
                .filter(|&chunk| host[chunk] > 0)
                .map(|chunk| {
                    bytes(host[chunk]) as f64 * share(step, bytes(problem.chunks[chunk].frames))
                })
                .sum();
            // What finds its bytes on the device goes on meanwhile.
            let link_ns = (read * 1e9 / rate) as Nanos;
            step.ns = step.ns.max(link_ns);
            step.link_ns = step.link_ns.max(link_ns);
        }
    }
    for (chunk, &host) in reduced.chunks.iter_mut().zip(host).filter(|(_, host)| **host > 0) {
        chunk.frames -= host;
        chunk.pinned = true;
    }
    reduced
}
