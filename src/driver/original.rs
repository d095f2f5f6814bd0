//! Where the original functions come from: the real `dlsym`, and libcuda's
//! own handle.
//!
//! Usable inside ELF constructors under the loader's lock: no thread, no log,
//! no lock of ours. A library that is not there yet is looked for again on the
//! next call. Never goes through our exported `dlsym`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

type DlsymFn = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

static REAL_DLSYM: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static LIBCUDA: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// glibc's `dlsym`, as an address. Versions are tried newest first: it moved
/// from libdl (2.2.5) into libc (2.34). Null only on another C library.
pub fn real_dlsym() -> *mut c_void {
    let known = REAL_DLSYM.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    for version in [c"GLIBC_2.34", c"GLIBC_2.2.5"] {
        // SAFETY: both strings are NUL-terminated; RTLD_NEXT from this library
        // starts the search behind it, so our own export is never found.
        let found = unsafe { libc::dlvsym(libc::RTLD_NEXT, c"dlsym".as_ptr(), version.as_ptr()) };
        if !found.is_null() {
            REAL_DLSYM.store(found, Ordering::Release);
            return found;
        }
    }
    ptr::null_mut()
}

/// The real `dlsym(handle, name)`.
pub fn lookup(handle: *mut c_void, name: &CStr) -> *mut c_void {
    let dlsym = real_dlsym();
    if dlsym.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `dlsym` is glibc's function of that name and type.
    let dlsym: DlsymFn = unsafe { std::mem::transmute(dlsym) };
    // SAFETY: `handle` comes from dlopen and `name` is NUL-terminated.
    unsafe { dlsym(handle, name.as_ptr()) }
}

/// libcuda's handle if the program has it loaded already; never loads it.
pub fn libcuda_if_loaded() -> *mut c_void {
    handle_of_libcuda(&[libc::RTLD_NOLOAD])
}

/// libcuda's handle: the copy the program already loaded, else loaded now.
/// Null when there is none; asked again next time.
pub fn libcuda() -> *mut c_void {
    handle_of_libcuda(&[libc::RTLD_NOLOAD, 0])
}

fn handle_of_libcuda(attempts: &[c_int]) -> *mut c_void {
    let known = LIBCUDA.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    for flags in attempts {
        // SAFETY: the name is NUL-terminated; loading libcuda has no
        // precondition beyond what the program itself would do.
        let handle = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | flags) };
        if !handle.is_null() {
            // Kept for the life of the process, on purpose.
            LIBCUDA.store(handle, Ordering::Release);
            return handle;
        }
    }
    ptr::null_mut()
}

/// libcuda's own function of that exact name, or null.
pub fn resolve(name: &CStr) -> *mut c_void {
    let handle = libcuda();
    if handle.is_null() { handle } else { lookup(handle, name) }
}

/// Forgets a failure of ours, so that the program's next `dlerror` is about
/// the program's own calls.
pub fn clear_dlerror() {
    // SAFETY: dlerror has no precondition; the answer is not kept.
    unsafe { libc::dlerror() };
}
