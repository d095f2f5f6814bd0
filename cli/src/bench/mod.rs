//! `autooffload bench-plan`: every trace on every card, link and budget, ours
//! beside other policies, on the model clock.
//!
//! Everything but planning times is deterministic, and the same on any number
//! of threads.
//!
//! ```text
//!   grid      which cells there are, and how one comes about
//!   cell      one cell, and where its time goes
//!   costs     what detours, jitter and wrong rates cost
//!   timing    how long planning takes
//!   judge     what all of it says, and whether that is what was wanted
//! ```

mod cell;
mod costs;
mod grid;
mod judge;
mod parallel;
mod spread;
mod timing;

use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Options {
    /// Where the figures go, as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench/plan.json")]
    out: PathBuf,
    /// A part of the grid, in less than a minute
    #[arg(long)]
    quick: bool,
    /// Only traces whose name contains this; targets that need the whole grid are not judged
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Default: one per CPU
    #[arg(long)]
    threads: Option<usize>,
    /// Fail when a target does not hold
    #[arg(long)]
    check: bool,
}

pub fn run(options: &Options) -> Result<(), String> {
    let threads = options
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let grid = grid::Grid::new(options.quick, options.only.as_deref())?;
    let whole = !options.quick && options.only.is_none();
    let scenes = parallel::map("scenes", &grid.scenes, threads, grid::prepare);
    let scenes: Vec<grid::Prepared> = scenes.into_iter().collect::<Result<_, _>>()?;
    let places = grid.places();
    let cells =
        parallel::map("cells", &places, threads, |&(scene, share)| scenes[scene].cell(share));
    let costs = costs::measure(&scenes, options.quick, threads);
    // Alone on the machine as far as this program is concerned.
    let sizes: &[usize] =
        if whole { &[24, 100, 300, 1_000, 3_000, 10_000] } else { &[24, 100, 1_000, 10_000] };
    let planning = timing::planning(sizes)?;

    let mut judged = judge::judge(&cells, &planning, whole);
    judged.figures.insert("quick".into(), json!(!whole));
    judged.figures.extend(costs);
    let details: Vec<Value> = cells.iter().map(cell::Cell::json).collect();
    judged.figures.insert("details".into(), details.into());
    let text = serde_json::to_string_pretty(&judged.figures).expect("plain values") + "\n";
    if let Some(folder) = options.out.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::write(&options.out, text)
        .map_err(|error| format!("{}: cannot be written: {error}", options.out.display()))?;
    let failed: Vec<String> = judged
        .targets
        .iter()
        .filter(|target| !target.holds)
        .map(|target| format!("{}: {}, wanted {}", target.name, target.found, target.wanted))
        .collect();
    if options.check && !failed.is_empty() {
        return Err(format!("targets that do not hold:\n  {}", failed.join("\n  ")));
    }
    Ok(())
}
