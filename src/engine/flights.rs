//! Launches under way without a lock, and whoever begins to evict: which chunks
//! the launches hold, told without waiting for them.
//!
//! While nothing moves, a launch says in its thread's [`Flight`] which chunks it
//! holds, and reads the pressure flag; the evictor sets that flag, and reads
//! all flights (Dekker's pattern, hence sequentially consistent). So a launch
//! that missed the flag is seen by the evictor. A launch may be long in its
//! call (a copy that blocks, a queue that is full), so nobody waits for it:
//! the evictor *adopts* it, that is, counts its chunks as held, and the launch
//! learns at its end that it has to uncount them. A kernel may reach more than it
//! names (through tables), so it holds everything.
//!
//! Not here: where flights and counts are kept (`inflight`, `chunk_bits`). The
//! interleavings of this file are tried in `tests/interleavings`, which takes it
//! in with its own `sync`.

use super::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// Chunks that one launch can name; one with more holds everything.
pub const MOST: usize = 16;

/// The state of a flight: how many chunks (0: no launch is under way), whether
/// it was adopted, and in the other bits which launch of its thread it is.
const COUNT: u64 = 0x7f;
const ADOPTED: u64 = 0x80;
const NEXT: u64 = 0x100;

/// Where the chunks of adopted launches are counted, modulo what fits.
pub trait Holds {
    /// One launch more holds `chunks`; `None`: all there are. Called by whoever
    /// evicts, under its locks.
    fn more(&self, chunks: Option<&[u32]>);
    /// One fewer does. Called by the launch, without any lock.
    fn fewer(&self, chunks: Option<&[u32]>);
}

/// One thread's launch.
#[derive(Default)]
pub struct Flight {
    state: AtomicU64,
    chunks: [AtomicU32; MOST],
}

impl Flight {
    /// A launch that holds `chunks` begins; one that names none may reach any,
    /// as one that names too many does. `false`: memory moves, and nothing is held.
    #[inline(always)]
    pub fn begin(
        &self,
        flights: &Flights,
        mut chunks: impl ExactSizeIterator<Item = u32>,
        holds: &impl Holds,
    ) -> bool {
        let count = chunks.len().wrapping_sub(1).min(MOST) as u64 + 1;
        if let Some(id) = chunks.next() {
            self.chunks[0].store(id, Ordering::Relaxed);
            // Most name one.
            if chunks.len() > 0 {
                self.name_others(chunks);
            }
        }
        self.start(count, flights, holds)
    }

    #[cold]
    fn name_others(&self, others: impl Iterator<Item = u32>) {
        let slots = self.chunks[1..].iter();
        slots.zip(others).for_each(|(slot, id)| slot.store(id, Ordering::Relaxed));
    }

    /// The same for one that may reach any chunk.
    #[inline(always)]
    pub fn begin_on_everything(&self, flights: &Flights, holds: &impl Holds) -> bool {
        self.start(MOST as u64 + 1, flights, holds)
    }

    #[inline(always)]
    fn start(&self, count: u64, flights: &Flights, holds: &impl Holds) -> bool {
        // Only this thread begins, and nobody adopts what has not begun.
        let former = self.state.load(Ordering::Relaxed);
        self.state.store(former.wrapping_add(NEXT) | count, Ordering::SeqCst);
        if flights.pressure.load(Ordering::SeqCst) {
            self.end(holds);
            return false;
        }
        true
    }

    /// The launch is over, and its uses are noted.
    #[inline(always)]
    pub fn end(&self, holds: &impl Holds) {
        // Nobody else changes which launch it is.
        let over = self.state.load(Ordering::Relaxed) & !(COUNT | ADOPTED);
        let state = self.state.swap(over, Ordering::AcqRel);
        if state & ADOPTED != 0 {
            self.uncount(state, holds);
        }
    }

    #[cold]
    fn uncount(&self, state: u64, holds: &impl Holds) {
        holds.fewer(self.held(state).as_deref());
    }

    /// The chunks of the launch with `state`; `None`: all there are.
    fn held(&self, state: u64) -> Option<Vec<u32>> {
        let chunks = self.chunks.get(..(state & COUNT) as usize)?;
        Some(chunks.iter().map(|slot| slot.load(Ordering::Relaxed)).collect())
    }

    fn adopt(&self, holds: &impl Holds) {
        let state = self.state.load(Ordering::SeqCst);
        if state & COUNT == 0 || state & ADOPTED != 0 {
            return;
        }
        // What was read is of this very launch if the state is still its own. One
        // that ends before it was counted uncounts first: nobody looks before all
        // are counted.
        let held = self.held(state);
        let (seen, unseen) = (Ordering::AcqRel, Ordering::Relaxed);
        if self.state.compare_exchange(state, state | ADOPTED, seen, unseen).is_ok() {
            holds.more(held.as_deref());
        }
    }
}

/// The flights of all threads.
#[derive(Default)]
pub struct Flights {
    /// Set for good as soon as anything has to move.
    pressure: AtomicBool,
    /// All launches that missed it were adopted.
    adopted: AtomicBool,
    threads: Mutex<Vec<Arc<Flight>>>,
}

impl Flights {
    /// A thread's own, from its first launch on.
    pub fn join(&self) -> Arc<Flight> {
        let flight = Arc::new(Flight::default());
        let mut threads = lock(&self.threads);
        // Those of threads that are gone are held by nobody else.
        threads.retain(|flight| Arc::strong_count(flight) > 1);
        threads.push(Arc::clone(&flight));
        flight
    }

    #[inline(always)]
    pub fn pressure(&self) -> bool {
        self.pressure.load(Ordering::Relaxed)
    }

    /// Ends the fast path for good. Afterwards every launch that is on it, still,
    /// has its chunks counted in `holds`. `true`: this is the first to.
    pub fn begin_pressure(&self, holds: &impl Holds) -> bool {
        let first = !self.pressure.swap(true, Ordering::SeqCst);
        // Not only by the first to come: a second device may evict while the
        // first still counts.
        if !self.adopted.load(Ordering::Acquire) {
            lock(&self.threads).iter().for_each(|flight| flight.adopt(holds));
            self.adopted.store(true, Ordering::Release);
        }
        first
    }
}
