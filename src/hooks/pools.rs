//! Stream-ordered allocations.
//!
//! Pools that the engine cannot stand in for (host memory, exportable
//! handles) are known by their handle and left to the driver. So is what a
//! capturing stream allocates: that becomes a node of its graph.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::memory::deliver;
use super::{Call, retry_when_out_of_memory};
use crate::driver::abi::*;
use crate::engine::{self, PassedOn};

/// Handles of the pools that stay the driver's.
static FOREIGN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// Its length, so that the usual case (none) takes no lock.
static FOREIGN_COUNT: AtomicUsize = AtomicUsize::new(0);

fn with_foreign<T>(act: impl FnOnce(&mut Vec<usize>) -> T) -> T {
    let mut foreign = FOREIGN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let answer = act(&mut foreign);
    FOREIGN_COUNT.store(foreign.len(), Ordering::Release);
    answer
}

fn is_foreign(pool: CUmemoryPool) -> bool {
    FOREIGN_COUNT.load(Ordering::Acquire) > 0
        && with_foreign(|foreign| foreign.contains(&(pool as usize)))
}

/// Hook for `cuMemAllocAsync`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn alloc_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    address: *mut DevicePtr,
    bytes: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { alloc(address, bytes, None, call.stream(stream), forward) }
}

/// Hook for `cuMemAllocFromPoolAsync`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn alloc_from_pool_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    address: *mut DevicePtr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CuResult {
    if pool.is_null() {
        return forward();
    }
    if is_foreign(pool) {
        let forward = || retry_when_out_of_memory(&forward);
        return engine::pass_on(PassedOn::ForeignPool, bytes, forward);
    }
    // SAFETY: the caller's promise.
    unsafe { alloc(address, bytes, Some(pool), call.stream(stream), forward) }
}

/// # Safety
/// `address` is null or writable.
unsafe fn alloc(
    address: *mut DevicePtr,
    bytes: usize,
    pool: Option<CUmemoryPool>,
    stream: CUstream,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    if address.is_null() || bytes == 0 {
        return forward();
    }
    match engine::mem_alloc_async(bytes, pool, stream) {
        // SAFETY: not null, and the caller's to be written.
        Ok(answer) => unsafe { deliver(answer, address) },
        Err(why) => engine::pass_on(why, bytes, || retry_when_out_of_memory(&forward)),
    }
}

/// Hook for `cuMemFreeAsync`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn free_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    address: DevicePtr,
    stream: CUstream,
) -> CuResult {
    match engine::mem_free_async(address, call.stream(stream)) {
        Some(Ok(())) => CuResult::SUCCESS,
        Some(Err(code)) => code,
        None => {
            engine::small_freed(address);
            forward()
        }
    }
}

/// Hook for `cuMemPoolCreate`: notes what only the driver can serve.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn create(
    _call: Call,
    forward: impl Fn() -> CuResult,
    pool: *mut CUmemoryPool,
    props: *const c_void,
) -> CuResult {
    const LOCATION_TYPE_DEVICE: u32 = 1;
    let code = retry_when_out_of_memory(forward);
    if code.is_success() && !pool.is_null() && !props.is_null() {
        // SAFETY: the driver accepted `props`. CUmemPoolProps begins with four
        // 32-bit numbers: allocation type, handle types, location type and id.
        let (pool, [_, handle_types, location, _]) =
            unsafe { (*pool, props.cast::<[u32; 4]>().read()) };
        if handle_types != 0 || location != LOCATION_TYPE_DEVICE {
            with_foreign(|foreign| foreign.push(pool as usize));
        }
    }
    code
}

/// Hook for `cuMemPoolDestroy`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn destroy(_call: Call, forward: impl Fn() -> CuResult, pool: CUmemoryPool) -> CuResult {
    if is_foreign(pool) {
        with_foreign(|foreign| foreign.retain(|&known| known != pool as usize));
    } else {
        engine::pool_trim(pool, 0);
    }
    forward()
}

/// Hook for `cuMemPoolTrimTo`: what we hold for the pool counts before what
/// the driver holds.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn trim_to(
    _call: Call,
    forward: impl Fn() -> CuResult,
    pool: CUmemoryPool,
    keep_bytes: usize,
) -> CuResult {
    if !is_foreign(pool) {
        engine::pool_trim(pool, keep_bytes);
    }
    forward()
}

/// Hook for `cuMemPoolGetAttribute`: our share is added to the driver's.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn get_attribute(
    _call: Call,
    forward: impl Fn() -> CuResult,
    pool: CUmemoryPool,
    attribute: c_int,
    value: *mut c_void,
) -> CuResult {
    /// `CUmemPool_attribute`; the high-water marks are the driver's plus our
    /// present share, at least the present sum.
    const RESERVED_CURRENT: c_int = 5;
    const RESERVED_HIGH: c_int = 6;
    const USED_CURRENT: c_int = 7;
    const USED_HIGH: c_int = 8;
    let code = forward();
    if code.is_success() && !value.is_null() && !is_foreign(pool) {
        let (reserved, used) = engine::pool_usage(pool);
        let ours = match attribute {
            RESERVED_CURRENT | RESERVED_HIGH => reserved,
            USED_CURRENT | USED_HIGH => used,
            _ => return code,
        };
        // SAFETY: these four attributes are 64-bit numbers, which the driver
        // has just written.
        unsafe { *value.cast::<u64>() += ours as u64 };
    }
    code
}
