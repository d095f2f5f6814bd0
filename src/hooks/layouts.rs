//! Where the parameters of each kernel lie: asked of the driver once per
//! handle, forgotten when any module or library is unloaded (its handles may
//! come again for other kernels).
//!
//! Readers take no lock: each thread keeps a small direct-mapped cache in
//! front of the shared map, valid for one generation.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use autooffload_core::slots::{self, Slots};

use crate::driver::abi::*;
use crate::driver::driver;
use crate::thread::{TakenOut, thread};

/// The parameters that are long enough to hold an address.
#[derive(Debug, Default)]
pub struct Layout {
    /// No other kernel has it, whatever handles come again.
    pub kernel: u64,
    /// As the compiler has it; `None`: the driver does not tell.
    pub name: Option<String>,
    pub params: Vec<Param>,
    /// Of the one that is a struct with slots, if it is a known one.
    pub slots: Option<Slots>,
}

#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Which entry of `kernelParams` points at it.
    pub index: u32,
    pub bytes: u32,
}

/// Raised when handles may have been reused.
static GENERATION: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Shared {
    layouts: HashMap<usize, Arc<Layout>>,
    /// Handles that are `CUkernel`s; all others are `CUfunction`s.
    kernels: HashSet<usize>,
}

static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

fn with_shared<T>(act: impl FnOnce(&mut Shared) -> T) -> T {
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    act(shared.get_or_insert_default())
}

const WAYS: usize = 256;

/// What a thread knows of one handle.
#[derive(Default)]
struct Way {
    handle: usize,
    generation: u64,
    /// None: this way was never used.
    layout: Option<Arc<Layout>>,
}

/// One thread's ways, at a hash of the handle. `Thread::layouts` points at them
/// while nobody reads.
struct Cache(Box<[Way; WAYS]>);

impl Drop for Cache {
    fn drop(&mut self) {
        thread().layouts.set(std::ptr::null());
    }
}

thread_local! {
    static CACHE: RefCell<Option<Cache>> = const { RefCell::new(None) };
}

/// Whether it was met before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Met {
    Before,
    Now,
}

/// Calls `act` with the layout of `handle`, a `CUfunction` or a `CUkernel`.
///
/// Errors: what the driver answers for the handle; a launch would too.
#[inline(always)]
pub fn with(handle: CUfunction, act: impl FnOnce(&Layout)) -> Result<Met> {
    let handle = handle as usize;
    let generation = GENERATION.load(Ordering::Acquire);
    // Handles are addresses of at least 16-byte objects.
    let way = (handle >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - WAYS.ilog2());
    let ways = TakenOut::of(&thread().layouts);
    // SAFETY: null, or this thread's ways; whoever changes those has found the
    // pointer in its place, and it is put back below.
    let ways_read = unsafe { ways.pointer().cast::<[Way; WAYS]>().as_ref() };
    let known = ways_read
        .map(|ways| &ways[way])
        .filter(|way| way.handle == handle && way.generation == generation && way.layout.is_some());
    let found;
    let layout = match known.and_then(|way| way.layout.as_deref()) {
        Some(layout) => layout,
        None => {
            ways.put_back();
            let met;
            (found, met) = look_up_and_remember(handle, generation, way)?;
            act(&found);
            return Ok(met);
        }
    };
    act(layout);
    ways.put_back();
    Ok(Met::Before)
}

#[cold]
fn look_up_and_remember(handle: usize, generation: u64, way: usize) -> Result<(Arc<Layout>, Met)> {
    let (layout, met) = look_up(handle)?;
    // A thread that is ending has no cache any more.
    let _ = CACHE.try_with(|cache| {
        let Ok(mut cache) = cache.try_borrow_mut() else { return };
        let first = cache.is_none();
        // Else somebody reads, or a reader panicked: then it is left alone.
        if first || !thread().layouts.get().is_null() {
            let Cache(ways) = cache
                .get_or_insert_with(|| Cache(Box::new(std::array::from_fn(|_| Way::default()))));
            ways[way] = Way { handle, generation, layout: Some(Arc::clone(&layout)) };
            thread().layouts.set(std::ptr::from_ref(&**ways).cast());
        }
    });
    Ok((layout, met))
}

fn look_up(handle: usize) -> Result<(Arc<Layout>, Met)> {
    let (known, is_kernel) = with_shared(|shared| {
        (shared.layouts.get(&handle).cloned(), shared.kernels.contains(&handle))
    });
    if let Some(layout) = known {
        return Ok((layout, Met::Before));
    }
    // No lock is held while the driver is asked.
    let layout = Arc::new(ask(handle, is_kernel)?);
    with_shared(|shared| shared.layouts.insert(handle, layout.clone()));
    Ok((layout, Met::Now))
}

/// Walks the parameters until the driver says there is no further one.
fn ask(handle: usize, is_kernel: bool) -> Result<Layout> {
    const ADDRESS_BYTES: usize = 8;
    static KERNELS: AtomicU64 = AtomicU64::new(0);
    let kernel = KERNELS.fetch_add(1, Ordering::Relaxed);
    let mut layout = Layout { kernel, ..Layout::default() };
    let mut sizes = Vec::new();
    for index in 0.. {
        let answer = if is_kernel {
            driver().kernel_get_param_info(handle as CUkernel, index)
        } else {
            driver().func_get_param_info(handle as CUfunction, index)
        };
        match answer {
            Ok((_, bytes)) => {
                sizes.push(bytes);
                if bytes >= ADDRESS_BYTES {
                    layout.params.push(Param { index: index as u32, bytes: bytes as u32 });
                }
            }
            Err(CuResult::INVALID_VALUE) => break,
            Err(code) => return Err(code),
        }
    }
    let named = if is_kernel {
        driver().kernel_name(handle as CUkernel)
    } else {
        driver().func_name(handle as CUfunction)
    };
    layout.name = named.ok();
    // A driver that tells no names: then every word counts.
    layout.slots = layout.name.as_deref().and_then(|name| {
        let known = slots::may_have_slots(name) && torch_release_is_known();
        known.then(|| Slots::of(name, &sizes)).flatten()
    });
    Ok(layout)
}

/// Whether the PyTorch of this process is one whose kernels' structs are known:
/// its release stands in a file beside its libraries.
fn torch_release_is_known() -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return false };
    let library = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut folders = library
        .filter(|path| path.file_name().is_some_and(|name| name == "libtorch_cuda.so"))
        .filter_map(|path| path.parent()?.parent());
    folders.next().is_some_and(|folder| {
        let text = std::fs::read_to_string(folder.join("version.py")).unwrap_or_default();
        let version = text.lines().find_map(|line| line.strip_prefix("__version__ = '"));
        version.is_some_and(|version| slots::knows_release(version.trim_end_matches('\'')))
    })
}

/// `kernel` came from a library: it is asked about as a `CUkernel`.
pub fn note_kernel(kernel: CUkernel) {
    with_shared(|shared| shared.kernels.insert(kernel as usize));
}

/// Handles may come again for other kernels from here on.
pub fn forget_all() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    with_shared(|shared| shared.layouts.clear());
}
