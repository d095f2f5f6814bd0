//! Which cells there are, and how one comes about.

use super::cell::{Cell, Other};
use crate::scene::{self, Bounds, Kind, Run, Scene, Steady};
use autooffload_core::units::format_bytes;
use autooffload_lab::sim::oracle::FRAME_BYTES;
use autooffload_lab::sim::policies::PEERS;
use autooffload_lab::sim::run;
use autooffload_lab::workload::cards::{self, Card, LINKS};
use autooffload_lab::workload::models::{self, Model};
use autooffload_lab::workload::{Launch, Trace, Use};

/// Policies that are told the future, as no program could tell it.
const CLAIRVOYANT: [&str; 2] = ["lru-prefetch", "clairvoyant"];

const CARDS: [&str; 2] = ["rtx-4090", "h200"];
const SHARES: [f64; 8] = [0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0];

/// The part of the grid for `--quick`: small traces of every kind.
const QUICK_TRACES: [&str; 4] = ["flux1-dev", "sdxl-unet", "llama3-8b-decode", "t5-flux-vae"];
const QUICK_SHARES: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

pub struct Grid {
    pub scenes: Vec<Asked>,
    shares: Vec<f64>,
}

/// A scene to be prepared.
pub struct Asked {
    pub model: &'static Model,
    pub card: &'static Card,
    pub link: f64,
}

impl Grid {
    pub fn new(quick: bool, only: Option<&str>) -> Result<Self, String> {
        let wanted = |model: &&'static Model| {
            (!quick || QUICK_TRACES.contains(&model.name))
                && only.is_none_or(|part| model.name.contains(part))
        };
        let mut scenes = Vec::new();
        for model in models::catalogue().iter().filter(wanted) {
            for name in CARDS {
                let card = cards::card(name).ok_or_else(|| format!("no card {name}"))?;
                for link in LINKS.iter().map(|link| link.bytes_per_s / 1e9) {
                    // One card per link is enough to see that everything works.
                    if !quick || (name == "h200") == (link > 50.0) {
                        scenes.push(Asked { model, card, link });
                    }
                }
            }
        }
        if scenes.is_empty() {
            return Err(format!("no trace's name contains '{}'", only.unwrap_or("")));
        }
        let shares = if quick { QUICK_SHARES.to_vec() } else { SHARES.to_vec() };
        Ok(Self { scenes, shares })
    }

    /// Every cell: which scene, and R/W.
    pub fn places(&self) -> Vec<(usize, f64)> {
        let of_scene = |scene| self.shares.iter().map(move |&share| (scene, share));
        (0..self.scenes.len()).flat_map(of_scene).collect()
    }
}

/// A scene, and what its cells have in common.
pub struct Prepared {
    pub kind: Kind,
    pub scene: Scene,
    pub steady: Steady,
    weights: u64,
    compute_ns: f64,
    everything_resident_ns: f64,
    described_after: usize,
    longest: (String, f64),
    largest: (String, u64),
}

pub fn prepare(asked: &Asked) -> Result<Prepared, String> {
    let kind = Kind::of(asked.model);
    let scene = Scene::new(scene::steady_trace(asked.model), asked.card, asked.link);
    let steady = scene.steady(kind);
    Ok(Prepared {
        kind,
        weights: scene.weights(),
        compute_ns: scene.compute_ns(steady),
        everything_resident_ns: scene.resident(steady)?.ns,
        described_after: scene::described_after(&scene.trace),
        longest: longest(&scene),
        largest: largest(&scene.trace),
        steady,
        scene,
    })
}

/// The longest kernel.
fn longest(scene: &Scene) -> (String, f64) {
    let found = launches(&scene.trace).max_by_key(|(_, launch)| scene.card.kernel_time(launch));
    found.map_or_else(Default::default, |(number, launch)| {
        let bytes: u64 = scene.trace.touches(launch).iter().map(|u| of(&scene.trace, u)).sum();
        let text = format!("launch {number}, which uses {}", format_bytes(bytes));
        (text, scene.card.kernel_time(launch) as f64)
    })
}

/// The launch that needs most at once.
fn largest(trace: &Trace) -> (String, u64) {
    let bytes = |launch| trace.touches(launch).iter().map(|used| of(trace, used)).sum::<u64>();
    let found = launches(trace).max_by_key(|(_, launch)| bytes(launch));
    found.map_or_else(Default::default, |(number, launch)| {
        let chunks: Vec<String> = trace
            .touches(launch)
            .iter()
            .map(|used| format!("chunk {} of {}", used.chunk, format_bytes(of(trace, used))))
            .collect();
        (format!("launch {number}: {}", chunks.join(", ")), bytes(launch))
    })
}

