//! `autooffload forecast`: what a card would give.
//!
//! The plan is the library's own planner's, made with everything known; the
//! expected time is what the simulator says of carrying it out. Not here: what
//! learning costs in the first iterations (see `bench`), what a recorded run
//! would do elsewhere (`forecast_recorded`).

use crate::arguments::{self, Source};
use crate::checkpoint::Assumed;
use crate::scene::{Kind, Ran, Scene, Steady};
use crate::{forecast_recorded, recording};
use autooffload_core::plan::{self, Effort};
use autooffload_core::units::{Size, format_bytes, format_ns as seconds};
use autooffload_lab::workload::cards::{self, Card};
use serde_json::{Value, json};

/// Streaming counts as free up to this multiple of the time with everything
/// in VRAM.
const FREE: f64 = 1.01;
/// The budget from which it is free is found to this many bytes.
const STEP: u64 = 64 << 20;
const GIB: u64 = 1 << 30;

#[derive(clap::Args)]
pub struct Options {
    /// A name that `autooffload traces` lists, a trace file, what AUTOOFFLOAD_TRACE
    /// has recorded, or a checkpoint: .safetensors, .safetensors.index.json, .gguf
    #[arg(value_parser = arguments::source)]
    trace: Source,
    /// Device memory for everything, activations included: 8G, 512M, or 40% of the card's
    #[arg(long, value_name = "SIZE", value_parser = arguments::size)]
    vram: Size,
    /// Host-to-device bandwidth: decimal GB/s, or pcie3, pcie4, pcie5 [default: the card's]
    #[arg(long, value_name = "GB/S", value_parser = arguments::link)]
    link: Option<f64>,
    /// As `autooffload cards` lists it
    #[arg(long, value_name = "NAME", default_value = "rtx-4090", value_parser = arguments::card)]
    card: &'static Card,
    /// Of a checkpoint: positions (tokens, pixels of a latent) that one step works on
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    tokens: u64,
    /// Of a checkpoint: device memory beside the weights (activations, caches, context)
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = arguments::size)]
    beside: Size,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<(), String> {
    let Options { card, .. } = *options;
    let of_card = |size: Size| match size {
        Size::Bytes(bytes) => bytes,
        Size::Percent(share) => (card.vram_bytes as f64 * share / 100.0) as u64,
    };
    let vram = of_card(options.vram);
    if let Source::File(path) = &options.trace
        && recording::is_one(path)
    {
        let text = forecast_recorded::forecast(path, vram, options.link, options.json)?;
        return arguments::print(&text);
    }
    let link = options
        .link
        .or_else(|| Some(cards::link(card.link)?.bytes_per_s / 1e9))
        .ok_or("the card's usual link is not known; name one with --link")?;
    let assumed = Assumed { tokens: options.tokens, beside_bytes: of_card(options.beside) };
    let (kind, trace) = options.trace.steady(assumed)?;
    let scene = Scene::new(trace, card, link);
    let found = forecast(&scene, kind, vram)?;
    let text = if options.json {
        serde_json::to_string_pretty(&found.json(&scene)).expect("plain values") + "\n"
    } else {
        found.text(&scene)
    };
    arguments::print(&text)
}

struct Forecast {
    vram: u64,
    /// Of the weights: with frames of their own, and shared by what streams.
    resident: u64,
    ring: u64,
    /// On the host, read in place over the link.
    read_in_place: u64,
    /// By the planner's own clock, one iteration (or cycle).
    planned_ns: f64,
    b1_ns: f64,
    b2_ns: f64,
    compute_ns: f64,
    everything_resident_ns: f64,
    expected: crate::scene::Run,
    /// Less time per iteration with a GiB more.
    another_gib_saves_ns: f64,
    four_gib_save_ns: f64,
    /// VRAM from which streaming is free; `None`: not even with everything there.
    free_from: Option<u64>,
    phases: Vec<Phase>,
}

struct Phase {
    number: u16,
    /// Of one visit.
    iterations: u32,
    weights: u64,
    streamed: u64,
    planned_ns: u64,
    /// Mean of its iterations in the steady stretch.
    expected_ns: f64,
}

