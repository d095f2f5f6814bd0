//! Putting a trace together, and what makes one well formed.
//!
//! Launches that touch the same share their entries in [`Trace::uses`], in the
//! order of their first appearance: a run of a thousand equal iterations costs
//! its events and nothing else, and equal runs give equal traces.

use super::{Event, Launch, Trace, TraceChunk, Use};
use std::collections::HashMap;

/// What a trace may hold, so that sums over all of it stay within 64 bits, on
/// any card, and a hostile file does not fill the memory.
pub mod limits {
    pub const NAME_BYTES: usize = 200;
    pub const CHUNKS: usize = 1 << 20;
    pub const EVENTS: usize = 1 << 21;
    /// Entries of [`super::Trace::uses`].
    pub const USES: usize = 1 << 23;
    /// Chunks named by all launches together.
    pub const NAMINGS: u64 = 1 << 24;
    /// Of one chunk; and of the activations.
    pub const CHUNK_BYTES: u64 = 1 << 44;
    /// Of one launch or copy.
    pub const MOVED_BYTES: u64 = 1 << 44;
    pub const FLOPS: u64 = 10u64.pow(17);
    /// An hour.
    pub const NS: u64 = 3_600_000_000_000;
}

/// A trace in the making.
#[derive(Default)]
pub struct Builder {
    trace: Trace,
    /// Where in `uses` a list begins. Looked up, never walked.
    known: HashMap<Box<[Use]>, u32>,
}

impl Builder {
    pub fn new(name: &str, activation_bytes: u64) -> Self {
        let trace = Trace { name: name.to_string(), activation_bytes, ..Trace::default() };
        Self { trace, ..Self::default() }
    }

    /// A chunk of `bytes`. It exists from the start unless an
    /// [`Event::Allocate`] names it.
    pub fn chunk(&mut self, bytes: u64) -> TraceChunk {
        self.trace.chunks.push(bytes);
        self.trace.chunks.len() as TraceChunk - 1
    }

    /// Appends `work`, touching `uses`. Its own `first_use` and `use_count`
    /// are ignored.
    pub fn launch(&mut self, work: Launch, uses: &[Use]) {
        let first_use = match self.known.get(uses) {
            Some(&first) => first,
            None => {
                let first = if uses.is_empty() { 0 } else { self.trace.uses.len() as u32 };
                self.trace.uses.extend_from_slice(uses);
                self.known.insert(uses.into(), first);
                first
            }
        };
        let launch = Launch { first_use, use_count: uses.len() as u32, ..work };
        self.trace.events.push(Event::Launch(launch));
    }

    /// Appends `event`. A launch belongs to [`Self::launch`].
    pub fn event(&mut self, event: Event) {
        debug_assert!(!matches!(event, Event::Launch(_)));
        self.trace.events.push(event);
    }

    /// For who repeats what was appended. The launches among them have been
    /// through [`Self::launch`].
    pub(super) fn events(&mut self) -> &mut Vec<Event> {
        &mut self.trace.events
    }

    /// The trace so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    pub fn finish(self) -> Trace {
        self.trace
    }
}

impl Trace {
    /// Whether each chunk exists from the start.
    pub fn initially_live(&self) -> Vec<bool> {
        let mut live = vec![true; self.chunks.len()];
        for event in &self.events {
            if let Event::Allocate { chunk } = event {
                live[*chunk as usize] = false;
            }
        }
        live
    }

    /// W: bytes of the chunks that exist at the same time, at their peak.
    pub fn weight_bytes(&self) -> u64 {
        let live = self.initially_live();
        let mut bytes: u64 =
            self.chunks.iter().zip(&live).filter(|(_, l)| **l).map(|(b, _)| b).sum();
        let mut peak = bytes;
        for event in &self.events {
            match event {
                Event::Allocate { chunk } => bytes += self.chunks[*chunk as usize],
                Event::Free { chunk } => bytes -= self.chunks[*chunk as usize],
                _ => {}
            }
            peak = peak.max(bytes);
        }
        peak
    }

    /// The same run, laid out as [`Builder`] does. Events must be well formed.
    pub fn normalized(&self) -> Trace {
        let mut builder = Builder::new(&self.name, self.activation_bytes);
        builder.trace.chunks.clone_from(&self.chunks);
        for event in &self.events {
            match event {
                Event::Launch(launch) => builder.launch(*launch, self.touches(launch)),
                other => builder.event(*other),
            }
        }
        builder.finish()
    }

