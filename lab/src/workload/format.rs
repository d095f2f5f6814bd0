//! The trace file.
//!
//! Text, one thing a line, words apart by one space, every line ended by a
//! newline; numbers are decimal without sign or leading zeros.
//!
//! ```text
//!   autooffload-trace 1                  the version
//!   name flux1-dev
//!   activations 893386752                bytes
//!   chunks 38 18874368                   so many chunks of so many bytes;
//!   chunks 1 2097152                     numbered from 0 through all such lines
//!   launch 0 309237645312 80 1 4 7/250 9!
//!                                        ns, flops, bytes, kernels, then what it
//!                                        touches: chunk 4, 250 permille of chunk
//!                                        7, chunk 9 which it writes (7/250! both)
//!   again 0-17                           launch lines 0 to 17 of this file, in
//!   again 4                              order, once more; launch line 4
//!   iteration 0                          an iteration of phase 0 begins
//!   loop 28                              up to its `end`, 28 times; nested up to
//!   end                                  eight deep
//!   sync 30000                           the host waits, then is busy for so many ns
//!   to-device 4096                       a copy of the program's; bytes
//!   to-host 8
//!   allocate 12                          chunk 12 exists from here
//!   free 12
//!   events 50684                         how many there were, loops run through;
//!                                        the last line
//! ```
//!
//! [`read`] accepts nothing else: a file that is damaged, cut short, or larger
//! than [`limits`] once its loops are run through is refused with the line and
//! the reason, and what it allocates is bounded by those limits and the file's
//! own length. `read(write(t))` is `t` for every well-formed trace laid out as
//! [`Builder`] does (any other comes back as [`Trace::normalized`]); so
//! `write(read(x))` is `x` for whatever `write` has written.
//!
//! Not here: what is well formed ([`Trace::check`]).

use super::build::check_name;
use super::{Builder, Event, Launch, Trace, Use, limits};
use std::collections::HashMap;
use std::fmt;
use std::fmt::Write;
use std::hash::Hash;
use std::ops::Range;

const MAGIC: &str = "autooffload-trace";
const VERSION: u64 = 1;
/// Loops within loops.
const DEPTH: usize = 8;
/// The longest rhythm, in iterations or loops of them, that the writer looks for.
const RHYTHM: usize = 64;

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Error {}

/// Parses a trace file.
pub fn read(bytes: &[u8]) -> Result<Trace, Error> {
    let mut reader = Reader::default();
    // The line being read, from 1.
    let mut line = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        line += 1;
        let refuse = |reason: String| Error { line, reason };
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(refuse("the file ends within a line".to_string()));
        };
        let text = std::str::from_utf8(&rest[..end])
            .map_err(|_| refuse("not text in UTF-8".to_string()))?;
        reader.line(text, line).map_err(refuse)?;
        rest = &rest[end + 1..];
    }
    reader.finish().map_err(|(at, reason)| Error { line: at.unwrap_or(line + 1), reason })
}

/// Which line may come next.
#[derive(Default, PartialEq, PartialOrd, Clone, Copy)]
enum Part {
    #[default]
    Version,
    Name,
    Activations,
    /// `chunks`, or the events already.
    Chunks,
    Events,
    /// Nothing.
    End,
}

#[derive(Default)]
struct Reader {
    part: Part,
    name: String,
    builder: Builder,
    /// By event: its line.
    lines: Vec<u32>,
    /// Events of the launch lines, by number.
    launches: Vec<Launch>,
    /// Open loops: times, first event, and the line of the `loop`.
    loops: Vec<(usize, usize, usize)>,
    /// Reused from line to line.
    uses: Vec<Use>,
}

