//! Which of our addresses a few small ranges of device memory hold: found by a
//! kernel of ours (`shim/addresses.ptx`), or in a copy of them where a kernel
//! or memory that it reaches is not to be had.
//!
//! Both go on a stream of their own, on which nothing else ever is, and the
//! host waits for them. Not here: which ranges, and what follows (`reach`).

use std::ffi::CStr;
use std::ops::Range;
use std::time::Duration;

use autooffload_core::params::ADDRESS_MASK;

use super::DeviceBackend;
use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::account::WaitReason;
use crate::engine::host::{HostBuffer, HostStore};
use crate::engine::users::Point;

/// NUL-terminated, as the driver takes it.
const TEXT: &str = concat!(include_str!("../../../shim/addresses.ptx"), "\0");
const NAME: &CStr = c"find_addresses";
const BLOCK_THREADS: u32 = 128;
const BLOCKS: u32 = 16;

const WORD: usize = 8;
/// A tensor map lies on such a line; its first word has flags above the address.
const LINE: u64 = 64;
/// Of one range of memory at once, and so many of them.
pub const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 16;
/// Room for what is found in one: whether anything is, then a word for each.
const ROOM_BYTES: usize = PIECE_BYTES + LINE as usize;

/// What is queued before a look is over after this, or may depend on something
/// that only comes when the look has let the program go on.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses worth finding: `[base, base + bytes)` of each.
pub type Spans = [autooffload_core::params::Span; 2];

/// Where an address lies, and which.
pub type Found = (DevicePtr, DevicePtr);

/// The means of one device.
#[derive(Default)]
pub struct Search {
    /// `None`: ranges are copied to the host.
    function: Option<CUfunction>,
    /// Zeros, between looks by the kernel. Made when it is first needed.
    room: Option<HostBuffer>,
    /// The last look, which was not waited for to its end.
    unanswered: Option<Point>,
}

impl Search {
    /// Loads the kernel into the current context and tries it on `stream`.
    pub fn set_up(driver: &Driver, store: &HostStore, stream: CUstream) -> Self {
        match Self::load(driver, store, stream) {
            Ok(search) => search,
            Err(code) => {
                log::debug!("no kernel of ours searches device memory ({code}): copies do");
                Self::default()
            }
        }
    }

    fn load(driver: &Driver, store: &HostStore, stream: CUstream) -> Result<Self> {
        let text = CStr::from_bytes_with_nul(TEXT.as_bytes()).expect("one NUL, at the end");
        let module = driver.module_load_ptx(text)?;
        let function = Some(driver.module_get_function(module, NAME)?);
        let mut search = Self { function, ..Self::default() };
        // The kernel's "device" bytes are host memory here: it is the same code.
        const BYTES: usize = 24;
        let data = store.allocate(BYTES).ok_or(CuResult::OUT_OF_MEMORY)?;
        let planted = [7u64, 5 << 40, 7];
        // SAFETY: so many bytes of ours, which nobody else uses yet.
        unsafe { data.address.cast::<[u64; 3]>().write(planted) };
        let spans = [span(5 << 40, 1), span(0, 0)];
        let start = data.address as DevicePtr;
        let all = start..start + BYTES as u64;
        let all = std::slice::from_ref(&all);
        let tried = (|| {
            if data.record().is_none() {
                return Err(CuResult::NOT_SUPPORTED);
            }
            search.queue(driver, store, stream, all, &spans)?;
            driver.stream_synchronize(stream)?;
            let found = search.read(all, &spans);
            if found == [(start + 8, 5 << 40)] { Ok(()) } else { Err(CuResult::UNKNOWN) }
        })();
        store.free(data);
        search.release(store);
        tried.map(|()| search)
    }

    pub fn holds_memory(&self) -> bool {
        self.room.is_some()
    }

    /// Gives the memory back that it searches with.
    pub fn release(&mut self, store: &HostStore) {
        if self.unanswered.is_none()
            && let Some(room) = self.room.take()
        {
            store.free(room);
        }
    }

    /// The context is gone, and whatever was queued there.
    pub fn forget(&mut self, store: &HostStore) {
        self.unanswered = None;
        self.release(store);
    }

