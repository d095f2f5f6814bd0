//! The only room that calls CUDA.
//!
//! [`Driver`] is every driver function that this library itself calls, as thin
//! methods over the *original* functions (resolved from libcuda's own handle,
//! never through our hooks). Each call is counted by name, so that "the
//! device's calls = the program's calls + ours" can be checked.
//!
//! Threads: every method may be called from any thread; there is no lock on
//! any path. Methods marked *current context* act on the calling thread's
//! context, as the driver does.
//! Not here: decisions. Nothing here is called in a forked child, nor by the
//! report at exit (`lifecycle` sees to it).

pub mod abi;
mod calls;
pub mod original;

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use abi::*;
use calls::Calls;

/// The original driver functions, for our own use. One per process.
pub struct Driver {
    calls: Calls,
}

static DRIVER: Driver = Driver { calls: Calls::new() };

/// The process's driver. Usable before libcuda is loaded: every call then
/// answers `NOT_INITIALIZED`.
pub fn driver() -> &'static Driver {
    &DRIVER
}

/// Room for an output parameter; handles start as null.
macro_rules! out {
    ($call:expr, $slot:ident) => {{
        $call.ok()?;
        Ok($slot)
    }};
}

/// Calls an original of `calls.rs`.
macro_rules! call {
    ($driver:ident.$name:ident( $($arg:expr),* $(,)? )) => {
        // SAFETY: the signature is cuda.h's; pointers handed over are to live
        // locals of the caller, or covered by its own `# Safety`; addresses and
        // handles the driver itself validates (a wrong one is an error code).
        unsafe { $driver.calls.$name($($arg),*) }
    };
}

impl Driver {
    // --- physical and virtual memory -----------------------------------

    fn device_prop(device: Device) -> CUmemAllocationProp {
        // SAFETY: plain C data; zero is a variant of each enum in it.
        let mut prop: CUmemAllocationProp = unsafe { std::mem::zeroed() };
        prop.type_ = cudarc::driver::sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        prop.location.type_ = cudarc::driver::sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        prop.location.id = device;
        prop
    }

    fn host_prop(node: c_int) -> CUmemAllocationProp {
        let mut prop = Self::device_prop(0);
        prop.location.type_ =
            cudarc::driver::sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA;
        prop.location.id = node;
        prop
    }

    /// The driver's minimum granularity for device memory, in bytes.
    pub fn mem_granularity(&self, device: Device) -> Result<usize> {
        let prop = Self::device_prop(device);
        let mut bytes = 0usize;
        out!(call!(self.cuMemGetAllocationGranularity(&mut bytes, &prop, 0)), bytes)
    }

    /// One physical allocation of `bytes` (a multiple of the granularity) on `device`.
    pub fn mem_create(&self, device: Device, bytes: usize) -> Result<MemHandle> {
        let prop = Self::device_prop(device);
        let mut handle: MemHandle = 0;
        out!(call!(self.cuMemCreate(&mut handle, bytes, &prop, 0)), handle)
    }

    /// The same for memory of the host's NUMA node `node`.
    pub fn mem_granularity_in_host(&self, node: c_int) -> Result<usize> {
        let prop = Self::host_prop(node);
        let mut bytes = 0usize;
        out!(call!(self.cuMemGetAllocationGranularity(&mut bytes, &prop, 0)), bytes)
    }

    /// One physical allocation of `bytes` in the host, on NUMA node `node`.
    pub fn mem_create_in_host(&self, node: c_int, bytes: usize) -> Result<MemHandle> {
        let prop = Self::host_prop(node);
        let mut handle: MemHandle = 0;
        out!(call!(self.cuMemCreate(&mut handle, bytes, &prop, 0)), handle)
    }

    pub fn mem_release(&self, handle: MemHandle) -> Result<()> {
        call!(self.cuMemRelease(handle)).ok()
    }

    /// Reserves `bytes` of device address space; `alignment` 0 means the driver's.
    pub fn mem_address_reserve(&self, bytes: usize, alignment: usize) -> Result<DevicePtr> {
        let mut base: DevicePtr = 0;
        out!(call!(self.cuMemAddressReserve(&mut base, bytes, alignment, 0, 0)), base)
    }

