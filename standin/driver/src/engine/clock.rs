//! The model clock: virtual nanoseconds, computed when work is submitted.
//!
//! Deterministic: it depends on what was submitted, in which order, and never
//! on wall time or on when a worker ran. Each device has one engine per copy
//! direction and one for compute; an engine takes the earliest gap in which
//! the work fits after it is ready, as hardware that serves ready work first.
//! Not here: dependencies (see `stream`), which become the `ready` argument.

use super::prices::{Call, Prices};
use super::settings::Settings;
use std::collections::BTreeMap;

/// Host time of one submission or query.
pub const HOST_CALL_NS: u64 = 2_000;
/// Fixed part of a copy over the link.
pub const COPY_LATENCY_NS: f64 = 8_000.0;
/// Fixed part of a kernel, a device-to-device copy or a memset.
pub const LAUNCH_LATENCY_NS: f64 = 3_000.0;
/// Of the link's rate, what kernels reach that read the host's memory by themselves.
pub const IN_PLACE_SHARE: f64 = 0.45;
/// Of the link's rate, what a copy gets while one runs the other way: PCIe 4
/// brings 26.0 GB/s in, and 18.6 GB/s while as much goes out.
pub const SHARED_SHARE: f64 = 18.6 / 26.0;
/// What a host function is taken to last.
pub const HOST_FUNCTION_NS: u64 = 5_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineKind {
    HostToDevice = 0,
    DeviceToHost = 1,
    Compute = 2,
}

/// One engine's time line: disjoint busy intervals, start → end.
#[derive(Default)]
pub struct Engine {
    busy: BTreeMap<u64, u64>,
    pub busy_ns: u64,
}

impl Engine {
    /// Books work in the earliest gap at or after `ready` that holds it;
    /// `duration` tells how long it takes from a given start.
    fn book(&mut self, ready: u64, duration: impl Fn(u64) -> u64) -> (u64, u64) {
        let mut start = ready;
        if let Some((_, &end)) = self.busy.range(..=ready).next_back() {
            start = start.max(end);
        }
        let mut ns = duration(start);
        for (&from, &to) in self.busy.range(ready..) {
            if from >= start + ns {
                break;
            }
            if to > start {
                start = to;
                ns = duration(start);
            }
        }
        let end = start + ns;
        self.busy_ns += ns;
        self.insert(start, end);
        (start, end)
    }

    /// How long work of `ns` takes from `start` on, that gets `share` of its
    /// rate while this engine is busy.
    fn slowed(&self, start: u64, ns: u64, share: f64) -> u64 {
        let (mut now, mut left) = (start as f64, ns as f64);
        let before = self.busy.range(..=start).next_back();
        for (&from, &to) in before.into_iter().chain(self.busy.range(start + 1..)) {
            let (from, to) = ((from as f64).max(now), to as f64);
            if from - now >= left {
                break;
            }
            if to <= from {
                continue;
            }
            left -= from - now;
            let done = ((to - from) * share).min(left);
            now = from + done / share;
            left -= done;
        }
        (now + left) as u64 - start
    }

    /// Adds an interval, joined to neighbours it touches.
    fn insert(&mut self, mut start: u64, mut end: u64) {
        if let Some((&from, &to)) = self.busy.range(..=start).next_back()
            && to >= start
        {
            start = from;
            end = end.max(to);
        }
        if let Some(&to) = self.busy.get(&end) {
            self.busy.remove(&end);
            end = to;
        }
        self.busy.insert(start, end);
    }

    /// Forgets intervals that no later submission can meet.
    fn forget_before(&mut self, now: u64) {
        while let Some((&from, &to)) = self.busy.first_key_value() {
            if to > now {
                break;
            }
            self.busy.remove(&from);
        }
    }
}

pub struct Clock {
    /// The host's position on the time line.
    pub host_ns: u64,
    /// Latest end of any booked work.
    pub device_ns: u64,
    engines: Vec<[Engine; 3]>,
    link_rate: f64,
    memory_rate: f64,
    flop_rate: f64,
    shared_link: bool,
    prices: Option<Prices>,
}

