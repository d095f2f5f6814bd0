//! What is known of the bytes in host memory, beside them: the fingerprints that
//! the device took of them, how many pieces it stored, and how each frame is to
//! be saved next.
//!
//! ```text
//!   one page-locked mapping   | bytes ... | table: u64 a piece | stored: u32 a piece |
//! ```
//!
//! Table and counts are written by the device alone, in the order of the
//! copy-out stream, which is the only one that writes the bytes as well: so a
//! table entry is always of the bytes that the last queued work leaves there,
//! if the frame's [`History`] says that one was taken.
//! Threads: under the device's lock. Not here: the kernel (`fingerprints`).

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use autooffload_core::fingerprint::{History, PIECE_BYTES, Saving};

use crate::driver::abi::DevicePtr;
use crate::engine::FRAME_BYTES;

/// Bytes that one copy moves, and what is known of them in the host.
#[derive(Clone)]
pub struct Span {
    pub device: DevicePtr,
    pub host: *mut c_void,
    pub bytes: usize,
    /// Of the memory that `host` is in.
    pub record: Option<Arc<Record>>,
}

/// A part of a span whose frames are saved in one way.
pub struct Part {
    pub span: Span,
    pub saving: Saving,
    /// Bytes that the kernel was seen to have stored, since last asked.
    pub stored_bytes: u64,
}

impl Span {
    /// Where the kernel keeps fingerprints and counts of these bytes; `None`
    /// if the device does not reach them.
    pub fn fingerprints(&self) -> Option<(*mut u64, *mut u32)> {
        let record = self.record.as_ref()?;
        let piece = (self.host as usize - record.base) / PIECE_BYTES;
        let table = (record.table as *mut u64).wrapping_add(piece);
        Some((table, (record.stored as *mut u32).wrapping_add(piece)))
    }

    /// Cuts the span into parts of one way of saving each, and takes those ways
    /// for done: see [`Span::forget`] if one fails. The span begins a frame.
    pub fn savings(&self) -> Vec<Part> {
        let Some(record) = &self.record else {
            return vec![Part { span: self.clone(), saving: Saving::All, stored_bytes: 0 }];
        };
        let mut parts: Vec<Part> = Vec::new();
        for start in (0..self.bytes).step_by(FRAME_BYTES) {
            let bytes = FRAME_BYTES.min(self.bytes - start);
            let (saving, stored) = record.next(self.host as usize + start, bytes);
            let stored_bytes = u64::from(stored) * PIECE_BYTES as u64;
            match parts.last_mut().filter(|part| part.saving == saving) {
                Some(part) => {
                    part.span.bytes += bytes;
                    part.stored_bytes += stored_bytes;
                }
                None => {
                    let (device, host) =
                        (self.device + start as u64, self.host.wrapping_byte_add(start));
                    let span = Span { device, host, bytes, record: self.record.clone() };
                    parts.push(Part { span, saving, stored_bytes });
                }
            }
        }
        parts
    }

    /// The fingerprints of these bytes are of no use: what was asked for failed.
    pub fn forget(&self) {
        let Some(record) = &self.record else { return };
        for start in (0..self.bytes).step_by(FRAME_BYTES) {
            record.with(self.host as usize + start, |frame| frame.history.forget());
        }
    }
}

/// Of one mapping, from its first byte on.
#[derive(Debug)]
pub struct Record {
    base: usize,
    pieces: usize,
    table: usize,
    stored: usize,
    /// Counts, as last read, and history, of each frame.
    frames: Mutex<Vec<Frame>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    history: History,
    counted: u32,
}

impl Record {
    /// Bytes of a mapping that holds `bytes` and their record.
    pub fn end(bytes: usize) -> usize {
        Self::table_at(bytes) + bytes.div_ceil(PIECE_BYTES) * (size_of::<u64>() + size_of::<u32>())
    }

    fn table_at(bytes: usize) -> usize {
        bytes.next_multiple_of(align_of::<u64>())
    }

    /// Of `bytes` at `base`, behind which there is room up to [`Self::end`],
    /// zeros now.
    pub fn new(base: *mut c_void, bytes: usize) -> Self {
        let (table, pieces) = (base as usize + Self::table_at(bytes), bytes.div_ceil(PIECE_BYTES));
        Self {
            base: base as usize,
            pieces,
            table,
            stored: table + pieces * size_of::<u64>(),
            frames: Mutex::new(vec![Frame::default(); bytes.div_ceil(FRAME_BYTES)]),
        }
    }

    fn with<T>(&self, host: usize, then: impl FnOnce(&mut Frame) -> T) -> T {
        let index = (host - self.base) / FRAME_BYTES;
        then(&mut self.frames.lock().unwrap_or_else(PoisonError::into_inner)[index])
    }

    /// How the frame of `bytes` at `host` is to be saved now, and the pieces of
    /// it that were stored since this was last asked, as far as the device is.
    /// Counts are of the whole frame: beside a neighbour it is saved to its end,
    /// by itself only as far as its chunk goes.
    fn next(&self, host: usize, bytes: usize) -> (Saving, u32) {
        let first = (host - self.base) / PIECE_BYTES;
        let pieces = bytes.div_ceil(PIECE_BYTES);
        let end = self.pieces.min(first + FRAME_BYTES / PIECE_BYTES);
        let counts = (first..end).map(|piece| {
            let count = (self.stored as *const AtomicU32).wrapping_add(piece);
            // SAFETY: within the mapping, which lives as long as its buffers do; the device
            // writes whole words.
            unsafe { &*count }.load(Ordering::Relaxed)
        });
        let count = counts.fold(0, u32::wrapping_add);
        self.with(host, |frame| {
            let stored = count.wrapping_sub(frame.counted);
            frame.counted = count;
            (frame.history.next(2 * stored as usize >= pieces), stored)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame in a shared block is saved whole in a run, and in part by itself.
    #[test]
    fn what_was_stored_is_counted_once_whatever_part_of_a_frame_is_saved() {
        let bytes = 2 * FRAME_BYTES;
        let mut memory = vec![0u64; Record::end(bytes).div_ceil(size_of::<u64>())];
        let base: *mut c_void = memory.as_mut_ptr().cast();
        let record = Arc::new(Record::new(base, bytes));
        let span = |bytes| Span { device: 0, host: base, bytes, record: Some(record.clone()) };
        let stored =
            |bytes| -> u64 { span(bytes).savings().iter().map(|part| part.stored_bytes).sum() };
        assert_eq!(stored(bytes), 0);
        let (_, counts) = span(bytes).fingerprints().expect("it has a record");
        for piece in 0..bytes / PIECE_BYTES {
            // SAFETY: a count for each piece, in `memory`.
            unsafe { *counts.add(piece) += 1 };
        }
        assert_eq!(stored(bytes), bytes as u64);
        assert_eq!(stored(PIECE_BYTES), 0);
        assert_eq!(stored(bytes), 0);
    }
}
