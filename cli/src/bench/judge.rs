//! What the cells say together, and whether it is what was wanted.
//!
//! Pure: cells in, figures and verdicts out. Not here: how a cell comes about.

use super::cell::Cell;
use super::spread::{Spread, rounded};
use crate::scene::Kind;
use serde_json::{Map, Value, json};

/// Cells above this multiple of B2 are listed, each with its reason.
const EXCEPTION: f64 = 1.05;
/// Policies closer than this are level.
const LEVEL: f64 = 1.01;

/// One thing that is wanted, and what was found.
#[derive(Debug, PartialEq)]
pub struct Target {
    pub name: String,
    pub wanted: String,
    pub found: String,
    pub holds: bool,
}

/// Planning time by size, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Planning {
    pub chunks: usize,
    pub launches: usize,
    pub plan_ms: f64,
    pub search_ms: f64,
}

/// A row of one of the tables of costs.
#[derive(Clone, Debug)]
pub struct Cost {
    pub what: String,
    pub spread: Spread,
}

impl Cost {
    pub fn json(&self) -> Value {
        self.spread.json_with(json!({ "what": self.what }))
    }
}

pub struct Judged {
    pub figures: Map<String, Value>,
    pub targets: Vec<Target>,
}

/// `whole`: the whole grid was run, so that what needs it can be judged, time
/// by the clock on the wall included.
pub fn judge(cells: &[Cell], planning: &[Planning], whole: bool) -> Judged {
    let mut targets = Targets(Vec::new());
    let mut figures = Map::new();
    let periodic: Vec<&Cell> = of_kind(cells, Kind::Periodic);
    let streaming: Vec<&Cell> = cells.iter().filter(|cell| cell.streamed() > 0).collect();

    figures.insert("cells".into(), json!(cells.len()));
    figures.insert("streamed_cells".into(), json!(streaming.len()));
    let infeasible: Vec<&Cell> = cells.iter().filter(|cell| cell.ours.is_err()).collect();
    figures.insert(
        "infeasible".into(),
        infeasible.iter().map(|cell| cell_json(cell, json!({ "why": cell.why() }))).collect(),
    );
    targets.add("cells in which ours runs", "all", infeasible.is_empty(), || {
        format!("all but {} of {}", infeasible.len(), cells.len())
    });
    let beyond = cells.iter().filter(|cell| {
        cell.ours.as_ref().is_ok_and(|run| run.peak_bytes > cell.resident + cell.activations)
    });
    let beyond = beyond.count();
    targets.add("cells within the budget at every moment", "all", beyond == 0, || {
        format!("all but {beyond}")
    });

    bounds(&periodic, whole, &mut figures, &mut targets);
    written(&streaming, &mut figures, &mut targets);
    resident(&periodic, &mut figures, &mut targets);
    prefix(&periodic, whole, &mut figures, &mut targets);
    fastest(&streaming, &mut figures, &mut targets);
    first_iterations(&periodic, &mut figures, &mut targets);
    phases(&of_kind(cells, Kind::Phases), &mut figures, &mut targets);
    random(&of_kind(cells, Kind::Random), &mut figures, &mut targets);
    time(planning, whole, &mut figures, &mut targets);
    figures.insert("targets".into(), targets.0.iter().map(Target::json).collect());
    Judged { figures, targets: targets.0 }
}

fn of_kind(cells: &[Cell], kind: Kind) -> Vec<&Cell> {
    cells.iter().filter(|cell| cell.kind == kind).collect()
}

