//! Which of the program's streams used a chunk, in 64 bits.
//!
//! The fast path only ever sets a bit; what a bit means is asked when memory
//! is about to move. Index 0 is the legacy default stream; the two highest
//! indices have no handle to wait on and stand for "wait for the whole
//! context" and "for every device".
//! Not here: events (see `device`).

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::driver::abi::*;

const SLOTS: usize = 62;
const LEGACY: u32 = 0;
/// Used on a stream that cannot be named from here: a per-thread default
/// stream, one that was destroyed, one too many.
pub const UNNAMED: u32 = 62;
/// Used by a kernel or copy of another device.
pub const FOREIGN: u32 = 63;

/// A slot whose stream was destroyed: never matched again.
const DESTROYED: usize = usize::MAX;

static HANDLES: [AtomicUsize; SLOTS] = [const { AtomicUsize::new(0) }; SLOTS];

thread_local! {
    /// The stream this thread used last: launches come in long runs.
    static LAST: Cell<(usize, u32)> = const { Cell::new((0, LEGACY)) };
}

/// The index of `stream` (an effective handle).
pub fn index_of(stream: CUstream) -> u32 {
    let handle = stream as usize;
    if handle <= STREAM_LEGACY as usize {
        return LEGACY;
    }
    if stream == STREAM_PER_THREAD {
        return UNNAMED;
    }
    let (last, index) = LAST.get();
    if last == handle && HANDLES[index as usize].load(Ordering::Relaxed) == handle {
        return index;
    }
    for (index, slot) in HANDLES.iter().enumerate().skip(1) {
        let mut held = slot.load(Ordering::Relaxed);
        if held == 0 {
            match slot.compare_exchange(0, handle, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => held = handle,
                Err(other) => held = other,
            }
        }
        if held == handle {
            LAST.set((handle, index as u32));
            return index as u32;
        }
    }
    UNNAMED
}

/// The streams named in `bits` that still exist, and whether some cannot be named.
///
/// Each slot is read once: a stream forgotten meanwhile is either named (its
/// handle is good as long as the caller holds a device's lock, which its
/// destruction waits for) or counted as one that cannot be.
pub fn named(bits: u64) -> (SmallVec<[CUstream; 8]>, bool) {
    let mut streams = SmallVec::new();
    let mut unnamed = bits & (1 << UNNAMED) != 0;
    for (index, slot) in HANDLES.iter().enumerate() {
        if bits & (1 << index) != 0 {
            match slot.load(Ordering::Relaxed) {
                DESTROYED => unnamed = true,
                handle => streams.push(handle as CUstream),
            }
        }
    }
    (streams, unnamed)
}

/// Which stream `stream` means to this thread: 0, but for the per-thread
/// default stream a number that no other thread ever has.
pub fn thread_of(stream: CUstream) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    if stream != STREAM_PER_THREAD {
        return 0;
    }
    if NUMBER.get() == 0 {
        NUMBER.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    }
    NUMBER.get()
}

/// `stream` is about to be destroyed; its handle may come back as another.
pub fn forget(stream: CUstream) {
    let handle = stream as usize;
    if handle > STREAM_PER_THREAD as usize {
        for slot in &HANDLES[1..] {
            let _ = slot.compare_exchange(handle, DESTROYED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
