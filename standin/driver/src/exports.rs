//! THE list of entry points: every exported symbol, the CUDA version it
//! belongs to, its arguments, and the function that carries it out.
//!
//! From this one list come the C symbols, the table `cuGetProcAddress`
//! answers from, and the call counts of the account. A name that is not here
//! does not exist on the stand-in, and is answered so.
//!
//! `[name_ptsz]` after a name exports its per-thread-default-stream form too;
//! such functions take a [`DefaultStream`] first. Every symbol: refuses in a
//! forked child (NOT_INITIALIZED) and at exit (DEINITIALIZED), counts the
//! call, fails if `STANDIN_FAULT` names it, and turns a panic into UNKNOWN.

use crate::abi::*;
use crate::api::*;
use crate::edge::{In, Out, Text};
use crate::engine::faults;
use crate::engine::gpu::DefaultStream;
use crate::{process, resolve};
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// One exported symbol, and its per-thread form if it has one.
pub struct Export {
    pub name: &'static str,
    /// First CUDA version with this symbol.
    pub since: i32,
    address: *const c_void,
    per_thread: Option<*const c_void>,
    pub calls: &'static AtomicU64,
}

// SAFETY: the pointers are addresses of functions; nothing is behind them.
unsafe impl Sync for Export {}

impl Export {
    pub fn address(&self, per_thread: bool) -> *const c_void {
        if per_thread { self.per_thread.unwrap_or(self.address) } else { self.address }
    }
}

/// The frame around every entry point.
fn enter(name: &str, calls: &AtomicU64, body: impl FnOnce() -> Outcome) -> i32 {
    if process::is_forked() {
        return NOT_INITIALIZED.0;
    }
    if process::is_exiting() {
        return DEINITIALIZED.0;
    }
    let nth = calls.fetch_add(1, Ordering::Relaxed) + 1;
    if let Err(code) = faults::check_call(name, nth) {
        return code.0;
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS.0,
        Ok(Err(code)) => code.0,
        Err(_) => UNKNOWN.0,
    }
}

macro_rules! exports {
    ($($since:literal $name:ident $([$variant:ident])? ($($arg:ident: $ty:ty),* $(,)?) => $body:path;)*) => {
        /// Calls of each symbol, both forms together.
        #[allow(non_upper_case_globals, reason = "named after the symbols they count")]
        mod calls {
            use std::sync::atomic::AtomicU64;
            $(pub static $name: AtomicU64 = AtomicU64::new(0);)*
        }
        $(exports!(@symbol $name [$($variant)?] ($($arg: $ty),*) $body);)*
        pub static EXPORTS: &[Export] = &[$(Export {
            name: stringify!($name),
            since: $since,
            address: $name as *const c_void,
            per_thread: exports!(@variant $($variant)?),
            calls: &calls::$name,
        }),*];
    };
    (@symbol $name:ident [] ($($arg:ident: $ty:ty),*) $body:path) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $ty),*) -> i32 {
            enter(stringify!($name), &calls::$name, || $body($($arg),*))
        }
    };
    (@symbol $name:ident [$variant:ident] ($($arg:ident: $ty:ty),*) $body:path) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($arg: $ty),*) -> i32 {
            enter(stringify!($name), &calls::$name, || $body(DefaultStream::Legacy, $($arg),*))
        }
        #[unsafe(no_mangle)]
        pub extern "C" fn $variant($($arg: $ty),*) -> i32 {
            enter(stringify!($name), &calls::$name, || $body(DefaultStream::PerThread, $($arg),*))
        }
    };
    (@variant) => { None };
    (@variant $variant:ident) => { Some($variant as *const c_void) };
}

