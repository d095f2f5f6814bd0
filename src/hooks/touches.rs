//! What one operation touches, and the operation in its order.

use std::mem::MaybeUninit;
use std::slice;

use crate::driver::abi::*;
use crate::driver::driver;
use crate::engine::{self, ChunkId, Launched, Managed, Touch, Touched};

use super::{graphs, retry_when_out_of_memory};

/// Touches of most launches fit; more cost an allocation.
const INLINE: usize = 16;

/// What one operation names, in order. Of the first few, one may be there more
/// than once: to ask costs more than to have it twice.
///
/// Boxed once more, so that there is one word to set and to look at.
///
/// Invariant: the first `len` of `first` are set. What finds no room there is,
/// with all before it, in `spilled`.
#[allow(clippy::box_collection, reason = "as said")]
pub struct Touches {
    len: usize,
    first: MaybeUninit<[Touched; INLINE]>,
    spilled: Option<Box<Vec<Touched>>>,
}

impl Touches {
    #[inline(always)]
    pub fn new() -> Self {
        let mut touches = MaybeUninit::<Self>::uninit();
        let fields = touches.as_mut_ptr();
        // SAFETY: every field is set that has to be; by an expression, the
        // array would be filled with zeros, at every launch.
        unsafe {
            (&raw mut (*fields).len).write(0);
            (&raw mut (*fields).spilled).write(None);
            touches.assume_init()
        }
    }

    /// Notes `touch` of the chunk that contains `address`, if one does. Weights are
    /// known by their being filled from the host, so that is told at once.
    #[inline(always)]
    pub fn add(&mut self, address: DevicePtr, touch: Touch) {
        if let Some(managed) = engine::managed() {
            self.add_managed(managed, address, touch);
        }
    }

    /// The same where it is known that there is managed memory.
    #[inline(always)]
    pub fn add_managed(&mut self, managed: Managed, address: DevicePtr, touch: Touch) {
        if let Some(chunk) = managed.map().owner(address) {
            if let Touch::HostWrite { bytes } = touch {
                managed.note_fill(chunk, address, bytes);
            }
            self.add_new(chunk, address, touch);
        }
    }

    /// Notes a touch of `chunk`, which contains `address`; not a copy from the host.
    #[inline(always)]
    pub fn add_new(&mut self, chunk: ChunkId, address: DevicePtr, touch: Touch) {
        if self.len < INLINE {
            // SAFETY: below the array's length. Field by field: as a whole it
            // would be made elsewhere, and copied.
            unsafe {
                let next = self.first.as_mut_ptr().cast::<Touched>().add(self.len);
                (&raw mut (*next).touch).write(touch);
                (&raw mut (*next).address).write(address);
                (&raw mut (*next).chunk).write(chunk);
            }
            self.len += 1;
        } else {
            self.spill(Touched { touch, address, chunk });
        }
    }

    #[cold]
    #[inline(never)]
    fn spill(&mut self, touched: Touched) {
        // Before an allocation is made, whether this one needs it.
        if self.as_slice().contains(&touched) {
            return;
        }
        let mut spilled = self.spilled.take().unwrap_or_else(|| Box::new(self.as_slice().to_vec()));
        spilled.push(touched);
        self.spilled = Some(spilled);
    }

    /// The same, of one operation of `bytes`; nothing if that is none.
    #[inline(always)]
    pub fn add_sized(&mut self, address: DevicePtr, bytes: usize, touch: Touch) {
        if bytes > 0 {
            self.add(address, touch);
        }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    pub fn as_slice(&self) -> &[Touched] {
        match &self.spilled {
            Some(spilled) => spilled,
            // SAFETY: those are set.
            None => unsafe { slice::from_raw_parts(self.first.as_ptr().cast(), self.len) },
        }
    }

    /// Keeps the chunks resident on behalf of a graph, and remembers that its
    /// replays touch them.
    pub fn pin_for_graph(&self) -> Result<()> {
        let chunks: Vec<ChunkId> = self.as_slice().iter().map(|touched| touched.chunk).collect();
        engine::pin_for_graph(&chunks)?;
        graphs::remember(self.as_slice());
        Ok(())
    }
}

/// Runs `forward`, an operation on `stream` (effective) that touches
/// `touches`: with its chunks present and ordered, or recorded into the graph
/// that the stream captures.
///
/// Errors: what the engine answers when the chunks cannot be present; the
/// original is not called then.
#[inline(always)]
pub fn ordered(stream: CUstream, touches: &Touches, forward: impl Fn() -> CuResult) -> CuResult {
    match engine::managed() {
        Some(managed) => ordered_in(managed, stream, touches, forward),
        None => retry_when_out_of_memory(forward),
    }
}

/// The same where it is known that there is managed memory.
#[inline(always)]
pub fn ordered_in(
    managed: Managed,
    stream: CUstream,
    touches: &Touches,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    let done = ordered_fast(managed, stream, touches, &forward);
    done.unwrap_or_else(|| carefully(stream, touches, None, &forward))
}

/// The same where it needs no care. `None`: it does, and nothing was called.
#[inline(always)]
pub fn ordered_fast(
    managed: Managed,
    stream: CUstream,
    touches: &Touches,
    forward: &impl Fn() -> CuResult,
) -> Option<CuResult> {
    if touches.is_empty() {
        return Some(retry_when_out_of_memory(forward));
    }
    let fast = managed.begin_fast(stream, touches.as_slice())?;
    let code = forward();
    fast.end(touches.as_slice());
    let missing = code == CuResult::OUT_OF_MEMORY;
    Some(if missing { once_more(stream, touches, None, forward) } else { code })
}

/// The same of a launch while memory moves; `launched`: what it is, if known.
pub fn ordered_launch(
    stream: CUstream,
    touches: &Touches,
    launched: Option<&Launched>,
    forward: &dyn Fn() -> CuResult,
) -> CuResult {
    let says_nothing = |launched: &Launched| launched.small.is_empty() && !engine::verifies();
    if touches.is_empty() && launched.is_none_or(says_nothing) {
        return retry_when_out_of_memory(forward);
    }
    carefully(stream, touches, launched, forward)
}

#[cold]
#[inline(never)]
fn carefully(
    stream: CUstream,
    touches: &Touches,
    launched: Option<&Launched>,
    forward: &dyn Fn() -> CuResult,
) -> CuResult {
    if is_capturing(stream) {
        return captured(touches, forward);
    }
    match engine::carefully(stream, touches.as_slice(), launched, forward) {
        Ok(CuResult::OUT_OF_MEMORY) => once_more(stream, touches, launched, forward),
        Ok(code) | Err(code) => code,
    }
}

#[cold]
fn captured(touches: &Touches, forward: &dyn Fn() -> CuResult) -> CuResult {
    match touches.pin_for_graph() {
        Ok(()) => retry_when_out_of_memory(forward),
        Err(code) => code,
    }
}

/// After the driver's own lack of memory (a module loaded at first launch).
/// Giving some back moves chunks, so never while those of the operation are held.
#[cold]
fn once_more(
    stream: CUstream,
    touches: &Touches,
    launched: Option<&Launched>,
    forward: &dyn Fn() -> CuResult,
) -> CuResult {
    if !engine::release_for_retry() {
        return CuResult::OUT_OF_MEMORY;
    }
    match engine::carefully(stream, touches.as_slice(), launched, forward) {
        Ok(code) | Err(code) => code,
    }
}

/// Whether `stream` captures. The driver is asked only while some capture of
/// the process is under way.
pub fn is_capturing(stream: CUstream) -> bool {
    engine::any_capture() && driver().stream_is_capturing(stream).unwrap_or(false)
}
