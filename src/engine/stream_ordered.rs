//! Stream-ordered allocation (`cuMemAllocAsync` and pools).

use super::*;

/// `cuMemAllocAsync` / `cuMemAllocFromPoolAsync`. `stream` is effective (see
/// [`effective_stream`]); `pool` is `None` for the device's current pool.
pub fn mem_alloc_async(
    bytes: usize,
    pool: Option<CUmemoryPool>,
    stream: CUstream,
) -> Option<Result<DevicePtr>> {
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

pub(super) fn stream_destroyed(engine: &Engine, stream: CUstream) {
    let _ = (engine, stream);
}
