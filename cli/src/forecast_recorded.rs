//! What a recorded program would do with other memory, or over another link: by
//! the planner's own clock, for the order that the library had learned.
//!
//! Not here: programs that were not run (`forecast`).

use crate::pace;
use crate::recording::{self, Order};
use autooffload_core::plan::outlook::Outlook;
use autooffload_core::plan::{Plan, Problem};
use autooffload_core::units::{format_bytes, format_ns};
use serde_json::json;
use std::path::Path;

const GIB: i64 = 1 << 30;

/// `link`: decimal GB/s. With several devices: of the one that streams most.
pub fn forecast(
    path: &Path,
    vram: u64,
    link: Option<f64>,
    as_json: bool,
) -> Result<String, String> {
    let found = recording::read(path)?;
    if found.cut_short {
        return Err(format!(
            "{}: its end is missing, and with it the order of uses: let the program end, or be \
             ended by Ctrl-C, and take that trace",
            path.display()
        ));
    }
    let bytes = |order: &&Order| {
        order.problem.chunks.iter().map(|chunk| u64::from(chunk.frames)).sum::<u64>()
    };
    let order = found.orders.iter().max_by_key(bytes).ok_or_else(|| {
        format!(
            "{}: nothing was learned in it: everything fitted, or the program ended before its \
             order repeated; give it less memory (--vram), and some iterations",
            path.display()
        )
    })?;
    let budget = found.account["device"]["budget_bytes"].as_u64().unwrap_or(0);
    let more = i64::try_from(vram).unwrap_or(i64::MAX / 2) - budget.min(1 << 50) as i64;
    let link = link.map(|rate| rate * 1e9);
    let pace = pace::of(&found, order);
    let at = |more: i64, link: Option<f64>| -> Result<(Problem, Plan, Outlook), String> {
        let problem = order.with(more, link);
        let problem = match &pace {
            Some(pace) => pace.applied(problem),
            None => problem,
        };
        let plan = recording::planned(&problem)?;
        let outlook = Outlook::of(&problem, &plan).ok_or("the order in it is empty")?;
        Ok((problem, plan, outlook))
    };
    let (problem, plan, outlook) = at(more, link).map_err(|why| {
        let beside = budget.saturating_sub(u64::from(order.problem.machine.frames) << 21);
        format!(
            "with {} of VRAM, {} of them for what is not planned, there is no plan: {why}; give \
             more with --vram",
            format_bytes(vram),
            format_bytes(beside)
        )
    })?;
    // What the planner's clock is off by where it was recorded: the program's own
    // copies behind ours, its waits. Where nothing streams, nothing waits behind it.
    let off = match (&pace, at(0, None)) {
        (Some(pace), Ok((problem, plan, _))) if outlook.streamed_bytes > 0 => {
            pace.step_ns - cycle_ns(&problem, &plan)
        }
        _ => 0.0,
    };
    let least = outlook.bound_ns as f64;
    let corrected = |ns: f64| if off > 0.0 { ns + off } else { (ns + off).max(least.min(ns)) };
    let expected = corrected(outlook.expected_ns as f64);
    let cycle = corrected(cycle_ns(&problem, &plan));
    let saved = |gib: i64| match at(more + gib * GIB, link) {
        Ok((problem, plan, _)) => (cycle - corrected(cycle_ns(&problem, &plan))).max(0.0),
        Err(_) => 0.0,
    };
    let (one, four) = (saved(1), saved(4));
    let missing = outlook.planned_bytes.saturating_sub(u64::from(problem.machine.frames) << 21);
    if as_json {
        let found = json!({
            "version": env!("CARGO_PKG_VERSION"), "trace": path.display().to_string(),
            "vram": vram, "recorded_vram": budget, "link": outlook.link_bytes_per_s / 1e9,
            "measured": order.measured, "weights": outlook.planned_bytes,
            "resident": outlook.resident_bytes, "ring": outlook.ring_bytes,
            "streamed": outlook.streamed_bytes, "compute_ns": outlook.compute_ns,
            "bound_ns": outlook.bound_ns, "expected_ns": expected.round(),
            "recorded_step_ns": pace.as_ref().map(|pace| pace.step_ns.round()),
            "cycle_ns": cycle.round(), "another_gib_saves_ns": one.round(),
            "four_gib_save_ns": four.round(), "missing": missing,
        });
        return Ok(serde_json::to_string_pretty(&found).expect("plain values") + "\n");
    }
    let mut text = format!(
        "autooffload {}: {}, recorded with {}, now with {} of VRAM\n\n",
        env!("CARGO_PKG_VERSION"),
        path.display(),
        format_bytes(budget),
        format_bytes(vram)
    );
    let mut row = |name: &str, value: String| text += &format!("  {name:<32} {value}\n");
    row("memory that was planned", format_bytes(outlook.planned_bytes));
    row("of that, stays", format_bytes(outlook.resident_bytes));
    row("ring for what streams", format_bytes(outlook.ring_bytes));
    row("streamed per step", format_bytes(outlook.streamed_bytes));
    row("link", format!("{}/s", format_bytes(outlook.link_bytes_per_s as u64)));
    row("kernels per step", format_ns(outlook.compute_ns as f64));
    row("at best", format_ns(outlook.bound_ns as f64));
    row("expected per step", format_ns(expected));
    if let Some(pace) = &pace {
        row("a step took, as it was recorded", format_ns(pace.step_ns));
    }
    if outlook.phases > 1 {
        row("that is of the longest phase, of", outlook.phases.to_string());
        row("expected of all phases, once", format_ns(cycle));
    }
    row("another GiB of VRAM saves", format_ns(one));
    row("4 GiB more save", format_ns(four));
    let fits = match missing {
        0 => "yes".to_string(),
        _ => format!("no, {} more would", format_bytes(missing)),
    };
    row("fits in VRAM", fits);
    if !order.measured {
        text += "\n  The program ended before times were measured: those above are guesses.\n";
    }
    Ok(text)
}

/// An iteration; of several phases all, each as often as it repeats in a visit.
fn cycle_ns(problem: &Problem, plan: &Plan) -> f64 {
    if let [only] = &plan.phases[..] {
        return only.period_ns as f64;
    }
    let phases = problem.phases.iter().zip(&plan.phases);
    phases.map(|(phase, planned)| f64::from(phase.repeats.max(1)) * planned.period_ns as f64).sum()
}
