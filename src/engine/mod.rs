//! Carries plans out: what the hooks ask, and nothing of CUDA's calling
//! conventions.
//!
//! The hooks hand over converted arguments; every function here either serves
//! the request or answers that it is not ours, and then the hook calls the
//! original. Nothing here is called before `cuInit` has succeeded, in a forked
//! child, or after [`crate::exports`]'s exit handler ran.
//!
//! Flow of one launch: hook → [`chunk_of`] on every parameter word →
//! [`begin`] (chunks present, waits queued on the stream) → original →
//! [`Access`] dropped (last use recorded, next copies submitted).

use autooffload_core::config::Config;

use crate::driver::Driver;
use crate::driver::abi::*;

/// Index of a managed allocation, unique in the process while it lives.
pub type ChunkId = u32;

/// What the hooks need to answer queries about a managed address.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub base: DevicePtr,
    /// As the program asked for, bytes.
    pub bytes: usize,
    pub device: Device,
    /// The context the allocation was made in.
    pub ctx: CUcontext,
    /// Of stream-ordered origin (`cuMemAllocAsync`): the pool it came from.
    pub pool: Option<CUmemoryPool>,
}

/// Why a chunk is about to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A kernel (or a graph node) received a pointer into it: may read and write all of it.
    Kernel,
    /// A copy or memset reads `bytes` of it.
    CopyFrom { bytes: usize },
    /// A copy from the host writes `bytes` of it.
    HostWrite { bytes: usize },
    /// A device-side copy or memset writes `bytes` of it.
    DeviceWrite { bytes: usize },
}

/// Called once, right after the first successful `cuInit`. Starts nothing if
/// `config.enabled` is false; then every other function answers "not ours".
pub fn start(driver: &'static Driver, config: &'static Config) {
    let _ = (driver, config);
}

/// The chunk that contains `address`. Lock-free, a few nanoseconds; `None` for
/// anything outside the arena and for the guard gaps.
#[inline]
pub fn chunk_of(address: DevicePtr) -> Option<ChunkId> {
    let _ = address;
    None
}

/// Half-open bounds of the arena, (0, 0) before the first managed allocation.
#[inline]
pub fn arena() -> (DevicePtr, DevicePtr) {
    (0, 0)
}

/// The managed allocation that contains `address`.
pub fn lookup(address: DevicePtr) -> Option<Allocation> {
    let _ = address;
    None
}

/// `cuMemAlloc`. `None`: too small or not ours, call the original.
pub fn mem_alloc(bytes: usize) -> Option<Result<DevicePtr>> {
    let _ = bytes;
    None
}

/// `cuMemFree`; blocks until the device is idle, as the driver's does.
/// `None`: not ours.
pub fn mem_free(address: DevicePtr) -> Option<Result<()>> {
    let _ = address;
    None
}

/// `cuMemAllocAsync` / `cuMemAllocFromPoolAsync`. `stream` is effective (see
/// [`effective_stream`]); `pool` is `None` for the device's current pool.
pub fn mem_alloc_async(bytes: usize, pool: Option<CUmemoryPool>, stream: CUstream) -> Option<Result<DevicePtr>> {
    let _ = (bytes, pool, stream);
    None
}

/// `cuMemFreeAsync`. `None`: not ours.
pub fn mem_free_async(address: DevicePtr, stream: CUstream) -> Option<Result<()>> {
    let _ = (address, stream);
    None
}

/// `cuMemPoolTrimTo`: gives cached stream-ordered memory back. The hook calls
/// the original as well.
pub fn pool_trim(pool: CUmemoryPool, keep_bytes: usize) {
    let _ = (pool, keep_bytes);
}

/// (reserved, used) bytes that we hold for `pool`, to be added to what the
/// driver answers for `CU_MEMPOOL_ATTR_{RESERVED,USED}_MEM_CURRENT`.
pub fn pool_usage(pool: CUmemoryPool) -> (usize, usize) {
    let _ = pool;
    (0, 0)
}

/// What `cuMemGetInfo` reports on the current context's device, given the
/// driver's own answer: (free, total) bytes.
pub fn mem_get_info(free: usize, total: usize) -> (usize, usize) {
    (free, total)
}

/// What `cuDeviceTotalMem` reports, given the driver's own answer.
pub fn device_total_mem(device: Device, total: usize) -> usize {
    let _ = device;
    total
}

/// Makes every chunk of `touches` present and ordered before the next
/// operation on `stream` (effective handle), and holds them until the answer
/// is dropped. Call the original *after* this and drop the answer after it.
///
/// Errors: `OUT_OF_MEMORY` when they cannot all be present at once; the hook
/// returns it to the program and does not call the original.
#[inline]
pub fn begin(stream: CUstream, touches: &[(ChunkId, Touch)]) -> Result<Access> {
    let _ = (stream, touches);
    Ok(Access { _private: () })
}

/// The chunks of one operation, held. Dropping it records the last use: drop
/// it right after the original returned, whatever it returned.
#[must_use]
pub struct Access {
    _private: (),
}

/// A graph that is being captured or built received pointers into `chunks`:
/// they become resident for as long as they live (said once). To be called
/// instead of [`begin`] when the stream is capturing.
pub fn pin_for_graph(chunks: &[ChunkId]) -> Result<()> {
    let _ = chunks;
    Ok(())
}

/// The hook saw a capture begin (+1) or end (-1) anywhere in the process.
pub fn capture_count_changed(by: i32) {
    let _ = by;
}

/// Whether any capture is under way (then the hook asks the driver about the
/// very stream).
#[inline]
pub fn any_capture() -> bool {
    false
}

/// Called before the original destroys `stream`.
pub fn stream_destroyed(stream: CUstream) {
    let _ = stream;
}

/// Called before a context is destroyed or a primary context reset.
pub fn context_lost(device: Device) {
    let _ = device;
}

/// A call of the program ran out of device memory: gives free frames and
/// headroom back to the driver. `true`: try the call once more.
pub fn release_for_retry() -> bool {
    false
}

/// Why the chunk can no longer be moved: an address escaped (IPC, dma-buf,
/// texture, exported handle). `Err`: cannot be made resident.
pub fn pin_for_good(chunk: ChunkId, why: &'static str) -> Result<()> {
    let _ = (chunk, why);
    Ok(())
}

/// The statistics as a JSON object (see `stats`); never blocks for long, makes
/// no CUDA call.
pub fn stats_json() -> serde_json::Value {
    serde_json::json!({})
}

/// The lines of the summary at exit; empty when nothing was managed.
pub fn summary() -> Vec<String> {
    Vec::new()
}
