//! A trace that the library recorded (AUTOOFFLOAD_TRACE), read back: what
//! happened when, and the order that the library had learned, with which other
//! memory and other links can be tried.
//!
//! The file may have been cut short anywhere, or be somebody else's: what is read
//! is bounded, and everything that is computed with is checked first.
//! Not here: how it is shown (`report`, `forecast`).

use autooffload_core::plan::{self, Chunk, Effort, Machine, Phase, Plan, Problem};
use serde_json::Value;
use std::io::{BufRead, Read};
use std::path::Path;

/// Raised by the library when a reader of the present form could not read the next.
const FORMAT: u64 = 1;
/// No file of ours is as long.
const FILE_BYTES: u64 = 1 << 30;
const HEAD: &str = "{\"traceEvents\":[";
const TAIL: &str = "],\"otherData\":";
const FOREIGN: &str = "this is no trace of autooffload (AUTOOFFLOAD_TRACE)";

#[derive(Default)]
pub struct Recording {
    pub version: String,
    /// The end of the file is missing: the process was killed while it wrote.
    pub cut_short: bool,
    /// Events that the file has no room for.
    pub left_out: u64,
    pub spans: Vec<Span>,
    pub memory: Vec<Sample>,
    /// When plans were carried out: device, µs.
    pub plans: Vec<(u64, f64)>,
    pub account: Value,
    pub orders: Vec<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    In,
    Out,
    Waited,
    Host,
}

/// µs, as in the file.
pub struct Span {
    pub device: u64,
    pub track: Track,
    pub start: f64,
    pub length: f64,
    pub name: String,
    pub chunk: Option<u64>,
    pub bytes: u64,
    /// By a kernel of ours, before its memory was used for something else.
    pub looked_at: u64,
    pub demanded: bool,
}

pub struct Sample {
    pub device: u64,
    pub at: f64,
    pub resident: u64,
    pub ring: u64,
    pub unused: u64,
    pub host: u64,
}

/// What the planner was told last, and what it answered.
pub struct Order {
    pub device: u64,
    /// Its times were measured.
    pub measured: bool,
    pub problem: Problem,
    /// By chunk of the problem: its name in the events; frames of its own, and those read in place.
    pub names: Vec<u64>,
    pub resident: Vec<(u32, u32)>,
    /// By phase, under the plan in force: bytes in, each iteration.
    pub streamed: Vec<u64>,
}

impl Order {
    /// The problem with `more` bytes of device memory (or less), and another link.
    pub fn with(&self, more: i64, link_bytes_per_s: Option<f64>) -> Problem {
        let mut problem = self.problem.clone();
        let machine = &mut problem.machine;
        let frames = more / machine.frame_bytes as i64 + i64::from(machine.frames);
        machine.frames = frames.clamp(0, 1 << 24) as u32;
        if let Some(rate) = link_bytes_per_s {
            // What leaves by the link leaves at its rate.
            if machine.release_bytes_per_s == machine.link_bytes_per_s {
                machine.release_bytes_per_s = rate;
            }
            machine.zero_copy_bytes_per_s =
                machine.zero_copy_bytes_per_s.map(|old| old * rate / machine.link_bytes_per_s);
            machine.link_bytes_per_s = rate;
        }
        problem
    }
}

/// The best plan for it.
pub fn planned(problem: &Problem) -> Result<Plan, String> {
    plan::plan(problem, None, Effort::Searched).map_err(|unfit| unfit.to_string())
}

/// Whether the file begins as one of ours.
pub fn is_one(path: &Path) -> bool {
    let mut head = [0; HEAD.len()];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok()
        && head == *HEAD.as_bytes()
}

