//! Whether we act at all: from the first lookup to exit, across forks.
//!
//! ```text
//!   Unstarted ──cuInit succeeds──► Starting ──► Active
//!       │                             └──AUTOOFFLOAD=0──► Off
//!       └──AUTOOFFLOAD=0──► (never starts)
//!   Active ──fork, in the child──► Off
//! ```
//!
//! Only [`started`] moves forward, only the fork handler moves to `Off` later.
//! Before `cuInit` nothing is allocated, logged or started: lookups happen
//! inside ELF constructors. A failed `cuInit` leaves `Unstarted`; the next may
//! succeed.
//! Not here: what is said at the start and the end (`config`, `exports`).

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::{config, driver, engine, exports, left_behind, metrics, trace_file};

const UNSTARTED: u8 = 0;
const STARTING: u8 = 1;
const ACTIVE: u8 = 2;
const OFF: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(UNSTARTED);

/// The engine runs: hooks are in force.
#[inline]
pub fn is_active() -> bool {
    STATE.load(Ordering::Acquire) == ACTIVE
}

/// Hooks are, or may come, in force: lookups are answered with them.
pub fn may_start() -> bool {
    STATE.load(Ordering::Acquire) != OFF && !config::switched_off()
}

/// To be called after every successful `cuInit`; acts on the first.
///
/// Another thread that comes meanwhile waits, but not for ever: the first may
/// need the loader's lock that the second holds.
pub fn started() {
    if STATE.compare_exchange(UNSTARTED, STARTING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        let patience = Instant::now() + Duration::from_secs(2);
        while STATE.load(Ordering::Acquire) == STARTING && Instant::now() < patience {
            std::thread::sleep(Duration::from_micros(50));
        }
        return;
    }
    leave_marker();
    let config = config::initialise();
    if !config.enabled {
        STATE.store(OFF, Ordering::Release);
        return;
    }
    engine::start(driver::driver(), config, trace_file::open());
    // SAFETY: the handlers are functions of this library, which is never
    // unloaded; each only does what its place allows.
    unsafe {
        libc::pthread_atfork(None, None, Some(in_forked_child));
        libc::atexit(at_exit);
    }
    STATE.store(ACTIVE, Ordering::Release);
    left_behind::start(exports::statistics, exports::account, is_active);
    metrics::start(exports::account, is_active);
}

/// Tells the launcher, if one started this process, that CUDA is used here: an
/// empty file named after the process in the directory it asks about.
fn leave_marker() {
    if let Some(dir) = std::env::var_os("AUTOOFFLOAD_LAUNCH_DIR") {
        // Only a sentence of the launcher depends on it.
        let _ = std::fs::write(std::path::Path::new(&dir).join(std::process::id().to_string()), "");
    }
}

/// The child of a process that uses CUDA cannot use it; what we hold belongs
/// to the parent. No lock is taken: a thread that is gone may hold it.
extern "C" fn in_forked_child() {
    STATE.store(OFF, Ordering::Release);
    metrics::leave_to_parent();
}

/// Says what was done. Other threads may still be calling hooks; they stay
/// served. No CUDA call is made: the driver may be gone.
extern "C" fn at_exit() {
    if is_active() {
        // A panic here would abort a program that ended well.
        let _ = std::panic::catch_unwind(exports::report_at_exit);
        let _ = std::panic::catch_unwind(engine::ends);
    }
}