fn bounds(cells: &[&Cell], whole: bool, figures: &mut Map<String, Value>, targets: &mut Targets) {
    let over_b1 = Spread::of(cells.iter().filter_map(|cell| cell.over_b1()));
    let over_b2 = Spread::of(cells.iter().filter_map(|cell| cell.over_b2()));
    let above: Vec<(&Cell, f64)> = cells
        .iter()
        .filter_map(|cell| Some((*cell, cell.over_b2().filter(|ratio| *ratio > EXCEPTION)?)))
        .collect();
    let exceptions: Vec<Value> = above
        .iter()
        .map(|(cell, ratio)| {
            cell_json(cell, json!({ "ratio": rounded(*ratio), "why": cell.why() }))
        })
        .collect();
    let planned =
        cells.iter().filter_map(|cell| Some(cell.planned.as_ref()?.as_ref().ok()?.ns / cell.b2_ns));
    figures.insert("over_b2_planned".into(), Spread::of(planned).json());
    let copied_back = cells.iter().filter_map(|cell| cell.over_b2_copied_back());
    figures.insert("over_b2_copied_back".into(), Spread::of(copied_back).json());
    figures.insert("over_b1".into(), over_b1.json());
    figures.insert("over_b2".into(), over_b2.json_with(json!({ "exceptions": exceptions })));
    let share = above.len() as f64 / over_b2.cells.max(1) as f64;
    targets.at_most("share of cells above 1.05 of B2", 0.05, Some(share));
    // A part has other quantiles than the whole: a quarter of it is one model in
    // which the price of a copy shows, and none of its links is slow for its card.
    let (of_what, [median, p90, worst]) =
        if whole { ("", [1.01, 1.03, 1.09]) } else { (" (of this part)", [1.015, 1.035, 1.05]) };
    targets.at_most(&format!("time over B2, median{of_what}"), median, over_b2.median);
    targets.at_most(&format!("time over B2, 90th percentile{of_what}"), p90, over_b2.p90);
    targets.at_most(&format!("time over B2, worst{of_what}"), worst, over_b2.worst);
}

/// What goes back to the host, of runs in which weights are only read; and what
/// it would be like if all of it went.
fn written(cells: &[&Cell], figures: &mut Map<String, Value>, targets: &mut Targets) {
    let back = cells.iter().filter_map(|cell| {
        let run = cell.ours.as_ref().ok()?;
        (run.bytes_in > 0.0).then(|| run.bytes_out / run.bytes_in)
    });
    targets.at_most("bytes back over bytes in, worst", 0.005, Spread::of(back).worst);
    let bound = cells.iter().filter(|cell| cell.link_over_compute() >= 1.0);
    let over = bound.filter_map(|cell| Some(cell.ours_ns()? / cell.copied_back.as_ref().ok()?.ns));
    figures.insert("over_copied_back_where_link_binds".into(), Spread::of(over).json());
}

/// Free as far as bytes go: the link has time for what does not fit. Where B2
/// says that no policy can hide it all (long kernels that use few weights, no
/// room to copy ahead meanwhile), the cell is listed with its bound, and judged
/// by that.
fn resident(cells: &[&Cell], figures: &mut Map<String, Value>, targets: &mut Targets) {
    const NEARLY: f64 = 1.01;
    let free: Vec<&Cell> =
        cells.iter().copied().filter(|cell| cell.link_over_compute() <= 0.8).collect();
    let over = Spread::of(free.iter().filter_map(|cell| cell.over_resident()));
    let without_looks =
        |cell: &&Cell| Some(cell.ours_without_looks()? / cell.everything_resident_ns);
    let (possible, bound): (Vec<&Cell>, Vec<&Cell>) =
        free.iter().partition(|cell| cell.b2_over_resident() <= NEARLY);
    figures.insert("over_resident_where_free".into(), json!(over.worst.map(rounded)));
    figures.insert("over_resident_where_free_spread".into(), over.json());
    let row = |cell: &&Cell| {
        let ratio = cell.over_resident().map(rounded);
        let bound = rounded(cell.b2_over_resident());
        cell_json(cell, json!({ "ratio": ratio, "bound": bound, "why": cell.why() }))
    };
    figures.insert("over_resident_impossible".into(), bound.iter().map(row).collect());
    targets.at_most(
        "time over resident where streaming is free (and B2 allows it), without looks, worst",
        NEARLY,
        Spread::of(possible.iter().filter_map(without_looks)).worst,
    );
}

fn prefix(cells: &[&Cell], whole: bool, figures: &mut Map<String, Value>, targets: &mut Targets) {
    let speedup = |cell: &&&Cell| Some(cell.policy_ns("prefix")? / cell.ours_ns()?);
    let near = |cell: &&&Cell| (0.8..=1.3).contains(&cell.link_over_compute());
    let half = Spread::of(
        cells.iter().filter(|cell| cell.share == 0.5).filter(near).filter_map(|c| speedup(&c)),
    );
    let any = Spread::of(cells.iter().filter(near).filter_map(|cell| speedup(&cell)));
    figures.insert("speedup_over_prefix_at_half".into(), half.json());
    figures.insert("speedup_over_prefix_at_any_share".into(), any.json());
    if whole {
        targets.at_least(
            "speed-up over resident prefix at R/W 0.5, (D/BW)/C in 0.8..1.3, median",
            1.25,
            half.median,
        );
    }
}

