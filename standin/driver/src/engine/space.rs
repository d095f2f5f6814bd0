//! The device address space: reservations, mappings, and who may access them.
//!
//! The program sees addresses inside one PROT_NONE reservation, so the host
//! cannot dereference them. The stand-in itself works on the *shadow*, a
//! second reservation at a constant distance, into which the physical memory
//! (ranges of one memfd) is mapped MAP_SHARED, once per mapping: two mappings
//! of a handle really are the same bytes.
//!
//! Invariants: mappings are disjoint, and every mapping lies in a reservation.
//! Lock: `Gpu::space`; a worker holds it for reading while an operation runs,
//! so nothing is unmapped under a running operation. Taken after `Gpu::state`.
//! Not here: capacity and reference counts (see `physical`).

use super::settings::MAX_DEVICES;
use crate::abi::{ACCESS_READ, ACCESS_READWRITE, INVALID_VALUE, OUT_OF_MEMORY, Outcome};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io::Error;

/// Unit of physical memory and of mapping: the VMM granularity.
pub const FRAME: u64 = 2 << 20;
/// Size of the reservation the program sees, and of the shadow.
const SPACE_BYTES: u64 = 8 << 40;
/// Where it should lie, so that addresses are the same in every run.
const SPACE_HINT: u64 = 0x3000_0000_0000;
const SHADOW_HINT: u64 = 0x4000_0000_0000;
/// Size of the memfd. Offsets are handed out once and never again, so that
/// handles created in order merge into one mapping of the kernel; freed
/// ranges are punched out.
const FILE_BYTES: i64 = 1 << 60;

#[derive(Clone, Copy)]
pub struct Mapping {
    pub bytes: u64,
    pub handle: u64,
    /// Offset in the memfd.
    pub offset: u64,
    /// Device the memory lies on; `None`: it is the host's.
    pub device: Option<usize>,
    /// `CUmemAccess_flags` per device.
    pub access: [u8; MAX_DEVICES],
    /// Ordinary memory (not the program's own VMM), which devices with peer
    /// access share.
    pub shared: bool,
}

/// Host memory the device may access.
#[derive(Clone, Copy)]
pub struct Pinned {
    pub bytes: u64,
    pub flags: u32,
    /// Made by cuMemHostAlloc (else registered).
    pub owned: bool,
}

pub struct Space {
    base: u64,
    shadow: u64,
    file: i32,
    next_offset: u64,
    /// Free address ranges, start → bytes.
    free: BTreeMap<u64, u64>,
    reservations: BTreeMap<u64, u64>,
    mappings: BTreeMap<u64, Mapping>,
    /// Maximal contiguous mapped runs within one reservation, start → end.
    runs: BTreeMap<u64, u64>,
    pub pinned: BTreeMap<u64, Pinned>,
    /// `peers[a][b]`: device a may access device b's ordinary allocations.
    pub peers: [[bool; MAX_DEVICES]; MAX_DEVICES],
}

