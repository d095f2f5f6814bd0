//! This process's page, for those who watch: `autooffload top`, and other
//! processes of the user's.
//!
//! A thread of its own writes it, from counters that are there anyway: a launch
//! pays nothing, and makes no system call. There is neither thread nor page until
//! memory first moves: while everything fits there is nothing to see, and nothing
//! to share. Only while somebody watches is a device's lock taken, a few times a
//! second and never waited for, for what counters do not tell.
//!
//! Not here: the page's words (`autooffload_shared::page`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use autooffload_shared::live::{OwnPage, namespace, now_ns};
use autooffload_shared::page::{CHUNKS, Chunk, DEVICES, Device, Process, View};
use autooffload_shared::private;

use super::super::device::Device as DeviceState;
use super::super::state::{Engine, hot, lock};
use super::super::{FRAME_SHIFT, remembered, threads};

const TICK: Duration = Duration::from_millis(250);
/// The user's other processes are looked for once in so many.
const TICKS_TO_OTHERS: u32 = 4;
/// Over which rates are told.
const RATE_TICKS: usize = 4;
/// In which an iteration must have passed to be timed.
const HISTORY_TICKS: usize = 240;

#[derive(Default)]
pub struct Publisher {
    begun: AtomicBool,
    /// There while the thread runs. Taken away at exit, and the file with it.
    own: Mutex<Option<OwnPage>>,
}

impl Publisher {
    /// Memory begins to move.
    pub fn begin(&self, engine: &'static Engine) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(why) = threads::spawn("autooffload-page", move || publish(engine)) {
            log::debug!("no thread to write this process's page: {why}");
        }
    }

    /// The process ends.
    pub fn end(&self) {
        lock(&self.own).take();
    }
}

fn publish(engine: &'static Engine) {
    match private::runtime().and_then(OwnPage::create) {
        Ok(page) => *lock(&engine.publisher.own) = Some(page),
        Err(why) => return log::debug!("no page of this process for `autooffload top`: {why}"),
    }
    let (namespace, began_ns) = (namespace(), now_ns());
    let mut history = History::default();
    let mut devices = Vec::new();
    let mut ticks = 0u32;
    let is_watched =
        |now| lock(&engine.publisher.own).as_ref().map(|own| own.page().is_watched(now));
    while let Some(watched) = is_watched(now_ns()) {
        let mut process = Process {
            pid: u64::from(std::process::id()),
            namespace,
            began_ns,
            ..Process::default()
        };
        process.written_ns = now_ns();
        engine.stats.tell(&mut process, engine.host_store.usage());
        if ticks.is_multiple_of(TICKS_TO_OTHERS) {
            engine.host_store.look_for_others();
        }
        ticks += 1;
        process.host_left_bytes = engine.host_store.available();
        history.add(&process);
        history.rates(&mut process);
        if watched {
            look(engine, &history, process.link_bytes_per_s, &mut devices);
        } else {
            devices.clear();
        }
        let view = View { process, devices: devices.clone() };
        if let Some(own) = lock(&engine.publisher.own).as_ref() {
            own.page().write(&view);
        }
        remembered::keep(engine);
        std::thread::sleep(TICK);
    }
}

/// What was counted at a tick: when, operations, bytes in, bytes out.
type Sample = [u64; 4];

#[derive(Default)]
struct History(VecDeque<Sample>);

impl History {
    fn add(&mut self, process: &Process) {
        let Process { written_ns, operations, streamed_bytes, written_back_bytes, .. } = *process;
        self.0.push_front([written_ns, operations, streamed_bytes, written_back_bytes]);
        self.0.truncate(HISTORY_TICKS);
    }

    fn rates(&self, process: &mut Process) {
        let (Some(now), Some(then)) = (self.0.front(), self.0.get(RATE_TICKS).or(self.0.back()))
        else {
            return;
        };
        let per_s = |index: usize| rate(now[index].saturating_sub(then[index]), now[0] - then[0]);
        process.operations_per_s = per_s(1);
        process.in_bytes_per_s = per_s(2);
        process.out_bytes_per_s = per_s(3);
    }

    /// An iteration of `period` operations, by the last of them. `None`: there was none yet.
    fn iteration_ns(&self, period: u64) -> Option<u64> {
        let now = self.0.front()?;
        let then = self.0.iter().find(|then| now[1].saturating_sub(then[1]) >= period)?;
        let passed = u128::from(now[0] - then[0]) * u128::from(period);
        (period > 0).then(|| (passed / u128::from(now[1] - then[1])) as u64)
    }
}

