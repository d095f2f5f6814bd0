//! Small allocations that are the driver's: where they lie. Kernels may find
//! the addresses of managed memory in them (`reach`).
//!
//! One is unlisted before it is freed, and a look at memory holds the list: so
//! nothing is looked at that may be gone. Its lock comes before a device's.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use autooffload_core::params::Span;

use super::state::engine;
use crate::driver::abi::*;

/// Beyond so many, new ones are not listed: a program that has them does not
/// keep tables of tensors in them.
const MOST: usize = 1 << 16;

/// By address: the bytes, and the context that it is of.
type Ranges = BTreeMap<DevicePtr, (usize, usize)>;

#[derive(Default)]
pub struct Small {
    ranges: RwLock<Ranges>,
    /// Bounds of all that ever were.
    low: AtomicU64,
    high: AtomicU64,
}

pub struct Listed<'a>(RwLockReadGuard<'a, Ranges>);

impl Small {
    fn note(&self, base: DevicePtr, bytes: usize, ctx: CUcontext) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.len() >= MOST {
            return;
        }
        ranges.insert(base, (bytes, ctx as usize));
        let low = self.low.load(Ordering::Relaxed);
        if low == 0 || base < low {
            self.low.store(base, Ordering::Relaxed);
        }
        self.high.fetch_max(base + bytes as u64, Ordering::Relaxed);
    }

    fn forget(&self, base: DevicePtr) {
        self.ranges.write().unwrap_or_else(PoisonError::into_inner).remove(&base);
    }

    /// `ctx` ends, and its memory with it.
    pub fn context_ends(&self, ctx: CUcontext) {
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        ranges.retain(|_, &mut (_, of)| of != ctx as usize);
    }

    /// Where all of them lie, and much else.
    pub fn span(&self) -> Span {
        let (low, high) = (self.low.load(Ordering::Relaxed), self.high.load(Ordering::Relaxed));
        Span { base: low, bytes: high.saturating_sub(low) }
    }

    /// The list, which stays as it is while the answer lives.
    pub fn list(&self) -> Listed<'_> {
        Listed(self.ranges.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Listed<'_> {
    /// The allocation of `ctx` that contains `address`.
    pub fn extent(&self, address: DevicePtr, ctx: CUcontext) -> Option<Range<DevicePtr>> {
        let (&base, &(bytes, of)) = self.0.range(..=address).next_back()?;
        let extent = base..base + bytes as u64;
        (of == ctx as usize && extent.contains(&address)).then_some(extent)
    }
}

/// The driver gave the program `bytes` at `base` in the current context.
pub fn small_allocated(base: DevicePtr, bytes: usize) {
    if let Some(engine) = engine()
        && let Ok(ctx) = engine.driver.ctx_get_current()
    {
        engine.small.note(base, bytes, ctx);
    }
}

/// The program is about to free what is the driver's at `base`.
pub fn small_freed(base: DevicePtr) {
    if let Some(engine) = engine() {
        engine.small.forget(base);
    }
}

/// Where the small allocations of the driver's lie; of no bytes if there are none.
#[inline]
pub fn small_span() -> Span {
    engine().map_or(Span::default(), |engine| engine.small.span())
}
