//! What can be queued on a stream, and how it is carried out.
//!
//! A [`Work`] is plain data: it can be queued, put into a graph, and run any
//! number of times. Everything the scheduler, the clock and the account need
//! to know about it is derived here from that data and the address space.
//! Not here: when it runs (see `scheduler`).

use super::module::Function;
use super::physical::POISON;
use super::settings::MAX_DEVICES;
use super::space::Space;
use crate::abi::{HostFn, StreamCallback};
use standin_kernels::{Fault, Launch, Memory};
use std::ffi::c_void;
use std::sync::Arc;

/// One side of a copy.
#[derive(Clone, Debug)]
pub enum Side {
    /// A device or host address; which of them, the address space tells.
    Address(u64),
    /// Bytes taken from pageable host memory when the copy was submitted.
    Staged(Arc<[u8]>),
}

/// A box of bytes: `depth` slices of `height` rows of `width` bytes.
#[derive(Clone, Debug)]
pub struct Copy {
    pub dst: Side,
    pub src: Side,
    pub width: u64,
    pub height: u64,
    pub depth: u64,
    /// Bytes from row to row, and from slice to slice.
    pub dst_pitch: u64,
    pub dst_slice: u64,
    pub src_pitch: u64,
    pub src_slice: u64,
}

impl Copy {
    pub fn linear(dst: Side, src: Side, bytes: u64) -> Copy {
        Copy {
            dst,
            src,
            width: bytes,
            height: 1,
            depth: 1,
            dst_pitch: bytes,
            dst_slice: bytes,
            src_pitch: bytes,
            src_slice: bytes,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.width * self.height * self.depth
    }

    /// Bytes from the first to one past the last byte touched.
    pub fn extent(&self, pitch: u64, slice: u64) -> u64 {
        if self.bytes() == 0 {
            return 0;
        }
        (self.depth - 1) * slice + (self.height - 1) * pitch + self.width
    }

    pub fn dst_extent(&self) -> u64 {
        self.extent(self.dst_pitch, self.dst_slice)
    }

    pub fn src_extent(&self) -> u64 {
        self.extent(self.src_pitch, self.src_slice)
    }
}

/// `height` rows of `width` elements set to `value`.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub dst: u64,
    pub value: u32,
    /// Bytes per element: 1, 2 or 4.
    pub element: u32,
    pub width: u64,
    pub height: u64,
    pub pitch: u64,
}

impl Fill {
    pub fn extent(&self) -> u64 {
        match self.height {
            0 => 0,
            h => (h - 1) * self.pitch + self.width * u64::from(self.element),
        }
    }
}

#[derive(Clone)]
pub struct KernelLaunch {
    pub function: Arc<Function>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: Vec<u8>,
}

impl KernelLaunch {
    pub fn view(&self) -> Launch<'_> {
        Launch {
            name: &self.function.name,
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
            params: &self.params,
            layout: &self.function.layout,
        }
    }

    /// Every 8-byte word at a 4-byte step of each parameter, tensor-map tag
    /// bits masked off: whatever may be a pointer, but where the kernel is known
    /// to find none.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        const ADDRESS_BITS: u64 = (1 << 57) - 1;
        let kernel = self.function.kernel.as_ref();
        let without = kernel.map_or(0..0, |kernel| kernel.without_addresses(&self.view()));
        self.function.layout.iter().flat_map(move |&(offset, size)| {
            let (start, end) = (offset as usize, (offset + size) as usize);
            let param = self.params.get(start..end).unwrap_or(&[]);
            let without = without.clone();
            let words = param.windows(8).enumerate().step_by(4);
            let sought = words.filter(move |&(at, _)| {
                start + at + 8 <= without.start || start + at >= without.end
            });
            sought.map(|(_, w)| {
                u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]) & ADDRESS_BITS
            })
        })
    }
}

/// Blocks a device runs at a time: 28 multiprocessors, 16 each.
const RESIDENT_BLOCKS: u64 = 28 * 16;

#[derive(Clone)]
pub enum Work {
    /// Nothing; a point in the order.
    Marker,
    Copy(Copy),
    Fill(Fill),
    Kernel(Arc<KernelLaunch>),
    Host {
        function: HostFn,
        data: usize,
    },
    Callback {
        function: StreamCallback,
        stream: u64,
        data: usize,
    },
    /// Holds until the value at `address` passes the comparison.
    WaitValue {
        address: u64,
        value: u64,
        wide: bool,
        flags: u32,
    },
    WriteValue {
        address: u64,
        value: u64,
        wide: bool,
    },
    /// Freed memory of a pool becomes poison.
    Poison {
        address: u64,
        bytes: u64,
    },
    /// In graphs only: event nodes.
    RecordEvent(u64),
    WaitEvent(u64),
}