fn of(trace: &Trace, used: &Use) -> u64 {
    trace.chunks[used.chunk as usize]
}

fn launches(trace: &Trace) -> impl Iterator<Item = (usize, &Launch)> {
    run::launches(trace).enumerate()
}

impl Prepared {
    pub fn cell(&self, share: f64) -> Cell {
        let Self { scene, kind, steady, .. } = self;
        let resident = scene.resident_bytes(share);
        let setup = scene.setup(resident);
        let planned = scene.planned(&setup, *steady);
        let ring_bytes =
            planned.as_ref().ok().map(|(plan, _)| u64::from(plan.shared_frames) * FRAME_BYTES);
        let ours = scene.ours(&setup, *steady);
        let mut in_place = ours.as_ref().map(|run| run.in_place.clone()).unwrap_or_default();
        if let Ok((plan, _)) = &planned {
            in_place.extend(plan.read_in_place());
        }
        let Bounds { b1_ns, b2_ns, with_copies_ns, binds } =
            scene.bounds(resident, *steady, *kind, &in_place);
        let planned = planned.and_then(|(_, ran)| ran);
        let other = |&name: &&'static str| {
            let ran = scene.peer(name, &setup, *steady);
            Other { name, clairvoyant: CLAIRVOYANT.contains(&name), ran }
        };
        Cell {
            trace: scene.trace.name.clone(),
            kind: *kind,
            card: scene.card.name,
            link: scene.link,
            share,
            weights: self.weights,
            resident,
            activations: scene.trace.activation_bytes,
            compute_ns: self.compute_ns,
            b1_ns,
            b2_ns,
            with_copies_ns,
            in_place: !in_place.is_empty(),
            binds,
            everything_resident_ns: self.everything_resident_ns,
            copy_ns: setup.costs.copy_ns as f64,
            copied_back: scene.ours_copying_back(&setup, *steady),
            memory_bytes_per_s: scene.card.memory_bytes_per_s,
            recovery: ours.as_ref().ok().filter(|_| *kind == Kind::Phases).map(recovery),
            ours,
            planned: Some(planned),
            ring_bytes,
            described_after: self.described_after,
            longest: self.longest.clone(),
            largest: self.largest.clone(),
            others: PEERS.iter().map(other).collect(),
        }
    }
}

/// Of the iterations after a change of phase, how many are not as fast as the
/// later ones of the same visit; the worst visit. Phases seen for the first time
/// do not count: nobody knows them.
fn recovery(run: &Run) -> u32 {
    /// Shorter visits have no steady state to come to.
    const VISIT: usize = 4;
    const STEADY: f64 = 1.05;
    let mut worst = 0;
    let mut seen: Vec<u16> = Vec::new();
    let mut from = 0;
    for visit in run.phases.chunk_by(|a, b| a == b) {
        let times = &run.iterations[from..from + visit.len()];
        from += visit.len();
        if seen.contains(&visit[0]) && visit.len() >= VISIT {
            let mut later = times[times.len() / 2..].to_vec();
            later.sort_unstable();
            let steady = later[later.len() / 2] as f64;
            let slow = |ns: &&u64| **ns as f64 > STEADY * steady;
            worst = worst.max(times.iter().filter(slow).count() as u32);
        }
        seen.push(visit[0]);
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_counts_the_slow_iterations_of_phases_that_return() {
        let run = |visits: &[(u16, &[u64])]| Run {
            phases: visits.iter().flat_map(|(phase, ns)| vec![*phase; ns.len()]).collect(),
            iterations: visits.iter().flat_map(|(_, ns)| ns.to_vec()).collect(),
            ..Run::default()
        };
        let first: &[u64] = &[900, 900, 900, 100, 100, 100];
        assert_eq!(recovery(&run(&[(0, first), (1, first)])), 0, "both are new");
        let later = [(0, first), (1, first), (0, &[300, 104, 100, 100, 100][..])];
        assert_eq!(recovery(&run(&later)), 1);
        let later = [(0, first), (1, first), (0, &[300, 106, 100, 100, 100][..])];
        assert_eq!(recovery(&run(&later)), 2);
        let late = [(0, first), (1, first), (0, &[100, 300, 300, 100, 100, 100][..])];
        assert_eq!(recovery(&run(&late)), 2, "not only at the start of a visit");
        let short = [(0, &[5, 1][..]), (1, first), (0, &[9, 1][..])];
        assert_eq!(recovery(&run(&short)), 0, "too short to be judged");
    }
}
