//! The driver functions this runtime uses: one list, resolved once.
//!
//! They come from `dlopen("libcuda.so.1")` and its `cuGetProcAddress_v2`, the
//! way NVIDIA's runtime finds them: so an interposer meets this runtime at the
//! same door.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use crate::abi::{DriverLaunchConfig, Handle, Memcpy2D, Status, check};

/// The driver API version asked for unless a line below says otherwise. It
/// decides which `_v2`, `_v3` a plain name means: the one of cuda.h 13.0.
const API_VERSION: i32 = 13000;

pub type GetProcAddress =
    unsafe extern "C" fn(*const c_char, *mut *mut c_void, i32, u64, *mut i32) -> i32;

/// Declares [`Driver`]: per line a field for the function's address, and a
/// method that calls it, or answers "not supported" if the driver lacks it.
/// `@ VERSION` asks for an older function than that of [`API_VERSION`].
macro_rules! driver_functions {
    (@version) => { API_VERSION };
    (@version $version:literal) => { $version };
    ($($name:ident $(@ $version:literal)? ($($arg:ident: $type:ty),* $(,)?);)*) => {
        /// The resolved driver. Field and method bear the driver's own names.
        pub struct Driver {
            pub cuGetProcAddress_v2: GetProcAddress,
            $($name: Option<unsafe extern "C" fn($($type),*) -> i32>,)*
        }

        impl Driver {
            fn resolve(get: GetProcAddress) -> Driver {
                Driver {
                    cuGetProcAddress_v2: get,
                    $($name: {
                        let name = concat!(stringify!($name), "\0").as_bytes();
                        let address = lookup(
                            get,
                            CStr::from_bytes_with_nul(name).expect("a literal"),
                            driver_functions!(@version $($version)?),
                        );
                        // SAFETY: a non-null answer for this name and version is a function
                        // of the signature declared here; null becomes `None`.
                        unsafe { std::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($type),*) -> i32>>(address) }
                    },)*
                }
            }

            $(
                /// # Safety
                /// As the driver API documents for this function.
                #[allow(clippy::too_many_arguments, reason = "the driver's own signature")]
                pub unsafe fn $name(&self, $($arg: $type),*) -> Result<(), Status> {
                    let function = self.$name.ok_or(Status::NOT_SUPPORTED)?;
                    // SAFETY: the caller keeps the driver's contract.
                    check(unsafe { function($($arg),*) })
                }
            )*
        }
    };
}

