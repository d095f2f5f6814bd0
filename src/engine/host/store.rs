//! Host memory for chunks that are not on the device: exact size, on huge
//! pages where the system gives them, page-locked, kept out of forked
//! children, and within a cap.
//!
//! Threads: allocation is called under a device's lock; the cap is shared by
//! all devices through atomics.
//! Not here: which chunk needs it, and when.

use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use autooffload_core::config::Limit;
use autooffload_core::host_limits;
use autooffload_core::units::Size;

use super::fair;
use super::populate::populate;
use super::record::{Record, Span};
use crate::driver::Driver;
use crate::driver::abi::DevicePtr;
use crate::engine::account::{Progress, told};

/// One chunk's host memory. Freed by [`HostStore::free`], not by dropping.
#[derive(Debug)]
pub struct HostBuffer {
    pub address: *mut c_void,
    pub bytes: usize,
    mapped_bytes: usize,
    registered: bool,
    /// What the device has seen of these bytes; `None`: it does not reach them.
    record: Option<Arc<Record>>,
    /// The larger piece of memory that it is a part of, if it is.
    slab: Option<Arc<HostBuffer>>,
}

impl HostBuffer {
    /// `bytes` of `slab` from `start` on. The caller sees to it that no two overlap.
    pub fn within(slab: &Arc<HostBuffer>, start: usize, bytes: usize) -> Self {
        assert!(start + bytes <= slab.bytes);
        Self {
            address: slab.address.wrapping_byte_add(start),
            bytes,
            mapped_bytes: 0,
            registered: false,
            record: slab.record.clone(),
            slab: Some(slab.clone()),
        }
    }

    /// What is known of its bytes; `None`: the device does not reach them.
    pub fn record(&self) -> Option<Arc<Record>> {
        self.record.clone()
    }

    /// The copy between `device` and `bytes` of this memory from `start` on.
    pub fn span(&self, device: DevicePtr, start: usize, bytes: usize) -> Span {
        let host = self.address.wrapping_byte_add(start);
        Span { device, host, bytes, record: self.record.clone() }
    }

    /// Which slab it is a part of, as a number to compare.
    pub fn slab(&self) -> Option<usize> {
        self.slab.as_ref().map(|slab| slab.address as usize)
    }
}

/// All host copies of the process.
pub struct HostStore {
    driver: &'static Driver,
    pin: bool,
    limit: Limit,
    /// Where the kernel's files are, `/` outside of tests.
    root: PathBuf,
    /// Answers who else of this user is there.
    read_others: fn() -> Vec<fair::Other>,
    /// Held from the check of the cap until the bytes count as used.
    known: Mutex<Option<Known>>,
    /// The user's other processes that stream, when they were last looked for.
    others: Mutex<Vec<fair::Other>>,
    used_bytes: AtomicU64,
    pinned_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    pin_failure_said: AtomicBool,
    progress: Progress,
}

/// What could be taken when it was last read, less what was taken since.
struct Known {
    read: Instant,
    left_bytes: u64,
}

/// How old a reading may be: frames are taken by the thousand, and a reading
/// costs as much as a frame.
const FRESH: Duration = Duration::from_millis(10);

impl HostStore {
    pub fn new(driver: &'static Driver, pin: bool, limit: Limit) -> Self {
        Self {
            driver,
            pin,
            limit,
            root: PathBuf::from("/"),
            read_others: fair::others,
            known: Mutex::new(None),
            others: Mutex::default(),
            used_bytes: AtomicU64::new(0),
            pinned_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            pin_failure_said: AtomicBool::new(false),
            progress: Progress::default(),
        }
    }

    /// Whether memory may be page-locked at all.
    pub fn pins(&self) -> bool {
        self.pin
    }

    /// (in use, page-locked, peak) bytes.
    pub fn usage(&self) -> (u64, u64, u64) {
        (
            self.used_bytes.load(Ordering::Relaxed),
            self.pinned_bytes.load(Ordering::Relaxed),
            self.peak_bytes.load(Ordering::Relaxed),
        )
    }

    /// Looks for the user's other processes: what is left is shared with them.
    pub fn look_for_others(&self) {
        if matches!(self.limit, Limit::Auto) {
            *self.others.lock().unwrap_or_else(PoisonError::into_inner) = (self.read_others)();
        }
    }

    /// Bytes that may still be taken; read afresh, because others take too.
    pub fn available(&self) -> u64 {
        let used = self.used_bytes.load(Ordering::Relaxed);
        let machine = || read_limits(&self.root);
        match self.limit {
            Limit::Given(Size::Bytes(cap)) => cap.saturating_sub(used),
            Limit::Given(Size::Percent(percent)) => {
                let cap = machine().total_bytes as f64 * percent / 100.0;
                (cap as u64).saturating_sub(used)
            }
            Limit::Auto => {
                let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
                fair::share(machine().spendable(), used, &others)
            }
        }
    }