fn rate(amount: u64, ns: u64) -> u64 {
    (u128::from(amount) * 1_000_000_000 / u128::from(ns.max(1))) as u64
}

/// Looks at every device that is not busy; of the others, what was seen stays.
fn look(
    engine: &Engine,
    history: &History,
    link_bytes_per_s: u64,
    devices: &mut Vec<(Device, Vec<Chunk>)>,
) {
    for (ordinal, slot) in engine.devices.iter().enumerate().take(engine.device_count) {
        let guard = match slot.state.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let Some(state) = guard.as_ref() else { continue };
        let (mut device, chunks) = look_at(engine, state, ordinal);
        drop(guard);
        device.iteration_ns = history.iteration_ns(device.period).unwrap_or(0);
        if link_bytes_per_s > 0 {
            let on_link = rate(device.bytes_per_iteration, link_bytes_per_s);
            device.bound_ns = device.bound_ns.max(on_link);
        }
        let known = devices.iter().position(|(known, _)| known.ordinal == device.ordinal);
        match known {
            Some(index) => devices[index] = (device, chunks),
            None if devices.len() < DEVICES => devices.push((device, chunks)),
            None => {}
        }
    }
}

/// Under the device's lock.
fn look_at(engine: &Engine, state: &DeviceState, ordinal: usize) -> (Device, Vec<Chunk>) {
    let DeviceState { streamer, backend, .. } = state;
    let bytes = |frames: u32| u64::from(frames) << FRAME_SHIFT;
    let of_device = |id| streamer.contains(id) && hot(id).device() == ordinal;
    let ids = engine.allocations.iter().map(|entry| *entry.key()).filter(|&id| of_device(id));
    let (mut weights, mut activations) = (0, 0);
    for id in ids {
        let own = streamer.own_frames_of(id);
        let is_weights = hot(id).weight_bytes.load(Ordering::Relaxed) > 0;
        *(if is_weights { &mut weights } else { &mut activations }) += own;
    }
    let (chunks, streamed) = streamer.chunk_counts();
    let (phase, phases) = streamer.phase();
    let (planned_ns, stall_ns, bytes_per_iteration) =
        streamer.planned_iteration().unwrap_or_default();
    let (total_bytes, unmanaged_bytes, others_bytes) = backend.card_seen;
    let device = Device {
        ordinal: ordinal as u64,
        card: backend.card,
        total_bytes,
        cap_bytes: bytes(streamer.cap_frames()),
        weights_bytes: bytes(weights),
        activations_bytes: bytes(activations),
        ring_bytes: bytes(streamer.ring_frames()),
        spare_bytes: bytes(streamer.free_frames()),
        unmanaged_bytes,
        others_bytes,
        chunks: u64::from(chunks),
        streamed_chunks: u64::from(streamed),
        period: streamer.period().unwrap_or(0),
        bound_ns: planned_ns.saturating_sub(stall_ns),
        planned_ns,
        bytes_per_iteration,
        phase: phase.map_or(0, |phase| phase as u64 + 1),
        phases: phases as u64,
        ..Device::default()
    };
    let chunk = |seen: &autooffload_core::memory::Seen| Chunk {
        id: u64::from(seen.id),
        bytes: bytes(seen.frames),
        resident_bytes: bytes(seen.own_frames),
        present: u64::from(seen.present),
        next_use: seen.next_use.map_or(0, |distance| u64::from(distance) + 1),
    };
    (device, streamer.largest(CHUNKS).iter().map(chunk).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_second_and_iterations_of_as_long_as_they_take() {
        let mut history = History::default();
        assert_eq!(history.iteration_ns(10), None);
        for tick in 0..=8 {
            let written_ns = 1_000_000_000 + tick * 250_000_000;
            let process = Process {
                written_ns,
                operations: tick * 5,
                streamed_bytes: tick * 1000,
                ..Process::default()
            };
            history.add(&process);
        }
        let mut process = Process::default();
        history.rates(&mut process);
        assert_eq!((process.operations_per_s, process.in_bytes_per_s), (20, 4000));
        assert_eq!(history.iteration_ns(10), Some(500_000_000));
        assert_eq!(history.iteration_ns(40), Some(2_000_000_000));
        assert_eq!(history.iteration_ns(41), None);
    }
}