fn fastest(cells: &[&Cell], figures: &mut Map<String, Value>, targets: &mut Targets) {
    let beaten: Vec<Value> = cells
        .iter()
        .filter_map(|cell| {
            let ours = cell.ours_ns().unwrap_or(f64::INFINITY);
            let (by, ns) = cell.fastest_other().filter(|(_, ns)| *ns * LEVEL < ours)?;
            Some(cell_json(cell, json!({ "by": by, "ratio": rounded(ours / ns) })))
        })
        .collect();
    let won = cells.len() - beaten.len();
    let strictly = cells.iter().filter(|cell| {
        let ours = cell.ours_ns().unwrap_or(f64::INFINITY);
        cell.fastest_other().is_none_or(|(_, ns)| ours <= ns)
    });
    figures.insert("ours_fastest_cells".into(), json!(won));
    figures.insert("ours_fastest_cells_strictly".into(), json!(strictly.count()));
    let level = cells.iter().filter(|cell| {
        let ours = cell.ours_without_looks().unwrap_or(f64::INFINITY);
        cell.fastest_other().is_none_or(|(_, ns)| ours <= ns * LEVEL)
    });
    let level = level.count();
    targets.add(
        "cells that stream in which none is more than 1 % faster than ours without its looks",
        "all",
        level == cells.len(),
        || format!("{level} of {}", cells.len()),
    );
    figures.insert("ours_not_fastest".into(), beaten.into());

    let mut names: Vec<(&'static str, bool)> = Vec::new();
    for other in cells.iter().flat_map(|cell| &cell.others) {
        if !names.contains(&(other.name, other.clairvoyant)) {
            names.push((other.name, other.clairvoyant));
        }
    }
    let row = |clairvoyant: bool, ns: &dyn Fn(&Cell) -> Option<f64>| {
        let spread = Spread::of(cells.iter().filter_map(|cell| Some(ns(cell)? / cell.b2_ns)));
        let slower = Spread::of(cells.iter().filter_map(|cell| Some(ns(cell)? / cell.ours_ns()?)));
        spread.json_with(json!({
            "cells": cells.len(), "feasible": spread.cells, "clairvoyant": clairvoyant,
            "ours_faster_median": slower.median.map(rounded),
        }))
    };
    let mut table = Map::new();
    table.insert("ours".into(), row(false, &|cell| cell.ours_ns()));
    for (name, clairvoyant) in names {
        table.insert(name.into(), row(clairvoyant, &|cell| cell.policy_ns(name)));
    }
    figures.insert("policies".into(), table.into());
}

fn first_iterations(cells: &[&Cell], figures: &mut Map<String, Value>, targets: &mut Targets) {
    const THIRD: usize = 3;
    let runs: Vec<_> = cells
        .iter()
        .filter(|cell| cell.streamed() > 0)
        .filter_map(|cell| Some((*cell, cell.ours.as_ref().ok()?)))
        .collect();
    let mut table = Map::new();
    for (index, name) in ["first", "second", "third", "fourth"].into_iter().enumerate() {
        let over =
            runs.iter().filter_map(|(_, run)| Some(*run.iterations.get(index)? as f64 / run.ns));
        table.insert(name.into(), Spread::of(over).json());
    }
    figures.insert("iterations".into(), table.into());
    let fast_from = runs.iter().filter_map(|(cell, _)| Some(cell.fast_from()? as f64));
    figures.insert("fast_from_iteration".into(), Spread::of(fast_from).json());
    let late: Vec<Value> = cells
        .iter()
        .filter(|cell| cell.described_after > THIRD)
        .map(|cell| cell_json(cell, json!({ "described_after": cell.described_after })))
        .collect();
    let in_time = (cells.len() - late.len()) as f64 / cells.len().max(1) as f64;
    figures.insert("steady_by_third".into(), json!(rounded(in_time)));
    targets.add("description steady by the third iteration", "all", late.is_empty(), || {
        format!("all but {} of {}", late.len(), cells.len())
    });
    figures.insert("late_to_steady".into(), late.into());
}

fn phases(cells: &[&Cell], figures: &mut Map<String, Value>, targets: &mut Targets) {
    let over = Spread::of(cells.iter().filter_map(|cell| cell.over_b2()));
    let recovery = cells.iter().filter_map(|cell| cell.recovery).max();
    let rows: Vec<Value> = cells
        .iter()
        .map(|cell| {
            let ratio = cell.over_b2().map(rounded);
            cell_json(cell, json!({ "ratio": ratio, "recovery": cell.recovery, "why": cell.why() }))
        })
        .collect();
    figures.insert("cycle_over_bound".into(), over.json());
    figures.insert("phase_recovery_iterations".into(), json!(recovery));
    figures.insert("phase_cells".into(), rows.into());
    if !cells.is_empty() {
        targets.at_most("whole cycle over its phase-aware bound, worst", 1.035, over.worst);
        let found = recovery.map(f64::from);
        targets.at_most("iterations until a changed phase is steady, worst", 1.0, found);
    }
}

fn random(cells: &[&Cell], figures: &mut Map<String, Value>, targets: &mut Targets) {
    let over = |cell: &&Cell| Some(cell.ours_ns()? / cell.fastest_other()?.1);
    let streaming = cells.iter().filter(|cell| cell.streamed() > 0);
    let spread = Spread::of(streaming.filter_map(over));
    figures.insert("random_over_best_simple".into(), json!(spread.worst.map(rounded)));
    figures.insert("random_over_best_simple_spread".into(), spread.json());
    if !cells.is_empty() {
        targets.at_most("random experts over the best simple policy, worst", 1.05, spread.worst);
    }
}

fn time(
    planning: &[Planning],
    whole: bool,
    figures: &mut Map<String, Value>,
    targets: &mut Targets,
) {
    let rows: Vec<Value> = planning
        .iter()
        .map(|row| {
            json!({ "chunks": row.chunks, "launches": row.launches,
                    "plan_ms": rounded(row.plan_ms), "search_ms": rounded(row.search_ms) })
        })
        .collect();
    let largest = planning.iter().find(|row| row.chunks == 10_000);
    figures.insert("plan_ms_by_size".into(), rows.into());
    figures.insert("plan_ms_10k_chunks".into(), json!(largest.map(|row| rounded(row.plan_ms))));
    figures.insert("search_ms_10k_chunks".into(), json!(largest.map(|row| rounded(row.search_ms))));
    if !whole {
        return; // by processor time, but a machine that does other things too is slower
    }
    targets.at_most("first plan, 10,000 chunks (ms)", 50.0, largest.map(|row| row.plan_ms));
    targets.at_most("searched plan, 10,000 chunks (ms)", 2000.0, largest.map(|row| row.search_ms));
    let smaller = planning.iter().find(|row| row.chunks == 1_000);
    let growth = smaller.zip(largest).map(|(small, large)| large.plan_ms / small.plan_ms / 10.0);
    targets.at_most("first plan: time per chunk at 10,000 over that at 1,000", 2.0, growth);
}

/// Which cell, with `more` beside it.
fn cell_json(cell: &Cell, more: Value) -> Value {
    let mut made = json!({ "trace": cell.trace, "card": cell.card, "link": cell.link,
                           "share": cell.share });
    if let (Value::Object(made), Value::Object(more)) = (&mut made, more) {
        made.extend(more);
    }
    made
}

struct Targets(Vec<Target>);

impl Targets {
    fn add(&mut self, name: &str, wanted: &str, holds: bool, otherwise: impl Fn() -> String) {
        let found = if holds { wanted.to_string() } else { otherwise() };
        self.0.push(Target { name: name.into(), wanted: wanted.into(), found, holds });
    }

    /// Nothing found is not a target held.
    fn at_most(&mut self, name: &str, most: f64, found: Option<f64>) {
        let holds = found.is_some_and(|found| found <= most);
        self.limit(name, format!("≤ {most}"), found, holds);
    }

    fn at_least(&mut self, name: &str, least: f64, found: Option<f64>) {
        let holds = found.is_some_and(|found| found >= least);
        self.limit(name, format!("≥ {least}"), found, holds);
    }

    fn limit(&mut self, name: &str, wanted: String, found: Option<f64>, holds: bool) {
        let found = found.map_or("nothing".into(), |found| format!("{found:.4}"));
        self.0.push(Target { name: name.into(), wanted, found, holds });
    }
}

impl Target {
    fn json(&self) -> Value {
        json!({ "name": self.name, "wanted": self.wanted, "found": self.found,
                "holds": self.holds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cell::Other;
    use crate::scene::Run;

    const MS: f64 = 1e6;

    /// A cell in which ours takes `ours` ms over a B2 of 100 ms.
    fn cell(kind: Kind, ours: f64) -> Cell {
        let run = |ms: f64| Run {
            iterations: vec![(ms * 3.0 * MS) as u64, (ms * 2.0 * MS) as u64, (ms * MS) as u64],
            ns: ms * MS,
            peak_bytes: 60,
            bytes_in: 1.0,
            ..Run::default()
        };
        let other = |name, clairvoyant, ms| Other { name, clairvoyant, ran: Ok(run(ms)) };
        Cell {
            trace: "trace".into(),
            kind,
            card: "card",
            link: 26.0,
            share: 0.5,
            weights: 5_200_000_000,
            resident: 2_600_000_000,
            activations: 10,
            compute_ns: 100.0 * MS,
            b1_ns: 100.0 * MS,
            b2_ns: 100.0 * MS,
            with_copies_ns: None,
            in_place: false,
            binds: None,
            everything_resident_ns: 100.0 * MS,
            copy_ns: 8000.0,
            ours: Ok(run(ours)),
            copied_back: Ok(run(ours * 1.25)),
            memory_bytes_per_s: 1e12,
            planned: None,
            ring_bytes: None,
            recovery: (kind == Kind::Phases).then_some(1),
            described_after: 3,
            longest: ("launch 0".into(), MS),
            largest: ("launch 0".into(), 1),
            others: vec![other("prefix", false, 140.0), other("clairvoyant", true, 99.0)],
        }
    }

    fn good() -> Vec<Cell> {
        let mut free = cell(Kind::Periodic, 100.5);
        free.resident = free.weights;
        vec![
            cell(Kind::Periodic, 100.5),
            cell(Kind::Phases, 102.0),
            cell(Kind::Random, 130.0),
            free,
        ]
    }

    const PLANNING: [Planning; 2] = [
        Planning { chunks: 1_000, launches: 10_000, plan_ms: 4.0, search_ms: 100.0 },
        Planning { chunks: 10_000, launches: 100_000, plan_ms: 44.0, search_ms: 1_000.0 },
    ];

    fn failed(cells: &[Cell], planning: &[Planning]) -> Vec<String> {
        let judged = judge(cells, planning, true);
        judged.targets.into_iter().filter(|target| !target.holds).map(|t| t.name).collect()
    }

    #[test]
    fn good_cells_hold_every_target() {
        assert_eq!(failed(&good(), &PLANNING), Vec::<String>::new());
        let figures = judge(&good(), &PLANNING, true).figures;
        assert_eq!(figures["cells"], 4);
        assert_eq!(figures["ours_fastest_cells"], 3);
        assert_eq!(figures["plan_ms_10k_chunks"], 44.0);
    }

    #[test]
    fn each_target_is_noticed() {
        let with = |index: usize, change: &dyn Fn(&mut Cell)| {
            let mut cells = good();
            change(&mut cells[index]);
            failed(&cells, &PLANNING).join(", ")
        };
        let slower = |cell: &mut Cell| {
            cell.ours.as_mut().unwrap().ns = 160.0 * MS;
        };
        let mut cells = good();
        cells.iter_mut().filter(|cell| cell.kind == Kind::Periodic).for_each(slower);
        let bounds = failed(&cells, &PLANNING).join(", ");
        for part in ["median", "90th", "above 1.05", "B2, worst", "speed-up", "faster than ours"] {
            assert!(bounds.contains(part), "{part}: {bounds}");
        }
        assert!(with(1, &slower).contains("phase-aware"));
        assert!(with(2, &slower).contains("random"));
        assert!(with(0, &|cell| cell.ours = Err("why".into())).contains("ours runs"));
        let holds_more = |cell: &mut Cell| cell.ours.as_mut().unwrap().peak_bytes = u64::MAX;
        assert!(with(0, &holds_more).contains("budget"));
        assert!(with(3, &|cell| cell.everything_resident_ns = 99.0 * MS).contains("free"));
        let writes_back = |cell: &mut Cell| {
            let run = cell.ours.as_mut().unwrap();
            (run.bytes_in, run.bytes_out) = (1e6, 6e3);
        };
        assert!(with(0, &writes_back).contains("bytes back"));
        assert!(with(0, &|cell| cell.described_after = 4).contains("third"));
        assert!(with(1, &|cell| cell.recovery = Some(2)).contains("changed phase"));
    }

    #[test]
    fn slow_planning_is_noticed_and_nothing_measured_is_no_success() {
        let slow = |plan_ms, search_ms| {
            failed(&good(), &[PLANNING[0], Planning { plan_ms, search_ms, ..PLANNING[1] }])
        };
        assert_eq!(slow(51.0, 1_000.0).len(), 1);
        assert_eq!(slow(44.0, 2_001.0).len(), 1);
        assert_eq!(slow(90.0, 1_000.0).len(), 2, "too long, and growing too fast");
        assert!(failed(&[], &[]).len() > 5);
    }
}
