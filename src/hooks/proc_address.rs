//! `cuGetProcAddress`, the third route.
//!
//! The driver answers first; its answer, when it is the original of a row of
//! the list, is replaced by that row's hook. So name, version and
//! per-thread-stream flag come out as the driver decides, and its codes, nulls
//! and statuses are untouched. Should a driver answer an address that is no
//! exported function, the row is chosen by name, version and flags instead,
//! and that is said once.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::table::{HOOKS, Hook};
use super::{Call, say_once};
use crate::driver::abi::*;

/// `cuGetProcAddress` of CUDA 11.3 to 11.8.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn get_v1(
    _call: Call,
    forward: impl Fn() -> CuResult,
    name: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> CuResult {
    let code = forward();
    if code.is_success() {
        // SAFETY: the driver accepted the arguments.
        unsafe { substitute(name, function, version, flags) };
    }
    code
}

/// # Safety
/// As cuda.h asks.
pub unsafe fn get_v2(
    _call: Call,
    forward: impl Fn() -> CuResult,
    name: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
    _status: *mut c_int,
) -> CuResult {
    let code = forward();
    if code.is_success() {
        // SAFETY: the driver accepted the arguments.
        unsafe { substitute(name, function, version, flags) };
    }
    code
}

/// Replaces `*function` by our hook, if we have one.
///
/// # Safety
/// `name` is null or NUL-terminated, `function` null or writable.
unsafe fn substitute(name: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64) {
    if name.is_null() || function.is_null() {
        return;
    }
    // SAFETY: see above.
    let (name, found) = unsafe { (CStr::from_ptr(name), *function) };
    if found.is_null() || HOOKS.iter().any(|hook| hook.address() == found) {
        return;
    }
    let hook = Hook::with_original(found).or_else(|| {
        let hook = by_name(name.to_bytes(), version, flags)?;
        // Absent from the exports: nothing to call through.
        hook.original()?;
        say_once!(
            warn,
            "cuGetProcAddress answers an address that libcuda does not export ({}); hooks are chosen by name from here on",
            name.to_string_lossy()
        );
        Some(hook)
    });
    if let Some(hook) = hook {
        // SAFETY: see above.
        unsafe { *function = hook.address() };
    }
}

/// From which CUDA version (1000 · major + 10 · minor) a name without suffix
/// means this variant; variants not named here are older than any caller.
const SINCE: &[(&[u8], c_int)] = &[
    (b"cuGetProcAddress_v2", 12000),
    (b"cuDevicePrimaryCtxRelease_v2", 11000),
    (b"cuDevicePrimaryCtxReset_v2", 11000),
    (b"cuGraphAddKernelNode_v2", 12000),
    (b"cuGraphKernelNodeSetParams_v2", 12000),
    (b"cuGraphExecKernelNodeSetParams_v2", 12000),
    (b"cuGraphAddNode_v2", 12030),
    (b"cuGraphAddNode_v3", 13040),
    (b"cuGraphNodeSetParams_v2", 13040),
    (b"cuLaunchHostFunc_v2", 13020),
    (b"cuMulticastBindAddr_v2", 13010),
    (b"cuMemcpyBatchAsync_v2", 13000),
    (b"cuMemcpy3DBatchAsync_v2", 13000),
    (b"cuStreamWriteValue32_v2", 11070),
    (b"cuStreamWriteValue64_v2", 11070),
    (b"cuStreamWaitValue32_v2", 11070),
    (b"cuStreamWaitValue64_v2", 11070),
    (b"cuStreamBatchMemOp_v2", 11070),
];

/// The row that `name` means for a caller of `version` and `flags`: the newest
/// variant not newer than the caller, per-thread if the flags ask for it and
/// there is one.
fn by_name(name: &[u8], version: c_int, flags: u64) -> Option<Hook> {
    const PER_THREAD_DEFAULT_STREAM: u64 = 2;
    let want_per_thread = flags & PER_THREAD_DEFAULT_STREAM != 0;
    let mut best: Option<((bool, c_int), Hook)> = None;
    for &hook in HOOKS {
        let full = hook.name().to_bytes();
        let versioned = full.strip_suffix(b"_ptds").or(full.strip_suffix(b"_ptsz")).unwrap_or(full);
        let per_thread = versioned.len() != full.len();
        let (base, variant) = match versioned {
            [base @ .., b'_', b'v', digit @ b'2'..=b'9'] => (base, c_int::from(*digit - b'0')),
            base => (base, 1),
        };
        let since = SINCE.iter().find(|(of, _)| *of == versioned).map_or(0, |&(_, since)| since);
        if base != name || since > version || (per_thread && !want_per_thread) {
            continue;
        }
        let rank = (per_thread, variant);
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, hook));
        }
    }
    best.map(|(_, hook)| hook)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_suffix_mean_the_newest_variant_the_caller_knows() {
        for (name, version, flags, expected) in [
            (&b"cuMemAlloc"[..], 12000, 0, Some(Hook::cuMemAlloc_v2)),
            (b"cuMemcpyAsync", 12000, 2, Some(Hook::cuMemcpyAsync_ptsz)),
            (b"cuMemcpyAsync", 12000, 1, Some(Hook::cuMemcpyAsync)),
            (b"cuMemcpyHtoD", 12000, 2, Some(Hook::cuMemcpyHtoD_v2_ptds)),
            (b"cuMemAlloc", 12000, 2, Some(Hook::cuMemAlloc_v2)),
            (b"cuMemcpyBatchAsync", 12080, 0, Some(Hook::cuMemcpyBatchAsync)),
            (b"cuMemcpyBatchAsync", 13000, 2, Some(Hook::cuMemcpyBatchAsync_v2_ptsz)),
            (b"cuGetProcAddress", 11080, 0, Some(Hook::cuGetProcAddress)),
            (b"cuGetProcAddress", 12000, 0, Some(Hook::cuGetProcAddress_v2)),
            (b"cuMem", 12000, 0, None),
            (b"", 12000, 0, None),
            (b"cuMemAlloc_v2", 12000, 0, None),
        ] {
            assert_eq!(by_name(name, version, flags), expected, "{}", name.escape_ascii());
        }
    }
}
