//! Memory of the host that kernels reach over the link, at a chunk's own
//! address: whether this device has it, and how fast it reads.
//!
//! Asked once for each device, when the first plan is made: an attribute says
//! whether the driver knows of such memory, and one frame that is made, mapped
//! and given back says whether it may be had here (containers may forbid it).
//!
//! Not here: which chunk is to lie there (the planner's, or what one operation
//! needs), and the frames themselves (see `frames`).

use std::ffi::c_int;

use autooffload_core::plan::IN_PLACE_LINK_SHARE;
use autooffload_core::units::format_bytes;

use super::DeviceBackend;
use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::{FRAME_BYTES, FRAME_SHIFT};

/// What was found out about a device.
#[derive(Default)]
pub struct InPlace {
    /// `None`: not asked yet.
    asked: Option<Answer>,
    /// That an operation does not fit otherwise.
    said: bool,
}

#[derive(Clone, Copy, Default)]
struct Answer {
    /// The host's NUMA node that frames are made on, if any can be.
    node: Option<c_int>,
    /// The most that kernels read of the device's own memory.
    device_bytes_per_s: Option<f64>,
}

impl InPlace {
    fn answer(&mut self, driver: &Driver, device: Device) -> Answer {
        *self.asked.get_or_insert_with(|| {
            let device_bytes_per_s = memory_rate(driver, device);
            // Without the rate nothing tells what share of a chunk is read.
            let node = device_bytes_per_s.and_then(|_| probe(driver, device));
            Answer { node, device_bytes_per_s }
        })
    }

    /// The NUMA node for frames in the host; `None`: there can be none.
    pub fn node(&mut self, driver: &Driver, device: Device) -> Option<c_int> {
        self.answer(driver, device).node
    }

    /// What kernels read of the device's memory, infinite if unknown, and of
    /// the host's over a link of `link_bytes_per_s`.
    pub fn rates(
        &mut self,
        driver: &Driver,
        device: Device,
        link_bytes_per_s: f64,
    ) -> (f64, Option<f64>) {
        let answer = self.answer(driver, device);
        let in_place = answer.node.map(|_| link_bytes_per_s * IN_PLACE_LINK_SHARE);
        (answer.device_bytes_per_s.unwrap_or(f64::INFINITY), in_place)
    }
}

impl DeviceBackend {
    /// Says, once, that an operation needs more than the device may hold at once.
    #[cold]
    pub fn say_reads_in_place(&mut self, needed_frames: u32, cap_frames: u32) {
        if std::mem::replace(&mut self.in_place.said, true) {
            return;
        }
        let bytes = |frames: u32| format_bytes(u64::from(frames) << FRAME_SHIFT);
        log::warn!(
            "device {}: an operation needs {} at once and the budget leaves {} for managed memory: what \
             does not fit stays in host memory, which kernels reach over the link, slowly. Raise \
             AUTOOFFLOAD_VRAM, or use a smaller batch",
            self.device,
            bytes(needed_frames),
            bytes(cap_frames),
        );
    }
}

/// Memory clock times bus width, two transfers a cycle.
fn memory_rate(driver: &Driver, device: Device) -> Option<f64> {
    const MEMORY_CLOCK_KHZ: c_int = 36;
    const BUS_BITS: c_int = 37;
    let attribute = |number| driver.device_get_attribute(number, device).ok().filter(|&v| v > 0);
    let (khz, bits) = (attribute(MEMORY_CLOCK_KHZ)?, attribute(BUS_BITS)?);
    Some(2.0 * f64::from(khz) * 1e3 * f64::from(bits) / 8.0)
}

/// Tries one frame, from its making to its end.
fn probe(driver: &Driver, device: Device) -> Option<c_int> {
    const HOST_NUMA_ID: c_int = 134;
    const HOST_NUMA_MEMORY: c_int = 141;
    if driver.device_get_attribute(HOST_NUMA_MEMORY, device).is_ok_and(|has| has != 0) {
        // −1: the system has no NUMA, and node 0 is meant.
        let node = driver.device_get_attribute(HOST_NUMA_ID, device).unwrap_or(0).max(0);
        match try_frame(driver, device, node) {
            Ok(()) => return Some(node),
            Err(code) => log::info!(
                "device {device}: kernels cannot read host memory in place here ({code}): it is copied"
            ),
        }
    }
    None
}

fn try_frame(driver: &Driver, device: Device, node: c_int) -> Result<()> {
    if !FRAME_BYTES.is_multiple_of(driver.mem_granularity_in_host(node)?.max(1)) {
        return Err(CuResult::NOT_SUPPORTED);
    }
    let handle = driver.mem_create_in_host(node, FRAME_BYTES)?;
    let mapped = driver.mem_address_reserve(FRAME_BYTES, FRAME_BYTES).and_then(|address| {
        let mapped = driver.mem_map(address, FRAME_BYTES, handle).and_then(|()| {
            let granted = driver.mem_set_access(address, FRAME_BYTES, device);
            granted.and(driver.mem_unmap(address, FRAME_BYTES))
        });
        mapped.and(driver.mem_address_free(address, FRAME_BYTES))
    });
    mapped.and(driver.mem_release(handle))
}
