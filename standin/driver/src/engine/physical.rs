//! Physical memory: handles with reference counts, those of a device within
//! its capacity.
//!
//! A handle is a range of the memory file. It lives while the program holds
//! it or any mapping shows it, as in CUDA. Fresh memory is filled with
//! [`POISON`], so that a read of what nobody wrote is seen. A handle may lie in
//! the host instead of a device: the same bytes to kernels and copies, but
//! nothing of any device's capacity, and slower on the model clock.
//! Invariants: Σ bytes of the live handles of a device = `used[device]` ≤
//! capacity; Σ bytes of those in the host = `host_used`.
//! Not here: addresses (see `space`).

use super::card::Card;
use super::settings::Settings;
use super::space::{Mapping, Space};
use crate::abi::{AllocationProp, INVALID_VALUE, OUT_OF_MEMORY, Outcome};
use std::collections::HashMap;
use std::io::Error;
use std::sync::LazyLock;

/// Every byte of fresh or freed memory; as floats of any width, NaN.
pub const POISON: u8 = 0xFF;

/// One block of poison, written repeatedly.
static POISON_BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| vec![POISON; 2 << 20]);

pub struct Physical {
    /// `None`: it lies in the host.
    pub device: Option<usize>,
    pub bytes: u64,
    pub offset: u64,
    /// The program's references (create, retain); 0 after the last release.
    pub references: u64,
    pub mappings: u64,
    pub prop: AllocationProp,
}

// SAFETY: the only pointer inside (`prop.win32`) is carried, never followed.
unsafe impl Send for Physical {}

pub struct Memory {
    /// Bytes of each device.
    pub capacity: u64,
    /// Who else uses the devices, and their numbers on the machine.
    card: Option<Card>,
    numbers: Vec<usize>,
    pub handles: HashMap<u64, Physical>,
    next_handle: u64,
    pub used: Vec<u64>,
    pub peak: Vec<u64>,
    /// Bytes of handles that lie in the host.
    pub host_used: u64,
    pub host_peak: u64,
}

impl Memory {
    pub fn new(settings: &Settings, card: Option<Card>) -> Memory {
        let devices = settings.devices;
        Memory {
            capacity: settings.vram_bytes,
            card,
            numbers: settings.machine_numbers.clone(),
            handles: HashMap::new(),
            next_handle: 1,
            used: vec![0; devices],
            peak: vec![0; devices],
            host_used: 0,
            host_peak: 0,
        }
    }

    pub fn free_bytes(&self, device: usize) -> u64 {
        let others = self.card.as_ref().map_or(0, |card| card.used_by_others(self.numbers[device]));
        self.capacity.saturating_sub(self.used[device] + others)
    }

    /// A new handle of whole frames, poisoned; `device` as in [`Physical`].
    pub fn create(
        &mut self,
        space: &mut Space,
        device: Option<usize>,
        bytes: u64,
        prop: AllocationProp,
    ) -> Outcome<u64> {
        if device.is_some_and(|device| !self.take(device, bytes)) {
            return Err(OUT_OF_MEMORY);
        }
        let offset = space.take_file_range(bytes);
        if !fill_poison(space.file(), offset, bytes) {
            eprintln!(
                "standin: the host has no memory for {bytes} bytes: {}",
                Error::last_os_error()
            );
            punch(space.file(), offset, bytes);
            self.give_back(device, bytes);
            return Err(OUT_OF_MEMORY);
        }
        let handle = self.next_handle;
        self.next_handle += 1;
        let physical = Physical { device, bytes, offset, references: 1, mappings: 0, prop };
        self.handles.insert(handle, physical);
        let (used, peak) = self.counters(device);
        *used += bytes;
        *peak = (*peak).max(*used);
        Ok(handle)
    }

    /// Whether `device` has `bytes` left; then other processes know.
    fn take(&self, device: usize, bytes: u64) -> bool {
        match &self.card {
            Some(card) => card.take(self.numbers[device], bytes, self.capacity),
            None => bytes <= self.free_bytes(device),
        }
    }

    fn give_back(&self, device: Option<usize>, bytes: u64) {
        if let (Some(card), Some(device)) = (&self.card, device) {
            card.give_back(self.numbers[device], bytes);
        }
    }

    /// Bytes in use, and the most so far, where a handle lies.
    fn counters(&mut self, device: Option<usize>) -> (&mut u64, &mut u64) {
        match device {
            Some(device) => (&mut self.used[device], &mut self.peak[device]),
            None => (&mut self.host_used, &mut self.host_peak),
        }
    }

    /// Maps the whole handle at `address`, with no access for anyone yet.
    pub fn map(&mut self, space: &mut Space, address: u64, handle: u64, shared: bool) -> Outcome {
        let physical = self.handles.get_mut(&handle).ok_or(INVALID_VALUE)?;
        let mapping = Mapping {
            bytes: physical.bytes,
            handle,
            offset: physical.offset,
            device: physical.device,
            access: Default::default(),
            shared,
        };
        space.map(address, mapping)?;
        physical.mappings += 1;
        Ok(())
    }

    /// Unmaps whole mappings; memory nobody holds any more is freed.
    pub fn unmap(&mut self, space: &mut Space, address: u64, bytes: u64) -> Outcome {
        for (_, mapping) in space.unmap(address, bytes)? {
            if let Some(physical) = self.handles.get_mut(&mapping.handle) {
                physical.mappings -= 1;
            }
            self.collect(space, mapping.handle);
        }
        Ok(())
    }

    /// Gives back one of the program's references.
    pub fn release(&mut self, space: &Space, handle: u64) -> Outcome {
        let physical = self.handles.get_mut(&handle).ok_or(INVALID_VALUE)?;
        if physical.references == 0 {
            return Err(INVALID_VALUE);
        }
        physical.references -= 1;
        self.collect(space, handle);
        Ok(())
    }

    fn collect(&mut self, space: &Space, handle: u64) {
        let dead = |p: &Physical| p.references == 0 && p.mappings == 0;
        if self.handles.get(&handle).is_some_and(dead)
            && let Some(physical) = self.handles.remove(&handle)
        {
            *self.counters(physical.device).0 -= physical.bytes;
            self.give_back(physical.device, physical.bytes);
            punch(space.file(), physical.offset, physical.bytes);
        }
    }
}

fn fill_poison(file: i32, offset: u64, bytes: u64) -> bool {
    let mut done = 0;
    while done < bytes {
        let piece = (bytes - done).min(POISON_BLOCK.len() as u64);
        // SAFETY: reads at most the block's length from the block.
        let written = unsafe {
            let source = POISON_BLOCK.as_ptr().cast();
            libc::pwrite(file, source, piece as usize, (offset + done) as i64)
        };
        if written <= 0 {
            return false;
        }
        done += written as u64;
    }
    true
}

/// Returns the pages to the host; the bytes are gone.
fn punch(file: i32, offset: u64, bytes: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain system call on our own descriptor. A failure only keeps
    // host pages; the range is never handed out again.
    unsafe { libc::fallocate(file, mode, offset as i64, bytes as i64) };
}