impl Reader {
    fn line(&mut self, text: &str, line: usize) -> Result<(), String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let has_rest = word.len() < text.len();
        let mut words = Words { rest: has_rest.then_some(rest) };
        match (self.part, word) {
            (Part::Version, MAGIC) => {
                let version = words.number()?;
                if version != VERSION {
                    return Err(format!("version {version}; this program reads {VERSION}"));
                }
                self.part = Part::Name;
            }
            (Part::Version, _) => return Err("not a trace file of autooffload".to_string()),
            (Part::Name, "name") => {
                self.name = words.rest.take().ok_or("there is no name")?.to_string();
                check_name(&self.name)?;
                self.part = Part::Activations;
            }
            (Part::Name, _) => return Err("\"name\" must come here".to_string()),
            (Part::Activations, "activations") => {
                self.builder = Builder::new(&self.name, words.number_up_to(limits::CHUNK_BYTES)?);
                self.part = Part::Chunks;
            }
            (Part::Activations, _) => return Err("\"activations\" must come here".to_string()),
            (Part::Chunks, "chunks") => {
                let (count, bytes) = (words.number()?, words.number_up_to(limits::CHUNK_BYTES)?);
                let room = limits::CHUNKS - self.builder.trace().chunks.len();
                if count == 0 || count > room as u64 {
                    return Err(format!("no chunks, or more than {} of them", limits::CHUNKS));
                }
                if bytes == 0 {
                    return Err("a chunk has bytes".to_string());
                }
                (0..count).for_each(|_| {
                    self.builder.chunk(bytes);
                });
            }
            (Part::Chunks | Part::Events, _) => {
                self.part = Part::Events;
                self.event(word, &mut words, line)?;
            }
            (Part::End, _) => return Err("nothing may follow \"events\"".to_string()),
        }
        words.end()
    }

    fn event(&mut self, word: &str, words: &mut Words, line: usize) -> Result<(), String> {
        match word {
            "launch" => {
                let work = Launch {
                    first_use: 0,
                    use_count: 0,
                    ns: words.number()?,
                    flops: words.number()?,
                    bytes: words.number()?,
                    kernels: words.number_up_to(u16::MAX.into())? as u16,
                };
                self.uses.clear();
                while words.rest.is_some() {
                    self.uses.push(words.touched(self.builder.trace().chunks.len())?);
                }
                if self.builder.trace().uses.len() + self.uses.len() > limits::USES {
                    return Err(format!("more than {} uses", limits::USES));
                }
                self.room(1)?;
                self.builder.launch(work, &self.uses);
                if let Some(Event::Launch(launch)) = self.builder.events().last() {
                    self.launches.push(*launch);
                }
            }
            "again" => {
                let numbers = words.range(self.launches.len())?;
                self.room(numbers.len())?;
                let again = self.launches[numbers].iter().map(|launch| Event::Launch(*launch));
                self.builder.events().extend(again);
            }
            "loop" => {
                let times = words.number_up_to(limits::EVENTS as u64)? as usize;
                if times < 2 {
                    return Err("a loop runs at least twice".to_string());
                }
                if self.loops.len() == DEPTH {
                    return Err(format!("more than {DEPTH} loops within each other"));
                }
                self.loops.push((times, self.lines.len(), line));
            }
            "end" => {
                let (times, first, _) = self.loops.pop().ok_or("there is no loop to end")?;
                let body = self.lines.len() - first;
                if body == 0 {
                    return Err("the loop is empty".to_string());
                }
                // Both factors are at most limits::EVENTS.
                self.room(body * (times - 1))?;
                for _ in 1..times {
                    self.builder.events().extend_from_within(first..first + body);
                    self.lines.extend_from_within(first..first + body);
                }
            }
            "iteration" => {
                let phase = words.number_up_to(u16::MAX.into())? as u16;
                self.simple(Event::Iteration { phase })?;
            }
            "sync" => self.simple(Event::HostSync { host_ns: words.number()? })?,
            "to-device" => {
                self.simple(Event::Copy { bytes: words.number()?, to_device: true })?;
            }
            "to-host" => self.simple(Event::Copy { bytes: words.number()?, to_device: false })?,
            "allocate" => {
                self.simple(Event::Allocate { chunk: words.number_up_to(CHUNK)? as u32 })?
            }
            "free" => self.simple(Event::Free { chunk: words.number_up_to(CHUNK)? as u32 })?,
            "events" => {
                let count = words.number()?;
                if let Some((_, _, open)) = self.loops.last() {
                    return Err(format!("the loop of line {open} has no end"));
                }
                if count != self.lines.len() as u64 {
                    return Err(format!("{count} are announced, {} came", self.lines.len()));
                }
                self.part = Part::End;
            }
            _ => return Err(format!("what is {word:?}?")),
        }
        self.lines.resize(self.builder.trace().events.len(), line as u32);
        Ok(())
    }

    fn simple(&mut self, event: Event) -> Result<(), String> {
        self.room(1)?;
        self.builder.event(event);
        Ok(())
    }

    /// Whether `more` events fit.
    fn room(&self, more: usize) -> Result<(), String> {
        if more > limits::EVENTS - self.lines.len() {
            return Err(format!("more than {} events", limits::EVENTS));
        }
        Ok(())
    }

    /// The trace, or the line to blame, if one is, and why.
    fn finish(self) -> Result<Trace, (Option<usize>, String)> {
        if self.part != Part::End {
            return Err((None, "the file ends before \"events\"".to_string()));
        }
        let trace = self.builder.finish();
        match trace.check() {
            Ok(()) => Ok(trace),
            Err((event, reason)) => Err((self.lines.get(event).map(|line| *line as usize), reason)),
        }
    }
}

