//! Versions, and the way to driver functions through the runtime.

use std::ffi::{c_char, c_void};

use crate::abi::{Status, check};
use crate::{api, driver};

/// The runtime version we implement: CUDA 13.0.
const RUNTIME_VERSION: i32 = 13000;

api! {
    fn cudaRuntimeGetVersion(version: *mut i32) {
        if version.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller's to write.
        unsafe { *version = RUNTIME_VERSION };
        Ok(())
    }

    /// 0 without a driver, which is no error.
    fn cudaDriverGetVersion(version: *mut i32) {
        if version.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: not null, and the caller's to write.
        unsafe { *version = 0 };
        match driver::get() {
            // SAFETY: the caller's pointer, checked above.
            Ok(driver) => unsafe { driver.cuDriverGetVersion(version) },
            Err(_) => Ok(()),
        }
    }

    /// Flags and the query result have the same values in both APIs.
    fn cudaGetDriverEntryPointByVersion(
        symbol: *const c_char,
        function: *mut *mut c_void,
        version: u32,
        flags: u64,
        result: *mut i32,
    ) {
        // SAFETY: the caller's NUL-terminated name and pointers; `result` may be null.
        unsafe { by_version(symbol, function, version, flags, result) }
    }
}

/// The driver's function of a name, as it was in a version.
///
/// # Safety
/// A NUL-terminated name; the results are the caller's, `result` may be null.
pub unsafe fn by_version(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: u32,
    flags: u64,
    result: *mut i32,
) -> Result<(), Status> {
    let driver = driver::get()?;
    // SAFETY: by this function's contract.
    check(unsafe { (driver.cuGetProcAddress_v2)(symbol, function, version as i32, flags, result) })
}
