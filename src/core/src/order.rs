//! The order of uses: what the [`Learner`] knows of *symbols*, told of chunks.
//!
//! A chunk holds many tensors, and equal layers that share it name it again and
//! again: as an order of chunks, a layer looks like an iteration. What recurs
//! once an iteration is the *address* that an operation names. So a weight's
//! address is a symbol; all other addresses of a chunk are one symbol together,
//! for activations come to lie anywhere. A weight is what a copy from the host
//! filled, or what kernels made (cast, or drawn on the device) and is then
//! left alone for a while each time; what is written to be read is not. What
//! is predicted and described is of chunks again: those are what moves.
//!
//! Invariants:
//! - a symbol is of one chunk, and goes with it; memory is bounded by
//!   [`PLACES`] for each chunk and [`SYMBOLS`] for all.
//! - a chunk of which no address is told is one symbol.
//!
//! Not here: in which order symbols come (`learn`).

use std::ops::Range;

use crate::address_map::{ChunkId, NO_CHUNK};
pub use crate::learn::Outcome;
use crate::learn::{Cursor, Description, Kind, Learner, Nanos, Operation, Phase, Step, Upcoming};
use crate::recall::{self, Remembered};

/// What the learner is told: dense, and reused once its chunk is gone.
type Symbol = ChunkId;

/// Addresses of one chunk that are told apart; what else it holds is one symbol.
const PLACES: usize = 1 << 14;
/// Of all chunks. The learner knows no more.
const SYMBOLS: usize = 1 << 20;
/// Runs of filled bytes of one chunk; with more, all between is filled.
const RUNS: usize = 1 << 12;
/// Addresses of one chunk of which it is not known whether they are a weight's;
/// with more, none of them is, until it comes again.
const CANDIDATES: usize = 1 << 12;
/// Operations for which a weight is left alone, at least: an activation is read
/// sooner, by the operation after the one that wrote it or a few later.
const APART: Operation = 16;

/// One address that an operation names, and whose it is. 0: it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub chunk: ChunkId,
    pub address: u64,
}

/// An address that may be a weight's.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    address: u64,
    /// The operation that named it last.
    named: Operation,
    /// How often in a row it was left alone, less than it must be.
    missing: u8,
}

/// What is known of one chunk's addresses.
#[derive(Debug, Default)]
struct Places {
    /// Runs of addresses that copies from the host filled: apart, in order.
    filled: Vec<Range<u64>>,
    /// Symbols of weights' addresses, in order.
    places: Vec<(u64, Symbol)>,
    /// In order of addresses.
    candidates: Vec<Candidate>,
    /// The symbol of all other addresses.
    other: Option<Symbol>,
}

impl Places {
    /// What lies at `run` is filled.
    fn fill(&mut self, run: Range<u64>) {
        // Those that touch it become one with it.
        let first = self.filled.partition_point(|known| known.end < run.start);
        let last = self.filled.partition_point(|known| known.start <= run.end);
        if let [known] = &self.filled[first..last]
            && known.start <= run.start
            && run.end <= known.end
        {
            return;
        }
        let met = &self.filled[first..last];
        let start = met.first().map_or(run.start, |known| known.start.min(run.start));
        let end = met.last().map_or(run.end, |known| known.end.max(run.end));
        self.filled.splice(first..last, std::iter::once(start..end));
        if let [first, .., last] = &self.filled[..]
            && self.filled.len() > RUNS
        {
            self.filled = std::iter::once(first.start..last.end).collect();
        }
    }

    fn is_filled(&self, address: u64) -> bool {
        let after = self.filled.partition_point(|known| known.start <= address);
        after > 0 && address < self.filled[after - 1].end
    }

    /// Whether `address`, which `operation` names, has shown itself to be a
    /// weight's: it was made and then left alone, or left alone three times in a row.
    fn proves(&mut self, address: u64, operation: Operation) -> bool {
        let at = match self.candidates.binary_search_by_key(&address, |known| known.address) {
            Ok(at) => at,
            Err(at) => {
                let new = Candidate { address, named: operation, missing: 1 };
                if self.candidates.len() < CANDIDATES {
                    self.candidates.insert(at, new);
                } else {
                    self.candidates.clear();
                    self.candidates.push(new);
                }
                return false;
            }
        };
        let known = &mut self.candidates[at];
        let since = operation - std::mem::replace(&mut known.named, operation);
        if since == 0 {
            // Read and written in place, by one operation.
            return false;
        }
        known.missing = if since < APART { 3 } else { known.missing - 1 };
        let proved = known.missing == 0;
        if proved {
            self.candidates.remove(at);
        }
        proved
    }
}

