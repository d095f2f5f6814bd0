//! One cell of the grid: a trace on a card over a link with a budget.

use super::spread::rounded;
use crate::scene::{Kind, Ran, Run};
use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
pub struct Cell {
    pub trace: String,
    pub kind: Kind,
    pub card: &'static str,
    /// Decimal GB/s.
    pub link: f64,
    /// R / W.
    pub share: f64,
    /// W: the chunks that an iteration (or cycle) touches.
    pub weights: u64,
    /// R: what of the budget is left for them.
    pub resident: u64,
    pub activations: u64,
    /// C: all kernels of an iteration (or cycle).
    pub compute_ns: f64,
    pub b1_ns: f64,
    pub b2_ns: f64,
    /// B2 if each copy of a chunk costs its overhead: what part of the time
    /// over B2 nobody can avoid.
    pub with_copies_ns: Option<f64>,
    /// Kernels read some weights over the link: both bounds are those of
    /// policies that may.
    pub in_place: bool,
    /// Which kernels bind B2, in words.
    pub binds: Option<String>,
    /// The same trace with memory enough for everything.
    pub everything_resident_ns: f64,
    pub copy_ns: f64,
    pub ours: Ran,
    /// Ours where everything is copied back that a kernel received.
    pub copied_back: Ran,
    pub memory_bytes_per_s: f64,
    /// The plan alone, by a policy that knows its place in the order: what the
    /// learning costs is the difference.
    pub planned: Option<Ran>,
    /// Bytes of frames that the plan shares among what streams.
    pub ring_bytes: Option<u64>,
    /// Iterations after a change of phase until the steady time is reached;
    /// the worst change.
    pub recovery: Option<u32>,
    /// Iterations until the order is described as it is at the end.
    pub described_after: usize,
    /// The longest kernel, in words and its duration.
    pub longest: (String, f64),
    /// The launch that needs most bytes at once, in words, and their number.
    pub largest: (String, u64),
    pub others: Vec<Other>,
}

/// Another policy in the same cell.
#[derive(Clone, Debug)]
pub struct Other {
    pub name: &'static str,
    /// It is told the future, as no program could tell it.
    pub clairvoyant: bool,
    pub ran: Ran,
}

impl Cell {
    /// D: what no policy can avoid to stream.
    pub fn streamed(&self) -> u64 {
        self.weights.saturating_sub(self.resident)
    }

    pub fn link_ns(&self) -> f64 {
        self.streamed() as f64 / self.link
    }

    /// (D/BW)/C
    pub fn link_over_compute(&self) -> f64 {
        self.link_ns() / self.compute_ns
    }

    pub fn ours_ns(&self) -> Option<f64> {
        self.ours.as_ref().ok().map(|run| run.ns)
    }

    pub fn over_b1(&self) -> Option<f64> {
        self.ours_ns().map(|ns| ns / self.b1_ns)
    }

    pub fn over_b2(&self) -> Option<f64> {
        self.ours_ns().map(|ns| ns / self.b2_ns)
    }

    pub fn over_b2_copied_back(&self) -> Option<f64> {
        self.copied_back.as_ref().ok().map(|run| run.ns / self.b2_ns)
    }

    /// Ours without what looking at what streamed may take from kernels.
    pub fn ours_without_looks(&self) -> Option<f64> {
        /// Of the time in which memory yields as much: it does not reach its rate.
        const LOOK: f64 = 1.2;
        let run = self.ours.as_ref().ok()?;
        Some(run.ns - LOOK * run.bytes_in * 1e9 / self.memory_bytes_per_s)
    }

    pub fn over_resident(&self) -> Option<f64> {
        self.ours_ns().map(|ns| ns / self.everything_resident_ns)
    }

    /// What no policy gets below, over everything resident.
    pub fn b2_over_resident(&self) -> f64 {
        self.b2_ns / self.everything_resident_ns
    }

    /// The first iteration from which on all are nearly as fast as the steady
    /// one, from 1; `None`: ours does not run.
    pub fn fast_from(&self) -> Option<usize> {
        const STEADY: f64 = 1.05;
        let run = self.ours.as_ref().ok()?;
        let slow = |ns: &u64| *ns as f64 > STEADY * run.ns;
        Some(run.iterations.iter().rposition(slow).map_or(1, |last| last + 2))
    }

    /// The time of the policy named `name`, where it can run.
    pub fn policy_ns(&self, name: &str) -> Option<f64> {
        let other = self.others.iter().find(|other| other.name == name)?;
        other.ran.as_ref().ok().map(|run| run.ns)
    }