fn forecast(scene: &Scene, kind: Kind, vram: u64) -> Result<Forecast, String> {
    let activations = scene.trace.activation_bytes;
    let Some(room) = vram.checked_sub(activations).filter(|room| *room > 0) else {
        return Err(format!(
            "{} of VRAM do not hold the activations, {}; give more with --vram",
            format_bytes(vram),
            format_bytes(activations)
        ));
    };
    let steady = scene.steady(kind);
    let everything_resident_ns = scene.resident(steady)?.ns;
    let setup = scene.setup(room);
    let known = scene.oracle(&setup);
    let plan = plan::plan(&known.problem, None, Effort::Searched).map_err(|unfit| {
        let frame = known.problem.machine.frame_bytes;
        let missing = u64::from(unfit.needed_frames.saturating_sub(unfit.available_frames)) * frame;
        format!(
            "{} of VRAM hold the activations ({}), but not beside them what the largest launch \
             needs at once; give at least {} with --vram",
            format_bytes(vram),
            format_bytes(activations),
            format_bytes(vram + missing)
        )
    })?;
    let expected = scene.carried_out(&setup, &known, &plan, steady)?;
    let ns_at = |room: u64| -> Ran { scene.planned(&scene.setup(room), steady)?.1 };
    let saved = |more: u64| -> f64 {
        (expected.ns - ns_at(room + more).map_or(expected.ns, |run| run.ns)).max(0.0)
    };
    let (another_gib_saves_ns, four_gib_save_ns) = (saved(GIB), saved(4 * GIB));

    let frame = known.problem.machine.frame_bytes;
    let phases = known.problem.phases.iter().zip(&plan.phases).zip(&known.phases);
    let phases = phases.map(|((phase, planned), &number)| {
        let mut chunks = phase.uses.clone();
        chunks.sort_unstable();
        chunks.dedup();
        let frames = |&chunk: &u32| u64::from(known.problem.chunks[chunk as usize].frames);
        let of_phase = (steady.from..steady.to).filter(|&mark| expected.phases[mark] == number);
        let times: Vec<u64> = of_phase.map(|mark| expected.iterations[mark]).collect();
        Phase {
            number,
            iterations: phase.repeats,
            weights: chunks.iter().map(frames).sum::<u64>() * frame,
            streamed: planned.streamed_bytes,
            planned_ns: planned.period_ns,
            expected_ns: times.iter().sum::<u64>() as f64 / times.len().max(1) as f64,
        }
    });
    let phases: Vec<Phase> = phases.collect();
    let planned_ns = match &phases[..] {
        [one] => one.planned_ns as f64,
        several => {
            several.iter().map(|p| p.planned_ns as f64 * f64::from(p.iterations.max(1))).sum()
        }
    };
    let bounds = scene.bounds(room, steady, kind, &plan.read_in_place());
    Ok(Forecast {
        vram,
        resident: u64::from(plan.resident_frames()) * frame,
        ring: u64::from(plan.shared_frames) * frame,
        read_in_place: {
            let frames = plan.layouts.iter().map(|layout| u64::from(layout.host_frames));
            frames.sum::<u64>() * frame
        },
        planned_ns,
        b1_ns: bounds.b1_ns,
        b2_ns: bounds.b2_ns,
        compute_ns: scene.compute_ns(steady),
        everything_resident_ns,
        another_gib_saves_ns,
        four_gib_save_ns,
        free_from: free_from(scene, steady, everything_resident_ns),
        expected,
        phases,
    })
}

/// The least VRAM with which streaming costs nothing, to the next [`STEP`].
fn free_from(scene: &Scene, steady: Steady, resident_ns: f64) -> Option<u64> {
    let free = |steps: u64| {
        let ran = scene.planned(&scene.setup(steps * STEP), steady).and_then(|(_, ran)| ran);
        ran.is_ok_and(|run| run.ns <= FREE * resident_ns)
    };
    // Not free at `below`, free at `at`.
    let (mut below, mut at) = (0, scene.weights().div_ceil(STEP) + 1);
    if !free(at) {
        return None;
    }
    while at - below > 1 {
        let middle = below + (at - below) / 2;
        if free(middle) { at = middle } else { below = middle }
    }
    Some(at * STEP + scene.trace.activation_bytes)
}

