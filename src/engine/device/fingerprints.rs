//! Our own kernel on one device (`shim/fingerprint.ptx`): loaded and tried once,
//! then queued instead of copies to the host.
//!
//! Everything is resolved and launched when a device is set up, so that nothing
//! is loaded lazily while the program runs. A kernel that does not compute what
//! `autooffload_core::fingerprint` computes, for whatever reason, is not used.
//! Not here: where fingerprints are kept and when they are of use (`host::record`).

use std::ffi::{CStr, c_void};

use autooffload_core::fingerprint::{self, PIECE_BYTES};

use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::host::{HostStore, Span};

/// NUL-terminated, as the driver takes it.
const TEXT: &str = concat!(include_str!("../../../shim/fingerprint.ptx"), "\0");
const NAME: &CStr = c"fingerprint_pieces";

/// As the kernel is written: four warps, a piece each.
const BLOCK_THREADS: u32 = 128;
const BLOCK_PIECES: usize = 4;
/// More would crowd out the program's kernels; with four loads of 512 bytes
/// under way in each warp these read several times as fast as any link.
const MOST_BLOCKS: usize = 32;

#[derive(Clone, Copy)]
pub struct Fingerprints {
    function: CUfunction,
}

impl Fingerprints {
    /// Loads the kernel into the current context and tries it on `stream`.
    ///
    /// Errors: a sentence, why bytes will be copied back unseen.
    pub fn set_up(
        driver: &Driver,
        store: &HostStore,
        stream: CUstream,
    ) -> std::result::Result<Self, String> {
        let text = CStr::from_bytes_with_nul(TEXT.as_bytes()).expect("one NUL, at the end");
        let module = driver
            .module_load_ptx(text)
            .map_err(|code| format!("the driver does not take our kernel ({code})"))?;
        let function = driver
            .module_get_function(module, NAME)
            .map_err(|code| format!("the driver does not find our kernel ({code})"))?;
        let fingerprints = Self { function };
        fingerprints.try_out(driver, store, stream)?;
        Ok(fingerprints)
    }

    /// Fingerprints of the bytes that `span` of the device holds.
    pub fn take(&self, driver: &Driver, stream: CUstream, span: &Span) -> Result<()> {
        self.queue(driver, stream, span, 0)
    }

    /// Stores to the host what differs from what it holds.
    pub fn save_written(&self, driver: &Driver, stream: CUstream, span: &Span) -> Result<()> {
        self.queue(driver, stream, span, span.host as u64)
    }

    fn queue(&self, driver: &Driver, stream: CUstream, span: &Span, host: u64) -> Result<()> {
        let pieces = span.bytes.div_ceil(PIECE_BYTES);
        let blocks = pieces.div_ceil(BLOCK_PIECES).min(MOST_BLOCKS) as u32;
        let (table, saved) = span.fingerprints().ok_or(CuResult::INVALID_VALUE)?;
        let parameters = [span.device, span.bytes as u64, table as u64, host, saved as u64];
        // SAFETY: five parameters of 8 bytes, as the kernel is written; the
        // host memory that the span is of lives until this has retired, and
        // the device's bytes are there, as for the copy in whose place this is.
        unsafe { driver.launch(self.function, blocks, BLOCK_THREADS, stream, parameters) }
    }

    /// Takes fingerprints of known bytes, then finds one changed bit.
    fn try_out(
        &self,
        driver: &Driver,
        store: &HostStore,
        stream: CUstream,
    ) -> std::result::Result<(), String> {
        const BYTES: usize = 2 * PIECE_BYTES + 13;
        let failed = |code: CuResult| format!("our kernel does not run ({code})");
        // The kernel's "device" bytes are host memory, too: it is the same code.
        let (Some(data), Some(copy)) = (store.allocate(BYTES), store.allocate(BYTES)) else {
            return Err("there is no host memory to try our kernel".to_string());
        };
        let outcome = (|| {
            let span = copy.span(data.address as DevicePtr, 0, BYTES);
            let reached = data.record().and(span.fingerprints());
            let (table, saved) = reached.ok_or("the device does not reach host memory")?;
            let bytes = |buffer: *mut c_void| {
                // SAFETY: `BYTES` bytes of ours; the device is done with them
                // whenever they are looked at, because every launch is waited for.
                unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), BYTES) }
            };
            let words = |at: usize| (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
            for (at, byte) in bytes(data.address).iter_mut().enumerate() {
                *byte = words(at / 8)[at % 8];
            }
            self.take(driver, stream, &span).map_err(failed)?;
            driver.stream_synchronize(stream).map_err(failed)?;
            // SAFETY: a table entry and a count for each of three pieces; the stream is idle.
            let (table, saved) = unsafe {
                (std::slice::from_raw_parts(table, 3), std::slice::from_raw_parts(saved, 3))
            };
            let wanted: Vec<u64> =
                bytes(data.address).chunks(PIECE_BYTES).map(fingerprint::of).collect();
            if table != wanted {
                return Err("our kernel does not compute what it should".to_string());
            }
            bytes(data.address)[PIECE_BYTES + 4321] ^= 16;
            self.save_written(driver, stream, &span).map_err(failed)?;
            driver.stream_synchronize(stream).map_err(failed)?;
            let (copied, data) = (bytes(copy.address), bytes(data.address));
            let second = PIECE_BYTES..2 * PIECE_BYTES;
            let stored = copied[second.clone()] == data[second]
                && copied[..PIECE_BYTES].iter().chain(&copied[2 * PIECE_BYTES..]).all(|&b| b == 0);
            if saved != [0, 1, 0] || !stored {
                return Err("our kernel does not store what it should".to_string());
            }
            Ok(())
        })();
        store.free(data);
        store.free(copy);
        outcome
    }
}
