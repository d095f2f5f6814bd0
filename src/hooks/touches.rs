//! What one operation touches, and the operation in its order.

use smallvec::SmallVec;

use crate::driver::abi::*;
use crate::driver::driver;
use crate::engine::{self, ChunkId, Touch};

use super::{graphs, retry_when_out_of_memory};

/// Touches of most launches fit; more cost an allocation.
const INLINE: usize = 16;

/// What one operation names, in order. Of the first few, one may be there more
/// than once: to ask costs more than to have it twice.
#[derive(Default)]
pub struct Touches {
    chunks: SmallVec<[(ChunkId, Touch); INLINE]>,
    /// What names each chunk of `chunks`.
    addresses: SmallVec<[DevicePtr; INLINE]>,
}

impl Touches {
    pub fn new() -> Self {
        Touches::default()
    }

    /// Notes `touch` of the chunk that contains `address`, if one does.
    #[inline]
    pub fn add(&mut self, address: DevicePtr, touch: Touch) {
        let Some(chunk) = engine::chunk_of(address) else {
            return;
        };
        // Before an allocation is needed, whether this one needs it.
        if self.chunks.len() >= INLINE {
            let mut known = self.addresses.iter().zip(&self.chunks);
            if known.any(|(&at, &(_, what))| at == address && what == touch) {
                return;
            }
        }
        self.add_new(chunk, address, touch);
    }

    /// Notes a touch without asking whether it is among them.
    #[inline]
    pub fn add_new(&mut self, chunk: ChunkId, address: DevicePtr, touch: Touch) {
        self.chunks.push((chunk, touch));
        self.addresses.push(address);
    }

    /// The same, of one operation of `bytes`; nothing if that is none.
    pub fn add_sized(&mut self, address: DevicePtr, bytes: usize, touch: Touch) {
        if bytes > 0 {
            self.add(address, touch);
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    #[inline]
    pub fn as_slice(&self) -> &[(ChunkId, Touch)] {
        &self.chunks
    }

    /// Keeps the chunks resident on behalf of a graph, and remembers that its
    /// replays touch them.
    pub fn pin_for_graph(&self) -> Result<()> {
        let chunks: Vec<ChunkId> = self.as_slice().iter().map(|&(chunk, _)| chunk).collect();
        engine::pin_for_graph(&chunks)?;
        graphs::remember(&self.addresses);
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
    let code = match engine::begin(stream, touches.as_slice(), &touches.addresses) {
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
    match engine::begin(stream, touches.as_slice(), &touches.addresses) {
        Ok(_access) => forward(),
        Err(code) => code,
    }
}

/// Whether `stream` captures. The driver is asked only while some capture of
/// the process is under way.
pub fn is_capturing(stream: CUstream) -> bool {
    engine::any_capture() && driver().stream_is_capturing(stream).unwrap_or(false)
}
