//! What one operation touches, and the operation in its order.

use crate::driver::abi::*;
use crate::driver::driver;
use crate::engine::{self, ChunkId, Touch};

use super::{graphs, retry_when_out_of_memory};

/// Touches of most launches fit; more cost an allocation.
const INLINE: usize = 16;

/// What one operation names, in order: each pair of address and touch once.
pub struct Touches {
    inline: [(ChunkId, Touch); INLINE],
    /// What names each chunk of `inline`.
    addresses: [DevicePtr; INLINE],
    len: usize,
    /// All of them, once there are more than `INLINE`.
    spilled: Vec<(ChunkId, Touch)>,
    spilled_addresses: Vec<DevicePtr>,
}

impl Touches {
    pub fn new() -> Self {
        Touches {
            inline: [(0, Touch::Kernel); INLINE],
            addresses: [0; INLINE],
            len: 0,
            spilled: Vec::new(),
            spilled_addresses: Vec::new(),
        }
    }

    /// Notes `touch` of the chunk that contains `address`, if one does.
    #[inline]
    pub fn add(&mut self, address: DevicePtr, touch: Touch) {
        let Some(chunk) = engine::chunk_of(address) else {
            return;
        };
        let mut known = self.addresses().iter().zip(self.as_slice());
        if !known.any(|(&at, &(_, what))| at == address && what == touch) {
            self.add_new(chunk, address, touch);
        }
    }

    /// Notes a touch that is not among them yet.
    pub fn add_new(&mut self, chunk: ChunkId, address: DevicePtr, touch: Touch) {
        if self.len < INLINE {
            self.inline[self.len] = (chunk, touch);
            self.addresses[self.len] = address;
        } else {
            if self.spilled.is_empty() {
                self.spilled.extend_from_slice(&self.inline);
                self.spilled_addresses.extend_from_slice(&self.addresses);
            }
            self.spilled.push((chunk, touch));
            self.spilled_addresses.push(address);
        }
        self.len += 1;
    }

    /// The same, of one operation of `bytes`; nothing if that is none.
    pub fn add_sized(&mut self, address: DevicePtr, bytes: usize, touch: Touch) {
        if bytes > 0 {
            self.add(address, touch);
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub fn as_slice(&self) -> &[(ChunkId, Touch)] {
        if self.len <= INLINE { &self.inline[..self.len] } else { &self.spilled }
    }

    fn addresses(&self) -> &[DevicePtr] {
        if self.len <= INLINE { &self.addresses[..self.len] } else { &self.spilled_addresses }
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
    if is_capturing(stream) {
        return match touches.pin_for_graph() {
            Ok(()) => retry_when_out_of_memory(forward),
            Err(code) => code,
        };
    }
    let attempt = || {
        let access = engine::begin(stream, touches.as_slice(), touches.addresses())?;
        let code = forward();
        drop(access);
        Ok(code)
    };
    match attempt() {
        // The driver's own lack of memory (a module loaded at first launch).
        // Giving some back moves chunks, so never while ours are held.
        Ok(CuResult::OUT_OF_MEMORY) if engine::release_for_retry() => {
            attempt().unwrap_or_else(|code| code)
        }
        Ok(code) | Err(code) => code,
    }
}

/// Whether `stream` captures. The driver is asked only while some capture of
/// the process is under way.
pub fn is_capturing(stream: CUstream) -> bool {
    engine::any_capture() && driver().stream_is_capturing(stream).unwrap_or(false)
}
