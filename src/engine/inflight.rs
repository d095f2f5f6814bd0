//! Launches under way on the fast path: each thread's flight, and the chunks of
//! those that were under way when memory began to move.
//!
//! Not here: how launches and evictors find each other (`flights`).

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use autooffload_core::address_map::ChunkId;

use super::flights::{Flight, Holds};
use super::state::{Engine, engine, hot, lock};
use super::{Touch, Touched};
use crate::thread::thread;

/// A thread's flight; `Thread::launch` points at it.
struct Own(Arc<Flight>);

impl Drop for Own {
    fn drop(&mut self) {
        thread().launch.set(ptr::null());
    }
}

thread_local! {
    static FLIGHT: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// While it lives, its chunks do not move.
pub struct FastLaunch {
    engine: &'static Engine,
    flight: &'static Flight,
}

impl Drop for FastLaunch {
    #[inline(always)]
    fn drop(&mut self) {
        self.flight.end(self.engine);
    }
}

/// A launch on `touched`; there are none if all that it names is small. `None`:
/// memory moves; take the careful path.
#[inline(always)]
pub fn enter(engine: &'static Engine, touched: &[Touched]) -> Option<FastLaunch> {
    let flight = match thread().launch.get().cast::<Flight>() {
        flight if flight.is_null() => first_launch(engine)?,
        flight => flight,
    };
    // SAFETY: this thread's own flight, which lives until the thread's values are
    // torn down. What is given here is dropped before its hook returns.
    let flight = unsafe { &*flight };
    // A kernel may read through tables, which nobody looked into; what is no
    // kernel touches nothing as one does.
    let begun = match touched.first() {
        None | Some(Touched { touch: Touch::Kernel, .. }) => {
            flight.begin_on_everything(&engine.flights, engine)
        }
        Some(_) => {
            let chunks = touched.iter().map(|touched| touched.chunk);
            flight.begin(&engine.flights, chunks, engine)
        }
    };
    begun.then_some(FastLaunch { engine, flight })
}

/// Makes the thread's flight. A thread that is being torn down gets none.
#[cold]
fn first_launch(engine: &Engine) -> Option<*const Flight> {
    FLIGHT
        .try_with(|own| {
            let mut own = own.borrow_mut();
            let Own(flight) = own.get_or_insert_with(|| Own(engine.flights.join()));
            thread().launch.set(Arc::as_ptr(flight).cast());
            Arc::as_ptr(flight)
        })
        .ok()
}

/// Whether memory has begun to move.
pub fn pressure() -> bool {
    engine().is_some_and(|engine| engine.flights.pressure())
}

/// Ends the fast path for good. `true`: this is the first to.
pub fn begin_pressure() -> bool {
    engine().is_some_and(|engine| engine.flights.begin_pressure(engine))
}

/// Whether a launch that began before memory moved holds `chunk`, still.
pub fn holds(chunk: ChunkId) -> bool {
    hot(chunk).in_flight.load(Ordering::Acquire) != 0 || holds_everything()
}

/// Whether one may reach any chunk.
pub fn holds_everything() -> bool {
    engine().is_some_and(|engine| engine.all_in_flight.load(Ordering::Acquire) != 0)
}

impl Holds for Engine {
    fn more(&self, chunks: Option<&[ChunkId]>) {
        match chunks {
            None => drop(self.all_in_flight.fetch_add(1, Ordering::AcqRel)),
            Some(chunks) => chunks.iter().for_each(|&chunk| {
                hot(chunk).in_flight.fetch_add(1, Ordering::AcqRel);
            }),
        }
    }

    fn fewer(&self, chunks: Option<&[ChunkId]>) {
        match chunks {
            None => drop(self.all_in_flight.fetch_sub(1, Ordering::AcqRel)),
            Some(chunks) => chunks.iter().for_each(|&chunk| {
                hot(chunk).in_flight.fetch_sub(1, Ordering::AcqRel);
            }),
        }
        // Whoever waits for it looks, and begins to wait, under its device's lock.
        for slot in &self.devices[..self.device_count.min(self.devices.len())] {
            drop(lock(&slot.state));
            slot.released.notify_all();
        }
    }
}
