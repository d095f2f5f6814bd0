//! What is derived from the list at run time: originals, names, counters.
//!
//! Everything here may be called inside ELF constructors and under the
//! loader's lock: atomics only, no lock, no allocation, no log.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use super::table::{ADDRESSES, CLASSES, Class, Group, HOOKS, Hook, NAMES};
use crate::driver::abi::CuResult;
use crate::driver::original;

/// Originals by row; null until resolved, or absent from this driver.
static ORIGINALS: [AtomicPtr<c_void>; HOOKS.len()] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; HOOKS.len()];
/// Every row was looked for: what is null now is absent from this driver.
static ALL_RESOLVED: AtomicBool = AtomicBool::new(false);

/// What became of the program's calls of one row.
struct Count {
    calls: AtomicU64,
    /// Answered without a call of the original.
    served: AtomicU64,
    /// Calls of the original; more than one for a call that was tried again.
    forwarded: AtomicU64,
}

static COUNTS: [Count; HOOKS.len()] = [const {
    Count { calls: AtomicU64::new(0), served: AtomicU64::new(0), forwarded: AtomicU64::new(0) }
}; HOOKS.len()];

static NAME_OF: [&CStr; HOOKS.len()] = NAMES;
/// Rows in the order of their names.
static BY_NAME: [u16; HOOKS.len()] = sorted_by_name();

#[allow(long_running_const_eval)]
const fn sorted_by_name() -> [u16; HOOKS.len()] {
    let mut order = [0u16; HOOKS.len()];
    let mut i = 0;
    while i < order.len() {
        let mut at = i;
        while at > 0 && less(NAMES[i].to_bytes(), NAMES[order[at - 1] as usize].to_bytes()) {
            order[at] = order[at - 1];
            at -= 1;
        }
        order[at] = i as u16;
        i += 1;
    }
    order
}

const fn less(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return a[i] < b[i];
        }
        i += 1;
    }
    a.len() < b.len()
}

impl Hook {
    pub fn name(self) -> &'static CStr {
        NAME_OF[self as usize]
    }

    /// The row of exactly that name.
    pub fn named(name: &CStr) -> Option<Hook> {
        let name = name.to_bytes();
        // Nearly every lookup of a process ends here.
        if !name.starts_with(b"cu") {
            return None;
        }
        BY_NAME
            .binary_search_by(|&row| NAME_OF[row as usize].to_bytes().cmp(name))
            .ok()
            .map(|at| HOOKS[BY_NAME[at] as usize])
    }

    /// The row whose original lies at `address`.
    pub fn with_original(address: *mut c_void) -> Option<Hook> {
        resolve_all();
        ORIGINALS
            .iter()
            .position(|original| original.load(Ordering::Relaxed) == address)
            .map(|row| HOOKS[row])
    }

    /// Our exported function.
    pub fn address(self) -> *mut c_void {
        ADDRESSES.0[self as usize].cast_mut()
    }

    /// The driver's function; loads libcuda if nobody has yet.
    pub fn original(self) -> Option<*mut c_void> {
        let slot = &ORIGINALS[self as usize];
        let mut original = slot.load(Ordering::Acquire);
        if original.is_null() {
            if ALL_RESOLVED.load(Ordering::Acquire) {
                return None;
            }
            original = original::resolve(self.name());
            // Two threads may both resolve; they store the same address.
            slot.store(original, Ordering::Release);
        }
        (!original.is_null()).then_some(original)
    }

    /// The answer when there is no original to call: no driver, or one that
    /// does not have this function.
    pub fn absent(self) -> CuResult {
        if !original::libcuda().is_null() {
            CuResult::NOT_SUPPORTED
        } else if self == Hook::cuInit {
            CuResult::NO_DEVICE
        } else {
            CuResult::NOT_INITIALIZED
        }
    }

    pub fn class(self) -> Class {
        CLASSES[self as usize].0
    }

    /// One more call by the program, for which the original was called
    /// `forwarded` times.
    pub fn count(self, forwarded: u64) {
        let count = &COUNTS[self as usize];
        count.calls.fetch_add(1, Ordering::Relaxed);
        if forwarded == 0 {
            count.served.fetch_add(1, Ordering::Relaxed);
        } else {
            count.forwarded.fetch_add(forwarded, Ordering::Relaxed);
        }
    }
}

/// Looks every original up, once libcuda is there.
fn resolve_all() {
    if ALL_RESOLVED.load(Ordering::Acquire) || original::libcuda().is_null() {
        return;
    }
    for hook in HOOKS {
        hook.original();
    }
    ALL_RESOLVED.store(true, Ordering::Release);
}

/// The account of one row.
pub struct Counted {
    pub name: &'static str,
    pub class: Class,
    pub calls: u64,
    pub served: u64,
    pub forwarded: u64,
}

/// The rows that the program called at all.
pub fn counts() -> Vec<Counted> {
    HOOKS
        .iter()
        .zip(&COUNTS)
        .map(|(hook, count)| Counted {
            name: hook.name().to_str().unwrap_or(""),
            class: hook.class(),
            calls: count.calls.load(Ordering::Relaxed),
            served: count.served.load(Ordering::Relaxed),
            forwarded: count.forwarded.load(Ordering::Relaxed),
        })
        .filter(|counted| counted.calls > 0)
        .collect()
}

/// Calls of the program in `group`.
pub fn group_count(group: Group) -> u64 {
    CLASSES
        .iter()
        .zip(&COUNTS)
        .filter(|((_, of), _)| *of == group)
        .map(|(_, count)| count.calls.load(Ordering::Relaxed))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_exact_name_only() {
        for &hook in HOOKS {
            assert_eq!(Hook::named(hook.name()), Some(hook));
        }
        for stranger in
            [c"", c"cu", c"cuMemAlloc", c"cudnnCreate", c"cuInitX", c"malloc", c"cuMemcpy_"]
        {
            assert_eq!(Hook::named(stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn no_name_and_no_address_occurs_twice() {
        for (i, a) in HOOKS.iter().enumerate() {
            for b in &HOOKS[i + 1..] {
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