impl Space {
    pub fn new() -> Result<Space, String> {
        let base = reserve(SPACE_HINT)?;
        let shadow = reserve(SHADOW_HINT)?;
        // SAFETY: a fresh descriptor; the name is a NUL-terminated literal.
        let file = unsafe { libc::memfd_create(c"standin-vram".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: plain system call on our own descriptor.
        if file < 0 || unsafe { libc::ftruncate(file, FILE_BYTES) } != 0 {
            return Err(format!("no memory file: {}", Error::last_os_error()));
        }
        let mut peers = [[false; MAX_DEVICES]; MAX_DEVICES];
        (0..MAX_DEVICES).for_each(|d| peers[d][d] = true);
        Ok(Space {
            base,
            shadow,
            file,
            next_offset: 0,
            free: BTreeMap::from([(base + FRAME, SPACE_BYTES - FRAME)]),
            reservations: BTreeMap::new(),
            mappings: BTreeMap::new(),
            runs: BTreeMap::new(),
            pinned: BTreeMap::new(),
            peers,
        })
    }

    /// Whether `address` lies in the range device addresses come from.
    pub fn is_device(&self, address: u64) -> bool {
        address.wrapping_sub(self.base) < SPACE_BYTES
    }

    fn shadow_of(&self, address: u64) -> *mut u8 {
        (address - self.base + self.shadow) as *mut u8
    }

    // ---- reservations -------------------------------------------------

    pub fn reserve(&mut self, bytes: u64, alignment: u64, hint: u64) -> Outcome<u64> {
        let alignment = alignment.max(FRAME);
        let fits = |start: u64, len: u64, at: u64| at >= start && at + bytes <= start + len;
        let at = self
            .free
            .range(..=hint)
            .next_back()
            .filter(|&(&s, &l)| hint != 0 && hint.is_multiple_of(alignment) && fits(s, l, hint))
            .map(|_| hint)
            .or_else(|| {
                self.free.iter().find_map(|(&s, &l)| {
                    let at = s.next_multiple_of(alignment);
                    fits(s, l, at).then_some(at)
                })
            })
            .ok_or(OUT_OF_MEMORY)?;
        let (&start, &len) = self.free.range(..=at).next_back().ok_or(OUT_OF_MEMORY)?;
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        if at + bytes < start + len {
            self.free.insert(at + bytes, start + len - at - bytes);
        }
        self.reservations.insert(at, bytes);
        Ok(at)
    }

    /// Frees a whole reservation, which must hold no mapping.
    pub fn unreserve(&mut self, address: u64, bytes: u64) -> Outcome {
        if self.reservations.get(&address) != Some(&bytes)
            || self.mappings.range(address..address + bytes).next().is_some()
        {
            return Err(INVALID_VALUE);
        }
        self.reservations.remove(&address);
        let (mut start, mut len) = (address, bytes);
        if let Some((&s, &l)) = self.free.range(..start).next_back()
            && s + l == start
        {
            self.free.remove(&s);
            (start, len) = (s, len + l);
        }
        if let Some(l) = self.free.remove(&(start + len)) {
            len += l;
        }
        self.free.insert(start, len);
        Ok(())
    }

    /// The reservation that contains `[address, address + bytes)`.
    pub fn reservation(&self, address: u64, bytes: u64) -> Option<(u64, u64)> {
        let (&start, &len) = self.reservations.range(..=address).next_back()?;
        (address + bytes <= start + len).then_some((start, len))
    }

    // ---- mappings -----------------------------------------------------

    /// Takes a fresh range of the memory file.
    pub fn take_file_range(&mut self, bytes: u64) -> u64 {
        let offset = self.next_offset;
        self.next_offset += bytes;
        offset
    }

    pub fn file(&self) -> i32 {
        self.file
    }

    pub fn map(&mut self, address: u64, mapping: Mapping) -> Outcome {
        let end = address + mapping.bytes;
        let (start, len) = self.reservation(address, mapping.bytes).ok_or(INVALID_VALUE)?;
        if self.overlaps(address, mapping.bytes) {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the target lies inside our own shadow reservation, which
        // nothing but this type uses; the offset is inside the memory file.
        let at = unsafe {
            libc::mmap(
                self.shadow_of(address).cast(),
                mapping.bytes as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                self.file,
                mapping.offset as i64,
            )
        };
        if at == libc::MAP_FAILED {
            eprintln!("standin: cannot map {} bytes: {}", mapping.bytes, Error::last_os_error());
            return Err(OUT_OF_MEMORY);
        }
        self.mappings.insert(address, mapping);
        let mut run = (address, end);
        if let Some((&s, &e)) = self.runs.range(..address).next_back()
            && e == address
            && s >= start
        {
            run.0 = s;
        }
        if end < start + len
            && let Some(e) = self.runs.remove(&end)
        {
            run.1 = e;
        }
        self.runs.insert(run.0, run.1);
        Ok(())
    }

    fn overlaps(&self, address: u64, bytes: u64) -> bool {
        self.mappings
            .range(..address + bytes)
            .next_back()
            .is_some_and(|(&s, m)| s + m.bytes > address)
    }

    /// The mappings that make up `[address, address + bytes)` exactly, in
    /// order; an error if the range cuts one or has a hole.
    pub fn whole_mappings(&self, address: u64, bytes: u64) -> Outcome<Vec<(u64, Mapping)>> {
        let end = address.checked_add(bytes).ok_or(INVALID_VALUE)?;
        let found: Vec<_> = self.mappings.range(address..end).map(|(&a, &m)| (a, m)).collect();
        let mut at = address;
        for (start, mapping) in &found {
            if *start != at {
                return Err(INVALID_VALUE);
            }
            at += mapping.bytes;
        }
        if at == end && bytes > 0 { Ok(found) } else { Err(INVALID_VALUE) }
    }

    /// Unmaps whole mappings and returns them.
    pub fn unmap(&mut self, address: u64, bytes: u64) -> Outcome<Vec<(u64, Mapping)>> {
        let gone = self.whole_mappings(address, bytes)?;
        // SAFETY: covers only mappings of ours inside the shadow; no operation
        // runs while the space is locked for writing.
        let at = unsafe {
            libc::mmap(
                self.shadow_of(address).cast(),
                bytes as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            eprintln!("standin: cannot unmap {bytes} bytes: {}", Error::last_os_error());
            return Err(OUT_OF_MEMORY);
        }
        for (start, _) in &gone {
            self.mappings.remove(start);
        }
        let end = address + bytes;
        // A range of whole mappings may span several runs (adjacent
        // reservations), so cut every run it meets.
        while let Some((&s, &e)) = self.runs.range(..end).next_back().filter(|&(_, &e)| e > address)
        {
            self.runs.remove(&s);
            if e > end {
                self.runs.insert(end, e);
            }
            if s < address {
                self.runs.insert(s, address);
                break;
            }
        }
        Ok(gone)
    }

    /// Sets one device's access to whole mappings.
    pub fn set_access(&mut self, address: u64, bytes: u64, device: usize, flags: u8) -> Outcome {
        for (start, _) in self.whole_mappings(address, bytes)? {
            if let Some(mapping) = self.mappings.get_mut(&start) {
                mapping.access[device] = flags;
            }
        }
        Ok(())
    }

    /// The mapping that contains `address`.
    pub fn mapping(&self, address: u64) -> Option<(u64, Mapping)> {
        let (&start, &mapping) = self.mappings.range(..=address).next_back()?;
        (address < start + mapping.bytes).then_some((start, mapping))
    }

    /// All mappings that meet `[start, end)`.
    pub fn mappings_in(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Mapping)> + '_ {
        let first = self.mapping(start).map_or(start, |(s, _)| s);
        self.mappings.range(first..end).map(|(&s, &m)| (s, m))
    }

    pub fn mapping_count(&self) -> usize {
        self.mappings.len()
    }

    // ---- access -------------------------------------------------------

    /// Pointer to `bytes` device bytes for `device`, or the first address that
    /// is not accessible.
    pub fn access(
        &self,
        device: usize,
        address: u64,
        bytes: u64,
        write: bool,
    ) -> Result<*mut u8, u64> {
        let need = if write { ACCESS_READWRITE } else { ACCESS_READ };
        let end = address.checked_add(bytes).ok_or(address)?;
        let mut at = address;
        while at < end || at == address {
            let (start, mapping) = self.mapping(at).ok_or(at)?;
            let granted = mapping.access[device] & need == need
                || (mapping.shared
                    && mapping.device.is_some_and(|owner| self.peers[device][owner]));
            if !granted {
                return Err(at);
            }
            at = start + mapping.bytes;
        }
        Ok(self.shadow_of(address))
    }

    /// Pointer to device bytes whoever may access them: copies and memsets of
    /// the driver reach every mapped byte that any device can access.
    pub fn access_any(&self, address: u64, bytes: u64, write: bool) -> Result<*mut u8, u64> {
        let need = if write { ACCESS_READWRITE } else { ACCESS_READ };
        let end = address.checked_add(bytes).ok_or(address)?;
        let mut at = address;
        while at < end || at == address {
            let (start, mapping) = self.mapping(at).ok_or(at)?;
            if !mapping.access.iter().any(|a| a & need == need) {
                return Err(at);
            }
            at = start + mapping.bytes;
        }
        Ok(self.shadow_of(address))
    }

    /// Bytes of `[start, end)` that are mapped to memory of the host.
    pub fn in_host(&self, start: u64, end: u64) -> u64 {
        self.mappings_in(start, end)
            .filter(|(_, mapping)| mapping.device.is_none())
            .map(|(at, mapping)| end.min(at + mapping.bytes) - start.max(at))
            .sum()
    }

    /// The pinned host range that contains `address`.
    pub fn pinned_at(&self, address: u64) -> Option<(u64, Pinned)> {
        let (&start, &pinned) = self.pinned.range(..=address).next_back()?;
        (address < start + pinned.bytes).then_some((start, pinned))
    }

    /// What a launch that names `address` may touch: the program's allocation
    /// (one of `units`) if it is known, else the contiguous mapped run.
    /// (start, end).
    pub fn reach(&self, units: &BTreeMap<u64, u64>, address: u64) -> Option<(u64, u64)> {
        if !self.is_device(address) {
            return None;
        }
        if let Some((&start, &bytes)) = units.range(..=address).next_back()
            && address < start + bytes
        {
            return Some((start, start + bytes));
        }
        let (&start, &end) = self.runs.range(..=address).next_back()?;
        (address < end).then_some((start, end))
    }
}

fn reserve(hint: u64) -> Result<u64, String> {
    // SAFETY: a fresh anonymous reservation; the hint is only a hint.
    let at = unsafe {
        libc::mmap(
            hint as *mut c_void,
            (SPACE_BYTES + FRAME) as usize,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(format!("no address space: {}", Error::last_os_error()));
    }
    Ok((at as u64).next_multiple_of(FRAME))
}

/// A size rounded up to whole frames.
pub fn round_to_frames(bytes: u64) -> Outcome<u64> {
    bytes.checked_next_multiple_of(FRAME).ok_or(OUT_OF_MEMORY)
}

/// Rejects zero and sizes that are not whole frames.
pub fn check_frames(bytes: u64) -> Outcome {
    if bytes == 0 || !bytes.is_multiple_of(FRAME) { Err(INVALID_VALUE) } else { Ok(()) }
}
