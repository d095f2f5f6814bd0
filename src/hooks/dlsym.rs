//! `dlsym`, the second route.
//!
//! The exported function asks [`filter`] and, unless that has an answer, jumps
//! to the real `dlsym` with the caller's registers and return address, so that
//! `RTLD_NEXT` still sees who asked. Only a lookup in libcuda itself, by an
//! exact name of the list, is answered with a hook; `RTLD_DEFAULT` finds our
//! exports by itself, and `RTLD_NEXT` asks for what comes after the caller,
//! which is what it gets.
//!
//! Called from everywhere, by every thread and under the loader's lock: for
//! names outside the list the filter compares a few bytes and returns.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::table::Hook;
use crate::driver::original;
use crate::lifecycle;

/// Two registers' worth of answer (rax, rdx in the SysV ABI).
#[repr(C)]
struct Verdict {
    /// What `dlsym` returns, or null: ask the real one.
    answer: *mut c_void,
    /// The real `dlsym`.
    real: *mut c_void,
}

// The jump itself is `shim/dlsym.x86_64.s`.
#[cfg(not(target_arch = "x86_64"))]
compile_error!("dlsym's tail jump is written for x86-64 only");

/// # Safety
/// As `dlsym(3)`.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    core::arch::naked_asm!(
        include_str!("../../shim/dlsym.x86_64.s"),
        filter = sym filter,
    )
}

extern "C" fn filter(handle: *mut c_void, name: *const c_char) -> Verdict {
    let mut real = original::real_dlsym();
    if real.is_null() {
        real = no_dlsym as *mut c_void;
    }
    Verdict { answer: hooked(handle, name), real }
}

/// In place of a real `dlsym` that could not be found: every lookup fails.
extern "C" fn no_dlsym(_handle: *mut c_void, _name: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

/// The hook that answers this lookup, or null.
fn hooked(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    if name.is_null() || handle == libc::RTLD_DEFAULT || handle == libc::RTLD_NEXT {
        return ptr::null_mut();
    }
    // SAFETY: a non-null `name` is NUL-terminated, as `dlsym` asks.
    let name = unsafe { CStr::from_ptr(name) };
    let Some(hook) = Hook::named(name) else {
        return ptr::null_mut();
    };
    if !lifecycle::may_start() {
        return ptr::null_mut();
    }
    let found = original::lookup(handle, name);
    if found.is_null() {
        // The real one fails again, and sets dlerror as the caller expects.
        return ptr::null_mut();
    }
    let ours = original::libcuda_if_loaded();
    let is_libcudas = !ours.is_null() && original::lookup(ours, name) == found;
    // Whatever failed on the way to a success must not be seen by the caller.
    original::clear_dlerror();
    if is_libcudas { hook.address() } else { ptr::null_mut() }
}