    /// What is wrong with it, if anything: with which event (by index; past the
    /// last where it is none) and why.
    ///
    /// Well formed is: every index in range and every number within [`limits`];
    /// a launch names a chunk once, reads 1 to 1000 permille of it, and only
    /// while it exists; nothing is allocated twice or freed twice; no chunk is
    /// empty.
    pub fn check(&self) -> Result<(), (usize, String)> {
        self.check_frame().map_err(|reason| (self.events.len(), reason))?;
        for (index, event) in self.events.iter().enumerate() {
            self.check_numbers(event).map_err(|reason| (index, reason))?;
        }
        self.check_existence()
    }

    fn check_frame(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.chunks.len() > limits::CHUNKS {
            return Err(format!("more than {} chunks", limits::CHUNKS));
        }
        if self.events.len() > limits::EVENTS {
            return Err(format!("more than {} events", limits::EVENTS));
        }
        if self.uses.len() > limits::USES {
            return Err(format!("more than {} uses", limits::USES));
        }
        let launches = self.events.iter().map(|event| match event {
            Event::Launch(launch) => u64::from(launch.use_count),
            _ => 0,
        });
        at_most("chunks named", launches.sum(), limits::NAMINGS)?;
        at_most("the activations' bytes", self.activation_bytes, limits::CHUNK_BYTES)?;
        for (chunk, bytes) in self.chunks.iter().enumerate() {
            if *bytes == 0 {
                return Err(format!("chunk {chunk} has no bytes"));
            }
            at_most("a chunk's bytes", *bytes, limits::CHUNK_BYTES)?;
        }
        Ok(())
    }

    /// What can be said of `event` by itself.
    fn check_numbers(&self, event: &Event) -> Result<(), String> {
        let exists = |chunk: TraceChunk| match self.chunks.get(chunk as usize) {
            Some(_) => Ok(()),
            None => Err(format!("there is no chunk {chunk}")),
        };
        match event {
            Event::Launch(launch) => {
                let first = launch.first_use as usize;
                let Some(uses) = self.uses.get(first..first + launch.use_count as usize) else {
                    return Err("its uses are out of range".to_string());
                };
                for touched in uses {
                    exists(touched.chunk)?;
                    if !(1..=1000).contains(&touched.permille) {
                        return Err("permille must be 1 to 1000".to_string());
                    }
                }
                at_most("ns", launch.ns, limits::NS)?;
                at_most("flops", launch.flops, limits::FLOPS)?;
                at_most("bytes", launch.bytes, limits::MOVED_BYTES)
            }
            Event::HostSync { host_ns } => at_most("ns", *host_ns, limits::NS),
            Event::Copy { bytes, .. } => at_most("bytes", *bytes, limits::MOVED_BYTES),
            Event::Allocate { chunk } | Event::Free { chunk } => exists(*chunk),
            Event::Iteration { .. } => Ok(()),
        }
    }

    /// Whether chunks are used only while they exist, and once by a launch.
    /// Indices are known to be in range.
    fn check_existence(&self) -> Result<(), (usize, String)> {
        let mut live = self.initially_live();
        // By chunk: the last event that named it, counted from 1.
        let mut named = vec![0usize; self.chunks.len()];
        for (index, event) in self.events.iter().enumerate() {
            match event {
                Event::Launch(launch) => {
                    for Use { chunk, .. } in self.touches(launch) {
                        if !live[*chunk as usize] {
                            return Err((index, format!("chunk {chunk} is not allocated here")));
                        }
                        let before = std::mem::replace(&mut named[*chunk as usize], index + 1);
                        if before == index + 1 {
                            return Err((index, format!("chunk {chunk} is named twice")));
                        }
                    }
                }
                Event::Allocate { chunk } => {
                    if std::mem::replace(&mut live[*chunk as usize], true) {
                        return Err((index, format!("chunk {chunk} is allocated already")));
                    }
                }
                Event::Free { chunk } => {
                    if !std::mem::replace(&mut live[*chunk as usize], false) {
                        return Err((index, format!("chunk {chunk} is not allocated here")));
                    }
                }
                Event::HostSync { .. } | Event::Copy { .. } | Event::Iteration { .. } => {}
            }
        }
        Ok(())
    }
}

pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.len() > limits::NAME_BYTES || name.chars().any(char::is_control) {
        return Err("the name is too long or has control characters".to_string());
    }
    Ok(())
}

fn at_most(what: &str, value: u64, limit: u64) -> Result<(), String> {
    if value > limit { Err(format!("{what}: {value} is more than {limit}")) } else { Ok(()) }
}