/// Why work could not be carried out.
#[derive(Debug)]
pub enum Failure {
    IllegalAddress(String),
    Unsupported(String),
}

impl Work {
    pub fn is_kernel(&self) -> bool {
        matches!(self, Work::Kernel(_))
    }

    /// Whether it holds until memory has changed, which is not for us to bring about.
    pub fn polls(&self) -> bool {
        match self {
            Work::WaitValue { .. } => true,
            Work::Kernel(launch) => launch.function.kernel.as_ref().is_some_and(|k| k.polls()),
            _ => false,
        }
    }

    /// Whether its blocks leave no room for another kernel's.
    pub fn fills_the_device(&self) -> bool {
        let Work::Kernel(launch) = self else { return false };
        launch.grid.iter().map(|&blocks| u64::from(blocks)).product::<u64>() >= RESIDENT_BLOCKS
    }

    pub fn is_host(&self) -> bool {
        matches!(self, Work::Host { .. } | Work::Callback { .. })
    }

    /// Runs it. Host functions and value waits are not run here: they belong
    /// to the callback thread and to the scheduler.
    pub fn run(&self, space: &Space, device: usize) -> Result<(), Failure> {
        match self {
            Work::Copy(copy) => run_copy(copy, space),
            Work::Fill(fill) => run_fill(fill, space),
            Work::Kernel(launch) => run_kernel(launch, space, device),
            Work::WriteValue { address, value, wide } => {
                let bytes = if *wide { 8 } else { 4 };
                let at = pointer(space, *address, bytes, true, "a value write")?;
                // SAFETY: `pointer` vouches for the bytes; alignment is not assumed.
                unsafe {
                    std::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), at, bytes as usize)
                };
                Ok(())
            }
            Work::Poison { address, bytes } => {
                let at = pointer(space, *address, *bytes, true, "a free")?;
                // SAFETY: `pointer` vouches for the bytes.
                unsafe { std::ptr::write_bytes(at, POISON, *bytes as usize) };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// For what polls: whether it may pass now. A kernel that polls what is not
    /// there may, and fails when it runs.
    pub fn value_ready(&self, space: &Space, device: usize) -> bool {
        if let Work::Kernel(launch) = self {
            let Some(kernel) = &launch.function.kernel else { return true };
            return kernel.ready(&launch.view(), &View { space, device });
        }
        let Work::WaitValue { address, value, wide, flags } = *self else { return true };
        let bytes = if wide { 8 } else { 4 };
        let Ok(at) = pointer(space, address, bytes, false, "a value wait") else { return true };
        let mut raw = [0u8; 8];
        // SAFETY: `pointer` vouches for the bytes; they may change under us, as
        // the waited-for value does, and are read again until they match.
        unsafe { std::ptr::copy_nonoverlapping(at.cast_const(), raw.as_mut_ptr(), bytes as usize) };
        let seen = u64::from_le_bytes(raw);
        match flags & 3 {
            0 if wide => (seen.wrapping_sub(value) as i64) >= 0,
            0 => (seen as u32).wrapping_sub(value as u32) as i32 >= 0,
            1 => seen == value,
            2 => seen & value != 0,
            _ if wide => !(seen | value) != 0,
            _ => !(seen as u32 | value as u32) != 0,
        }
    }
}

/// Pointer to device bytes through the shadow, or to host bytes as they are.
fn pointer(
    space: &Space,
    address: u64,
    bytes: u64,
    write: bool,
    what: &str,
) -> Result<*mut u8, Failure> {
    if bytes == 0 || !space.is_device(address) {
        return Ok(address as *mut u8);
    }
    space.access_any(address, bytes, write).map_err(|bad| {
        Failure::IllegalAddress(format!(
            "{what} of {bytes} bytes at {address:#x} touches {bad:#x}, which is not mapped for it"
        ))
    })
}

fn run_copy(copy: &Copy, space: &Space) -> Result<(), Failure> {
    if copy.bytes() == 0 {
        return Ok(());
    }
    let place = |side: &Side, extent: u64, write: bool| match side {
        Side::Address(address) => pointer(space, *address, extent, write, "a copy"),
        Side::Staged(bytes) => Ok(bytes.as_ptr().cast_mut()),
    };
    let src = place(&copy.src, copy.src_extent(), false)?;
    let dst = place(&copy.dst, copy.dst_extent(), true)?;
    let packed = copy.width == copy.src_pitch
        && copy.width == copy.dst_pitch
        && copy.src_slice == copy.height * copy.width
        && copy.dst_slice == copy.height * copy.width;
    let (rows, width) = if packed || copy.height * copy.depth == 1 {
        (1, copy.bytes())
    } else {
        (copy.height * copy.depth, copy.width)
    };
    for row in 0..rows {
        let (z, y) = (row / copy.height, row % copy.height);
        // SAFETY: both extents were checked above (device side) or are the
        // caller's own bytes (host side), and every row lies within them; the
        // two may overlap, hence `copy`.
        unsafe {
            std::ptr::copy(
                src.add((z * copy.src_slice + y * copy.src_pitch) as usize),
                dst.add((z * copy.dst_slice + y * copy.dst_pitch) as usize),
                width as usize,
            );
        }
    }
    Ok(())
}

fn run_fill(fill: &Fill, space: &Space) -> Result<(), Failure> {
    let dst = pointer(space, fill.dst, fill.extent(), true, "a memset")?;
    let element = fill.element as usize;
    let value = fill.value.to_le_bytes();
    for row in 0..fill.height {
        // SAFETY: the extent was checked above and every row lies within it.
        unsafe {
            let row = dst.add((row * fill.pitch) as usize);
            if value[..element].iter().all(|b| *b == value[0]) {
                std::ptr::write_bytes(row, value[0], fill.width as usize * element);
                continue;
            }
            for x in 0..fill.width as usize {
                std::ptr::copy_nonoverlapping(value.as_ptr(), row.add(x * element), element);
            }
        }
    }
    Ok(())
}

/// Device memory as a kernel of one device sees it.
struct View<'a> {
    space: &'a Space,
    device: usize,
}