    /// Gives a whole reservation back, in which nothing is mapped.
    pub fn mem_address_free(&self, base: DevicePtr, bytes: usize) -> Result<()> {
        call!(self.cuMemAddressFree(base, bytes)).ok()
    }

    /// Maps all of `handle` (`bytes` long) at `address`. No access is granted yet.
    pub fn mem_map(&self, address: DevicePtr, bytes: usize, handle: MemHandle) -> Result<()> {
        call!(self.cuMemMap(address, bytes, 0, handle, 0)).ok()
    }

    /// Acts at once and waits for nothing: the caller proves that no queued
    /// work still uses `[address, address + bytes)`.
    pub fn mem_unmap(&self, address: DevicePtr, bytes: usize) -> Result<()> {
        call!(self.cuMemUnmap(address, bytes)).ok()
    }

    /// Read and write access for `device`. May span several mappings.
    pub fn mem_set_access(&self, address: DevicePtr, bytes: usize, device: Device) -> Result<()> {
        use cudarc::driver::sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        self.mem_access(address, bytes, device, CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
    }

    /// Takes that access away; acts at once, as [`mem_unmap`](Self::mem_unmap) does.
    pub fn mem_deny_access(&self, address: DevicePtr, bytes: usize, device: Device) -> Result<()> {
        use cudarc::driver::sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_NONE;
        self.mem_access(address, bytes, device, CU_MEM_ACCESS_FLAGS_PROT_NONE)
    }

    fn mem_access(
        &self,
        address: DevicePtr,
        bytes: usize,
        device: Device,
        flags: cudarc::driver::sys::CUmemAccess_flags,
    ) -> Result<()> {
        let desc = CUmemAccessDesc { location: Self::device_prop(device).location, flags };
        call!(self.cuMemSetAccess(address, bytes, &desc, 1)).ok()
    }

    /// (free, total) bytes of the current context's device. *Current context.*
    pub fn mem_get_info(&self) -> Result<(usize, usize)> {
        let (mut free, mut total) = (0usize, 0usize);
        call!(self.cuMemGetInfo_v2(&mut free, &mut total)).ok()?;
        Ok((free, total))
    }

    // --- devices and contexts -------------------------------------------

    /// What names the card of `device` in every process; 0: it is not told.
    pub fn card(&self, device: Device) -> u64 {
        let mut uuid = [0u64; 2];
        let code = call!(self.cuDeviceGetUuid_v2(&mut uuid, device));
        if code.is_success() { uuid[0].rotate_left(32) ^ uuid[1] } else { 0 }
    }

    pub fn device_count(&self) -> Result<c_int> {
        let mut count = 0;
        out!(call!(self.cuDeviceGetCount(&mut count)), count)
    }

    /// `attribute`: a `CUdevice_attribute` number.
    pub fn device_get_attribute(&self, attribute: c_int, device: Device) -> Result<c_int> {
        let mut value = 0;
        out!(call!(self.cuDeviceGetAttribute(&mut value, attribute, device)), value)
    }

    /// Null when the thread has none.
    pub fn ctx_get_current(&self) -> Result<CUcontext> {
        let mut ctx: CUcontext = ptr::null_mut();
        out!(call!(self.cuCtxGetCurrent(&mut ctx)), ctx)
    }

    pub fn ctx_push_current(&self, ctx: CUcontext) -> Result<()> {
        call!(self.cuCtxPushCurrent_v2(ctx)).ok()
    }

    pub fn ctx_pop_current(&self) -> Result<CUcontext> {
        let mut ctx: CUcontext = ptr::null_mut();
        out!(call!(self.cuCtxPopCurrent_v2(&mut ctx)), ctx)
    }

    /// The device of the current context. *Current context*: `INVALID_CONTEXT`
    /// on a thread that has none.
    pub fn ctx_get_device(&self) -> Result<Device> {
        let mut device = 0;
        out!(call!(self.cuCtxGetDevice(&mut device)), device)
    }

    /// Retains `device`'s primary context; pair with [`Self::primary_ctx_release`].
    pub fn primary_ctx_retain(&self, device: Device) -> Result<CUcontext> {
        let mut ctx: CUcontext = ptr::null_mut();
        out!(call!(self.cuDevicePrimaryCtxRetain(&mut ctx, device)), ctx)
    }

    pub fn primary_ctx_release(&self, device: Device) -> Result<()> {
        call!(self.cuDevicePrimaryCtxRelease_v2(device)).ok()
    }

    pub fn primary_ctx_is_active(&self, device: Device) -> Result<bool> {
        let (mut flags, mut active): (c_uint, c_int) = (0, 0);
        call!(self.cuDevicePrimaryCtxGetState(device, &mut flags, &mut active)).ok()?;
        Ok(active != 0)
    }

    /// Blocks until all work of the current context is done. *Current context.*
    pub fn ctx_synchronize(&self) -> Result<()> {
        call!(self.cuCtxSynchronize()).ok()
    }

    // --- streams ----------------------------------------------------------

    /// A stream that does not synchronise with the legacy default stream.
    /// Lower `priority` runs first. *Current context.*
    pub fn stream_create_nonblocking(&self, priority: c_int) -> Result<CUstream> {
        const NON_BLOCKING: c_uint = 1;
        let mut stream: CUstream = ptr::null_mut();
        out!(call!(self.cuStreamCreateWithPriority(&mut stream, NON_BLOCKING, priority)), stream)
    }

    /// The highest priority of the current context's streams. *Current context.*
    pub fn highest_stream_priority(&self) -> Result<c_int> {
        let (mut least, mut greatest) = (0, 0);
        out!(call!(self.cuCtxGetStreamPriorityRange(&mut least, &mut greatest)), greatest)
    }

    /// The kind of memory at `address`, a `CUmemorytype`; `INVALID_VALUE` for what
    /// the driver does not know: memory that the program has by itself.
    pub fn memory_type(&self, address: DevicePtr) -> Result<u32> {
        const MEMORY_TYPE: c_int = 2;
        let mut kind = 0u32;
        call!(self.cuPointerGetAttribute((&raw mut kind).cast(), MEMORY_TYPE, address)).ok()?;
        Ok(kind)
    }

    /// The context of a stream that was made (not a default one).
    pub fn stream_get_ctx(&self, stream: CUstream) -> Result<CUcontext> {
        let mut ctx: CUcontext = ptr::null_mut();
        out!(call!(self.cuStreamGetCtx(stream, &mut ctx)), ctx)
    }

    /// Whether the legacy default stream waits for `stream`, and it for that one.
    pub fn stream_is_blocking(&self, stream: CUstream) -> Result<bool> {
        const NON_BLOCKING: c_uint = 1;
        let mut flags: c_uint = 0;
        out!(call!(self.cuStreamGetFlags(stream, &mut flags)), flags)
            .map(|flags| flags & NON_BLOCKING == 0)
    }

    /// Later work of `stream` waits, on the device, for what `event` last recorded.
    pub fn stream_wait_event(&self, stream: CUstream, event: CUevent) -> Result<()> {
        call!(self.cuStreamWaitEvent(stream, event, 0)).ok()
    }

    /// Blocks the calling thread.
    pub fn stream_synchronize(&self, stream: CUstream) -> Result<()> {
        call!(self.cuStreamSynchronize(stream)).ok()
    }

    /// Whether `stream` is capturing (an invalidated capture counts).
    pub fn stream_is_capturing(&self, stream: CUstream) -> Result<bool> {
        let mut status: c_int = 0;
        out!(call!(self.cuStreamIsCapturing(stream, &mut status)), status).map(|status| status != 0)
    }

    /// Sets the calling thread's capture mode ([`CAPTURE_MODE_RELAXED`]) and
    /// answers the former one: internal work must not be refused because some
    /// other thread captures in global mode.
    pub fn thread_exchange_capture_mode(&self, mode: c_int) -> Result<c_int> {
        let mut mode = mode;
        out!(call!(self.cuThreadExchangeStreamCaptureMode(&mut mode)), mode)
    }

    // --- events -----------------------------------------------------------

    /// *Current context.*
    pub fn event_create(&self, disable_timing: bool) -> Result<CUevent> {
        const DISABLE_TIMING: c_uint = 2;
        let flags = if disable_timing { DISABLE_TIMING } else { 0 };
        let mut event: CUevent = ptr::null_mut();
        out!(call!(self.cuEventCreate(&mut event, flags)), event)
    }

    pub fn event_record(&self, event: CUevent, stream: CUstream) -> Result<()> {
        call!(self.cuEventRecord(event, stream)).ok()
    }

    /// Whether everything before the record of `event` is over.
    pub fn event_is_over(&self, event: CUevent) -> bool {
        self.is_event_over(event) == Ok(true)
    }

    /// The same; errors: those of the work before it.
    pub fn is_event_over(&self, event: CUevent) -> Result<bool> {
        match call!(self.cuEventQuery(event)) {
            CuResult::NOT_READY => Ok(false),
            code => code.ok().map(|()| true),
        }
    }

    /// Blocks the calling thread.
    pub fn event_synchronize(&self, event: CUevent) -> Result<()> {
        call!(self.cuEventSynchronize(event)).ok()
    }

    /// Milliseconds between two retired, timed events.
    pub fn event_elapsed_ms(&self, start: CUevent, end: CUevent) -> Result<f32> {
        let mut ms = 0f32;
        out!(call!(self.cuEventElapsedTime(&mut ms, start, end)), ms)
    }

    pub fn event_destroy(&self, event: CUevent) -> Result<()> {
        call!(self.cuEventDestroy_v2(event)).ok()
    }

    // --- copies -------------------------------------------------------------

    /// # Safety
    /// `[src, src + bytes)` is readable until the copy has retired.
    pub unsafe fn memcpy_htod_async(
        &self,
        dst: DevicePtr,
        src: *const c_void,
        bytes: usize,
        stream: CUstream,
    ) -> Result<()> {
        call!(self.cuMemcpyHtoDAsync_v2(dst, src, bytes, stream)).ok()
    }

    /// # Safety
    /// `[dst, dst + bytes)` is writable, and nobody reads it, until the copy has retired.
    pub unsafe fn memcpy_dtoh_async(
        &self,
        dst: *mut c_void,
        src: DevicePtr,
        bytes: usize,
        stream: CUstream,
    ) -> Result<()> {
        call!(self.cuMemcpyDtoHAsync_v2(dst, src, bytes, stream)).ok()
    }

    // --- pools --------------------------------------------------------------

    /// The pool that `cuMemAllocAsync` takes from on `device`.
    pub fn current_pool(&self, device: Device) -> Result<CUmemoryPool> {
        let mut pool = std::ptr::null_mut();
        call!(self.cuDeviceGetMemPool(&mut pool, device)).ok()?;
        Ok(pool)
    }

    /// Errors: the driver's, for what is no pool.
    pub fn pool_exists(&self, pool: CUmemoryPool) -> Result<()> {
        const RELEASE_THRESHOLD: c_int = 4;
        let mut value = 0u64;
        call!(self.cuMemPoolGetAttribute(pool, RELEASE_THRESHOLD, (&raw mut value).cast())).ok()
    }

    // --- host memory --------------------------------------------------------

    /// Page-locks existing host memory for every context, and lets devices
    /// reach it ([`Self::mem_host_get_device_pointer`]).
    ///
    /// # Safety
    /// The range stays mapped until [`Self::mem_host_unregister`].
    pub unsafe fn mem_host_register(&self, host: *mut c_void, bytes: usize) -> Result<()> {
        const PORTABLE_AND_MAPPED: c_uint = 3;
        call!(self.cuMemHostRegister_v2(host, bytes, PORTABLE_AND_MAPPED)).ok()
    }

    pub fn mem_host_unregister(&self, host: *mut c_void) -> Result<()> {
        call!(self.cuMemHostUnregister(host)).ok()
    }

    /// Where kernels of the current context reach registered host memory.
    pub fn mem_host_get_device_pointer(&self, host: *mut c_void) -> Result<DevicePtr> {
        let mut address: DevicePtr = 0;
        out!(call!(self.cuMemHostGetDevicePointer_v2(&mut address, host, 0)), address)
    }

    // --- kernels --------------------------------------------------------------

    /// Loads a module for the current context, which owns it. *Current context.*
    pub fn module_load_ptx(&self, text: &CStr) -> Result<CUmodule> {
        let mut module: CUmodule = ptr::null_mut();
        out!(call!(self.cuModuleLoadData(&mut module, text.as_ptr().cast())), module)
    }

    pub fn module_get_function(&self, module: CUmodule, name: &CStr) -> Result<CUfunction> {
        let mut func: CUfunction = ptr::null_mut();
        out!(call!(self.cuModuleGetFunction(&mut func, module, name.as_ptr())), func)
    }

    /// Queues `func` on `stream` with parameters of 8 bytes each, in a grid of
    /// `blocks` times `threads`.
    ///
    /// # Safety
    /// `func` takes exactly these parameters, and what they name may be read
    /// and written as it does until the kernel has retired.
    pub unsafe fn launch<const N: usize>(
        &self,
        func: CUfunction,
        blocks: c_uint,
        threads: c_uint,
        stream: CUstream,
        params: [u64; N],
    ) -> Result<()> {
        let mut pointers = params.each_ref().map(|param| ptr::from_ref(param) as *mut c_void);
        let (params, extra) = (pointers.as_mut_ptr(), ptr::null_mut());
        call!(self.cuLaunchKernel(func, blocks, 1, 1, threads, 1, 1, 0, stream, params, extra)).ok()
    }

    /// (offset, size) in bytes of parameter `index` of a `CUfunction`;
    /// `INVALID_VALUE` past the last one.
    pub fn func_get_param_info(&self, func: CUfunction, index: usize) -> Result<(usize, usize)> {
        let (mut offset, mut size) = (0usize, 0usize);
        call!(self.cuFuncGetParamInfo(func, index, &mut offset, &mut size)).ok()?;
        Ok((offset, size))
    }

    /// The same for a `CUkernel`.
    pub fn kernel_get_param_info(&self, kernel: CUkernel, index: usize) -> Result<(usize, usize)> {
        let (mut offset, mut size) = (0usize, 0usize);
        call!(self.cuKernelGetParamInfo(kernel, index, &mut offset, &mut size)).ok()?;
        Ok((offset, size))
    }

    /// Whether the driver says what kernels take: from CUDA 12.4 on.
    pub fn tells_parameters(&self) -> bool {
        self.calls.offers(calls::OwnCall::cuFuncGetParamInfo)
            && self.calls.offers(calls::OwnCall::cuKernelGetParamInfo)
    }

    /// The mangled name of a `CUfunction`.
    pub fn func_name(&self, func: CUfunction) -> Result<String> {
        let mut name = std::ptr::null();
        call!(self.cuFuncGetName(&mut name, func)).ok()?;
        // SAFETY: the driver's string, which lives as long as the kernel's module.
        unsafe { text_of(name) }
    }

    /// The same for a `CUkernel`.
    pub fn kernel_name(&self, kernel: CUkernel) -> Result<String> {
        let mut name = std::ptr::null();
        call!(self.cuKernelGetName(&mut name, kernel)).ok()?;
        // SAFETY: as above.
        unsafe { text_of(name) }
    }

    // --- account ---------------------------------------------------------------

    /// Calls we made so far, by driver function name, those that were made at all.
    pub fn own_calls(&self) -> Vec<(&'static str, u64)> {
        self.calls.counts()
    }
}

/// # Safety
/// `text` is null or a string that ends with a zero and outlives the call.
unsafe fn text_of(text: *const std::ffi::c_char) -> Result<String> {
    if text.is_null() {
        return Err(CuResult::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    Ok(text.to_string_lossy().into_owned())
}
