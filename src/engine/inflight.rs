//! Launches under way on the fast path, so that whoever starts evicting can
//! wait for those that believed nothing would ever move.
//!
//! Each thread has one flag. Entering sets it and then reads the pressure
//! flag; the evictor sets the pressure flag and then reads all thread flags
//! (Dekker's pattern, hence sequentially consistent). A thread that misses
//! the pressure flag is seen by the evictor, and the other way round.

use std::cell::RefCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::thread::thread;

/// Set for good as soon as anything has to move.
static PRESSURE: AtomicBool = AtomicBool::new(false);

static THREADS: Mutex<Vec<Arc<AtomicBool>>> = Mutex::new(Vec::new());

/// A thread's flag; `Thread::launch` points at it.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        thread().launch.set(ptr::null());
    }
}

thread_local! {
    static FLAG: RefCell<Option<Flag>> = const { RefCell::new(None) };
}

/// While it lives, no memory moves that was not moving before.
pub struct FastLaunch(&'static AtomicBool);

impl Drop for FastLaunch {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// `None`: memory moves; take the careful path.
#[inline(always)]
pub fn enter() -> Option<FastLaunch> {
    if PRESSURE.load(Ordering::Relaxed) {
        return None;
    }
    let flag = match thread().launch.get() {
        flag if flag.is_null() => first_launch()?,
        flag => flag,
    };
    // SAFETY: this thread's own flag, which lives until the thread's values are
    // torn down. What is given here is dropped before its hook returns.
    let flag = unsafe { &*flag };
    flag.store(true, Ordering::SeqCst);
    let launch = FastLaunch(flag);
    (!PRESSURE.load(Ordering::SeqCst)).then_some(launch)
}

/// Makes the thread's flag. A thread that is being torn down gets none.
#[cold]
fn first_launch() -> Option<*const AtomicBool> {
    FLAG.try_with(|flag| {
        let mut flag = flag.borrow_mut();
        let Flag(flag) = flag.get_or_insert_with(|| {
            let flag = Arc::new(AtomicBool::new(false));
            let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
            // Flags of threads that are gone are held by nobody else.
            threads.retain(|flag| Arc::strong_count(flag) > 1);
            threads.push(Arc::clone(&flag));
            Flag(flag)
        });
        thread().launch.set(Arc::as_ptr(flag));
        Arc::as_ptr(flag)
    })
    .ok()
}

/// Whether memory has begun to move.
pub fn pressure() -> bool {
    PRESSURE.load(Ordering::Relaxed)
}

/// Ends the fast path for good and waits for the launches that are on it.
/// Not to be called by a thread that is itself inside one.
pub fn begin_pressure() {
    PRESSURE.store(true, Ordering::SeqCst);
    // Not only by the first to come: a second device may evict while the first
    // still waits.
    let threads: Vec<_> = THREADS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for flag in threads {
        while flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_evict_wait_for_the_launches_under_way() {
        static OVER: AtomicBool = AtomicBool::new(false);
        let launch = enter().expect("nothing moves yet");
        let evict = || {
            begin_pressure();
            assert!(OVER.load(Ordering::SeqCst), "a launch is still under way");
        };
        let first = std::thread::spawn(evict);
        while !pressure() {
            std::thread::yield_now();
        }
        let second = std::thread::spawn(evict);
        // Time for the second to go wrong in; it never fails for lack of it.
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        OVER.store(true, Ordering::SeqCst);
        drop(launch);
        first.join().expect("the first waits");
        second.join().expect("so does the second");
        assert!(enter().is_none());
    }
}
