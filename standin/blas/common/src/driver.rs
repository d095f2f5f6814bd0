//! The three driver functions a GEMM needs, found the way cuBLAS finds its
//! own: `dlsym` of `cuGetProcAddress_v2` on a handle to libcuda.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use crate::types::Handle;

type GetProcAddress =
    unsafe extern "C" fn(*const c_char, *mut *mut c_void, i32, u64, *mut i32) -> i32;

#[rustfmt::skip]
type LaunchKernel = unsafe extern "C" fn(
    function: Handle,
    grid_x: u32, grid_y: u32, grid_z: u32,
    block_x: u32, block_y: u32, block_z: u32,
    shared_bytes: u32, stream: Handle,
    parameters: *mut *mut c_void, extra: *mut *mut c_void,
) -> i32;

#[rustfmt::skip]
type LibraryLoadData = unsafe extern "C" fn(
    library: *mut Handle, code: *const c_void,
    jit_options: *mut i32, jit_values: *mut *mut c_void, jit_count: u32,
    options: *mut i32, values: *mut *mut c_void, count: u32,
) -> i32;

type LibraryGetKernel =
    unsafe extern "C" fn(kernel: *mut Handle, library: Handle, name: *const c_char) -> i32;

/// The driver functions, under the driver's names.
#[allow(non_snake_case, reason = "CUDA's names are kept as they are")]
pub struct Driver {
    pub cuLaunchKernel: LaunchKernel,
    pub cuLibraryLoadData: LibraryLoadData,
    pub cuLibraryGetKernel: LibraryGetKernel,
}

/// The driver API version asked for: cuda.h 13.0.
const API_VERSION: i32 = 13000;

/// `None` when there is no driver, or it lacks one of the functions.
pub fn get() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    DRIVER.get_or_init(open).as_ref()
}

fn open() -> Option<Driver> {
    // SAFETY: the literals are NUL-terminated; the library is never closed.
    let get = unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return None;
        }
        libc::dlsym(library, c"cuGetProcAddress_v2".as_ptr())
    };
    // SAFETY: a non-null answer is the driver's function of that name.
    let get = unsafe { std::mem::transmute::<*mut c_void, Option<GetProcAddress>>(get) }?;
    // SAFETY: the driver's answer for each name has the signature declared above.
    unsafe {
        Some(Driver {
            cuLaunchKernel: std::mem::transmute::<*mut c_void, Option<LaunchKernel>>(lookup(
                get,
                c"cuLaunchKernel",
            ))?,
            cuLibraryLoadData: std::mem::transmute::<*mut c_void, Option<LibraryLoadData>>(
                lookup(get, c"cuLibraryLoadData"),
            )?,
            cuLibraryGetKernel: std::mem::transmute::<*mut c_void, Option<LibraryGetKernel>>(
                lookup(get, c"cuLibraryGetKernel"),
            )?,
        })
    }
}

fn lookup(get: GetProcAddress, name: &CStr) -> *mut c_void {
    let mut address = std::ptr::null_mut();
    let mut found = 0;
    // SAFETY: `name` is NUL-terminated, the results are live locals.
    let code = unsafe { get(name.as_ptr(), &mut address, API_VERSION, 0, &mut found) };
    if code == 0 { address } else { std::ptr::null_mut() }
}