    /// The fastest of the others that run, clairvoyant ones aside.
    pub fn fastest_other(&self) -> Option<(&'static str, f64)> {
        let fair = self.others.iter().filter(|other| !other.clairvoyant);
        let feasible = fair.filter_map(|other| Some((other.name, other.ran.as_ref().ok()?.ns)));
        feasible.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Where the time over B2 goes, from this cell's own figures, the largest part first.
    pub fn why(&self) -> String {
        let run = match &self.ours {
            Ok(run) => run,
            Err(why) => return why.clone(),
        };
        let over = run.ns - self.b2_ns;
        let percent = |ns: f64| 100.0 * ns / self.b2_ns;
        let mut parts = Vec::new();
        if self.kind == Kind::Periodic {
            let extra_ns = (run.bytes_in - self.streamed() as f64).max(0.0) / self.link;
            let extra_mib = extra_ns * self.link / (1u64 << 20) as f64;
            let text =
                format!("{extra_mib:.0} MiB beyond W - R take the link {:.1} %", percent(extra_ns));
            parts.push((extra_ns, text));
        }
        let copies_ns = run.copies * self.copy_ns;
        parts.push((
            copies_ns,
            format!("{:.0} copies' overhead {:.1} %", run.copies, percent(copies_ns)),
        ));
        for (cause, ns) in &run.stalls {
            parts.push((*ns, format!("stalled {cause} {:.1} %", percent(*ns))));
        }
        let kernels = self.everything_resident_ns - self.compute_ns;
        parts.push((
            kernels,
            format!("host and syncs {:.1} % even when resident", percent(kernels)),
        ));
        parts.retain(|(ns, _)| *ns > over * 0.1);
        parts.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut words: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
        let (kernel, ns) = &self.longest;
        if percent(*ns) > 2.0 {
            words.push(format!("one kernel ({kernel}) is {:.1} % of B2", percent(*ns)));
        }
        let (launch, bytes) = &self.largest;
        if *bytes as f64 > 0.1 * self.resident as f64 {
            words.push(format!(
                "one launch ({launch}) needs {:.0} % of R at once",
                100.0 * *bytes as f64 / self.resident as f64
            ));
        }
        if let Some(ns) = self.with_copies_ns.filter(|ns| *ns > self.b2_ns + 0.25 * over) {
            words.push(format!(
                "the bound itself is {:.3} of B2 once each copy of a chunk costs its overhead",
                ns / self.b2_ns
            ));
        }
        words.extend(self.binds.clone());
        words.join("; ")
    }

    pub fn json(&self) -> Value {
        let mut made = json!({
            "trace": self.trace, "kind": self.kind.name(), "card": self.card, "link": self.link,
            "share": self.share, "weights": self.weights, "resident": self.resident,
            "activations": self.activations, "streamed": self.streamed(),
            "compute_ns": self.compute_ns.round(), "link_ns": self.link_ns().round(),
            "in_place": self.in_place,
            "b1_ns": self.b1_ns.round(), "b2_ns": self.b2_ns.round(),
            "b2_with_copies_ns": self.with_copies_ns.map(f64::round),
            "everything_resident_ns": self.everything_resident_ns.round(),
            "over_b1": self.over_b1().map(rounded), "over_b2": self.over_b2().map(rounded),
            "over_resident": self.over_resident().map(rounded),
            "described_after": self.described_after, "ring_bytes": self.ring_bytes, "recovery": self.recovery,
        });
        let fields = made.as_object_mut().expect("made as one");
        match &self.ours {
            Ok(run) => {
                fields.extend(run_json(run, "ours_ns"));
                let at = |index: usize| run.iterations.get(index).copied();
                fields.insert("first_ns".into(), json!(at(0)));
                fields.insert("second_ns".into(), json!(at(1)));
                fields.insert("third_ns".into(), json!(at(2)));
                fields.insert("steady_ns".into(), json!(run.ns.round()));
                fields.insert("iterations_ns".into(), json!(run.iterations));
            }
            Err(why) => {
                fields.insert("ours_ns".into(), Value::Null);
                fields.insert("infeasible".into(), json!(why));
            }
        }
        fields.insert("copied_back".into(), ran_json(&self.copied_back));
        if let Some(planned) = &self.planned {
            fields.insert("planned".into(), ran_json(planned));
        }
        let policies: Map<String, Value> =
            self.others.iter().map(|other| (other.name.into(), ran_json(&other.ran))).collect();
        fields.insert("policies".into(), policies.into());
        made
    }
}

fn ran_json(ran: &Ran) -> Value {
    match ran {
        Ok(run) => run_json(run, "ns").into(),
        Err(why) => json!({ "infeasible": why }),
    }
}

fn run_json(run: &Run, time: &str) -> Map<String, Value> {
    let stalls: Map<String, Value> =
        run.stalls.iter().map(|(cause, ns)| (cause.to_string(), json!(ns.round()))).collect();
    let mut made = Map::new();
    made.insert(time.into(), json!(run.ns.round()));
    made.insert("bytes_in".into(), json!(run.bytes_in.round()));
    made.insert("bytes_out".into(), json!(run.bytes_out.round()));
    made.insert("copies".into(), json!(rounded(run.copies)));
    made.insert("peak_bytes".into(), json!(run.peak_bytes));
    made.insert("stalls_ns".into(), stalls.into());
    made
}