    /// Counts `bytes` as used. `false`: over the cap.
    fn take(&self, bytes: u64) -> bool {
        // Two devices must not both pass the check.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.as_ref().is_some_and(|known| known.read.elapsed() < FRESH);
        let enough = known.as_ref().is_some_and(|known| known.left_bytes >= bytes);
        if !fresh || !enough {
            if !enough {
                // What the others have by now: it decides who may have what is left.
                self.look_for_others();
            }
            *known = Some(Known { read: Instant::now(), left_bytes: self.available() });
        }
        let Some(known) = known.as_mut().filter(|known| known.left_bytes >= bytes) else {
            return false;
        };
        known.left_bytes -= bytes;
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_bytes.fetch_max(used, Ordering::Relaxed);
        true
    }

    /// Whether what is page-locked by others, the driver, may be taken on our
    /// account: `bytes` count as used and page-locked until they are given back.
    pub fn take_pinned(&self, bytes: usize) -> bool {
        let taken = self.take(bytes as u64);
        if taken {
            self.pinned_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        taken
    }

    pub fn give_pinned_back(&self, bytes: usize) {
        self.pinned_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// `bytes` of host memory, page-locked if it can be. `None`: over the cap,
    /// or the system has none.
    pub fn allocate(&self, bytes: usize) -> Option<HostBuffer> {
        if !self.take(bytes as u64) {
            return None;
        }
        let began = Instant::now();
        let mapped_bytes = Record::end(bytes).next_multiple_of(PAGE_BYTES);
        // SAFETY: a fresh anonymous mapping; the kernel picks the address.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            self.used_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
            return None;
        }
        // Both are wishes: where the kernel refuses, nothing is lost but speed.
        // SAFETY: the range is the mapping just made.
        unsafe {
            libc::madvise(address, mapped_bytes, libc::MADV_HUGEPAGE);
            libc::madvise(address, mapped_bytes, libc::MADV_DONTFORK);
        }
        populate(address, mapped_bytes);
        // SAFETY: the mapping lives until `free`, which unregisters first.
        let registered = self.pin
            && match unsafe { self.driver.mem_host_register(address, mapped_bytes) } {
                Ok(()) => true,
                Err(code) => {
                    if !self.pin_failure_said.swap(true, Ordering::Relaxed) {
                        log::warn!(
                            "page-locking host memory failed ({code}): copies will be slower; \
                             raise the locked-memory limit, or set AUTOOFFLOAD_PIN=0 to silence this"
                        );
                    }
                    false
                }
            };
        if registered {
            self.pinned_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if let Some((bytes, took)) = self.progress.step(began, bytes as u64) {
                told::locking(bytes, took);
            }
        }
        // Where kernels know it by another address, they are not sent there.
        let reached = registered
            && self.driver.mem_host_get_device_pointer(address) == Ok(address as DevicePtr);
        let record = reached.then(|| Arc::new(Record::new(address, bytes)));
        Some(HostBuffer { address, bytes, mapped_bytes, registered, record, slab: None })
    }

    /// Gives `buffer` back. No queued copy uses it any more.
    pub fn free(&self, buffer: HostBuffer) {
        if let Some(slab) = buffer.slab {
            // The last part takes the whole along.
            return Arc::into_inner(slab).into_iter().for_each(|slab| self.free(slab));
        }
        if buffer.registered {
            self.pinned_bytes.fetch_sub(buffer.bytes as u64, Ordering::Relaxed);
            if self.driver.mem_host_unregister(buffer.address).is_err() {
                // The context is gone, and with it the registration.
                log::debug!("host memory was no longer registered");
            }
        }
        self.used_bytes.fetch_sub(buffer.bytes as u64, Ordering::Relaxed);
        // SAFETY: made by `allocate` with this length, used by nobody any more.
        unsafe { libc::munmap(buffer.address, buffer.mapped_bytes) };
    }
}

const PAGE_BYTES: usize = 4096;

/// The machine's and the cgroup's limits, read from files under `root`.
fn read_limits(root: &Path) -> host_limits::Limits {
    host_limits::read(|path| fs::read_to_string(root.join(path)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_need_is_left_to_them() {
        let root = std::env::temp_dir().join(format!("ao-store-{}", std::process::id()));
        fs::create_dir_all(root.join("proc")).expect("a folder");
        let kib = |gib: u64| gib << 20;
        let text = format!("MemTotal: {} kB\nMemAvailable: {} kB\n", kib(16), kib(9));
        fs::write(root.join("proc/meminfo"), text).expect("a file");
        let mut store = HostStore::new(crate::driver::driver(), false, Limit::Auto);
        store.root = root.clone();
        assert_eq!(store.available(), 8 << 30);
        store.read_others = || vec![fair::Other { used_bytes: 0, needs_bytes: 20 << 30 }];
        store.look_for_others();
        assert_eq!(store.available(), 4 << 30);
        assert!(!store.take(5 << 30) && store.take(3 << 30));
        let mut given =
            HostStore::new(crate::driver::driver(), false, Limit::Given(Size::Bytes(9)));
        given.read_others = store.read_others;
        given.look_for_others();
        assert_eq!(given.available(), 9, "who says how much gets as much");
        fs::remove_dir_all(root).expect("removed");
    }
}
