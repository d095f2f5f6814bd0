//! What one operation touches, and the operation in its order.

use std::mem::MaybeUninit;
use std::slice;

use crate::driver::abi::*;
use crate::driver::driver;
use crate::engine::{self, ChunkId, Launched, Touch};

use super::{graphs, retry_when_out_of_memory};

/// Touches of most launches fit; more cost an allocation.
const INLINE: usize = 16;

/// What one operation names, in order. Of the first few, one may be there more
/// than once: to ask costs more than to have it twice.
///
/// Invariant: the first `len` of both arrays are set; what finds no room there
/// is, with all before it, in `spilled`.
pub struct Touches {
    len: usize,
    chunks: MaybeUninit<[(ChunkId, Touch); INLINE]>,
    /// What names each chunk of `chunks`.
    addresses: MaybeUninit<[DevicePtr; INLINE]>,
    spilled: Option<Box<Spilled>>,
    /// What kind of launch it is, while memory moves.
    pub launched: Option<Box<Launched>>,
}

#[derive(Default)]
struct Spilled {
    chunks: Vec<(ChunkId, Touch)>,
    addresses: Vec<DevicePtr>,
}

impl Touches {
    #[inline(always)]
    pub fn new() -> Self {
        let mut touches = MaybeUninit::<Touches>::uninit();
        let fields = touches.as_mut_ptr();
        // SAFETY: every field is set that has to be; by an expression, the
        // arrays would be filled with zeros, at every launch.
        unsafe {
            (&raw mut (*fields).len).write(0);
            (&raw mut (*fields).spilled).write(None);
            (&raw mut (*fields).launched).write(None);
            touches.assume_init()
        }
    }

    /// Notes `touch` of the chunk that contains `address`, if one does.
    #[inline]
    pub fn add(&mut self, address: DevicePtr, touch: Touch) {
        if let Some(chunk) = engine::chunk_of(address) {
            self.add_new(chunk, address, touch);
        }
    }

    /// Notes a touch of `chunk`, which contains `address`.
    #[inline(always)]
    pub fn add_new(&mut self, chunk: ChunkId, address: DevicePtr, touch: Touch) {
        if self.len < INLINE {
            // SAFETY: below the arrays' length.
            unsafe {
                self.chunks
                    .as_mut_ptr()
                    .cast::<(ChunkId, Touch)>()
                    .add(self.len)
                    .write((chunk, touch));
                self.addresses.as_mut_ptr().cast::<DevicePtr>().add(self.len).write(address);
            }
            self.len += 1;
        } else {
            self.spill(chunk, address, touch);
        }
    }

    #[cold]
    #[inline(never)]
    fn spill(&mut self, chunk: ChunkId, address: DevicePtr, touch: Touch) {
        // Before an allocation is made, whether this one needs it.
        let mut known = self.addresses().iter().zip(self.as_slice());
        if known.any(|(&at, &(_, what))| at == address && what == touch) {
            return;
        }
        let mut spilled = self.spilled.take().unwrap_or_else(|| {
            Box::new(Spilled {
                chunks: self.as_slice().to_vec(),
                addresses: self.addresses().to_vec(),
            })
        });
        spilled.chunks.push((chunk, touch));
        spilled.addresses.push(address);
        self.spilled = Some(spilled);
    }

    /// The same, of one operation of `bytes`; nothing if that is none.
    pub fn add_sized(&mut self, address: DevicePtr, bytes: usize, touch: Touch) {
        if bytes > 0 {
            self.add(address, touch);
        }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        let says_nothing = |launched: &Launched| launched.small.is_empty() && !engine::verifies();
        self.len == 0 && self.launched.as_deref().is_none_or(says_nothing)
    }

    #[inline(always)]
    pub fn as_slice(&self) -> &[(ChunkId, Touch)] {
        match &self.spilled {
            Some(spilled) => &spilled.chunks,
            // SAFETY: those are set.
            None => unsafe { slice::from_raw_parts(self.chunks.as_ptr().cast(), self.len) },
        }
    }

    #[inline(always)]
    fn addresses(&self) -> &[DevicePtr] {
        match &self.spilled {
            Some(spilled) => &spilled.addresses,
            // SAFETY: those are set.
            None => unsafe { slice::from_raw_parts(self.addresses.as_ptr().cast(), self.len) },
        }
    }

    /// Keeps the chunks resident on behalf of a graph, and remembers that its
    /// replays touch them.
    pub fn pin_for_graph(&self) -> Result<()> {
        let chunks: Vec<ChunkId> = self.as_slice().iter().map(|&(chunk, _)| chunk).collect();
        engine::pin_for_graph(&chunks)?;
        graphs::remember(self.addresses());
        Ok(())
    }
}

/// Runs `forward`, an operation on `stream` (effective) that touches
/// `touches`: with its chunks present and ordered, or recorded into the graph
/// that the stream captures.
///
/// Errors: what the engine answers when the chunks cannot be present; the
/// original is not called then.
#[inline]
pub fn ordered(stream: CUstream, touches: &Touches, forward: impl Fn() -> CuResult) -> CuResult {
    if touches.is_empty() {
        return retry_when_out_of_memory(forward);
    }
    if engine::any_capture() && is_capturing(stream) {
        return captured(touches, &forward);
    }
    let code = match engine::begin(
        stream,
        touches.as_slice(),
        touches.addresses(),
        touches.launched.as_deref(),
    ) {
        Ok(access) => {
            let code = forward();
            drop(access);
            code
        }
        Err(code) => return code,
    };
    if code == CuResult::OUT_OF_MEMORY { once_more(stream, touches, &forward) } else { code }
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
fn once_more(stream: CUstream, touches: &Touches, forward: &dyn Fn() -> CuResult) -> CuResult {
    if !engine::release_for_retry() {
        return CuResult::OUT_OF_MEMORY;
    }
    match engine::begin(
        stream,
        touches.as_slice(),
        touches.addresses(),
        touches.launched.as_deref(),
    ) {
        Ok(_access) => forward(),
        Err(code) => code,
    }
}

/// Whether `stream` captures. The driver is asked only while some capture of
/// the process is under way.
pub fn is_capturing(stream: CUstream) -> bool {
    engine::any_capture() && driver().stream_is_capturing(stream).unwrap_or(false)
}