/// The largest number of a chunk.
const CHUNK: u64 = limits::CHUNKS as u64 - 1;

/// What is left of a line; `None` after its last word.
struct Words<'t> {
    rest: Option<&'t str>,
}

impl<'t> Words<'t> {
    fn word(&mut self) -> Result<&'t str, String> {
        let rest = self.rest.ok_or("the line ends too early")?;
        match rest.split_once(' ') {
            Some((word, rest)) => {
                self.rest = Some(rest);
                Ok(word)
            }
            None => {
                self.rest = None;
                Ok(rest)
            }
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        number(self.word()?)
    }

    fn number_up_to(&mut self, limit: u64) -> Result<u64, String> {
        up_to(self.number()?, limit)
    }

    /// `4`, `7/250`, `9!`, `7/250!` of `chunks`.
    fn touched(&mut self, chunks: usize) -> Result<Use, String> {
        let word = self.word()?;
        let (what, writes) = match word.strip_suffix('!') {
            Some(what) => (what, true),
            None => (word, false),
        };
        let (chunk, permille) = match what.split_once('/') {
            // All of it is written without a share.
            Some((chunk, share)) => (chunk, up_to(number(share)?, 999)?),
            None => (what, 1000),
        };
        let chunk = number(chunk)?;
        if chunk >= chunks as u64 {
            return Err(format!("there is no chunk {chunk}"));
        }
        Ok(Use { chunk: chunk as u32, permille: permille as u16, writes })
    }

    /// `4` or `0-17`, below `end`.
    fn range(&mut self, end: usize) -> Result<Range<usize>, String> {
        let word = self.word()?;
        let (first, last) = match word.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(word)?, number(word)?),
        };
        if first > last || last >= end as u64 {
            return Err(format!("{word} is not a range among the {end} launches so far"));
        }
        Ok(first as usize..last as usize + 1)
    }

    fn end(&self) -> Result<(), String> {
        match self.rest {
            None => Ok(()),
            Some(rest) => Err(format!("{rest:?} is too much")),
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    let digits = word.as_bytes();
    let is_plain = !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
        && (digits[0] != b'0' || digits.len() == 1);
    let value = if is_plain { word.parse().ok() } else { None };
    value.ok_or_else(|| format!("{word:?} is not a number"))
}

fn up_to(value: u64, limit: u64) -> Result<u64, String> {
    if value > limit { Err(format!("{value} is more than {limit}")) } else { Ok(value) }
}

/// The file of a well-formed trace.
///
/// Equal stretches from one mark of an iteration to the next are written once:
/// runs of them, and rhythms of up to 64 of them, as loops.
pub fn write(trace: &Trace) -> String {
    let trace = trace.normalized();
    let mut text = format!("{MAGIC} {VERSION}\nname {}\n", trace.name);
    let mut line = |arguments: fmt::Arguments| {
        text.write_fmt(arguments).expect("a string takes everything");
    };
    line(format_args!("activations {}\n", trace.activation_bytes));
    for run in trace.chunks.chunk_by(|one, next| one == next) {
        line(format_args!("chunks {} {}\n", run.len(), run[0]));
    }
    let stretches = stretches(&trace.events);
    let mut numbers = Numbers::default();
    let order: Vec<usize> =
        stretches.iter().map(|events| numbers.of(Node::Stretch(events))).collect();
    let order = fold(order, &mut numbers);
    let mut writer = Writer { trace: &trace, text, launches: HashMap::new(), again: None };
    for node in order {
        writer.node(node, &numbers);
    }
    let mut text = writer.text;
    writeln!(text, "events {}", trace.events.len()).expect("a string takes everything");
    text
}

/// From mark to mark; what stands before the first is one of its own.
fn stretches(events: &[Event]) -> Vec<&[Event]> {
    let is_mark = |event: &Event| matches!(event, Event::Iteration { .. });
    events.chunk_by(|_, next| !is_mark(next)).collect()
}

/// Something that may be repeated.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Node<'t> {
    Stretch(&'t [Event]),
    Loop(usize, Vec<usize>),
}

/// Numbers for nodes: the same node, the same number.
#[derive(Default)]
struct Numbers<'t> {
    nodes: Vec<Node<'t>>,
    /// Looked up, never walked.
    known: HashMap<Node<'t>, usize>,
    /// By node: loops within each other.
    depths: Vec<usize>,
}