    /// Queues a look at up to [`PIECES`] ranges of whole words.
    fn queue(
        &mut self,
        driver: &Driver,
        store: &HostStore,
        stream: CUstream,
        pieces: &[Range<DevicePtr>],
        spans: &Spans,
    ) -> Result<()> {
        if self.room.is_none() {
            let room = store.allocate(PIECES * ROOM_BYTES).ok_or(CuResult::OUT_OF_MEMORY)?;
            if room.record().is_none() {
                self.function = None;
            }
            self.room = Some(room);
        }
        let room = self.room.as_ref().expect("made above");
        for (index, piece) in pieces.iter().enumerate() {
            let room = room.address.wrapping_byte_add(index * ROOM_BYTES);
            let bytes = piece.end - piece.start;
            match self.function {
                Some(function) => {
                    let [a, b] = spans;
                    let (start, room) = (piece.start, room as u64);
                    let parameters = [start, bytes, a.base, a.bytes, b.base, b.bytes, room];
                    // SAFETY: seven parameters of 8 bytes, as the kernel is written; the room
                    // is as long as it needs and lives until the look is over, and the caller
                    // keeps the range present.
                    unsafe { driver.launch(function, BLOCKS, BLOCK_THREADS, stream, parameters)? }
                }
                // SAFETY: likewise.
                None => unsafe {
                    driver.memcpy_dtoh_async(room, piece.start, bytes as usize, stream)?;
                },
            }
        }
        Ok(())
    }

    /// What a look, which is over, found.
    fn read(&mut self, pieces: &[Range<DevicePtr>], spans: &Spans) -> Vec<Found> {
        let Some(room) = &self.room else { return Vec::new() };
        let mut all = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let words = ((piece.end - piece.start) as usize) / WORD;
            let room = room.address.wrapping_byte_add(index * ROOM_BYTES).cast::<u64>();
            // SAFETY: within the room, and the device is done with it.
            let room = unsafe { std::slice::from_raw_parts_mut(room, words + 1) };
            let at = |index: usize| piece.start + (index * WORD) as u64;
            if self.function.is_none() {
                let is_address = |&(index, &word): &(usize, &u64)| {
                    let word =
                        if at(index).is_multiple_of(LINE) { word & ADDRESS_MASK } else { word };
                    spans.iter().any(|span| span.contains(word))
                };
                let words = room[..words].iter().enumerate();
                let words = words.filter(is_address);
                all.extend(words.map(|(index, word)| (at(index), word & ADDRESS_MASK)));
            } else if room[0] != 0 {
                let words = room[1..].iter().enumerate().filter(|&(_, &word)| word != 0);
                all.extend(words.map(|(index, word)| (at(index), word & ADDRESS_MASK)));
                room.fill(0);
            }
        }
        all
    }
}

const fn span(base: u64, bytes: u64) -> autooffload_core::params::Span {
    autooffload_core::params::Span { base, bytes }
}

impl DeviceBackend {
    /// The addresses within `spans` that `ranges` of memory hold, in their order,
    /// which is present and stays so, once `after` is over. `None`: nothing could be
    /// seen in good time.
    pub fn find_addresses(
        &mut self,
        ranges: &[Range<DevicePtr>],
        spans: &Spans,
        after: &[Point],
    ) -> Option<Vec<Found>> {
        if let Some(former) = self.search.unanswered {
            if !self.order.is_over(former) {
                return None;
            }
            self.search.unanswered = None;
            // What it found is of then.
            self.search.release(self.host_store);
        }
        if !after.iter().all(|&point| self.order.await_within(point, PATIENCE, WaitReason::Look)) {
            return None;
        }
        let pieces: Vec<Range<DevicePtr>> = ranges.iter().flat_map(in_pieces).collect();
        let mut found = Vec::new();
        for pieces in pieces.chunks(PIECES) {
            let (driver, store, stream) = (self.driver, self.host_store, self.order.look());
            let queued = self.search.queue(driver, store, stream, pieces, spans);
            let behind = self.order.looked();
            if let Some(point) = behind
                && !self.order.await_within(point, PATIENCE, WaitReason::Look)
            {
                self.search.unanswered = Some(point);
                return None;
            }
            // Read in any case: what is left there must be zeros.
            let words = self.search.read(pieces, spans);
            if queued.is_err() || behind.is_none() {
                return None;
            }
            found.extend(words);
        }
        Some(found)
    }
}

fn in_pieces(range: &Range<DevicePtr>) -> impl Iterator<Item = Range<DevicePtr>> {
    let end = range.end;
    let starts = range.clone().step_by(PIECE_BYTES);
    starts.map(move |start| start..end.min(start + PIECE_BYTES as u64))
}
