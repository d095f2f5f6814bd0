//! Threads of our own, beside the program's.
//!
//! Signals are for the program's threads: ours start with every one blocked, so
//! that no handler of the program's runs on a thread that it does not know.

/// Starts `body` in a thread of this name (at most 15 letters are shown).
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    with_signals_blocked(|| {
        std::thread::Builder::new().name(name.into()).spawn(body).map(|_detached| ())
    })
}

/// What `act` starts inherits a mask with every signal blocked.
fn with_signals_blocked<T>(act: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are filled before they are read; only this thread's
    // mask changes, and it is put back.
    unsafe {
        let (mut all, mut former) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut former);
        let answer = act();
        libc::pthread_sigmask(libc::SIG_SETMASK, &former, std::ptr::null_mut());
        answer
    }
}
