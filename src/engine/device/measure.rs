//! What is measured of a device: its link, and how long operations take.
//!
//! Not here: what is made of it (the planner's).

use autooffload_core::plan::Machine;

use super::DeviceBackend;
use crate::driver::abi::*;
use crate::engine::FRAME_BYTES;

/// What our kernel takes to look at bytes: to begin with, and by size, until a
/// card has told (`questions/fingerprint.cpp`). The bench assumes the same
/// (`lab/src/workload/cards.rs`).
const LOOK_NS: u64 = 10_000;
const LOOK_BYTES_PER_S: f64 = 300e9;

impl DeviceBackend {
    /// Reads the probe, if its copy is over.
    pub(super) fn read_probe(&mut self) {
        let Some((start, end, bytes)) = self.probe else { return };
        let Ok(ms) = self.driver.event_elapsed_ms(start, end) else { return };
        self.probe = None;
        let _ = self.driver.event_destroy(start);
        let _ = self.driver.event_destroy(end);
        if ms > 0.0 {
            let seen = bytes as f64 / f64::from(ms) * 1e3;
            // One copy may have been slowed down by others; none is too fast.
            let known = self.link_bytes_per_s.unwrap_or(seen);
            let rate = if seen > known { seen } else { 0.9 * known + 0.1 * seen };
            self.link_bytes_per_s = Some(rate);
            self.stats.link_rate(rate as u64);
        }
    }

    /// What the planner is to reckon with. Asks the driver, the first time.
    pub fn machine(&mut self) -> Machine {
        let assumed = Machine::default();
        let link_bytes_per_s = self.link_bytes_per_s.unwrap_or(assumed.link_bytes_per_s);
        // Memory of the host that the device reaches is page-locked.
        let (device_bytes_per_s, zero_copy_bytes_per_s) = if self.host_store.pins() {
            self.in_place.rates(self.driver, self.device, link_bytes_per_s)
        } else {
            (f64::INFINITY, None)
        };
        // What leaves is read by our kernel, which shares memory's rate with those
        // of the program, or copied out: a kernel of the program's may have
        // written to it.
        let (release_ns, release_bytes_per_s, release_gpu_share) = match self.fingerprints {
            Some(_) => {
                (LOOK_NS, LOOK_BYTES_PER_S, (LOOK_BYTES_PER_S / device_bytes_per_s).min(1.0))
            }
            None => (0, link_bytes_per_s, 0.0),
        };
        Machine {
            frame_bytes: FRAME_BYTES as u64,
            device_bytes_per_s,
            zero_copy_bytes_per_s,
            link_bytes_per_s,
            release_ns,
            release_bytes_per_s,
            release_gpu_share,
            ..assumed
        }
    }

    pub(super) fn timed_event(&mut self) -> Option<CUevent> {
        let event = self.driver.event_create(false).ok()?;
        let _ = self.driver.event_record(event, self.order.copy_in());
        Some(event)
    }
}