/// See the module's text.
#[derive(Default)]
pub struct Order {
    learner: Learner,
    /// By chunk.
    known: Vec<Places>,
    /// By symbol; [`NO_CHUNK`]: of none now.
    chunks: Vec<ChunkId>,
    unused: Vec<Symbol>,
    /// Kept for its memory.
    symbols: Vec<Symbol>,
}

impl Order {
    /// A copy from the host fills `addresses` of `chunk`.
    pub fn filled(&mut self, chunk: ChunkId, addresses: Range<u64>) {
        let places = self.places(chunk);
        places.fill(addresses.clone());
        let first = places.places.partition_point(|&(at, _)| at < addresses.start);
        let used = places.places[first..].iter().take_while(|&&(at, _)| at < addresses.end);
        // What is filled again after it was used is an input, or a model come back.
        let used: Vec<Symbol> = used.map(|&(_, symbol)| symbol).collect();
        used.into_iter().for_each(|symbol| self.learner.set_kind(symbol, Kind::Perhaps));
    }

    /// The next operation names `named`. Answers how that compares with what was foretold.
    pub fn observe(&mut self, named: &[Named]) -> Outcome {
        let mut symbols = std::mem::take(&mut self.symbols);
        symbols.clear();
        for &name in named {
            let symbol = self.symbol(name);
            if !symbols.contains(&symbol) {
                symbols.push(symbol);
            }
        }
        let outcome = self.learner.observe(&symbols);
        self.symbols = symbols;
        outcome
    }

    /// `chunk` was freed: its id may come to mean something else.
    pub fn forget(&mut self, chunk: ChunkId) {
        let Some(places) = self.known.get_mut(chunk as usize) else { return };
        let Places { places, other, .. } = std::mem::take(places);
        for symbol in places.into_iter().map(|(_, symbol)| symbol).chain(other) {
            self.learner.forget(symbol);
            self.chunks[symbol as usize] = NO_CHUNK;
            self.unused.push(symbol);
        }
    }

    /// See [`Learner::next`].
    pub fn next(&self, cursor: &mut Cursor) -> Option<Upcoming> {
        let upcoming = self.learner.next(cursor)?;
        Some(Upcoming { chunk: self.chunk_of(upcoming.chunk), ..upcoming })
    }

    /// See [`Learner::describe`]: a step that touches the chunks that the one
    /// before touched is part of it.
    pub fn describe(&self) -> Description {
        let description = self.learner.describe();
        let phases = description.phases.iter().map(|phase| self.of_chunks(phase)).collect();
        Description { phases, ..description }
    }

    fn of_chunks(&self, phase: &Phase) -> Phase {
        let mut told = Phase { steps: Vec::new(), uses: Vec::new(), ..*phase };
        for step in &phase.steps {
            let first_use = told.uses.len();
            for &symbol in &phase.uses[step.first_use as usize..][..step.use_count as usize] {
                let chunk = self.chunk_of(symbol);
                if !told.uses[first_use..].contains(&chunk) {
                    told.uses.push(chunk);
                }
            }
            let uses = &told.uses[first_use..];
            if let Some(last) = told.steps.last_mut()
                && told.uses[last.first_use as usize..first_use] == *uses
                && (last.ns > 0) == (step.ns > 0)
            {
                last.operations += step.operations;
                last.ns += step.ns;
                told.uses.truncate(first_use);
                continue;
            }
            let use_count = uses.len() as u32;
            told.steps.push(Step { first_use: first_use as u32, use_count, ..*step });
        }
        told
    }

    /// What is kept of a former start, shown to the learner as if it had just
    /// happened. `place`: the chunk that has a number there, and its first byte.
    pub fn recall(&mut self, kept: &Remembered, place: impl Fn(u32) -> Option<(ChunkId, u64)>) {
        /// As often an iteration is shown: an order is one when it has repeated itself.
        const LAPS: usize = 3;
        let mut named = Vec::new();
        for step in kept.phases.iter().flat_map(|steps| [steps; LAPS]).flatten() {
            named.clear();
            named.extend(step.uses.iter().filter_map(|&recall::Place { chunk, offset }| {
                let (chunk, base) = place(chunk)?;
                Some(Named { chunk, address: offset.map_or(0, |offset| base + offset) })
            }));
            let first = self.operations();
            for _ in 0..step.operations {
                self.observe(&named);
            }
            if step.ns > 0 {
                self.measured(first..self.operations(), step.ns);
            }
        }
    }