driver_functions! {
    cuInit(flags: u32);
    cuDriverGetVersion(version: *mut i32);

    cuDeviceGet(device: *mut i32, ordinal: i32);
    cuDeviceGetCount(count: *mut i32);
    cuDeviceGetName(name: *mut c_char, length: i32, device: i32);
    cuDeviceGetUuid(uuid: *mut [u8; 16], device: i32);
    cuDeviceTotalMem(bytes: *mut usize, device: i32);
    cuDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32);
    cuDeviceGetPCIBusId(text: *mut c_char, length: i32, device: i32);
    cuDeviceCanAccessPeer(can: *mut i32, device: i32, peer: i32);
    cuDeviceGetDefaultMemPool(pool: *mut Handle, device: i32);
    cuDevicePrimaryCtxRetain(context: *mut Handle, device: i32);

    cuCtxGetCurrent(context: *mut Handle);
    cuCtxSetCurrent(context: Handle);
    // From 13.0 on the plain name takes a context.
    cuCtxSynchronize @ 2000 ();
    cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32);
    cuCtxEnablePeerAccess(peer: Handle, flags: u32);

    cuMemAlloc(address: *mut u64, bytes: usize);
    cuMemFree(address: u64);
    cuMemGetInfo(free: *mut usize, total: *mut usize);
    cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: u32);
    cuMemFreeHost(address: *mut c_void);
    cuMemHostRegister(address: *mut c_void, bytes: usize, flags: u32);
    cuMemHostUnregister(address: *mut c_void);
    cuPointerGetAttributes(count: u32, attributes: *mut i32, values: *mut *mut c_void, pointer: u64);

    cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle);
    cuMemFreeAsync(address: u64, stream: Handle);
    cuMemPoolGetAttribute(pool: Handle, attribute: i32, value: *mut c_void);
    cuMemPoolSetAttribute(pool: Handle, attribute: i32, value: *mut c_void);
    cuMemPoolSetAccess(pool: Handle, list: *const c_void, count: usize);
    cuMemPoolTrimTo(pool: Handle, keep_bytes: usize);

    cuMemcpy(to: u64, from: u64, bytes: usize);
    cuMemcpyHtoD(to: u64, from: *const c_void, bytes: usize);
    cuMemcpyDtoH(to: *mut c_void, from: u64, bytes: usize);
    cuMemcpyDtoD(to: u64, from: u64, bytes: usize);
    cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle);
    cuMemcpyHtoDAsync(to: u64, from: *const c_void, bytes: usize, stream: Handle);
    cuMemcpyDtoHAsync(to: *mut c_void, from: u64, bytes: usize, stream: Handle);
    cuMemcpyDtoDAsync(to: u64, from: u64, bytes: usize, stream: Handle);
    cuMemcpyPeerAsync(to: u64, to_context: Handle, from: u64, from_context: Handle, bytes: usize, stream: Handle);
    cuMemcpy2DAsync(copy: *const Memcpy2D, stream: Handle);
    cuMemsetD8(address: u64, value: u8, bytes: usize);
    cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: Handle);

    cuStreamCreate(stream: *mut Handle, flags: u32);
    cuStreamCreateWithPriority(stream: *mut Handle, flags: u32, priority: i32);
    cuStreamDestroy(stream: Handle);
    cuStreamGetPriority(stream: Handle, priority: *mut i32);
    cuStreamQuery(stream: Handle);
    cuStreamSynchronize(stream: Handle);
    cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32);
    cuStreamAddCallback(stream: Handle, callback: *mut c_void, data: *mut c_void, flags: u32);
    cuLaunchHostFunc(stream: Handle, function: *mut c_void, data: *mut c_void);
    cuStreamBeginCapture(stream: Handle, mode: i32);
    cuStreamEndCapture(stream: Handle, graph: *mut Handle);
    cuStreamIsCapturing(stream: Handle, status: *mut i32);
    cuStreamGetCaptureInfo(stream: Handle, status: *mut i32, id: *mut u64, graph: *mut Handle, dependencies: *mut *const Handle, edges: *mut *const c_void, count: *mut usize);
    cuThreadExchangeStreamCaptureMode(mode: *mut i32);

    cuEventCreate(event: *mut Handle, flags: u32);
    cuEventDestroy(event: Handle);
    cuEventRecord(event: Handle, stream: Handle);
    cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32);
    cuEventQuery(event: Handle);
    cuEventSynchronize(event: Handle);
    cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle);

    cuLibraryLoadData(library: *mut Handle, code: *const c_void, jit_options: *mut i32, jit_values: *mut *mut c_void, jit_count: u32, options: *mut i32, values: *mut *mut c_void, count: u32);
    cuLibraryUnload(library: Handle);
    cuLibraryGetKernel(kernel: *mut Handle, library: Handle, name: *const c_char);
    cuLibraryGetGlobal(address: *mut u64, bytes: *mut usize, library: Handle, name: *const c_char);
    cuKernelGetAttribute(value: *mut i32, attribute: i32, kernel: Handle, device: i32);
    cuKernelSetAttribute(attribute: i32, value: i32, kernel: Handle, device: i32);
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut i32, function: Handle, block_size: i32, shared_bytes: usize, flags: u32);
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut i32, function: Handle, block_size: i32, shared_bytes: usize);
    cuLaunchKernel(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void);
    cuLaunchKernelEx(config: *const DriverLaunchConfig, function: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void);
    cuLaunchCooperativeKernel(function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: Handle, parameters: *mut *mut c_void);

    cuGraphDestroy(graph: Handle);
    cuGraphExecDestroy(exec: Handle);
    cuGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize);
    cuGraphNodeGetDependencies(node: Handle, dependencies: *mut Handle, edges: *mut c_void, count: *mut usize);
    cuGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, flags: u64);
    cuGraphLaunch(exec: Handle, stream: Handle);
    cuGraphDebugDotPrint(graph: Handle, path: *const c_char, flags: u32);

    cuIpcGetEventHandle(handle: *mut c_void, event: Handle);
    cuIpcGetMemHandle(handle: *mut c_void, address: u64);
    cuIpcCloseMemHandle(address: u64);

    cuProfilerStart();
    cuProfilerStop();
}

fn lookup(get: GetProcAddress, name: &CStr, version: i32) -> *mut c_void {
    let mut address = std::ptr::null_mut();
    let mut found = 0;
    // SAFETY: `name` is NUL-terminated and the two results are live locals.
    let code = unsafe { get(name.as_ptr(), &mut address, version, 0, &mut found) };
    if code == 0 { address } else { std::ptr::null_mut() }
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
    Some(Driver::resolve(get))
}

/// The driver, loaded at the first call; "insufficient driver" without one.
pub fn get() -> Result<&'static Driver, Status> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    DRIVER.get_or_init(open).as_ref().ok_or(Status::INSUFFICIENT_DRIVER)
}
