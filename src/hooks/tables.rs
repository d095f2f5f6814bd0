//! Tables of addresses: a small copy from the host may hold pointers (batched
//! and grouped matrix products), and kernels then reach memory that their
//! parameters do not name. Whatever a table names stays resident.
//!
//! Whole words only, and all 64 bits of them: no flags lie above an address
//! here, and no float looks like one. Not here: tables that kernels write.

use std::ffi::c_void;

use crate::driver::abi::*;
use crate::driver::driver;
use crate::engine::{self, Managed};

/// A pointer for each of eight thousand matrices.
const TABLE_BYTES_MAX: usize = 64 << 10;

/// What the `bytes` from `src` on name stays resident; `rows` of them, `pitch`
/// apart.
///
/// # Safety
/// The rows are readable.
pub unsafe fn keep_rows(src: *const c_void, bytes: usize, rows: usize, pitch: usize) -> Result<()> {
    let Some(managed) = engine::managed() else { return Ok(()) };
    // SAFETY: the caller's promise.
    unsafe { keep_managed(managed, src, bytes, rows, pitch) }
}

/// The same where it is known that there is managed memory.
///
/// # Safety
/// The rows are readable.
#[inline(always)]
pub unsafe fn keep_managed(
    managed: Managed,
    src: *const c_void,
    bytes: usize,
    rows: usize,
    pitch: usize,
) -> Result<()> {
    let total = bytes.saturating_mul(rows);
    if src.is_null() || !(8..=TABLE_BYTES_MAX).contains(&total) {
        return Ok(());
    }
    let (low, high) = managed.map().bounds();
    // A managed address as the "host" side is the driver's to refuse.
    if (src as DevicePtr).wrapping_sub(low) < high - low {
        return Ok(());
    }
    for row in 0..rows {
        // SAFETY: the caller's promise.
        let words = unsafe {
            let start = src.cast::<u8>().wrapping_add(row.wrapping_mul(pitch));
            std::slice::from_raw_parts(start, bytes)
        };
        let words = words.as_chunks::<8>().0;
        // Nearly always none is an address: asked first, without a branch for each.
        let near = |word: &[u8; 8]| DevicePtr::from_le_bytes(*word).wrapping_sub(low) < high - low;
        if words.iter().fold(false, |any, word| any | near(word)) {
            keep_named(words)?;
        }
    }
    Ok(())
}

#[cold]
fn keep_named(words: &[[u8; 8]]) -> Result<()> {
    let addresses = words.iter().map(|word| DevicePtr::from_le_bytes(*word));
    for chunk in addresses.filter_map(engine::chunk_of) {
        engine::pin_for_good(chunk, "its address was copied to the device in a table")?;
    }
    Ok(())
}

/// The same of one row.
///
/// # Safety
/// `[src, src + bytes)` is readable.
pub unsafe fn keep(src: *const c_void, bytes: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { keep_rows(src, bytes, 1, 0) }
}

/// The same where `src` may be memory of any kind: what is on a device is not
/// read.
///
/// # Safety
/// `[src, src + bytes)` is readable, if it is host memory.
pub unsafe fn keep_if_host(src: DevicePtr, bytes: usize) -> Result<()> {
    let (low, high) = engine::arena();
    let may_be_table = low != high && (8..=TABLE_BYTES_MAX).contains(&bytes);
    if may_be_table && !(low..high).contains(&src) && is_host(src) {
        // SAFETY: the caller's promise.
        return unsafe { keep(src as *const c_void, bytes) };
    }
    Ok(())
}

/// The driver knows no attribute of memory that the program has by itself.
fn is_host(address: DevicePtr) -> bool {
    const MEMORY_TYPE_HOST: u32 = 1;
    driver()
        .memory_type(address)
        .map_or_else(|code| code == CuResult::INVALID_VALUE, |kind| kind == MEMORY_TYPE_HOST)
}