impl View<'_> {
    fn at(&self, address: u64, bytes: u64, write: bool) -> Result<*mut u8, Fault> {
        debug_assert!(self.device < MAX_DEVICES);
        let space = self.space;
        if bytes == 0 {
            return Ok(std::ptr::without_provenance_mut(8));
        }
        let fault = |address| Fault::IllegalAddress { address, bytes, write };
        if space.is_device(address) {
            return space.access(self.device, address, bytes, write).map_err(fault);
        }
        match space.pinned_at(address) {
            Some((start, pinned)) if address + bytes <= start + pinned.bytes => {
                Ok(address as *mut u8)
            }
            _ => Err(fault(address)),
        }
    }
}

impl Memory for View<'_> {
    fn read(&self, address: u64, bytes: u64) -> Result<*const u8, Fault> {
        self.at(address, bytes, false).map(<*mut u8>::cast_const)
    }

    fn write(&self, address: u64, bytes: u64) -> Result<*mut u8, Fault> {
        self.at(address, bytes, true)
    }
}

fn run_kernel(launch: &KernelLaunch, space: &Space, device: usize) -> Result<(), Failure> {
    let Some(kernel) = &launch.function.kernel else { return Ok(()) };
    let name = &launch.function.name;
    kernel.run(&launch.view(), &View { space, device }).map_err(|fault| match fault {
        Fault::IllegalAddress { address, bytes, write } => Failure::IllegalAddress(format!(
            "kernel {name} {} {bytes} bytes at {address:#x}, which is not mapped for it",
            if write { "writes" } else { "reads" }
        )),
        Fault::Unsupported(why) => Failure::Unsupported(format!("kernel {name}: {why}")),
    })
}

/// Calls a host function or stream callback of the program.
///
/// # Safety
/// The function and its data must be what the program passed when it queued
/// the work, and no lock of ours may be held.
pub unsafe fn call_host(work: &Work, status: i32) {
    match *work {
        // SAFETY: the program's own function, called as cuLaunchHostFunc documents.
        Work::Host { function, data } => unsafe { function(data as *mut c_void) },
        // SAFETY: as above, cuStreamAddCallback.
        Work::Callback { function, stream, data } => unsafe {
            function(stream, status, data as *mut c_void)
        },
        _ => {}
    }
}