    /// The order of all known phases, to be kept under `signature`. `number`: which
    /// of the weights' allocations a chunk is, and its first byte; what is of no
    /// such chunk is left out.
    pub fn remember(
        &self,
        signature: u64,
        number: impl Fn(ChunkId) -> Option<(u32, u64)>,
    ) -> Remembered {
        let mut addresses = vec![None; self.chunks.len()];
        for &(address, symbol) in self.known.iter().flat_map(|known| &known.places) {
            addresses[symbol as usize] = Some(address);
        }
        let place = |&symbol: &Symbol| {
            let (chunk, base) = number(self.chunk_of(symbol))?;
            let offset = addresses[symbol as usize].and_then(|at: u64| at.checked_sub(base));
            Some(recall::Place { chunk, offset })
        };
        let of_phase = |phase: &Phase| {
            let of_step = |step: &Step| {
                let uses = &phase.uses[step.first_use as usize..][..step.use_count as usize];
                let uses = uses.iter().filter_map(place).collect();
                recall::Step { operations: step.operations, ns: step.ns, uses }
            };
            phase.steps.iter().map(of_step).collect()
        };
        // The one under way last: what is shown last is where the program is.
        let mut description = self.learner.describe();
        if let Some(present) = description.present {
            description.phases[present..].rotate_left(1);
        }
        Remembered { signature, phases: description.phases.iter().map(of_phase).collect() }
    }

    /// See [`Learner::touched`]; a chunk may be named twice.
    pub fn touched(
        &self,
        operations: Range<Operation>,
    ) -> impl Iterator<Item = (bool, impl Iterator<Item = ChunkId> + '_)> + '_ {
        let of_chunks =
            |(whole, symbols)| (whole, Iterator::map(symbols, |symbol| self.chunk_of(symbol)));
        self.learner.touched(operations).map(of_chunks)
    }

    /// Bytes of memory held: bounded, see the module's text.
    pub fn footprint(&self) -> usize {
        let places = |known: &Places| {
            known.filled.capacity() * size_of::<Range<u64>>()
                + known.places.capacity() * size_of::<(u64, Symbol)>()
                + known.candidates.capacity() * size_of::<Candidate>()
        };
        let symbols = self.chunks.capacity() + self.unused.capacity() + self.symbols.capacity();
        self.learner.footprint()
            + self.known.capacity() * size_of::<Places>()
            + self.known.iter().map(places).sum::<usize>()
            + symbols * size_of::<Symbol>()
    }

    fn places(&mut self, chunk: ChunkId) -> &mut Places {
        let index = chunk as usize;
        if self.known.len() <= index {
            self.known.resize_with(index + 1, Places::default);
        }
        &mut self.known[index]
    }

    fn chunk_of(&self, symbol: Symbol) -> ChunkId {
        self.chunks.get(symbol as usize).copied().unwrap_or(NO_CHUNK)
    }

    fn symbol(&mut self, Named { chunk, address }: Named) -> Symbol {
        let full = self.chunks.len() >= SYMBOLS && self.unused.is_empty();
        let operation = self.learner.operations();
        let places = self.places(chunk);
        let at = match places.places.binary_search_by_key(&address, |&(at, _)| at) {
            Ok(index) => return places.places[index].1,
            Err(at) => at,
        };
        let filled = places.is_filled(address);
        let apart = !full
            && places.places.len() < PLACES
            && address != 0
            && (filled || places.proves(address, operation));
        if let Some(other) = places.other.filter(|_| !apart) {
            return other;
        }
        let symbol = self.unused.pop().unwrap_or(self.chunks.len() as Symbol);
        if self.chunks.len() <= symbol as usize {
            self.chunks.push(chunk);
        }
        self.chunks[symbol as usize] = chunk;
        let places = &mut self.known[chunk as usize];
        if apart {
            places.places.insert(at, (address, symbol));
            if !filled {
                self.learner.set_kind(symbol, Kind::Perhaps);
            }
        } else {
            places.other = Some(symbol);
            if address != 0 {
                self.learner.set_kind(symbol, Kind::Background);
            }
        }
        symbol
    }
}

/// What knows nothing of chunks is the learner's own.
impl Order {
    pub fn measured(&mut self, operations: Range<Operation>, ns: Nanos) {
        self.learner.measured(operations, ns);
    }

    pub fn operations(&self) -> Operation {
        self.learner.operations()
    }

    pub fn epoch(&self) -> u64 {
        self.learner.epoch()
    }

    pub fn version(&self) -> u64 {
        self.learner.version()
    }

    pub fn wants_times(&self) -> bool {
        self.learner.wants_times()
    }

    pub fn lap(&self) -> Option<u64> {
        self.learner.lap()
    }

    pub fn described(&self) -> Vec<u64> {
        self.learner.described()
    }

    pub fn present(&self) -> Option<u64> {
        self.learner.present()
    }

    pub fn ahead(&self) -> Option<Cursor> {
        self.learner.ahead()
    }

    pub fn is_sure(&self) -> bool {
        self.learner.is_sure()
    }

    pub fn position(&self) -> u64 {
        self.learner.position()
    }

    pub fn repeats(&self) -> Option<Operation> {
        self.learner.repeats()
    }
}