impl Clock {
    pub fn new(settings: &Settings) -> Clock {
        Clock {
            host_ns: 0,
            device_ns: 0,
            engines: (0..settings.devices).map(|_| Default::default()).collect(),
            link_rate: settings.link_rate,
            memory_rate: settings.memory_rate,
            flop_rate: settings.flop_rate,
            shared_link: settings.shared_link,
            prices: settings.prices,
        }
    }

    /// One submission or query by the host.
    pub fn host_call(&mut self) {
        self.host_ns += HOST_CALL_NS;
    }

    /// The host spends what a call costs besides its submission.
    pub fn pays(&mut self, call: Call, bytes: u64) {
        self.host_ns += self.prices.map_or(0, |prices| prices.ns(call, bytes));
    }

    /// The host has waited until `ns`.
    pub fn host_waited(&mut self, ns: u64) {
        self.host_ns = self.host_ns.max(ns);
    }

    pub fn book(&mut self, device: usize, kind: EngineKind, ready: u64, ns: u64) -> (u64, u64) {
        let (host_ns, ns) = (self.host_ns, ns.max(1));
        let engines = &mut self.engines[device];
        engines[kind as usize].forget_before(host_ns);
        let opposite = match kind {
            EngineKind::HostToDevice if self.shared_link => Some(EngineKind::DeviceToHost),
            EngineKind::DeviceToHost if self.shared_link => Some(EngineKind::HostToDevice),
            _ => None,
        };
        // Whichever is booked later bears the loss of both.
        let opposite = opposite.map(|other| std::mem::take(&mut engines[other as usize]));
        let span = engines[kind as usize].book(ready, |start| {
            opposite.as_ref().map_or(ns, |other| other.slowed(start, ns, SHARED_SHARE))
        });
        if let Some(other) = opposite {
            engines[1 - kind as usize] = other;
        }
        self.device_ns = self.device_ns.max(span.1);
        span
    }

    pub fn link_ns(&self, bytes: f64) -> u64 {
        (COPY_LATENCY_NS + bytes / self.link_rate * 1e9) as u64
    }

    /// Time a kernel needs the link for, that reads `bytes` of the host's memory.
    pub fn in_place_ns(&self, bytes: f64) -> u64 {
        (bytes / (self.link_rate * IN_PLACE_SHARE) * 1e9) as u64
    }

    pub fn compute_ns(&self, bytes: f64, flops: f64) -> u64 {
        let seconds = (bytes / self.memory_rate).max(flops / self.flop_rate);
        (LAUNCH_LATENCY_NS + seconds * 1e9) as u64
    }

    /// Busy nanoseconds of each device's engines, in the order of [`EngineKind`].
    pub fn busy_ns(&self) -> Vec<[u64; 3]> {
        self.engines.iter().map(|e| [e[0].busy_ns, e[1].busy_ns, e[2].busy_ns]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_work_fills_gaps() {
        let mut engine = Engine::default();
        assert_eq!(engine.book(0, |_| 10), (0, 10));
        assert_eq!(engine.book(50, |_| 10), (50, 60));
        assert_eq!(engine.book(5, |_| 20), (10, 30));
        assert_eq!(engine.book(5, |_| 30), (60, 90));
        assert_eq!(engine.book(0, |_| 20), (30, 50));
        assert_eq!(engine.busy.len(), 1);
    }

    #[test]
    fn starting_exactly_at_a_busy_interval() {
        let mut engine = Engine::default();
        engine.book(10, |_| 10);
        assert_eq!(engine.book(10, |_| 5), (20, 25));
        assert_eq!(engine.book(5, |_| 5), (5, 10));
    }

    #[test]
    fn what_goes_the_other_way_slows() {
        let mut engine = Engine::default();
        engine.book(100, |_| 50);
        assert_eq!(engine.slowed(0, 100, 0.5), 100);
        assert_eq!(engine.slowed(0, 120, 0.5), 140);
        assert_eq!(engine.slowed(120, 10, 0.5), 20);
        assert_eq!(engine.slowed(120, 40, 0.5), 55);
        assert_eq!(engine.slowed(150, 40, 0.5), 40);
        // It fits the gap at its own rate, but not at the slower one.
        let mut own = Engine::default();
        own.book(130, |_| 100);
        assert_eq!(own.book(110, |start| engine.slowed(start, 15, 0.5)), (230, 245));
    }
}
