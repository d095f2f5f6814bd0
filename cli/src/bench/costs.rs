//! What detours, jitter and wrong rates cost.

use super::grid::Prepared;
use super::judge::Cost;
use super::parallel;
use super::spread::Spread;
use crate::scene::{Kind, Scene, Steady};
use autooffload_core::plan::{self, Effort, Problem};
use autooffload_lab::sim::run::Setup;
use autooffload_lab::workload::cards::{self, Card};
use autooffload_lab::workload::models::VARIANTS;
use serde_json::{Map, Value};

/// R/W of the cells that are looked at: deep in the link's regime, and near
/// the knee for most.
const SHARES: [f64; 3] = [0.25, 0.5, 0.75];

/// Runs with detours are this long; the first iterations, in which anything
/// has to be learned, are not counted.
const ASTRAY_ITERATIONS: u32 = 40;
const ASTRAY_FROM: usize = 8;

pub fn measure(scenes: &[Prepared], quick: bool, threads: usize) -> Map<String, Value> {
    let mut made = Map::new();
    let mut insert = |key: &str, costs: Vec<Cost>| {
        made.insert(key.into(), costs.iter().map(Cost::json).collect());
    };
    // A plan that is right needs neither, and one link is enough to tell.
    let chosen: Vec<&Prepared> = scenes
        .iter()
        .filter(|prepared| prepared.kind == Kind::Periodic && usual_link(&prepared.scene))
        .filter(|prepared| !quick || prepared.scene.card.name != "h200")
        .collect();
    insert("detours", detours(quick, threads));
    insert("jitter", jitter(&chosen, threads));
    insert("misestimates", misestimates(&chosen, threads));
    made
}

fn usual_link(scene: &Scene) -> bool {
    cards::link(scene.card.link).is_some_and(|link| link.bytes_per_s / 1e9 == scene.link)
}

/// Every cell of `scenes` for each of `rows`: the ratios of each row.
fn table<Row: Sync>(
    what: &str,
    scenes: &[&Prepared],
    rows: &[(&str, Row)],
    threads: usize,
    ratio: impl Fn(&Prepared, &Setup, &Row) -> Option<f64> + Sync,
) -> Vec<Cost> {
    let places: Vec<(usize, &Prepared, f64)> = (0..rows.len())
        .flat_map(|row| scenes.iter().map(move |scene| (row, *scene)))
        .flat_map(|(row, scene)| SHARES.map(|share| (row, scene, share)))
        .collect();
    let ratios = parallel::map(what, &places, threads, |&(row, prepared, share)| {
        let setup = prepared.scene.setup(prepared.scene.resident_bytes(share));
        ratio(prepared, &setup, &rows[row].1)
    });
    let of_row = |row: usize| {
        let measured = places.iter().zip(&ratios).filter(move |(place, _)| place.0 == row);
        Spread::of(measured.filter_map(|(_, ratio)| *ratio))
    };
    let named = rows.iter().enumerate();
    named.map(|(row, (name, _))| Cost { what: name.to_string(), spread: of_row(row) }).collect()
}

/// Durations that vary from kernel to kernel and copy to copy: time over the
/// same without.
fn jitter(scenes: &[&Prepared], threads: usize) -> Vec<Cost> {
    let rows = [
        ("kernels ±5 %", (0.05, 0.0)),
        ("kernels ±20 %", (0.2, 0.0)),
        ("copies ±5 %", (0.0, 0.05)),
        ("kernels ±20 %, copies ±5 %", (0.2, 0.05)),
    ];
    table("jitter", scenes, &rows, threads, |prepared, setup, &(kernels, copies)| {
        let Prepared { scene, steady, .. } = prepared;
        let calm = scene.ours(setup, *steady).ok()?;
        let noisy = Setup { kernel_jitter: kernels, copy_jitter: copies, seed: 1, ..*setup };
        Some(scene.ours(&noisy, *steady).ok()?.ns / calm.ns)
    })
}

/// Planning with rates that are wrong: time over planning with the right ones.
fn misestimates(scenes: &[&Prepared], threads: usize) -> Vec<Cost> {
    let rows = [
        ("link taken for 20 % slower", (1.0, 0.8)),
        ("link taken for 5 % slower", (1.0, 0.95)),
        ("link taken for 5 % faster", (1.0, 1.05)),
        ("link taken for 20 % faster", (1.0, 1.2)),
        ("kernels taken for 20 % shorter", (0.8, 1.0)),
        ("kernels taken for 20 % longer", (1.2, 1.0)),
    ];
    table("misestimates", scenes, &rows, threads, |prepared, setup, &(kernels, link)| {
        let Prepared { scene, steady, .. } = prepared;
        let known = scene.oracle(setup);
        let carried_out = |problem: &Problem| {
            let plan = plan::plan(problem, None, Effort::Searched).ok()?;
            Some(scene.carried_out(setup, &known, &plan, *steady).ok()?.ns)
        };
        let right = carried_out(&known.problem)?;
        let mut wrong = known.problem.clone();
        wrong.machine.link_bytes_per_s *= link;
        for step in wrong.phases.iter_mut().flat_map(|phase| &mut phase.steps) {
            step.ns = (step.ns as f64 * kernels) as u64;
        }
        Some(carried_out(&wrong)? / right)
    })
}

/// Runs whose order changes on purpose: time over the bound of the same stretch.
fn detours(quick: bool, threads: usize) -> Vec<Cost> {
    let card = |name| cards::card(name).expect("it is in the table");
    let settings: Vec<(&'static Card, f64)> = if quick {
        vec![(card("rtx-4090"), 26.0)]
    } else {
        ["rtx-4090", "h200"]
            .into_iter()
            .flat_map(|name| [12.0, 26.0, 55.0].map(|link| (card(name), link)))
            .collect()
    };
    let places: Vec<(usize, &'static Card, f64, f64)> = (0..VARIANTS.len())
        .flat_map(|variant| settings.iter().map(move |&(card, link)| (variant, card, link)))
        .flat_map(|(variant, card, link)| SHARES.map(|share| (variant, card, link, share)))
        .collect();
    let ratios = parallel::map("detours", &places, threads, |&(variant, card, link, share)| {
        let scene = Scene::new(VARIANTS[variant].trace(ASTRAY_ITERATIONS, 1), card, link);
        let to = scene.iterations();
        let steady =
            Steady { from: ASTRAY_FROM.min(to - 1), to, cycles: to - ASTRAY_FROM.min(to - 1) };
        let resident = scene.resident_bytes(share);
        let ours = scene.ours(&scene.setup(resident), steady).ok()?;
        let bound = scene.bounds(resident, steady, Kind::Random, &ours.in_place).b2_ns;
        Some(ours.ns / bound)
    });
    let of_variant = |variant: usize| {
        let measured = places.iter().zip(&ratios).filter(move |(place, _)| place.0 == variant);
        Spread::of(measured.filter_map(|(_, ratio)| *ratio))
    };
    let named = VARIANTS.iter().enumerate();
    let row = |(index, variant): (usize, &autooffload_lab::workload::models::Variant)| Cost {
        what: variant.title.into(),
        spread: of_variant(index),
    };
    named.map(row).collect()
}
