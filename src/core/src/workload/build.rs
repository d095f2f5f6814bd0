//! Putting a trace together, and what makes one well formed.
//!
//! Launches that touch the same share their entries in [`Trace::uses`], in the
//! order of their first appearance: a run of a thousand equal iterations costs
//! its events and nothing else, and equal runs give equal traces.

use super::{Event, Launch, Trace, TraceChunk, Use};
use std::collections::HashMap;

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

    /// What is wrong with it, if anything: with which event (by index) and why.
    ///
    /// Well formed is: every index in range; a launch names a chunk once, reads
    /// 1 to 1000 permille of it, and only while it exists; nothing is allocated
    /// twice or freed twice; no chunk is empty.
    pub fn check(&self) -> Result<(), (usize, String)> {
        if let Some(empty) = self.chunks.iter().position(|bytes| *bytes == 0) {
            return Err((0, format!("chunk {empty} has no bytes")));
        }
        for (index, event) in self.events.iter().enumerate() {
            if let Event::Allocate { chunk } = event
                && *chunk as usize >= self.chunks.len()
            {
                return Err((index, format!("there is no chunk {chunk}")));
            }
        }
        let mut live = self.initially_live();
        // The last event that named each chunk, to see a second naming; an
        // event's number plus one, so that 0 is none.
        let mut named = vec![0usize; self.chunks.len()];
        for (index, event) in self.events.iter().enumerate() {
            match event {
                Event::Launch(launch) => {
                    let first = launch.first_use as usize;
                    let end = first + launch.use_count as usize;
                    let Some(uses) = self.uses.get(first..end) else {
                        return Err((index, "its uses are out of range".to_string()));
                    };
                    for touched in uses {
                        let chunk = touched.chunk as usize;
                        if chunk >= live.len() {
                            return Err((index, format!("there is no chunk {chunk}")));
                        }
                        if !live[chunk] {
                            return Err((index, format!("chunk {chunk} is not allocated here")));
                        }
                        if named[chunk] == index + 1 {
                            return Err((index, format!("chunk {chunk} is named twice")));
                        }
                        named[chunk] = index + 1;
                        if !(1..=1000).contains(&touched.permille) {
                            return Err((index, "permille must be 1 to 1000".to_string()));
                        }
                    }
                }
                Event::Allocate { chunk } => {
                    if std::mem::replace(&mut live[*chunk as usize], true) {
                        return Err((index, format!("chunk {chunk} is allocated already")));
                    }
                }
                Event::Free { chunk } => match live.get_mut(*chunk as usize) {
                    Some(live) if *live => *live = false,
                    Some(_) => return Err((index, format!("chunk {chunk} is not allocated here"))),
                    None => return Err((index, format!("there is no chunk {chunk}"))),
                },
                Event::HostSync { .. } | Event::Copy { .. } | Event::Iteration { .. } => {}
            }
        }
        Ok(())
    }
}
