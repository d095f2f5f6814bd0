//! The stand-in GPU itself: memory, order, time, and what is told about them.
//!
//! `gpu` holds it all behind one lock; `space` has its own, because workers
//! read it while they run. Lock order: `state`, then `space`.
//! Not here: the C interface (see `api` and `exports`).

pub mod account;
pub mod capture;
pub mod card;
pub mod clock;
pub mod faults;
pub mod gpu;
pub mod graph;
pub mod memory;
pub mod module;
pub mod physical;
pub mod prices;
pub mod scheduler;
pub mod settings;
pub mod space;
pub mod stream;
pub mod submit;
pub mod taint;
pub mod uses;
pub mod work;
pub mod workers;
