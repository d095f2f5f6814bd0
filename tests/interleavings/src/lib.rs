//! Interleavings of `engine/flights.rs`, the very file that ships: threads, locks
//! and atomics are a checker's, which runs a program again and again, each time in
//! another order of their steps.
//!
//! Memory here is sequentially consistent; what weaker orders may do is said
//! where they are used.
#![cfg(test)]

#[path = "../../../src/engine/flights.rs"]
mod flights;

/// What `flights` is made of.
mod sync {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    pub use shuttle::sync::{Arc, Mutex, MutexGuard};

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no panic")
    }
}

use flights::{Flight, Flights, Holds};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Condvar;
use shuttle::{Config, Runner, thread};
use sync::{Arc, AtomicBool, AtomicU32, Mutex, Ordering, lock};

/// Two devices with a chunk each, as the engine keeps them.
#[derive(Default)]
struct Engine {
    flights: Flights,
    devices: [Device; 2],
    all_in_flight: AtomicU32,
}

#[derive(Default)]
struct Device {
    /// The chunk was evicted.
    state: Mutex<bool>,
    released: Condvar,
    in_flight: AtomicU32,
    /// Launches that run on the chunk now, and whether its frames are gone.
    running: AtomicU32,
    gone: AtomicBool,
}

impl Holds for Engine {
    fn more(&self, chunks: Option<&[u32]>) {
        match chunks {
            None => drop(self.all_in_flight.fetch_add(1, Ordering::AcqRel)),
            Some(chunks) => chunks.iter().for_each(|&chunk| {
                self.devices[chunk as usize].in_flight.fetch_add(1, Ordering::AcqRel);
            }),
        }
    }

    fn fewer(&self, chunks: Option<&[u32]>) {
        match chunks {
            None => drop(self.all_in_flight.fetch_sub(1, Ordering::AcqRel)),
            Some(chunks) => chunks.iter().for_each(|&chunk| {
                self.devices[chunk as usize].in_flight.fetch_sub(1, Ordering::AcqRel);
            }),
        }
        for device in &self.devices {
            drop(lock(&device.state));
            device.released.notify_all();
        }
    }
}

impl Engine {
    fn is_in_flight(&self, device: &Device) -> bool {
        device.in_flight.load(Ordering::Acquire) != 0
            || self.all_in_flight.load(Ordering::Acquire) != 0
    }

    /// A launch that names the chunks of `devices`, as often as it says.
    fn launch(&self, flight: &Flight, chunks: &[u32]) {
        // As `inflight` asks it; what is not fast takes the locks.
        let begun = !self.flights.pressure()
            && match chunks {
                // A kernel: what it names is not all that it reaches.
                [0, 1] => flight.begin_on_everything(&self.flights, self),
                _ => flight.begin(&self.flights, chunks.iter().copied(), self),
            };
        if !begun {
            return;
        }
        // What names nothing itself may reach anything, through a table.
        let reached: &[u32] = if chunks.is_empty() { &[0, 1] } else { chunks };
        let devices = || reached.iter().map(|&chunk| &self.devices[chunk as usize]);
        for device in devices() {
            device.running.fetch_add(1, Ordering::AcqRel);
            assert!(!device.gone.load(Ordering::Acquire), "it runs on memory that is gone");
        }
        for device in devices() {
            assert!(!device.gone.load(Ordering::Acquire), "memory goes while it runs");
            device.running.fetch_sub(1, Ordering::AcqRel);
        }
        flight.end(self);
    }

    /// Evicts the chunk of a device, as soon as no launch holds it.
    fn evict(&self, device: &Device) {
        let mut state = lock(&device.state);
        self.flights.begin_pressure(self);
        while self.is_in_flight(device) {
            state = device.released.wait(state).expect("no panic");
        }
        assert_eq!(device.running.load(Ordering::Acquire), 0, "a launch is under way");
        device.gone.store(true, Ordering::Release);
        *state = true;
    }

    /// Nothing is held when everything is over.
    fn is_at_rest(&self) -> bool {
        self.devices.iter().all(|device| !self.is_in_flight(device))
    }
}

/// Runs `launches`, a thread each, beside evictions on `evicting` devices.
fn program(launches: &'static [&'static [&'static [u32]]], evicting: usize) {
    let engine = Arc::new(Engine::default());
    let launching = launches.iter().map(|&of_one_thread| {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            let flight = engine.flights.join();
            of_one_thread.iter().for_each(|chunks| engine.launch(&flight, chunks));
        })
    });
    let mut threads: Vec<_> = launching.collect();
    threads.extend((0..evicting).map(|device| {
        let engine = Arc::clone(&engine);
        thread::spawn(move || engine.evict(&engine.devices[device]))
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert!(engine.is_at_rest());
}

/// More chunks than one launch can name.
const MANY: [u32; flights::MOST + 1] = [0; flights::MOST + 1];

#[test]
fn an_eviction_waits_for_the_launch_that_holds_its_chunk() {
    all_orders(|| program(&[&[&[0]]], 1));
}

#[test]
fn one_launch_after_the_other_is_told_apart() {
    all_orders(|| program(&[&[&[0], &[1], &[0]]], 2));
}

#[test]
fn the_first_evictions_on_two_devices_both_wait() {
    all_orders(|| program(&[&[&[0, 1]], &[&[1]]], 2));
}

#[test]
fn a_launch_that_names_nothing_holds_everything() {
    all_orders(|| program(&[&[&[]]], 2));
}

#[test]
fn a_launch_that_names_too_many_chunks_holds_everything() {
    all_orders(|| program(&[&[&MANY]], 2));
}

/// Tries so many orders that each fault of these few steps is among them: any,
/// and those with few changes of thread. They are the same each time.
fn all_orders(program: fn()) {
    const ORDERS: usize = 20_000;
    const CHANGES: usize = 3;
    const SEED: u64 = 1;
    let any = RandomScheduler::new_from_seed(SEED, ORDERS);
    Runner::new(any, Config::default()).run(program);
    let few = PctScheduler::new_from_seed(SEED, CHANGES, ORDERS);
    Runner::new(few, Config::default()).run(program);
}
