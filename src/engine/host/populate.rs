//! Gives fresh host memory its pages, in parallel, before it is page-locked:
//! locking untouched memory faults page by page on one core.
//!
//! Threads: a few helpers, started at the first large buffer, fed through a
//! channel; they touch memory and nothing else. A forked child never asks.

use std::ffi::c_void;
use std::sync::OnceLock;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::super::threads;

/// Smaller buffers are not worth a hand-over.
const PARALLEL_BYTES: usize = 16 << 20;
const PIECE_BYTES: usize = 8 << 20;
const HELPERS_MAX: usize = 4;

struct Piece {
    address: usize,
    bytes: usize,
    done: Sender<()>,
}

fn helpers() -> Option<&'static Sender<Piece>> {
    static HELPERS: OnceLock<Option<Sender<Piece>>> = OnceLock::new();
    HELPERS
        .get_or_init(|| {
            let count =
                std::thread::available_parallelism().map_or(1, usize::from).min(HELPERS_MAX);
            let (piece_tx, piece_rx) = unbounded::<Piece>();
            let started = (0..count)
                .filter(|_| {
                    let piece_rx = piece_rx.clone();
                    threads::spawn("autooffload-pin", move || serve(&piece_rx)).is_ok()
                })
                .count();
            (started > 0).then_some(piece_tx)
        })
        .as_ref()
}

fn serve(piece_rx: &Receiver<Piece>) {
    for piece in piece_rx {
        touch(piece.address, piece.bytes);
        // The asker may have been unwound; then nobody listens.
        let _ = piece.done.send(());
    }
}

/// Returns when every page of the mapping exists.
pub fn populate(address: *mut c_void, bytes: usize) {
    let address = address as usize;
    let Some(piece_tx) = (bytes >= PARALLEL_BYTES).then(helpers).flatten() else {
        return touch(address, bytes);
    };
    let pieces = bytes.div_ceil(PIECE_BYTES);
    let (done_tx, done_rx) = bounded(pieces);
    for index in 0..pieces {
        let at = index * PIECE_BYTES;
        let piece = Piece {
            address: address + at,
            bytes: PIECE_BYTES.min(bytes - at),
            done: done_tx.clone(),
        };
        if let Err(refused) = piece_tx.send(piece) {
            touch(refused.0.address, refused.0.bytes);
            let _ = done_tx.send(());
        }
    }
    for _ in 0..pieces {
        if done_rx.recv().is_err() {
            return;
        }
    }
}

/// The kernel populates the range at once where it can (Linux 5.14); where it
/// cannot, page-locking will, more slowly.
fn touch(address: usize, bytes: usize) {
    // SAFETY: the caller's mapping, which outlives this call because
    // `populate` waits; populating changes no byte.
    unsafe { libc::madvise(address as *mut c_void, bytes, libc::MADV_POPULATE_WRITE) };
}
