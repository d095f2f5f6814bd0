//! A place for everything, whatever the order.
//!
//! A ring wants an order of use in which chunks needed together are near each
//! other. Where some step joins chunks from all over the iteration, and memory
//! is so short that they cannot all stay, every chunk gets the first place that
//! none of the chunks it is ever needed with overlaps, in pieces if need be, and
//! is fetched anew at each use. Slow, and always right. `refit` betters it, which
//! often does better than a ring where chunks are small and many are needed together.

use super::refit::Places;
use super::{Chunk, Layouts, Problem};

/// Places for all chunks. `None`: not even so.
pub(super) fn first_fit(problem: &Problem, chunks: &[Chunk]) -> Option<Layouts> {
    let mut together: Vec<Vec<u32>> = vec![Vec::new(); chunks.len()];
    let mut uses = vec![0u64; chunks.len()];
    for phase in &problem.phases {
        for step in &phase.steps {
            for &chunk in phase.touches(step) {
                uses[chunk as usize] += u64::from(phase.repeats.max(1));
                let others = phase.touches(step).iter().filter(|&&other| other != chunk);
                together[chunk as usize].extend(others);
            }
        }
    }
    for others in &mut together {
        others.sort_unstable();
        others.dedup();
    }
    // The large ones first: small ones find a place between them.
    let mut order: Vec<u32> =
        (0..chunks.len() as u32).filter(|&chunk| !chunks[chunk as usize].pinned).collect();
    order.sort_by_key(|&chunk| (std::cmp::Reverse(chunks[chunk as usize].frames), chunk));
    // Runs of shared frames: the first free ones, in as many pieces as it takes.
    let mut places: Vec<Vec<(u32, u32)>> = vec![Vec::new(); chunks.len()];
    for &chunk in &order {
        let others = together[chunk as usize].iter();
        let mut taken: Vec<(u32, u32)> =
            others.flat_map(|&other| places[other as usize].iter().copied()).collect();
        taken.sort_unstable();
        taken.push((u32::MAX, 0));
        let (mut at, mut left) = (0, chunks[chunk as usize].frames);
        let mut runs = Vec::new();
        for (other, length) in taken {
            let frames = other.saturating_sub(at).min(left);
            if frames > 0 {
                runs.push((at, frames));
                left -= frames;
            }
            at = at.max(other.saturating_add(length));
        }
        places[chunk as usize] = runs;
    }
    let end = |places: &[Vec<(u32, u32)>]| {
        places.iter().flatten().map(|&(at, frames)| at + frames).max().unwrap_or(0)
    };
    let pinned: u32 = chunks.iter().filter(|chunk| chunk.pinned).map(|chunk| chunk.frames).sum();
    let mut left = problem.machine.frames.checked_sub(pinned)?.checked_sub(end(&places))?;
    // What is used most stays, as far as that goes.
    order.sort_by_key(|&chunk| (std::cmp::Reverse(uses[chunk as usize]), chunk));
    for chunk in order {
        if chunks[chunk as usize].frames <= left {
            left -= chunks[chunk as usize].frames;
            places[chunk as usize].clear();
        }
    }
    let all = problem.machine.frames - pinned;
    let mut places = Places::new(problem, chunks, &places, all);
    places.better(chunks, &together);
    let (parts, shared_frames) = places.parts(chunks);
    let rings = vec![0; problem.phases.len()];
    Some(Layouts { parts, runs: Vec::new(), shared_frames, rings, cost: 0.0 })
}
