//! The last resort: a place for everything, whatever the order.
//!
//! A ring wants an order of use in which chunks needed together are near each
//! other. Where some step joins chunks from all over the iteration, and memory
//! is so short that they cannot all stay, every chunk gets the first place that
//! none of the chunks it is ever needed with overlaps, and is fetched anew at
//! each use. Slow, and always right.

use super::{Chunk, Layouts, Part, Problem};

/// Places for all chunks. `None`: not even so.
pub(super) fn scatter(problem: &Problem, chunks: &[Chunk]) -> Option<Layouts> {
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
    let mut places: Vec<Option<u32>> = vec![None; chunks.len()];
    for &chunk in &order {
        let frames = chunks[chunk as usize].frames;
        let mut taken: Vec<(u32, u32)> = together[chunk as usize]
            .iter()
            .filter_map(|&other| Some((places[other as usize]?, chunks[other as usize].frames)))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (other, length) in taken {
            if at + frames <= other {
                break;
            }
            at = at.max(other + length);
        }
        places[chunk as usize] = Some(at);
    }
    let end = |places: &[Option<u32>]| {
        let ends = places.iter().zip(chunks).filter_map(|(at, chunk)| Some((*at)? + chunk.frames));
        ends.max().unwrap_or(0)
    };
    let pinned: u32 = chunks.iter().filter(|chunk| chunk.pinned).map(|chunk| chunk.frames).sum();
    let mut left = problem.machine.frames.checked_sub(pinned)?.checked_sub(end(&places))?;
    // What is used most stays, as far as that goes.
    order.sort_by_key(|&chunk| (std::cmp::Reverse(uses[chunk as usize]), chunk));
    for chunk in order {
        if chunks[chunk as usize].frames <= left {
            left -= chunks[chunk as usize].frames;
            places[chunk as usize] = None;
        }
    }
    let shared_frames = end(&places);
    let part = |(at, chunk): (&Option<u32>, &Chunk)| match *at {
        Some(at) => vec![Part { first: 0, frames: chunk.frames, at, lap: shared_frames }],
        None => Vec::new(),
    };
    let parts = places.iter().zip(chunks).map(part).collect();
    Some(Layouts { parts, shared_frames, rings: vec![0; problem.phases.len()], cost: 0.0 })
}