impl<'t> Numbers<'t> {
    fn of(&mut self, node: Node<'t>) -> usize {
        if let Some(known) = self.known.get(&node) {
            return *known;
        }
        let depth = match &node {
            Node::Stretch(_) => 0,
            Node::Loop(_, body) => {
                1 + body.iter().map(|inner| self.depths[*inner]).max().unwrap_or(0)
            }
        };
        self.depths.push(depth);
        self.nodes.push(node.clone());
        self.known.insert(node, self.nodes.len() - 1);
        self.nodes.len() - 1
    }
}

/// Turns repetitions into loops, the shortest rhythm first. Where one was
/// found, shorter ones may have become possible: from the start again.
fn fold(mut order: Vec<usize>, numbers: &mut Numbers) -> Vec<usize> {
    let mut rhythm = 1;
    for _ in 0..RHYTHM * DEPTH {
        let folded = fold_rhythm(&order, rhythm, numbers);
        rhythm = if folded.len() < order.len() { 1 } else { rhythm + 1 };
        order = folded;
        if rhythm > RHYTHM {
            break;
        }
    }
    order
}

fn fold_rhythm(order: &[usize], rhythm: usize, numbers: &mut Numbers) -> Vec<usize> {
    if order.len() < 2 * rhythm {
        return order.to_vec();
    }
    let mut folded = Vec::new();
    let mut rest = order;
    while let Some(&next) = rest.first() {
        let body = &rest[..rhythm.min(rest.len())];
        let same = rest.chunks_exact(rhythm).take_while(|part| *part == body).count();
        let fits = body.iter().all(|node| numbers.depths[*node] < DEPTH);
        if same > 1 && fits {
            folded.push(numbers.of(Node::Loop(same, body.to_vec())));
            rest = &rest[same * rhythm..];
        } else {
            folded.push(next);
            rest = &rest[1..];
        }
    }
    folded
}

struct Writer<'t> {
    trace: &'t Trace,
    text: String,
    /// Numbers of the launch lines.
    launches: HashMap<Launch, usize>,
    /// Launches that are to be said again, in one line.
    again: Option<Range<usize>>,
}

