//! The process around the driver: fork, exit, and what else is loaded.

use std::fs;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

const LIVE: u8 = 0;
/// A forked child: the threads and locks of the parent are not here.
const FORKED: u8 = 1;
const EXITING: u8 = 2;

static PHASE: AtomicU8 = AtomicU8::new(LIVE);
static REGISTER: Once = Once::new();
static AT_EXIT: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();

pub fn is_forked() -> bool {
    PHASE.load(Ordering::Relaxed) == FORKED
}

pub fn is_exiting() -> bool {
    PHASE.load(Ordering::Relaxed) == EXITING
}

/// Registers what happens at fork and, once, at exit.
pub fn register(at_exit: fn()) {
    REGISTER.call_once(|| {
        let _ = AT_EXIT.set(at_exit);
        // SAFETY: both handlers are plain functions of this library, which is
        // never unloaded; the child's one only stores an atomic.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
            libc::atexit(on_exit);
        }
    });
}

extern "C" fn in_child() {
    PHASE.store(FORKED, Ordering::Relaxed);
}

extern "C" fn on_exit() {
    if !is_forked() {
        PHASE.store(EXITING, Ordering::Relaxed);
        let _ = std::panic::catch_unwind(|| AT_EXIT.get().map(|f| f()));
    }
}

/// The path of a loaded libcudart that is not the stand-in's own.
pub fn foreign_runtime() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| line[at..].trim_end_matches(" (deleted)")))
        .filter(|path| path.rsplit('/').next().is_some_and(|f| f.starts_with("libcudart")))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().find(|path| !has_marker(path)).map(str::to_string)
}

/// Whether a library file carries our runtime's marker symbol.
fn has_marker(path: &str) -> bool {
    const MARKER: &[u8] = b"standin_runtime_marker";
    fs::read(path).is_ok_and(|bytes| bytes.windows(MARKER.len()).any(|w| w == MARKER))
}
