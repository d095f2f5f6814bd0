//! What a scope changes and puts back: the thread's context, its capture mode.

use super::any_capture;
use crate::driver::Driver;
use crate::driver::abi::*;

/// Makes a context current for a scope, if it is not already.
pub(super) struct ContextGuard {
    driver: &'static Driver,
    pushed: bool,
}

impl ContextGuard {
    pub(super) fn enter(driver: &'static Driver, ctx: CUcontext) -> Self {
        let pushed = driver.ctx_get_current() != Ok(ctx) && driver.ctx_push_current(ctx).is_ok();
        Self { driver, pushed }
    }
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        if self.pushed {
            let _ = self.driver.ctx_pop_current();
        }
    }
}

/// While anything captures, our own calls must not be refused because of it, nor
/// spoil it. What begins meanwhile waits for the locks of ours that are held
/// (`captures`).
pub(super) struct RelaxedCapture {
    driver: &'static Driver,
    former: Option<std::ffi::c_int>,
}

impl RelaxedCapture {
    pub(super) fn enter(driver: &'static Driver) -> Self {
        if any_capture() { Self::always(driver) } else { Self { driver, former: None } }
    }

    /// Whether anything captures or not: for calls without a lock, while which one
    /// may begin.
    pub(super) fn always(driver: &'static Driver) -> Self {
        let former = driver.thread_exchange_capture_mode(CAPTURE_MODE_RELAXED).ok();
        Self { driver, former }
    }
}

impl Drop for RelaxedCapture {
    fn drop(&mut self) {
        if let Some(former) = self.former {
            let _ = self.driver.thread_exchange_capture_mode(former);
        }
    }
}