exports! {
    // ---- initialization, errors, resolution
    2000 cuInit(flags: u32) => init::init;
    2020 cuDriverGetVersion(version: Out<i32>) => init::driver_version;
    6000 cuGetErrorName(code: i32, text: Out<*const c_char>) => init::error_name;
    6000 cuGetErrorString(code: i32, text: Out<*const c_char>) => init::error_string;
    3000 cuGetExportTable(table: Out<*const u8>, id: *const u8) => init::export_table;
    11030 cuGetProcAddress(name: Text, out: Out<*mut c_void>, version: i32, flags: u64) => resolve::get_proc_address;
    12000 cuGetProcAddress_v2(name: Text, out: Out<*mut c_void>, version: i32, flags: u64, status: Out<i32>) => resolve::get_proc_address_v2;
    4000 cuProfilerStart() => init::profiler_start;
    4000 cuProfilerStop() => init::profiler_stop;

    // ---- devices
    2000 cuDeviceGet(out: Out<i32>, ordinal: i32) => device::get;
    2000 cuDeviceGetCount(out: Out<i32>) => device::count;
    2000 cuDeviceGetName(out: Out<c_char>, room: i32, dev: i32) => device::name;
    2000 cuDeviceGetAttribute(out: Out<i32>, attribute: i32, dev: i32) => device::attribute;
    2000 cuDeviceGetProperties(out: Out<[i32; 12]>, dev: i32) => device::properties;
    2000 cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, dev: i32) => device::compute_capability;
    3020 cuDeviceTotalMem_v2(out: Out<usize>, dev: i32) => device::total_mem;
    9020 cuDeviceGetUuid(out: Out<[u8; 16]>, dev: i32) => device::uuid;
    11040 cuDeviceGetUuid_v2(out: Out<[u8; 16]>, dev: i32) => device::uuid;
    4010 cuDeviceGetPCIBusId(out: Out<c_char>, room: i32, dev: i32) => device::pci_bus_id;
    4010 cuDeviceGetByPCIBusId(out: Out<i32>, text: Text) => device::by_pci_bus_id;
    4000 cuDeviceCanAccessPeer(out: Out<i32>, dev: i32, peer: i32) => device::can_access_peer;
    8000 cuDeviceGetP2PAttribute(out: Out<i32>, attribute: i32, a: i32, b: i32) => device::p2p_attribute;
    11040 cuDeviceGetExecAffinitySupport(out: Out<i32>, kind: i32, dev: i32) => device::exec_affinity_support;
    11010 cuDeviceGetTexture1DLinearMaxWidth(out: Out<usize>, format: i32, channels: u32, dev: i32) => device::texture_linear_width;

    // ---- contexts
    7000 cuDevicePrimaryCtxRetain(out: Out<Handle>, dev: i32) => context::primary_retain;
    11000 cuDevicePrimaryCtxRelease_v2(dev: i32) => context::primary_release;
    11000 cuDevicePrimaryCtxReset_v2(dev: i32) => context::primary_reset;
    11000 cuDevicePrimaryCtxSetFlags_v2(dev: i32, flags: u32) => context::primary_set_flags;
    7000 cuDevicePrimaryCtxGetState(dev: i32, flags: Out<u32>, active: Out<i32>) => context::primary_state;
    3020 cuCtxCreate_v2(out: Out<Handle>, flags: u32, dev: i32) => context::create;
    11040 cuCtxCreate_v3(out: Out<Handle>, affinity: *mut u8, count: i32, flags: u32, dev: i32) => context::create_v3;
    12050 cuCtxCreate_v4(out: Out<Handle>, params: *mut u8, flags: u32, dev: i32) => context::create_v4;
    4000 cuCtxDestroy_v2(ctx: Handle) => context::destroy;
    4000 cuCtxGetCurrent(out: Out<Handle>) => context::get_current;
    4000 cuCtxSetCurrent(ctx: Handle) => context::set_current;
    4000 cuCtxPushCurrent_v2(ctx: Handle) => context::push_current;
    4000 cuCtxPopCurrent_v2(out: Out<Handle>) => context::pop_current;
    2000 cuCtxGetDevice(out: Out<i32>) => context::get_device;
    13000 cuCtxGetDevice_v2(out: Out<i32>, ctx: Handle) => context::get_device_of;
    2000 cuCtxSynchronize() => context::synchronize;
    13000 cuCtxSynchronize_v2(ctx: Handle) => context::synchronize_of;
    7000 cuCtxGetFlags(out: Out<u32>) => context::get_flags;
    12010 cuCtxSetFlags(flags: u32) => context::set_flags;
    12000 cuCtxGetId(ctx: Handle, out: Out<u64>) => context::get_id;
    3020 cuCtxGetApiVersion(ctx: Handle, out: Out<u32>) => context::api_version;
    5050 cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) => context::stream_priority_range;
    3010 cuCtxGetLimit(out: Out<usize>, limit: i32) => context::get_limit;
    3010 cuCtxSetLimit(limit: i32, value: usize) => context::set_limit;
    3020 cuCtxGetCacheConfig(out: Out<i32>) => context::get_preference;
    3020 cuCtxSetCacheConfig(value: i32) => context::set_preference;
    4020 cuCtxGetSharedMemConfig(out: Out<i32>) => context::get_preference;
    4020 cuCtxSetSharedMemConfig(value: i32) => context::set_preference;
    11000 cuCtxResetPersistingL2Cache() => context::reset_persisting_l2;
    4000 cuCtxEnablePeerAccess(peer: Handle, flags: u32) => context::enable_peer_access;
    4000 cuCtxDisablePeerAccess(peer: Handle) => context::disable_peer_access;

    // ---- device memory
    3020 cuMemAlloc_v2(out: Out<u64>, bytes: usize) => memory::alloc;
    3020 cuMemAllocPitch_v2(out: Out<u64>, pitch: Out<usize>, width: usize, height: usize, element: u32) => memory::alloc_pitch;
    6000 cuMemAllocManaged(out: Out<u64>, bytes: usize, flags: u32) => memory::alloc_managed;
    3020 cuMemFree_v2(address: u64) => memory::free;
    3020 cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) => memory::info;
    3020 cuMemGetAddressRange_v2(base: Out<u64>, size: Out<usize>, address: u64) => memory::address_range;
    8000 cuMemAdvise(address: u64, bytes: usize, advice: i32, dev: i32) => memory::advise;
    12020 cuMemAdvise_v2(address: u64, bytes: usize, advice: i32, location: u64) => memory::advise_v2;
    8000 cuMemPrefetchAsync[cuMemPrefetchAsync_ptsz](p: u64, bytes: usize, dev: i32, stream: Handle) => memory::prefetch;
    12020 cuMemPrefetchAsync_v2[cuMemPrefetchAsync_v2_ptsz](p: u64, bytes: usize, location: u64, flags: u32, stream: Handle) => memory::prefetch_v2;
    4010 cuIpcGetMemHandle(out: Out<[u8; 64]>, address: u64) => memory::ipc_get_handle;
    4010 cuIpcGetEventHandle(out: Out<[u8; 64]>, event: Handle) => memory::ipc_get_handle;
    4010 cuIpcCloseMemHandle(address: u64) => memory::ipc_close_handle;
    11020 cuMemPoolExportPointer(out: Out<[u8; 64]>, address: u64) => memory::ipc_get_handle;
    12010 cuMulticastBindAddr(multicast: u64, offset: usize, p: u64, bytes: usize, flags: u64) => memory::multicast_bind;
    13030 cuLogicalEndpointBindAddr(endpoint: u32, dev: i32, offset: u64, p: u64, bytes: u64, flags: u64) => memory::endpoint_bind;
    11070 cuMemGetHandleForAddressRange(out: Out<u64>, p: u64, bytes: usize, kind: i32, flags: u64) => memory::handle_for_range;

    // ---- host memory
    3020 cuMemAllocHost_v2(out: Out<*mut c_void>, bytes: usize) => host::alloc;
    2020 cuMemHostAlloc(out: Out<*mut c_void>, bytes: usize, flags: u32) => host::alloc_with_flags;
    2000 cuMemFreeHost(p: *mut c_void) => host::free;
    6050 cuMemHostRegister_v2(p: *mut c_void, bytes: usize, flags: u32) => host::register;
    4000 cuMemHostUnregister(p: *mut c_void) => host::unregister;
    3020 cuMemHostGetDevicePointer_v2(out: Out<u64>, p: *mut c_void, flags: u32) => host::device_pointer;
    2030 cuMemHostGetFlags(out: Out<u32>, p: *mut c_void) => host::flags;

    // ---- virtual memory management
    10020 cuMemGetAllocationGranularity(out: Out<usize>, prop: In<AllocationProp>, option: i32) => vmm::granularity;
    10020 cuMemAddressReserve(out: Out<u64>, bytes: usize, align: usize, hint: u64, flags: u64) => vmm::address_reserve;
    10020 cuMemAddressFree(address: u64, bytes: usize) => vmm::address_free;
    10020 cuMemCreate(out: Out<u64>, bytes: usize, prop: In<AllocationProp>, flags: u64) => vmm::create;
    10020 cuMemRelease(handle: u64) => vmm::release;
    10020 cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64) => vmm::map;
    10020 cuMemUnmap(address: u64, bytes: usize) => vmm::unmap;
    10020 cuMemSetAccess(address: u64, bytes: usize, descs: In<AccessDesc>, count: usize) => vmm::set_access;
    10020 cuMemGetAccess(out: Out<u64>, location: In<Location>, address: u64) => vmm::get_access;
    10020 cuMemGetAllocationPropertiesFromHandle(out: Out<AllocationProp>, handle: u64) => vmm::properties;
    11000 cuMemRetainAllocationHandle(out: Out<u64>, address: u64) => vmm::retain_handle;
    10020 cuMemExportToShareableHandle(out: Out<u64>, handle: u64, kind: i32, flags: u64) => vmm::export_handle;
    10020 cuMemImportFromShareableHandle(out: Out<u64>, os: *mut u8, kind: i32) => vmm::import_handle;

    // ---- stream-ordered memory and pools
    11020 cuMemAllocAsync[cuMemAllocAsync_ptsz](out: Out<u64>, bytes: usize, stream: Handle) => pool::alloc_async;
    11020 cuMemAllocFromPoolAsync[cuMemAllocFromPoolAsync_ptsz](out: Out<u64>, bytes: usize, pool: Handle, stream: Handle) => pool::alloc_from_pool_async;
    11020 cuMemFreeAsync[cuMemFreeAsync_ptsz](address: u64, stream: Handle) => pool::free_async;
    11020 cuMemPoolCreate(out: Out<Handle>, props: In<PoolProps>) => pool::create;
    11020 cuMemPoolDestroy(pool: Handle) => pool::destroy;
    11020 cuMemPoolGetAttribute(pool: Handle, attribute: i32, out: Out<u64>) => pool::get_attribute;
    11020 cuMemPoolSetAttribute(pool: Handle, attribute: i32, value: Out<u64>) => pool::set_attribute;
    11020 cuMemPoolTrimTo(pool: Handle, keep: usize) => pool::trim_to;
    11020 cuMemPoolSetAccess(pool: Handle, descs: In<AccessDesc>, count: usize) => pool::set_access;
    11020 cuMemPoolGetAccess(out: Out<i32>, pool: Handle, location: In<Location>) => pool::get_access;
    11020 cuDeviceGetDefaultMemPool(out: Out<Handle>, dev: i32) => pool::device_default;
    11020 cuDeviceGetMemPool(out: Out<Handle>, dev: i32) => pool::device_get;
    11020 cuDeviceSetMemPool(dev: i32, pool: Handle) => pool::device_set;
    13000 cuMemGetDefaultMemPool(out: Out<Handle>, location: In<Location>, kind: i32) => pool::location_default;
    13000 cuMemGetMemPool(out: Out<Handle>, location: In<Location>, kind: i32) => pool::location_get;
    13000 cuMemSetMemPool(location: In<Location>, kind: i32, pool: Handle) => pool::location_set;

    // ---- copies
    4000 cuMemcpy[cuMemcpy_ptds](dst: u64, src: u64, bytes: usize) => copy::any;
    4000 cuMemcpyAsync[cuMemcpyAsync_ptsz](dst: u64, src: u64, bytes: usize, stream: Handle) => copy::any_async;
    3020 cuMemcpyHtoD_v2[cuMemcpyHtoD_v2_ptds](dst: u64, src: u64, bytes: usize) => copy::htod;
    3020 cuMemcpyHtoDAsync_v2[cuMemcpyHtoDAsync_v2_ptsz](dst: u64, src: u64, bytes: usize, stream: Handle) => copy::htod_async;
    3020 cuMemcpyDtoH_v2[cuMemcpyDtoH_v2_ptds](dst: u64, src: u64, bytes: usize) => copy::dtoh;
    3020 cuMemcpyDtoHAsync_v2[cuMemcpyDtoHAsync_v2_ptsz](dst: u64, src: u64, bytes: usize, stream: Handle) => copy::dtoh_async;
    3020 cuMemcpyDtoD_v2[cuMemcpyDtoD_v2_ptds](dst: u64, src: u64, bytes: usize) => copy::dtod;
    3020 cuMemcpyDtoDAsync_v2[cuMemcpyDtoDAsync_v2_ptsz](dst: u64, src: u64, bytes: usize, stream: Handle) => copy::dtod_async;
    4000 cuMemcpyPeer[cuMemcpyPeer_ptds](dst: u64, dst_ctx: Handle, src: u64, src_ctx: Handle, bytes: usize) => copy::peer;
    4000 cuMemcpyPeerAsync[cuMemcpyPeerAsync_ptsz](dst: u64, dst_ctx: Handle, src: u64, src_ctx: Handle, bytes: usize, stream: Handle) => copy::peer_async;
    3020 cuMemcpy2D_v2[cuMemcpy2D_v2_ptds](m: In<Memcpy2D>) => copy::copy_2d;
    3020 cuMemcpy2DUnaligned_v2[cuMemcpy2DUnaligned_v2_ptds](m: In<Memcpy2D>) => copy::copy_2d;
    3020 cuMemcpy2DAsync_v2[cuMemcpy2DAsync_v2_ptsz](m: In<Memcpy2D>, stream: Handle) => copy::copy_2d_async;
    3020 cuMemcpy3D_v2[cuMemcpy3D_v2_ptds](m: In<Memcpy3D>) => copy::copy_3d;
    3020 cuMemcpy3DAsync_v2[cuMemcpy3DAsync_v2_ptsz](m: In<Memcpy3D>, stream: Handle) => copy::copy_3d_async;
    4000 cuMemcpy3DPeer[cuMemcpy3DPeer_ptds](m: In<Memcpy3D>) => copy::copy_3d;
    4000 cuMemcpy3DPeerAsync[cuMemcpy3DPeerAsync_ptsz](m: In<Memcpy3D>, stream: Handle) => copy::copy_3d_async;
    12080 cuMemcpyBatchAsync[cuMemcpyBatchAsync_ptsz](dsts: In<u64>, srcs: In<u64>, sizes: In<usize>, count: usize, attributes: *mut u8, indices: In<usize>, attribute_count: usize, fail_index: Out<usize>, stream: Handle) => copy::batch_v1;
    13000 cuMemcpyBatchAsync_v2[cuMemcpyBatchAsync_v2_ptsz](dsts: In<u64>, srcs: In<u64>, sizes: In<usize>, count: usize, attributes: *mut u8, indices: In<usize>, attribute_count: usize, stream: Handle) => copy::batch_v2;

    // ---- memsets
    3020 cuMemsetD8_v2[cuMemsetD8_v2_ptds](dst: u64, value: u8, count: usize) => copy::set_8;
    3020 cuMemsetD16_v2[cuMemsetD16_v2_ptds](dst: u64, value: u16, count: usize) => copy::set_16;
    3020 cuMemsetD32_v2[cuMemsetD32_v2_ptds](dst: u64, value: u32, count: usize) => copy::set_32;
    3020 cuMemsetD8Async[cuMemsetD8Async_ptsz](dst: u64, value: u8, count: usize, stream: Handle) => copy::set_8_async;
    3020 cuMemsetD16Async[cuMemsetD16Async_ptsz](dst: u64, value: u16, count: usize, stream: Handle) => copy::set_16_async;
    3020 cuMemsetD32Async[cuMemsetD32Async_ptsz](dst: u64, value: u32, count: usize, stream: Handle) => copy::set_32_async;
    3020 cuMemsetD2D8_v2[cuMemsetD2D8_v2_ptds](dst: u64, pitch: usize, value: u8, w: usize, h: usize) => copy::set_2d_8;
    3020 cuMemsetD2D16_v2[cuMemsetD2D16_v2_ptds](dst: u64, pitch: usize, value: u16, w: usize, h: usize) => copy::set_2d_16;
    3020 cuMemsetD2D32_v2[cuMemsetD2D32_v2_ptds](dst: u64, pitch: usize, value: u32, w: usize, h: usize) => copy::set_2d_32;
    3020 cuMemsetD2D8Async[cuMemsetD2D8Async_ptsz](dst: u64, pitch: usize, value: u8, w: usize, h: usize, stream: Handle) => copy::set_2d_8_async;
    3020 cuMemsetD2D16Async[cuMemsetD2D16Async_ptsz](dst: u64, pitch: usize, value: u16, w: usize, h: usize, stream: Handle) => copy::set_2d_16_async;
    3020 cuMemsetD2D32Async[cuMemsetD2D32Async_ptsz](dst: u64, pitch: usize, value: u32, w: usize, h: usize, stream: Handle) => copy::set_2d_32_async;

    // ---- pointers
    4000 cuPointerGetAttribute(out: Out<u64>, attribute: i32, pointer: u64) => pointer::get;
    7000 cuPointerGetAttributes(count: u32, attributes: In<i32>, outs: In<Out<u64>>, pointer: u64) => pointer::get_many;
    6000 cuPointerSetAttribute(value: *const u8, attribute: i32, pointer: u64) => pointer::set;

    // ---- streams
    2000 cuStreamCreate(out: Out<Handle>, flags: u32) => stream::create;
    5050 cuStreamCreateWithPriority(out: Out<Handle>, flags: u32, priority: i32) => stream::create_with_priority;
    4000 cuStreamDestroy_v2(stream: Handle) => stream::destroy;
    2000 cuStreamSynchronize[cuStreamSynchronize_ptsz](stream: Handle) => stream::synchronize;
    2000 cuStreamQuery[cuStreamQuery_ptsz](stream: Handle) => stream::query;
    3020 cuStreamWaitEvent[cuStreamWaitEvent_ptsz](stream: Handle, event: Handle, flags: u32) => stream::wait_event;
    9020 cuStreamGetCtx[cuStreamGetCtx_ptsz](stream: Handle, out: Out<Handle>) => stream::get_ctx;
    12080 cuStreamGetDevice[cuStreamGetDevice_ptsz](stream: Handle, out: Out<i32>) => stream::get_device;
    5050 cuStreamGetFlags[cuStreamGetFlags_ptsz](stream: Handle, out: Out<u32>) => stream::get_flags;
    12000 cuStreamGetId[cuStreamGetId_ptsz](stream: Handle, out: Out<u64>) => stream::get_id;
    5050 cuStreamGetPriority[cuStreamGetPriority_ptsz](stream: Handle, out: Out<i32>) => stream::get_priority;
    10000 cuLaunchHostFunc[cuLaunchHostFunc_ptsz](stream: Handle, function: Option<HostFn>, data: *mut c_void) => stream::launch_host;
    5000 cuStreamAddCallback[cuStreamAddCallback_ptsz](stream: Handle, function: Option<StreamCallback>, data: *mut c_void, flags: u32) => stream::add_callback;
    11070 cuStreamWaitValue32_v2[cuStreamWaitValue32_v2_ptsz](stream: Handle, address: u64, value: u32, flags: u32) => stream::wait_value32;
    11070 cuStreamWaitValue64_v2[cuStreamWaitValue64_v2_ptsz](stream: Handle, address: u64, value: u64, flags: u32) => stream::wait_value64;
    11070 cuStreamWriteValue32_v2[cuStreamWriteValue32_v2_ptsz](stream: Handle, address: u64, value: u32, flags: u32) => stream::write_value32;
    11070 cuStreamWriteValue64_v2[cuStreamWriteValue64_v2_ptsz](stream: Handle, address: u64, value: u64, flags: u32) => stream::write_value64;
    6000 cuStreamAttachMemAsync[cuStreamAttachMemAsync_ptsz](stream: Handle, p: u64, bytes: usize, flags: u32) => stream::attach_mem;
    11000 cuStreamGetAttribute[cuStreamGetAttribute_ptsz](stream: Handle, attribute: i32, out: Out<[u8; 64]>) => stream::get_attribute;
    11000 cuStreamSetAttribute[cuStreamSetAttribute_ptsz](stream: Handle, attribute: i32, value: In<[u8; 64]>) => stream::set_attribute;
    11000 cuStreamCopyAttributes[cuStreamCopyAttributes_ptsz](dst: Handle, src: Handle) => stream::copy_attributes;

    // ---- events
    2000 cuEventCreate(out: Out<Handle>, flags: u32) => event::create;
    4000 cuEventDestroy_v2(event: Handle) => event::destroy;
    2000 cuEventRecord[cuEventRecord_ptsz](event: Handle, stream: Handle) => event::record;
    11010 cuEventRecordWithFlags[cuEventRecordWithFlags_ptsz](event: Handle, stream: Handle, flags: u32) => event::record_with_flags;
    2000 cuEventQuery(event: Handle) => event::query;
    2000 cuEventSynchronize(event: Handle) => event::synchronize;
    2000 cuEventElapsedTime(out: Out<f32>, start: Handle, end: Handle) => event::elapsed_time;
    12080 cuEventElapsedTime_v2(out: Out<f32>, start: Handle, end: Handle) => event::elapsed_time;

    // ---- modules and libraries
    2000 cuModuleLoad(out: Out<Handle>, path: Text) => module::module_load;
    2000 cuModuleLoadData(out: Out<Handle>, image: *const u8) => module::module_load_data;
    2010 cuModuleLoadDataEx(out: Out<Handle>, image: *const u8, count: u32, options: *mut i32, values: *mut *mut u8) => module::module_load_data_ex;
    2000 cuModuleLoadFatBinary(out: Out<Handle>, image: *const u8) => module::module_load_data;
    2000 cuModuleUnload(module: Handle) => module::unload;
    2000 cuModuleGetFunction(out: Out<Handle>, module: Handle, name: Text) => module::get_function;
    3020 cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Text) => module::get_global;
    11070 cuModuleGetLoadingMode(out: Out<i32>) => module::loading_mode;
    12040 cuModuleGetFunctionCount(out: Out<u32>, module: Handle) => module::count;
    12040 cuModuleEnumerateFunctions(out: Out<Handle>, room: u32, module: Handle) => module::enumerate_functions;
    12000 cuLibraryLoadData(out: Out<Handle>, image: *const u8, jit: *mut i32, jit_values: *mut *mut u8, jit_count: u32, options: *mut i32, values: *mut *mut u8, count: u32) => module::library_load_data;
    12000 cuLibraryLoadFromFile(out: Out<Handle>, path: Text, jit: *mut i32, jit_values: *mut *mut u8, jit_count: u32, options: *mut i32, values: *mut *mut u8, count: u32) => module::library_load_file;
    12000 cuLibraryUnload(library: Handle) => module::unload;
    12000 cuLibraryGetKernel(out: Out<Handle>, library: Handle, name: Text) => module::get_kernel;
    12000 cuLibraryGetModule(out: Out<Handle>, library: Handle) => module::library_module;
    12000 cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: Handle, name: Text) => module::get_global;
    12040 cuLibraryGetKernelCount(out: Out<u32>, library: Handle) => module::count;
    12040 cuLibraryEnumerateKernels(out: Out<Handle>, room: u32, library: Handle) => module::enumerate_kernels;
    12000 cuKernelGetFunction(out: Out<Handle>, kernel: Handle) => module::kernel_function;
    12050 cuKernelGetLibrary(out: Out<Handle>, kernel: Handle) => module::kernel_library;
    12030 cuKernelGetName(out: Out<*const c_char>, kernel: Handle) => module::kernel_name;
    12040 cuKernelGetParamInfo(kernel: Handle, index: usize, offset: Out<usize>, size: Out<usize>) => module::kernel_param;
    12000 cuKernelGetAttribute(out: Out<i32>, attribute: i32, kernel: Handle, dev: i32) => module::kernel_attribute;
    12000 cuKernelSetAttribute(attribute: i32, value: i32, kernel: Handle, dev: i32) => module::set_kernel_attribute;
    12000 cuKernelSetCacheConfig(kernel: Handle, value: i32, dev: i32) => module::set_kernel_preference;
    12030 cuFuncGetName(out: Out<*const c_char>, function: Handle) => module::function_name;
    11000 cuFuncGetModule(out: Out<Handle>, function: Handle) => module::function_module;
    12040 cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) => module::function_param;
    2020 cuFuncGetAttribute(out: Out<i32>, attribute: i32, function: Handle) => module::function_attribute;
    9000 cuFuncSetAttribute(function: Handle, attribute: i32, value: i32) => module::set_function_attribute;
    3000 cuFuncSetCacheConfig(function: Handle, value: i32) => module::set_function_preference;
    4020 cuFuncSetSharedMemConfig(function: Handle, value: i32) => module::set_function_preference;
    12040 cuFuncIsLoaded(out: Out<i32>, function: Handle) => module::is_loaded;
    12040 cuFuncLoad(function: Handle) => module::load_function;
    6050 cuOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, function: Handle, block: i32, shared: usize) => module::occupancy;
    7000 cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(out: Out<i32>, function: Handle, block: i32, shared: usize, flags: u32) => module::occupancy_with_flags;
    10020 cuOccupancyAvailableDynamicSMemPerBlock(out: Out<usize>, function: Handle, blocks: i32, block: i32) => module::available_shared;
    6050 cuOccupancyMaxPotentialBlockSize(grid: Out<i32>, block: Out<i32>, function: Handle, shared_for: Option<unsafe extern "C" fn(i32) -> usize>, shared: usize, limit: i32) => module::potential_block;
    7000 cuOccupancyMaxPotentialBlockSizeWithFlags(grid: Out<i32>, block: Out<i32>, function: Handle, shared_for: Option<unsafe extern "C" fn(i32) -> usize>, shared: usize, limit: i32, flags: u32) => module::potential_block_with_flags;

    // ---- compilation and tensor maps: libraries link to these by name
    5050 cuLinkCreate_v2(count: u32, options: *mut i32, values: *mut *mut u8, state: Out<Handle>) => module::link_create;
    5050 cuLinkAddData_v2(state: Handle, kind: i32, data: *mut u8, bytes: usize, name: *const c_char, count: u32, options: *mut i32, values: *mut *mut u8) => module::link_add_data;
    5050 cuLinkAddFile_v2(state: Handle, kind: i32, path: Text, count: u32, options: *mut i32, values: *mut *mut u8) => module::link_add_file;
    5050 cuLinkComplete(state: Handle, cubin: Out<*mut u8>, bytes: Out<usize>) => module::link_complete;
    5050 cuLinkDestroy(state: Handle) => module::link_destroy;
    12000 cuTensorMapEncodeTiled(map: *mut u8, kind: i32, rank: u32, address: u64, dims: *const u64, strides: *const u64, boxes: *const u32, element: *const u32, interleave: i32, swizzle: i32, l2: i32, fill: i32) => module::tensor_map_encode_tiled;

    // ---- launches
    4000 cuLaunchKernel[cuLaunchKernel_ptsz](function: Handle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: Handle, params: launch::Params, extra: launch::Extra) => launch::kernel;
    11060 cuLaunchKernelEx[cuLaunchKernelEx_ptsz](config: In<LaunchConfig>, function: Handle, params: launch::Params, extra: launch::Extra) => launch::kernel_ex;
    9000 cuLaunchCooperativeKernel[cuLaunchCooperativeKernel_ptsz](function: Handle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: Handle, params: launch::Params) => launch::cooperative;

    // ---- capture
    10010 cuThreadExchangeStreamCaptureMode(mode: Out<i32>) => capture::exchange_mode;
    10000 cuStreamBeginCapture[cuStreamBeginCapture_ptsz](stream: Handle) => capture::begin_v1;
    10010 cuStreamBeginCapture_v2[cuStreamBeginCapture_v2_ptsz](stream: Handle, mode: i32) => capture::begin;
    12030 cuStreamBeginCaptureToGraph[cuStreamBeginCaptureToGraph_ptsz](stream: Handle, graph: Handle, deps: In<Handle>, edges: In<capture::EdgeData>, count: usize, mode: i32) => capture::begin_to_graph;
    10000 cuStreamEndCapture[cuStreamEndCapture_ptsz](stream: Handle, out: Out<Handle>) => capture::end;
    10000 cuStreamIsCapturing[cuStreamIsCapturing_ptsz](stream: Handle, out: Out<i32>) => capture::is_capturing;
    10010 cuStreamGetCaptureInfo[cuStreamGetCaptureInfo_ptsz](stream: Handle, status: Out<i32>, id: Out<u64>) => capture::info_v1;
    11030 cuStreamGetCaptureInfo_v2[cuStreamGetCaptureInfo_v2_ptsz](stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<Handle>, deps: Out<*const Handle>, count: Out<usize>) => capture::info_v2;
    12030 cuStreamGetCaptureInfo_v3[cuStreamGetCaptureInfo_v3_ptsz](stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<Handle>, deps: Out<*const Handle>, edges: Out<*const capture::EdgeData>, count: Out<usize>) => capture::info_v3;
    11030 cuStreamUpdateCaptureDependencies[cuStreamUpdateCaptureDependencies_ptsz](stream: Handle, deps: In<Handle>, count: usize, flags: u32) => capture::update;
    12030 cuStreamUpdateCaptureDependencies_v2[cuStreamUpdateCaptureDependencies_v2_ptsz](stream: Handle, deps: In<Handle>, edges: In<capture::EdgeData>, count: usize, flags: u32) => capture::update_v2;

    // ---- graphs
    10000 cuGraphCreate(out: Out<Handle>, flags: u32) => graph::create;
    10000 cuGraphDestroy(graph: Handle) => graph::destroy;
    10000 cuGraphDestroyNode(node: Handle) => graph::destroy_node;
    10000 cuGraphClone(out: Out<Handle>, graph: Handle) => graph::clone;
    10000 cuGraphNodeFindInClone(out: Out<Handle>, original: Handle, copy: Handle) => graph::find_in_clone;
    10000 cuGraphGetNodes(graph: Handle, out: Out<Handle>, count: Out<usize>) => graph::nodes;
    10000 cuGraphGetRootNodes(graph: Handle, out: Out<Handle>, count: Out<usize>) => graph::roots;
    10000 cuGraphGetEdges(graph: Handle, from: Out<Handle>, to: Out<Handle>, count: Out<usize>) => graph::edges;
    12030 cuGraphGetEdges_v2(graph: Handle, from: Out<Handle>, to: Out<Handle>, edges: Out<capture::EdgeData>, count: Out<usize>) => graph::edges_v2;
    10000 cuGraphNodeGetDependencies(node: Handle, out: Out<Handle>, count: Out<usize>) => graph::dependencies;
    12030 cuGraphNodeGetDependencies_v2(node: Handle, out: Out<Handle>, edges: Out<capture::EdgeData>, count: Out<usize>) => graph::dependencies_v2;
    10000 cuGraphNodeGetDependentNodes(node: Handle, out: Out<Handle>, count: Out<usize>) => graph::dependents;
    12030 cuGraphNodeGetDependentNodes_v2(node: Handle, out: Out<Handle>, edges: Out<capture::EdgeData>, count: Out<usize>) => graph::dependents_v2;
    10000 cuGraphNodeGetType(node: Handle, out: Out<i32>) => graph::node_type;
    10000 cuGraphAddDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) => graph::add_dependencies;
    12030 cuGraphAddDependencies_v2(graph: Handle, from: In<Handle>, to: In<Handle>, edges: In<capture::EdgeData>, count: usize) => graph::add_dependencies_v2;
    10000 cuGraphRemoveDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) => graph::remove_dependencies;
    12030 cuGraphRemoveDependencies_v2(graph: Handle, from: In<Handle>, to: In<Handle>, edges: In<capture::EdgeData>, count: usize) => graph::remove_dependencies_v2;
    11030 cuGraphDebugDotPrint(graph: Handle, path: Text, flags: u32) => graph::dot_print;
    11000 cuGraphInstantiate_v2(out: Out<Handle>, graph: Handle, error_node: Out<Handle>, log: *mut u8, room: usize) => graph::instantiate_with_log;
    11040 cuGraphInstantiateWithFlags(out: Out<Handle>, graph: Handle, flags: u64) => graph::instantiate;
    12000 cuGraphInstantiateWithParams[cuGraphInstantiateWithParams_ptsz](out: Out<Handle>, graph: Handle, params: Out<graph::InstantiateParams>) => graph::instantiate_with_params;
    10000 cuGraphLaunch[cuGraphLaunch_ptsz](exec: Handle, stream: Handle) => graph::launch;
    11010 cuGraphUpload[cuGraphUpload_ptsz](exec: Handle, stream: Handle) => graph::upload;
    10000 cuGraphExecDestroy(exec: Handle) => graph::exec_destroy;
    12000 cuGraphExecGetFlags(exec: Handle, out: Out<u64>) => graph::exec_flags;
    10020 cuGraphExecUpdate(exec: Handle, graph: Handle, node: Out<Handle>, result: Out<i32>) => graph::exec_update_v1;
    12000 cuGraphExecUpdate_v2(exec: Handle, graph: Handle, info: Out<graph::UpdateInfo>) => graph::exec_update;
    11060 cuGraphNodeSetEnabled(exec: Handle, node: Handle, enabled: u32) => graph::set_enabled;
    11060 cuGraphNodeGetEnabled(exec: Handle, node: Handle, out: Out<u32>) => graph::get_enabled;
    11040 cuDeviceGetGraphMemAttribute(dev: i32, attribute: i32, out: Out<u64>) => graph::device_memory;
    11040 cuDeviceSetGraphMemAttribute(dev: i32, attribute: i32, value: Out<u64>) => graph::set_device_memory;
    11040 cuDeviceGraphMemTrim(dev: i32) => graph::device_memory_trim;

    // ---- graph nodes
    10000 cuGraphAddKernelNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: In<graph_nodes::KernelParamsV1>) => graph_nodes::add_kernel_v1;
    12000 cuGraphAddKernelNode_v2(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: In<graph_nodes::KernelParams>) => graph_nodes::add_kernel;
    10000 cuGraphAddMemcpyNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: In<Memcpy3D>, ctx: Handle) => graph_nodes::add_copy;
    10000 cuGraphAddMemsetNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: In<graph_nodes::MemsetParams>, ctx: Handle) => graph_nodes::add_memset;
    10000 cuGraphAddHostNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: In<graph_nodes::HostParams>) => graph_nodes::add_host;
    10000 cuGraphAddChildGraphNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, child: Handle) => graph_nodes::add_child;
    10000 cuGraphAddEmptyNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize) => graph_nodes::add_empty;
    11010 cuGraphAddEventRecordNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, event: Handle) => graph_nodes::add_event_record;
    11010 cuGraphAddEventWaitNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, event: Handle) => graph_nodes::add_event_wait;
    11040 cuGraphAddMemAllocNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: Out<graph_nodes::AllocParams>) => graph_nodes::add_alloc;
    11040 cuGraphAddMemFreeNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, address: u64) => graph_nodes::add_free;
    12020 cuGraphAddNode(out: Out<Handle>, graph: Handle, deps: In<Handle>, count: usize, params: In<graph_nodes::NodeParams>) => graph_nodes::add_any;
    12030 cuGraphAddNode_v2(out: Out<Handle>, graph: Handle, deps: In<Handle>, edges: In<capture::EdgeData>, count: usize, params: In<graph_nodes::NodeParams>) => graph_nodes::add_any_v2;
    10000 cuGraphKernelNodeGetParams(node: Handle, out: Out<graph_nodes::KernelParamsV1>) => graph_nodes::get_kernel_v1;
    12000 cuGraphKernelNodeGetParams_v2(node: Handle, out: Out<graph_nodes::KernelParams>) => graph_nodes::get_kernel;
    10000 cuGraphMemcpyNodeGetParams(node: Handle, out: Out<Memcpy3D>) => graph_nodes::get_copy;
    10000 cuGraphMemsetNodeGetParams(node: Handle, out: Out<graph_nodes::MemsetParams>) => graph_nodes::get_memset;
    10000 cuGraphHostNodeGetParams(node: Handle, out: Out<graph_nodes::HostParams>) => graph_nodes::get_host;
    10000 cuGraphChildGraphNodeGetGraph(node: Handle, out: Out<Handle>) => graph_nodes::get_child;
    11010 cuGraphEventRecordNodeGetEvent(node: Handle, out: Out<Handle>) => graph_nodes::get_event;
    11010 cuGraphEventWaitNodeGetEvent(node: Handle, out: Out<Handle>) => graph_nodes::get_event;
    11040 cuGraphMemFreeNodeGetParams(node: Handle, out: Out<u64>) => graph_nodes::get_free;
    10000 cuGraphKernelNodeSetParams(node: Handle, params: In<graph_nodes::KernelParamsV1>) => graph_nodes::set_kernel_v1;
    12000 cuGraphKernelNodeSetParams_v2(node: Handle, params: In<graph_nodes::KernelParams>) => graph_nodes::set_kernel;
    10000 cuGraphMemcpyNodeSetParams(node: Handle, params: In<Memcpy3D>) => graph_nodes::set_copy;
    10000 cuGraphMemsetNodeSetParams(node: Handle, params: In<graph_nodes::MemsetParams>) => graph_nodes::set_memset;
    10000 cuGraphHostNodeSetParams(node: Handle, params: In<graph_nodes::HostParams>) => graph_nodes::set_host;
    11010 cuGraphEventRecordNodeSetEvent(node: Handle, event: Handle) => graph_nodes::set_event_record;
    11010 cuGraphEventWaitNodeSetEvent(node: Handle, event: Handle) => graph_nodes::set_event_wait;
    12020 cuGraphNodeSetParams(node: Handle, params: In<graph_nodes::NodeParams>) => graph_nodes::set_any;
    10010 cuGraphExecKernelNodeSetParams(exec: Handle, node: Handle, params: In<graph_nodes::KernelParamsV1>) => graph_nodes::exec_set_kernel_v1;
    12000 cuGraphExecKernelNodeSetParams_v2(exec: Handle, node: Handle, params: In<graph_nodes::KernelParams>) => graph_nodes::exec_set_kernel;
    10020 cuGraphExecMemcpyNodeSetParams(exec: Handle, node: Handle, params: In<Memcpy3D>, ctx: Handle) => graph_nodes::exec_set_copy;
    10020 cuGraphExecMemsetNodeSetParams(exec: Handle, node: Handle, params: In<graph_nodes::MemsetParams>, ctx: Handle) => graph_nodes::exec_set_memset;
    10020 cuGraphExecHostNodeSetParams(exec: Handle, node: Handle, params: In<graph_nodes::HostParams>) => graph_nodes::exec_set_host;
    11010 cuGraphExecEventRecordNodeSetEvent(exec: Handle, node: Handle, event: Handle) => graph_nodes::exec_set_event_record;
    11010 cuGraphExecEventWaitNodeSetEvent(exec: Handle, node: Handle, event: Handle) => graph_nodes::exec_set_event_wait;
    12020 cuGraphExecNodeSetParams(exec: Handle, node: Handle, params: In<graph_nodes::NodeParams>) => graph_nodes::exec_set_any;
    11000 cuGraphKernelNodeCopyAttributes(dst: Handle, src: Handle) => graph_nodes::copy_attributes;
    11000 cuGraphKernelNodeGetAttribute(node: Handle, attribute: i32, out: Out<[u8; 64]>) => graph_nodes::get_attribute;
    11000 cuGraphKernelNodeSetAttribute(node: Handle, attribute: i32, value: In<[u8; 64]>) => graph_nodes::set_attribute;
}