impl Writer<'_> {
    fn node(&mut self, node: usize, numbers: &Numbers) {
        match &numbers.nodes[node] {
            Node::Stretch(events) => events.iter().for_each(|event| self.event(event)),
            Node::Loop(times, body) => {
                self.line(format_args!("loop {times}"));
                for inner in body {
                    self.node(*inner, numbers);
                }
                self.line(format_args!("end"));
            }
        }
        self.say_again();
    }

    fn line(&mut self, arguments: fmt::Arguments) {
        self.text.write_fmt(arguments).expect("a string takes everything");
        self.text.push('\n');
    }

    fn say_again(&mut self) {
        match self.again.take() {
            Some(run) if run.len() == 1 => self.line(format_args!("again {}", run.start)),
            Some(run) => self.line(format_args!("again {}-{}", run.start, run.end - 1)),
            None => {}
        }
    }

    fn event(&mut self, event: &Event) {
        if let Event::Launch(launch) = event
            && let Some(&known) = self.launches.get(launch)
        {
            match &mut self.again {
                Some(run) if run.end == known => run.end += 1,
                _ => {
                    self.say_again();
                    self.again = Some(known..known + 1);
                }
            }
            return;
        }
        self.say_again();
        match *event {
            Event::Launch(launch) => {
                self.launches.insert(launch, self.launches.len());
                let Launch { ns, flops, bytes, kernels, .. } = launch;
                let mut line = format!("launch {ns} {flops} {bytes} {kernels}");
                for touched in self.trace.touches(&launch) {
                    write!(line, " {}", touched.chunk).expect("a string takes everything");
                    if touched.permille < 1000 {
                        write!(line, "/{}", touched.permille).expect("a string takes everything");
                    }
                    if touched.writes {
                        line.push('!');
                    }
                }
                self.line(format_args!("{line}"));
            }
            Event::HostSync { host_ns } => self.line(format_args!("sync {host_ns}")),
            Event::Copy { bytes, to_device: true } => {
                self.line(format_args!("to-device {bytes}"));
            }
            Event::Copy { bytes, to_device: false } => self.line(format_args!("to-host {bytes}")),
            Event::Allocate { chunk } => self.line(format_args!("allocate {chunk}")),
            Event::Free { chunk } => self.line(format_args!("free {chunk}")),
            Event::Iteration { phase } => self.line(format_args!("iteration {phase}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::models::{self, Random, VARIANTS};

    fn assert_round_trip(trace: &Trace) -> String {
        let text = write(trace);
        let back = read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert!(back == *trace, "{}", trace.name);
        assert!(write(&back) == text, "{}", trace.name);
        text
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn every_model_comes_back_as_it_was() {
        for model in models::catalogue() {
            let options = models::Options { iterations: 6, runs: 2, ..Default::default() };
            assert_round_trip(&model.generate(&options));
        }
        for variant in VARIANTS {
            assert_round_trip(&variant.trace(30, 5));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn equal_steps_are_written_once() {
        let flux = models::model("flux1-dev").unwrap();
        let (one, many) = (write(&flux.trace(1)), write(&flux.trace(28)));
        assert!(many.len() < one.len() + 30, "{} and {}", many.len(), one.len());
        assert!(many.contains("\nloop 28\niteration 0\n"));

        let pipeline = models::model("t5-flux-vae").unwrap();
        let six = write(&pipeline.trace(28));
        assert_eq!(six.matches("iteration ").count(), 3);
        assert!(six.contains("\nloop 6\niteration 0\n"), "the images");
        assert!(six.contains("\nloop 28\niteration 1\n"), "the steps");
    }

    /// Well formed, with everything in it, laid out as the builder does.
    fn random_trace(random: &mut Random) -> Trace {
        let mut builder = Builder::new("random, by seed", random.below(1 << 40));
        let chunks = 1 + random.below(6);
        for _ in 0..chunks {
            builder.chunk(1 + random.below(3));
        }
        // The last one comes and goes.
        let born = chunks as u32 - 1;
        let mut live = false;
        let mut written: Vec<Event> = Vec::new();
        for _ in 0..random.below(60) {
            match random.below(12) {
                0 if live => {
                    builder.event(Event::Free { chunk: born });
                    live = false;
                }
                0 => {
                    builder.event(Event::Allocate { chunk: born });
                    live = true;
                }
                1 => builder.event(Event::HostSync { host_ns: random.below(3) }),
                2 => {
                    let to_device = random.below(2) == 0;
                    builder.event(Event::Copy { bytes: random.below(100), to_device });
                }
                3 | 4 => builder.event(Event::Iteration { phase: random.below(2) as u16 }),
                5 => {
                    // Some of what came before, once more, if it may.
                    let from = random.below(written.len() as u64 + 1) as usize;
                    for event in &written[from..] {
                        if let Event::Launch(launch) = event {
                            let uses = builder.trace().touches(launch).to_vec();
                            if live || uses.iter().all(|u| u.chunk != born) {
                                builder.launch(*launch, &uses);
                            }
                        } else if matches!(event, Event::Iteration { .. }) {
                            builder.event(*event);
                        }
                    }
                }
                _ => {
                    let mut uses: Vec<Use> = Vec::new();
                    for chunk in 0..chunks as u32 {
                        if random.below(3) == 0 && (live || chunk != born) {
                            let permille = [1, 250, 999, 1000][random.below(4) as usize];
                            uses.push(Use { chunk, permille, writes: random.below(4) == 0 });
                        }
                    }
                    let work = Launch {
                        first_use: 0,
                        use_count: 0,
                        ns: random.below(2),
                        flops: random.below(2) * limits::FLOPS,
                        bytes: random.below(2),
                        kernels: random.below(2) as u16,
                    };
                    builder.launch(work, &uses);
                }
            }
            written.clone_from(&builder.trace().events);
        }
        builder.finish()
    }

    #[test]
    fn any_trace_comes_back_as_it_was() {
        let mut random = Random::new(21);
        for _ in 0..if cfg!(miri) { 20 } else { 3000 } {
            let trace = random_trace(&mut random);
            // A chunk that is allocated later does not exist before; the
            // generator's may be named before its first allocation.
            if trace.check().is_ok() {
                assert_round_trip(&trace);
            }
        }
    }

    #[test]
    fn a_trace_laid_out_otherwise_comes_back_normalized() {
        let mut trace = models::VARIANTS[0].trace(2, 1);
        let before = trace.uses.clone();
        trace.uses.extend(before.iter());
        let moved = before.len() as u32;
        for event in trace.events.iter_mut().step_by(2) {
            if let Event::Launch(launch) = event {
                launch.first_use += moved;
            }
        }
        assert_eq!(trace.check(), Ok(()));
        let back = read(write(&trace).as_bytes()).unwrap();
        assert!(back != trace && back == trace.normalized());
    }

    #[test]
    fn depth_is_kept_within_what_is_read() {
        // Iterations in a pattern that doubles on every level.
        let mut phases: Vec<u16> = vec![0];
        for level in 1..12 {
            let twice = [phases.clone(), phases].concat();
            phases = [twice, vec![level]].concat();
        }
        let mut builder = Builder::new("nested", 0);
        phases.iter().for_each(|phase| builder.event(Event::Iteration { phase: *phase }));
        let text = assert_round_trip(&builder.finish());
        // Of 4095 marks, eight loops deep.
        assert!(text.lines().count() < 300, "{text}");
        let depth = text.lines().scan(0, |depth, line| {
            *depth += i32::from(line.starts_with("loop")) - i32::from(line == "end");
            Some(*depth)
        });
        assert_eq!(depth.max(), Some(8));
    }

    const SMALL: &str = "autooffload-trace 1\nname x\nactivations 5\nchunks 2 100\nchunks 1 7\n\
        iteration 0\nlaunch 1 2 3 4 0 1/250!\nallocate 2\nloop 3\nagain 0\nsync 9\nend\nfree 2\n\
        events 10\n";

    #[test]
    fn the_documented_form_is_read() {
        let trace = read(SMALL.as_bytes()).unwrap();
        assert_eq!(trace.chunks, [100, 100, 7]);
        assert_eq!(trace.events.len(), 10);
        assert_eq!(
            trace.uses,
            [
                Use { chunk: 0, permille: 1000, writes: false },
                Use { chunk: 1, permille: 250, writes: true }
            ]
        );
        let launch = Launch { first_use: 0, use_count: 2, ns: 1, flops: 2, bytes: 3, kernels: 4 };
        assert_eq!(trace.events[1], Event::Launch(launch));
        assert_eq!(trace.events[7..], [trace.events[3], trace.events[4], trace.events[9]]);
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let refused = |from: &str, to: &str| {
            assert!(SMALL.contains(from), "{from}");
            let error = read(SMALL.replacen(from, to, 1).as_bytes()).unwrap_err();
            (error.line, error.reason)
        };
        for (from, to, line, reason) in [
            ("autooffload", "autoofload", 1, "not a trace file of autooffload"),
            ("trace 1", "trace 2", 1, "version 2; this program reads 1"),
            ("name x", "names x", 2, "\"name\" must come here"),
            ("name x", "name \u{7}", 2, "the name is too long or has control characters"),
            ("activations 5\n", "", 3, "\"activations\" must come here"),
            (
                "activations 5",
                "activations 99999999999999",
                3,
                "99999999999999 is more than 17592186044416",
            ),
            ("chunks 2 100", "chunks 2 0", 4, "a chunk has bytes"),
            ("chunks 2 100", "chunks 9999999999 100", 4, "no chunks, or more than 1048576 of them"),
            ("iteration 0", "iteration 65536", 6, "65536 is more than 65535"),
            ("iteration 0", "chunk 0", 6, "what is \"chunk\"?"),
            ("iteration 0", "iteration 0\nchunks 1 1", 7, "what is \"chunks\"?"),
            ("launch 1 2 3 4", "launch 1 2", 7, "\"1/250!\" is not a number"),
            ("launch 1 2 3 4", "launch 1  2 3 4", 7, "\"\" is not a number"),
            ("launch 1 2", "launch 01 2", 7, "\"01\" is not a number"),
            ("launch 1 2", "launch +1 2", 7, "\"+1\" is not a number"),
            (
                "launch 1 2",
                "launch 1 99999999999999999999",
                7,
                "\"99999999999999999999\" is not a number",
            ),
            (
                "launch 1 2",
                "launch 1 200000000000000000",
                7,
                "flops: 200000000000000000 is more than 100000000000000000",
            ),
            ("0 1/250!", "0 3/250!", 7, "there is no chunk 3"),
            ("0 1/250!", "0 1/1000!", 7, "1000 is more than 999"),
            ("0 1/250!", "0 1/0!", 7, "permille must be 1 to 1000"),
            ("0 1/250!", "0 0/250!", 7, "chunk 0 is named twice"),
            ("0 1/250!", "0 2/250!", 7, "chunk 2 is not allocated here"),
            ("allocate 2", "allocate 3", 8, "there is no chunk 3"),
            ("loop 3", "loop 1", 9, "a loop runs at least twice"),
            ("loop 3", "sync 3", 12, "there is no loop to end"),
            ("sync 9\nend\n", "sync 9\n", 13, "the loop of line 9 has no end"),
            ("again 0\nsync 9\n", "", 10, "the loop is empty"),
            ("loop 3", "loop 2000000", 12, "more than 2097152 events"),
            ("again 0", "again 1", 10, "1 is not a range among the 1 launches so far"),
            ("again 0", "again 0-1", 10, "0-1 is not a range among the 1 launches so far"),
            ("again 0", "allocate 2", 10, "chunk 2 is allocated already"),
            ("sync 9", "sync 9 9", 11, "\"9\" is too much"),
            ("sync 9", "sync", 11, "the line ends too early"),
            ("sync 9", "sync 9 ", 11, "\"\" is too much"),
            ("sync 9", "sync 4000000000000", 11, "ns: 4000000000000 is more than 3600000000000"),
            ("sync 9\nend", "free 2\nend", 11, "chunk 2 is not allocated here"),
            ("events 10", "events 11", 14, "11 are announced, 10 came"),
            ("events 10", "events 10\nsync 1", 15, "nothing may follow \"events\""),
            ("events 10\n", "", 14, "the file ends before \"events\""),
            ("events 10\n", "events 10", 14, "the file ends within a line"),
        ] {
            assert_eq!(refused(from, to), (line, reason.to_string()), "{from:?} -> {to:?}");
        }
        let mut bytes = SMALL.as_bytes().to_vec();
        bytes[25] = 0xff;
        assert_eq!(read(&bytes).unwrap_err().line, 2);
        assert_eq!(read(b"").unwrap_err().to_string(), "line 1: the file ends before \"events\"");
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn nesting_and_size_are_bounded() {
        let head = "autooffload-trace 1\nname x\nactivations 0\nchunks 1000 1\n";
        let nested = |depth: usize, times: usize| {
            let (open, close) = (format!("loop {times}\n").repeat(depth), "end\n".repeat(depth));
            format!("{head}{open}sync 1\n{close}events {}\n", times.pow(depth as u32))
        };
        assert_eq!(read(nested(8, 2).as_bytes()).unwrap().events.len(), 256);
        assert!(read(nested(9, 2).as_bytes()).unwrap_err().reason.contains("within each other"));
        assert!(read(nested(8, 10).as_bytes()).unwrap_err().reason.contains("events"));
        // Many launches of many chunks each.
        let many: String = (0..1000).map(|chunk| format!(" {chunk}")).collect();
        let text =
            format!("{head}launch 1 1 1 1{many}\nloop 1000000\nagain 0\nend\nevents 1000001\n");
        assert!(read(text.as_bytes()).unwrap_err().reason.contains("chunks named"));
    }

    /// Whatever is done to a file, the answer is a well-formed trace or an error.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn no_damage_is_more_than_an_error() {
        let mut random = Random::new(23);
        let files = [
            SMALL.to_string(),
            write(&models::VARIANTS[3].trace(20, 2)),
            write(&models::model("t5-flux-vae").unwrap().trace(2)),
        ];
        let mut accepted = 0;
        for round in 0..4000 {
            let mut bytes =
                files[if round % 16 == 0 { round / 16 % 3 } else { 0 }].clone().into_bytes();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(4) {
                    0 => bytes[at] = b"0123456789 \n/!-"[random.below(15) as usize],
                    1 => bytes[at] = random.bits() as u8,
                    2 => {
                        bytes.remove(at);
                    }
                    _ => bytes.truncate(at + 1),
                }
            }
            if let Ok(trace) = read(&bytes) {
                accepted += 1;
                assert_eq!(trace.check(), Ok(()));
                assert_round_trip(&trace);
            }
        }
        assert!(accepted > 0);
    }
}