impl Forecast {
    fn text(&self, scene: &Scene) -> String {
        let weights = scene.weights();
        let per = if self.phases.len() > 1 { "cycle" } else { "iteration" };
        let mut text = format!(
            "autooffload {}: {} on {}, link {} GB/s, {} of VRAM\n\n",
            env!("CARGO_PKG_VERSION"),
            scene.trace.name,
            scene.card.name,
            scene.link,
            format_bytes(self.vram)
        );
        let mut row = |name: &str, value: String| text += &format!("  {name:<32} {value}\n");
        row("weights", format_bytes(weights));
        row("activations", format_bytes(scene.trace.activation_bytes));
        let share = 100.0 * self.resident as f64 / weights as f64;
        row("weights that stay", format!("{} ({share:.0} %)", format_bytes(self.resident)));
        row("ring for those that stream", format_bytes(self.ring));
        if self.read_in_place > 0 {
            let size = format_bytes(self.read_in_place);
            row("read in place, on the host", format!("{size}: hardly any of it per use"));
        }
        row(&format!("streamed per {per}"), format_bytes(self.expected.bytes_in as u64));
        row(&format!("kernels per {per}"), seconds(self.compute_ns));
        // The bound is of those who bring what a launch names to the device.
        let bound = if self.read_in_place > 0 { "without reading in place" } else { "at best" };
        row(bound, seconds(self.b2_ns));
        row(
            &format!("expected per {per}"),
            format!(
                "{}: {:.2} times that, {:.2} times all in VRAM",
                seconds(self.expected.ns),
                self.expected.ns / self.b2_ns,
                self.expected.ns / self.everything_resident_ns
            ),
        );
        row(
            "another GiB of VRAM saves",
            format!("{} per {per}", seconds(self.another_gib_saves_ns)),
        );
        row("4 GiB more save", format!("{} per {per}", seconds(self.four_gib_save_ns)));
        let missing = (weights + scene.trace.activation_bytes).saturating_sub(self.vram);
        let fits = if missing == 0 {
            "yes".into()
        } else {
            format!("no, {} more would", format_bytes(missing))
        };
        row("fits in VRAM", fits);
        row(
            "streaming is free from",
            match self.free_from {
                Some(bytes) if bytes <= self.vram => {
                    format!("{} of VRAM: it is free here", format_bytes(bytes))
                }
                Some(bytes) => format!("{} of VRAM", format_bytes(bytes)),
                None => "nowhere below all weights in VRAM".into(),
            },
        );
        if self.phases.len() > 1 {
            text += "\n  phase  iterations      weights  streamed each      planned     expected\n";
            for phase in &self.phases {
                text += &format!(
                    "  {:<5}  {:>10}  {:>11}  {:>13}  {:>11}  {:>11}\n",
                    phase.number,
                    phase.iterations,
                    format_bytes(phase.weights),
                    format_bytes(phase.streamed),
                    seconds(phase.planned_ns as f64),
                    seconds(phase.expected_ns)
                );
            }
        }
        text
    }

    fn json(&self, scene: &Scene) -> Value {
        let phase = |phase: &Phase| {
            json!({ "phase": phase.number, "iterations": phase.iterations,
                    "weights": phase.weights, "streamed": phase.streamed,
                    "planned_ns": phase.planned_ns, "expected_ns": phase.expected_ns.round() })
        };
        json!({
            "trace": scene.trace.name, "card": scene.card.name, "link": scene.link,
            "vram": self.vram, "weights": scene.weights(),
            "activations": scene.trace.activation_bytes, "resident": self.resident,
            "ring": self.ring, "read_in_place": self.read_in_place, "streamed": self.expected.bytes_in.round(),
            "copies": self.expected.copies.round(), "compute_ns": self.compute_ns.round(),
            "b1_ns": self.b1_ns.round(), "b2_ns": self.b2_ns.round(),
            "planned_ns": self.planned_ns.round(), "expected_ns": self.expected.ns.round(),
            "everything_resident_ns": self.everything_resident_ns.round(),
            "another_gib_saves_ns": self.another_gib_saves_ns.round(),
            "four_gib_save_ns": self.four_gib_save_ns.round(),
            "version": env!("CARGO_PKG_VERSION"),
            "free_from": self.free_from,
            "phases": self.phases.iter().map(phase).collect::<Vec<_>>(),
        })
    }
}
