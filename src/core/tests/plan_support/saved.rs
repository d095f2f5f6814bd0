//! Random orders and plans to save: consistent, not sensible.

use super::Random;
use autooffload_core::learn::{self, Description};
use autooffload_core::plan::file::Saved;
use autooffload_core::plan::{Copy, Layout, Machine, Part, PhasePlan, Plan};

/// With `chunks` chunks and `steps` steps a phase.
pub fn random_saved(random: &mut Random, chunks: u32, steps: u32, phases: u32) -> Saved {
    let shared_frames = random.within(8, 4 * u64::from(chunks) + 8) as u32;
    let mut frames = shared_frames;
    let mut ring = 0;
    let mut layouts = Vec::new();
    let mut id = 0;
    for _ in 0..chunks {
        id += random.within(1, 2) as u32;
        let size = random.within(1, 24) as u32;
        let mut parts = Vec::new();
        let (mut first, mut left) = (random.within(0, 3) as u32, shared_frames);
        while first < size && left > 0 && !random.one_in(3) {
            let most = left.min(size - first).min(8);
            let part = Part {
                first,
                frames: random.within(1, most.into()) as u32,
                at: ring,
                wrap: shared_frames,
            };
            ring = (ring + part.frames) % shared_frames;
            first += part.frames + random.within(0, 2) as u32;
            left -= part.frames;
            parts.push(part);
        }
        frames += size - parts.iter().map(|part| part.frames).sum::<u32>();
        // Behind everything else.
        let behind = size - parts.last().map_or(0, |part| part.first + part.frames);
        let host_frames = if random.one_in(3) { random.within(0, behind.into()) as u32 } else { 0 };
        frames -= host_frames;
        layouts.push(Layout { id, frames: size, parts, host_frames });
    }
    let machine = Machine {
        frames: frames + random.within(0, 9) as u32,
        release_ns: random.within(0, 1_000_000),
        release_gpu_share: random.within(0, 16) as f64 / 16.0,
        link_bytes_per_s: random.within(1_000_000, 60_000_000_000) as f64 / 3.0,
        device_bytes_per_s: random.within(1, 5_000) as f64 * 1e9,
        zero_copy_bytes_per_s: (random.one_in(2)
            || layouts.iter().any(|layout: &Layout| layout.host_frames > 0))
        .then(|| random.within(1, 60) as f64 * 1e9),
        ..Machine::default()
    };
    let mut plan = Plan { runs: random_runs(&layouts), layouts, shared_frames, phases: Vec::new() };
    let mut description = Description::default();
    for _ in 0..phases {
        let (repeats, visits) = (random.within(0, 99) as u32, random.within(0, 99) as u32);
        let mut phase = learn::Phase { repeats, visits, ..Default::default() };
        let mut copies = Vec::new();
        for need in 0..steps {
            let first_use = phase.uses.len() as u32;
            let near = u64::from(chunks) * u64::from(need) / u64::from(steps);
            for _ in 0..random.within(0, 2) {
                let chunk = (near + random.within(0, 5)) as u32 % chunks;
                let layout = &plan.layouts[chunk as usize];
                if phase.uses[first_use as usize..].contains(&layout.id) {
                    continue;
                }
                phase.uses.push(layout.id);
                for part in 0..layout.parts.len() as u32 {
                    let lead = random.within(0, steps.min(40).into()) as u32;
                    let joined = !copies.is_empty() && random.one_in(4);
                    copies.push(Copy { chunk, part, need, lead, joined });
                }
            }
            phase.steps.push(learn::Step {
                first_use,
                use_count: phase.uses.len() as u32 - first_use,
                operations: random.within(1, 5) as u32,
                ns: random.within(0, 5_000_000),
            });
        }
        description.phases.push(phase);
        let period_ns = random.next() >> 20;
        plan.phases.push(PhasePlan {
            copies,
            period_ns,
            stall_ns: period_ns / 7,
            streamed_bytes: 1,
            ring_frames: shared_frames,
        });
    }
    description.present = (phases as usize).checked_sub(1).filter(|_| random.one_in(2));
    Saved { signature: random.next(), machine, description, plan }
}

/// Parts that lie one behind the other on the shared frames.
fn random_runs(layouts: &[Layout]) -> Vec<Vec<(u32, u32)>> {
    let mut runs: Vec<Vec<(u32, u32)>> = Vec::new();
    let mut end = None;
    for (chunk, layout) in layouts.iter().enumerate() {
        for (index, part) in layout.parts.iter().enumerate() {
            let member = (chunk as u32, index as u32);
            let straight = part.at + part.frames <= part.wrap;
            match runs.last_mut() {
                Some(run) if straight && end == Some(part.at) => run.push(member),
                _ if straight => runs.push(vec![member]),
                _ => {}
            }
            end = straight.then_some(part.at + part.frames);
        }
    }
    runs.retain(|run| run.len() > 1);
    runs
}