pub fn read(path: &Path) -> Result<Recording, String> {
    let file = std::fs::File::open(path)
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    let reader = std::io::BufReader::new(file.take(FILE_BYTES));
    parse(reader).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse(reader: impl BufRead) -> Result<Recording, String> {
    let mut found = Recording { cut_short: true, ..Recording::default() };
    let mut begun = false;
    for (number, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(|error| format!("cannot be read: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        if number == 0 {
            let ours = line.strip_prefix(HEAD);
            let rest = ours.ok_or(FOREIGN)?;
            begun = true;
            // No event at all.
            if !rest.is_empty() {
                break;
            }
        } else if let Some(tail) = line.strip_prefix(TAIL) {
            // What follows the end is what an interrupted write has left of the one before.
            let mut values = serde_json::Deserializer::from_str(tail).into_iter::<Value>();
            let Some(Ok(other)) = values.next() else { break };
            found.tail(other)?;
            found.cut_short = false;
            break;
        } else {
            // The last may be cut off.
            let Ok(event) = serde_json::from_str(line.trim_end_matches(',')) else { continue };
            found.event(&event);
        }
    }
    if begun { Ok(found) } else { Err(FOREIGN.into()) }
}

impl Recording {
    fn event(&mut self, event: &Value) {
        let device = event["pid"].as_u64().unwrap_or(0);
        let Some(at) = event["ts"].as_f64() else { return };
        let args = &event["args"];
        let number = |name: &str| args[name].as_u64().unwrap_or(0);
        match event["ph"].as_str() {
            Some("C") => self.memory.push(Sample {
                device,
                at,
                resident: number("resident"),
                ring: number("ring"),
                unused: number("unused"),
                host: number("host"),
            }),
            Some("i") => self.plans.push((device, at)),
            Some("X") => {
                let track = match event["tid"].as_u64() {
                    Some(0) => Track::In,
                    Some(1) => Track::Out,
                    Some(2) => Track::Waited,
                    _ => Track::Host,
                };
                self.spans.push(Span {
                    device,
                    track,
                    start: at,
                    length: event["dur"].as_f64().unwrap_or(0.0).max(0.0),
                    name: event["name"].as_str().unwrap_or("").to_string(),
                    chunk: args["chunk"].as_u64(),
                    bytes: number("bytes"),
                    looked_at: number("looked_at"),
                    demanded: args["demanded"].as_bool().unwrap_or(false),
                });
            }
            _ => {}
        }
    }

    fn tail(&mut self, mut other: Value) -> Result<(), String> {
        match other["format"].as_u64() {
            Some(FORMAT) => {}
            Some(_) => return Err("another version of autooffload has written it".into()),
            None => return Err(FOREIGN.into()),
        }
        self.version = other["autooffload"].as_str().unwrap_or("?").to_string();
        self.left_out = other["left_out"].as_u64().unwrap_or(0);
        for order in other["devices"].as_array().into_iter().flatten() {
            let order = parse_order(order);
            self.orders.push(order.ok_or("the order of uses in it is damaged")?);
        }
        self.account = other["account"].take();
        Ok(())
    }
}

/// `None`: something in it cannot be.
fn parse_order(value: &Value) -> Option<Order> {
    const FRAMES: u64 = 1 << 22;
    const STEPS: usize = 1 << 20;
    const NS: u64 = 3_600_000_000_000;
    let number = |value: &Value| value.as_u64();
    let machine = &value["machine"];
    // JSON has no infinity.
    let rate = |name: &str| match &machine[name] {
        Value::Null => Some(f64::INFINITY),
        value => value.as_f64().filter(|rate| *rate >= 1e3),
    };
    let machine = Machine {
        frames: u32::try_from(number(&machine["frames"])?)
            .ok()
            .filter(|&n| u64::from(n) <= FRAMES)?,
        frame_bytes: number(&machine["frame_bytes"]).filter(|&n| n == 2 << 20)?,
        link_bytes_per_s: rate("link_bytes_per_s").filter(|rate| rate.is_finite())?,
        copy_ns: number(&machine["copy_ns"]).filter(|&ns| ns < NS)?,
        release_ns: number(&machine["release_ns"]).filter(|&ns| ns < NS)?,
        release_bytes_per_s: rate("release_bytes_per_s")?,
        release_gpu_share: machine["release_gpu_share"]
            .as_f64()
            .filter(|s| (0.0..=1.0).contains(s))?,
        backlog_bytes: number(&machine["backlog_bytes"])?,
        device_bytes_per_s: rate("device_bytes_per_s")?,
        zero_copy_bytes_per_s: rate("zero_copy_bytes_per_s").filter(|rate| rate.is_finite()),
    };
    let mut problem = Problem { machine, ..Problem::default() };
    let (mut names, mut resident) = (Vec::new(), Vec::new());
    let pinned = value["pinned"].as_array()?;
    let mut total = 0;
    for (row, pinned) in value["chunks"].as_array()?.iter().zip(pinned) {
        let frames = number(&row[1]).filter(|&frames| frames > 0)?;
        total += frames;
        if total > FRAMES {
            return None;
        }
        let small = |value: &Value| u32::try_from(number(value)?).ok();
        names.push(number(&row[0])?);
        let id = problem.chunks.len() as u32;
        let pinned = pinned.as_bool()?;
        problem.chunks.push(Chunk { id, frames: frames as u32, pinned, place: None });
        resident.push((small(&row[2])?, small(&row[3])?));
    }
    let (mut steps, mut streamed) = (0, Vec::new());
    for phase in value["phases"].as_array()? {
        streamed.push(number(&phase["streamed_bytes"])?);
        let mut read = Phase {
            repeats: number(&phase["repeats"])?.min(1 << 20) as u32,
            visits: number(&phase["visits"])?.min(1 << 20) as u32,
            ..Phase::default()
        };
        for step in phase["steps"].as_array()? {
            steps += 1;
            let mut uses = Vec::new();
            for chunk in step[3].as_array()? {
                let chunk = number(chunk).filter(|&c| (c as usize) < problem.chunks.len())? as u32;
                if uses.contains(&chunk) {
                    return None;
                }
                uses.push(chunk);
            }
            if steps > STEPS || uses.len() > 4096 {
                return None;
            }
            let ns = |value: &Value| number(value).filter(|&ns| ns < NS);
            let bytes = if step[1].is_null() { u64::MAX } else { number(&step[1])? };
            read.push_reading(ns(&step[0])?, bytes, ns(&step[2])?, &uses);
        }
        problem.phases.push(read);
    }
    Some(Order {
        device: number(&value["device"])?,
        measured: value["measured"].as_bool()?,
        problem,
        names,
        resident,
        streamed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use autooffload_core::plan::outlook::Outlook;

    /// As the library writes it: two chunks, one step each.
    fn sample() -> String {
        let order = r#"{"device":0,"measured":true,"machine":{"frames":12,"frame_bytes":2097152,
            "link_bytes_per_s":1e9,"copy_ns":8000,"release_ns":0,"release_bytes_per_s":null,
            "release_gpu_share":0.0,"backlog_bytes":33554432,"device_bytes_per_s":null,
            "zero_copy_bytes_per_s":null},"shared_frames":4,"chunks":[[7,8,4,0],[9,8,4,0]],
            "pinned":[false,false],"phases":[{"repeats":5,"visits":1,
            "steps":[[1000000,null,0,[0]],[1000000,null,0,[1]]],"period_ns":9000000,
            "stall_ns":1,"streamed_bytes":16777216,"ring_frames":4}]}"#
            .replace('\n', "");
        format!(
            "{HEAD}\n{}\n{}\n{TAIL}{{\"autooffload\":\"0.1.0\",\"format\":1,\"left_out\":3,\
             \"devices\":[{order}],\"account\":{{\"pid\":5}}}}}}\n",
            r#"{"ph":"X","pid":0,"tid":0,"ts":1.5,"dur":2.0,"name":"chunk 7","args":{"bytes":5,"chunk":7,"demanded":true}},"#,
            r#"{"ph":"C","pid":0,"ts":2.0,"name":"memory","args":{"resident":1,"ring":2,"unused":3,"host":4}}"#,
        )
    }

    #[test]
    fn what_was_written_is_read() {
        let found = parse(sample().as_bytes()).unwrap();
        assert!(!found.cut_short && found.left_out == 3 && found.account["pid"] == 5);
        assert!(found.spans[0].demanded && found.spans[0].track == Track::In);
        assert_eq!((found.memory[0].host, found.spans[0].chunk), (4, Some(7)));
        let order = &found.orders[0];
        let plan = planned(&order.problem).unwrap();
        plan.verify(&order.problem).unwrap();
        let little = Outlook::of(&order.problem, &plan).unwrap().expected_ns;
        let more = order.with(16 << 20, None);
        let all = Outlook::of(&more, &planned(&more).unwrap()).unwrap();
        assert!(all.expected_ns < little && all.streamed_bytes == 0);
    }

    #[test]
    fn what_was_cut_anywhere_is_read_as_far_as_it_goes() {
        let text = sample();
        for end in HEAD.len()..text.len() {
            if let Ok(found) = parse(&text.as_bytes()[..end]) {
                assert!(found.spans.len() <= 1 && found.memory.len() <= 1);
                assert!(found.cut_short || found.orders.len() == 1);
            }
        }
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let text = sample();
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for _ in 0..3000 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..1 + next() % 3 {
                let at = next() % bytes.len();
                bytes[at] = b"0129-{}[],\"e."[next() % 13];
            }
            for order in parse(&bytes[..]).map_or(Vec::new(), |found| found.orders) {
                // Whatever passed the checks can be planned, or is said not to fit.
                let frames = order.problem.chunks.iter().map(|chunk| chunk.frames).sum::<u32>();
                if frames < 1000
                    && let Ok(plan) = planned(&order.problem)
                {
                    plan.verify(&order.problem).unwrap();
                }
            }
        }
        assert!(parse(&b"something else"[..]).is_err());
        assert!(parse(&b""[..]).is_err());
    }
}
