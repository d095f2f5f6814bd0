//! THE list: every driver entry point we export, with its signature, its
//! class and its body. The exports, the originals, the names that `dlsym`
//! answers, the pointers that `cuGetProcAddress` substitutes and the counters
//! are all derived from it.
//!
//! Classes:
//! - `handle`: the body may serve the call itself or must see it in order;
//! - `pass`: goes to the original, counted, what it takes of the card as well,
//!   and is tried once more if the device was out of memory and the engine could
//!   give some back;
//! - `refuse`: would let an address escape from our keeping; on a managed
//!   address it is refused, or the chunk stays resident for good.
//!
//! A name stands for exactly one exported symbol; unsuffixed first versions
//! with 32-bit addresses (`cuMemAlloc`) are not here and are never hooked.
//! `[per_thread]` rows are the `_ptds` / `_ptsz` variants: their stream 0 is
//! the calling thread's own.
//!
//! To add an entry point: a row here with the signature of cuda.h (enums as
//! `c_int`), each `_ptds` / `_ptsz` variant a row of its own; a body in the file
//! of its group, unless it is `pass`; the version it appeared in, if it is a
//! newer variant of a name (`proc_address`); a line in `tests/c/memory_calls.c`
//! if it touches memory. `tests/header.rs` and `tests/hooks.rs` see the rest.
//!
//! Not here: what a body does (one file per API group beside this one); the
//! names that need no hook, with the reasons (`unhooked.txt`).

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{
    copy, escape, graphs, init, launch, memory, memset, modules, pools, proc_address, streams,
};
use crate::driver::abi::*;

/// What a hook does, as far as the account is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Handle,
    Pass,
    Refuse,
}

/// A counter of the account (see `registry`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Launch,
    GraphLaunch,
    Alloc,
    AllocAsync,
    Free,
    FreeAsync,
    CopyH2D,
    CopyD2H,
    CopyD2D,
    CopyOther,
    Memset,
    Other,
}

macro_rules! class {
    (handle) => {
        Class::Handle
    };
    (pass) => {
        Class::Pass
    };
    (refuse) => {
        Class::Refuse
    };
}

macro_rules! per_thread {
    () => {
        false
    };
    (per_thread) => {
        true
    };
}

macro_rules! body {
    ($call:expr, $forward:expr, ($($arg:expr),*), $body:path) => {
        // SAFETY: the arguments are the program's, handed on as they came.
        unsafe { $body($call, $forward, $($arg),*) }
    };
    ($call:expr, $forward:expr, ($($arg:expr),*),) => {
        super::passed_on($forward)
    };
}

macro_rules! hooks {
    ($(
        $class:ident $group:ident $name:ident ( $( $arg:ident : $ty:ty ),* )
        $( [ $variant:ident ] )? $( => $body:path )? ;
    )*) => {
        /// One row of the list.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Hook { $( $name ),* }

        /// Every row, in the order of the list.
        pub const HOOKS: &[Hook] = &[ $( Hook::$name ),* ];

        /// Exported names, in the order of the list.
        pub const NAMES: [&CStr; HOOKS.len()] = [ $( {
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => unreachable!(),
            }
        } ),* ];

        pub static ADDRESSES: Addresses = Addresses([ $( $name as *const c_void ),* ]);

        pub static CLASSES: [(Class, Group); HOOKS.len()] =
            [ $( (class!($class), Group::$group) ),* ];

        $(
            /// # Safety
            /// As cuda.h asks of the function of this name.
            #[allow(non_snake_case)]
            #[cfg_attr(not(test), unsafe(no_mangle))]
            pub unsafe extern "C" fn $name( $( $arg: $ty ),* ) -> CuResult {
                let Some(original) = Hook::$name.original() else {
                    return Hook::$name.absent();
                };
                // SAFETY: libcuda's function of this name has this C
                // signature (cuda.h).
                let original: unsafe extern "C" fn( $( $ty ),* ) -> CuResult =
                    unsafe { std::mem::transmute(original) };
                let forwarded = &Cell::new(0);
                // By value: else each argument is fetched through a reference.
                let forward = move || {
                    forwarded.set(forwarded.get() + 1);
                    // SAFETY: the program's own call, unchanged.
                    unsafe { original( $( $arg ),* ) }
                };
                super::run(Hook::$name, forwarded, &forward, || {
                    let _call = super::Call { per_thread: per_thread!( $( $variant )? ) };
                    body!(_call, &forward, ( $( $arg ),* ), $( $body )?)
                })
            }
        )*
    };
}

hooks! {
    // --- initialisation, contexts ---------------------------------------------
    handle Other cuInit(flags: c_uint) => init::init;
    handle Other cuGetProcAddress(name: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64) => proc_address::get_v1;
    handle Other cuGetProcAddress_v2(name: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64, status: *mut c_int) => proc_address::get_v2;
    handle Other cuCtxCreate_v2(ctx: *mut CUcontext, flags: c_uint, device: Device) => init::ctx_create;
    handle Other cuCtxCreate_v3(ctx: *mut CUcontext, affinity: *mut c_void, count: c_int, flags: c_uint, device: Device) => init::ctx_create_v3;
    handle Other cuCtxCreate_v4(ctx: *mut CUcontext, params: *mut c_void, flags: c_uint, device: Device) => init::ctx_create_v4;
    handle Other cuCtxFromGreenCtx(ctx: *mut CUcontext, green: *mut c_void) => init::ctx_from_green;
    handle Other cuCtxDestroy(ctx: CUcontext) => init::ctx_destroy;
    handle Other cuCtxDestroy_v2(ctx: CUcontext) => init::ctx_destroy;
    handle Other cuDevicePrimaryCtxReset(device: Device) => init::primary_ctx_reset;
    handle Other cuDevicePrimaryCtxReset_v2(device: Device) => init::primary_ctx_reset;
    handle Other cuDevicePrimaryCtxRelease(device: Device) => init::primary_ctx_release;
    handle Other cuDevicePrimaryCtxRelease_v2(device: Device) => init::primary_ctx_release;
    handle Other cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) => init::enable_peer_access;
    pass Other cuDevicePrimaryCtxRetain(ctx: *mut CUcontext, device: Device);

    // --- allocations and questions about them ----------------------------------
    handle Alloc cuMemAlloc_v2(address: *mut DevicePtr, bytes: usize) => memory::alloc;
    handle Alloc cuMemAllocPitch_v2(address: *mut DevicePtr, pitch: *mut usize, width: usize, height: usize, element: c_uint) => memory::alloc_pitch;
    pass Alloc cuMemAllocManaged(address: *mut DevicePtr, bytes: usize, flags: c_uint);
    handle Free cuMemFree_v2(address: DevicePtr) => memory::free;
    handle Other cuMemGetInfo_v2(free: *mut usize, total: *mut usize) => memory::get_info;
    handle Other cuDeviceTotalMem_v2(bytes: *mut usize, device: Device) => memory::device_total;
    handle Other cuMemGetAddressRange_v2(base: *mut DevicePtr, bytes: *mut usize, address: DevicePtr) => memory::get_address_range;
    handle Other cuPointerGetAttribute(data: *mut c_void, attribute: c_int, address: DevicePtr) => memory::pointer_get_attribute;
    handle Other cuPointerGetAttributes(count: c_uint, attributes: *mut c_int, data: *mut *mut c_void, address: DevicePtr) => memory::pointer_get_attributes;
    handle Other cuPointerSetAttribute(value: *const c_void, attribute: c_int, address: DevicePtr) => memory::pointer_set_attribute;
    handle Other cuMemRelease(handle: MemHandle) => memory::release;
    handle Other cuMemUnmap(address: DevicePtr, bytes: usize) => memory::unmap;
    handle Other cuMemCreate(handle: *mut MemHandle, bytes: usize, prop: *const CUmemAllocationProp, flags: u64) => memory::create;

    // --- stream-ordered allocations ---------------------------------------------
    handle AllocAsync cuMemAllocAsync(address: *mut DevicePtr, bytes: usize, stream: CUstream) => pools::alloc_async;
    handle AllocAsync cuMemAllocAsync_ptsz(address: *mut DevicePtr, bytes: usize, stream: CUstream) [per_thread] => pools::alloc_async;
    handle AllocAsync cuMemAllocFromPoolAsync(address: *mut DevicePtr, bytes: usize, pool: CUmemoryPool, stream: CUstream) => pools::alloc_from_pool_async;
    handle AllocAsync cuMemAllocFromPoolAsync_ptsz(address: *mut DevicePtr, bytes: usize, pool: CUmemoryPool, stream: CUstream) [per_thread] => pools::alloc_from_pool_async;
    handle FreeAsync cuMemFreeAsync(address: DevicePtr, stream: CUstream) => pools::free_async;
    handle FreeAsync cuMemFreeAsync_ptsz(address: DevicePtr, stream: CUstream) [per_thread] => pools::free_async;
    handle Other cuMemPoolCreate(pool: *mut CUmemoryPool, props: *const c_void) => pools::create;
    handle Other cuMemPoolDestroy(pool: CUmemoryPool) => pools::destroy;
    handle Other cuMemPoolTrimTo(pool: CUmemoryPool, keep_bytes: usize) => pools::trim_to;
    handle Other cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: c_int, value: *mut c_void) => pools::get_attribute;
    refuse Other cuMemPoolExportPointer(data: *mut c_void, address: DevicePtr) => escape::pool_export_pointer;

    // --- copies -------------------------------------------------------------------
    handle CopyOther cuMemcpy(dst: DevicePtr, src: DevicePtr, bytes: usize) => copy::any;
    handle CopyOther cuMemcpy_ptds(dst: DevicePtr, src: DevicePtr, bytes: usize) [per_thread] => copy::any;
    handle CopyOther cuMemcpyAsync(dst: DevicePtr, src: DevicePtr, bytes: usize, stream: CUstream) => copy::any_async;
    handle CopyOther cuMemcpyAsync_ptsz(dst: DevicePtr, src: DevicePtr, bytes: usize, stream: CUstream) [per_thread] => copy::any_async;
    handle CopyH2D cuMemcpyHtoD_v2(dst: DevicePtr, src: *const c_void, bytes: usize) => copy::htod;
    handle CopyH2D cuMemcpyHtoD_v2_ptds(dst: DevicePtr, src: *const c_void, bytes: usize) [per_thread] => copy::htod;
    handle CopyH2D cuMemcpyHtoDAsync_v2(dst: DevicePtr, src: *const c_void, bytes: usize, stream: CUstream) => copy::htod_async;
    handle CopyH2D cuMemcpyHtoDAsync_v2_ptsz(dst: DevicePtr, src: *const c_void, bytes: usize, stream: CUstream) [per_thread] => copy::htod_async;
    handle CopyD2H cuMemcpyDtoH_v2(dst: *mut c_void, src: DevicePtr, bytes: usize) => copy::dtoh;
    handle CopyD2H cuMemcpyDtoH_v2_ptds(dst: *mut c_void, src: DevicePtr, bytes: usize) [per_thread] => copy::dtoh;
    handle CopyD2H cuMemcpyDtoHAsync_v2(dst: *mut c_void, src: DevicePtr, bytes: usize, stream: CUstream) => copy::dtoh_async;
    handle CopyD2H cuMemcpyDtoHAsync_v2_ptsz(dst: *mut c_void, src: DevicePtr, bytes: usize, stream: CUstream) [per_thread] => copy::dtoh_async;
    handle CopyD2D cuMemcpyDtoD_v2(dst: DevicePtr, src: DevicePtr, bytes: usize) => copy::any;
    handle CopyD2D cuMemcpyDtoD_v2_ptds(dst: DevicePtr, src: DevicePtr, bytes: usize) [per_thread] => copy::any;
    handle CopyD2D cuMemcpyDtoDAsync_v2(dst: DevicePtr, src: DevicePtr, bytes: usize, stream: CUstream) => copy::any_async;
    handle CopyD2D cuMemcpyDtoDAsync_v2_ptsz(dst: DevicePtr, src: DevicePtr, bytes: usize, stream: CUstream) [per_thread] => copy::any_async;
    handle CopyOther cuMemcpyDtoA_v2(dst: *mut c_void, offset: usize, src: DevicePtr, bytes: usize) => copy::dtoa;
    handle CopyOther cuMemcpyDtoA_v2_ptds(dst: *mut c_void, offset: usize, src: DevicePtr, bytes: usize) [per_thread] => copy::dtoa;
    handle CopyOther cuMemcpyAtoD_v2(dst: DevicePtr, src: *mut c_void, offset: usize, bytes: usize) => copy::atod;
    handle CopyOther cuMemcpyAtoD_v2_ptds(dst: DevicePtr, src: *mut c_void, offset: usize, bytes: usize) [per_thread] => copy::atod;
    handle CopyD2D cuMemcpyPeer(dst: DevicePtr, dst_ctx: CUcontext, src: DevicePtr, src_ctx: CUcontext, bytes: usize) => copy::peer;
    handle CopyD2D cuMemcpyPeer_ptds(dst: DevicePtr, dst_ctx: CUcontext, src: DevicePtr, src_ctx: CUcontext, bytes: usize) [per_thread] => copy::peer;
    handle CopyD2D cuMemcpyPeerAsync(dst: DevicePtr, dst_ctx: CUcontext, src: DevicePtr, src_ctx: CUcontext, bytes: usize, stream: CUstream) => copy::peer_async;
    handle CopyD2D cuMemcpyPeerAsync_ptsz(dst: DevicePtr, dst_ctx: CUcontext, src: DevicePtr, src_ctx: CUcontext, bytes: usize, stream: CUstream) [per_thread] => copy::peer_async;
    handle CopyOther cuMemcpy2D_v2(copy: *const CUDA_MEMCPY2D) => copy::copy_2d;
    handle CopyOther cuMemcpy2D_v2_ptds(copy: *const CUDA_MEMCPY2D) [per_thread] => copy::copy_2d;
    handle CopyOther cuMemcpy2DUnaligned_v2(copy: *const CUDA_MEMCPY2D) => copy::copy_2d;
    handle CopyOther cuMemcpy2DUnaligned_v2_ptds(copy: *const CUDA_MEMCPY2D) [per_thread] => copy::copy_2d;
    handle CopyOther cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream) => copy::copy_2d_async;
    handle CopyOther cuMemcpy2DAsync_v2_ptsz(copy: *const CUDA_MEMCPY2D, stream: CUstream) [per_thread] => copy::copy_2d_async;
    handle CopyOther cuMemcpy3D_v2(copy: *const CUDA_MEMCPY3D) => copy::copy_3d;
    handle CopyOther cuMemcpy3D_v2_ptds(copy: *const CUDA_MEMCPY3D) [per_thread] => copy::copy_3d;
    handle CopyOther cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: CUstream) => copy::copy_3d_async;
    handle CopyOther cuMemcpy3DAsync_v2_ptsz(copy: *const CUDA_MEMCPY3D, stream: CUstream) [per_thread] => copy::copy_3d_async;
    handle CopyOther cuMemcpy3DPeer(copy: *const CUDA_MEMCPY3D_PEER) => copy::copy_3d_peer;
    handle CopyOther cuMemcpy3DPeer_ptds(copy: *const CUDA_MEMCPY3D_PEER) [per_thread] => copy::copy_3d_peer;
    handle CopyOther cuMemcpy3DPeerAsync(copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream) => copy::copy_3d_peer_async;
    handle CopyOther cuMemcpy3DPeerAsync_ptsz(copy: *const CUDA_MEMCPY3D_PEER, stream: CUstream) [per_thread] => copy::copy_3d_peer_async;
    handle CopyOther cuMemcpyBatchAsync(dsts: *mut DevicePtr, srcs: *mut DevicePtr, sizes: *mut usize, count: usize, attributes: *mut c_void, indices: *mut usize, attribute_count: usize, fail_index: *mut usize, stream: CUstream) => copy::batch_v1;
    handle CopyOther cuMemcpyBatchAsync_ptsz(dsts: *mut DevicePtr, srcs: *mut DevicePtr, sizes: *mut usize, count: usize, attributes: *mut c_void, indices: *mut usize, attribute_count: usize, fail_index: *mut usize, stream: CUstream) [per_thread] => copy::batch_v1;
    handle CopyOther cuMemcpyBatchAsync_v2(dsts: *mut DevicePtr, srcs: *mut DevicePtr, sizes: *mut usize, count: usize, attributes: *mut c_void, indices: *mut usize, attribute_count: usize, stream: CUstream) => copy::batch_v2;
    handle CopyOther cuMemcpyBatchAsync_v2_ptsz(dsts: *mut DevicePtr, srcs: *mut DevicePtr, sizes: *mut usize, count: usize, attributes: *mut c_void, indices: *mut usize, attribute_count: usize, stream: CUstream) [per_thread] => copy::batch_v2;
    handle CopyOther cuMemcpy3DBatchAsync(count: usize, ops: *mut c_void, fail_index: *mut usize, flags: u64, stream: CUstream) => copy::batch_3d_v1;
    handle CopyOther cuMemcpy3DBatchAsync_ptsz(count: usize, ops: *mut c_void, fail_index: *mut usize, flags: u64, stream: CUstream) [per_thread] => copy::batch_3d_v1;
    handle CopyOther cuMemcpy3DBatchAsync_v2(count: usize, ops: *mut c_void, flags: u64, stream: CUstream) => copy::batch_3d_v2;
    handle CopyOther cuMemcpy3DBatchAsync_v2_ptsz(count: usize, ops: *mut c_void, flags: u64, stream: CUstream) [per_thread] => copy::batch_3d_v2;
    handle CopyOther cuMemBatchDecompressAsync(params: *mut c_void, count: usize, flags: c_uint, error_index: *mut usize, stream: CUstream) => copy::decompress;
    handle CopyOther cuMemBatchDecompressAsync_ptsz(params: *mut c_void, count: usize, flags: c_uint, error_index: *mut usize, stream: CUstream) [per_thread] => copy::decompress;
    handle CopyOther cuMemcpyWithAttributesAsync(dst: DevicePtr, src: DevicePtr, bytes: usize, attributes: *mut c_void, stream: CUstream) => copy::with_attributes;
    handle CopyOther cuMemcpyWithAttributesAsync_ptsz(dst: DevicePtr, src: DevicePtr, bytes: usize, attributes: *mut c_void, stream: CUstream) [per_thread] => copy::with_attributes;
    handle CopyOther cuMemcpy3DWithAttributesAsync(op: *mut c_void, flags: u64, stream: CUstream) => copy::with_attributes_3d;
    handle CopyOther cuMemcpy3DWithAttributesAsync_ptsz(op: *mut c_void, flags: u64, stream: CUstream) [per_thread] => copy::with_attributes_3d;

    // --- memsets --------------------------------------------------------------------
    handle Memset cuMemsetD8_v2(dst: DevicePtr, value: u8, count: usize) => memset::d8;
    handle Memset cuMemsetD8_v2_ptds(dst: DevicePtr, value: u8, count: usize) [per_thread] => memset::d8;
    handle Memset cuMemsetD16_v2(dst: DevicePtr, value: u16, count: usize) => memset::d16;
    handle Memset cuMemsetD16_v2_ptds(dst: DevicePtr, value: u16, count: usize) [per_thread] => memset::d16;
    handle Memset cuMemsetD32_v2(dst: DevicePtr, value: c_uint, count: usize) => memset::d32;
    handle Memset cuMemsetD32_v2_ptds(dst: DevicePtr, value: c_uint, count: usize) [per_thread] => memset::d32;
    handle Memset cuMemsetD2D8_v2(dst: DevicePtr, pitch: usize, value: u8, width: usize, height: usize) => memset::d2d8;
    handle Memset cuMemsetD2D8_v2_ptds(dst: DevicePtr, pitch: usize, value: u8, width: usize, height: usize) [per_thread] => memset::d2d8;
    handle Memset cuMemsetD2D16_v2(dst: DevicePtr, pitch: usize, value: u16, width: usize, height: usize) => memset::d2d16;
    handle Memset cuMemsetD2D16_v2_ptds(dst: DevicePtr, pitch: usize, value: u16, width: usize, height: usize) [per_thread] => memset::d2d16;
    handle Memset cuMemsetD2D32_v2(dst: DevicePtr, pitch: usize, value: c_uint, width: usize, height: usize) => memset::d2d32;
    handle Memset cuMemsetD2D32_v2_ptds(dst: DevicePtr, pitch: usize, value: c_uint, width: usize, height: usize) [per_thread] => memset::d2d32;
    handle Memset cuMemsetD8Async(dst: DevicePtr, value: u8, count: usize, stream: CUstream) => memset::d8_async;
    handle Memset cuMemsetD8Async_ptsz(dst: DevicePtr, value: u8, count: usize, stream: CUstream) [per_thread] => memset::d8_async;
    handle Memset cuMemsetD16Async(dst: DevicePtr, value: u16, count: usize, stream: CUstream) => memset::d16_async;
    handle Memset cuMemsetD16Async_ptsz(dst: DevicePtr, value: u16, count: usize, stream: CUstream) [per_thread] => memset::d16_async;
    handle Memset cuMemsetD32Async(dst: DevicePtr, value: c_uint, count: usize, stream: CUstream) => memset::d32_async;
    handle Memset cuMemsetD32Async_ptsz(dst: DevicePtr, value: c_uint, count: usize, stream: CUstream) [per_thread] => memset::d32_async;
    handle Memset cuMemsetD2D8Async(dst: DevicePtr, pitch: usize, value: u8, width: usize, height: usize, stream: CUstream) => memset::d2d8_async;
    handle Memset cuMemsetD2D8Async_ptsz(dst: DevicePtr, pitch: usize, value: u8, width: usize, height: usize, stream: CUstream) [per_thread] => memset::d2d8_async;
    handle Memset cuMemsetD2D16Async(dst: DevicePtr, pitch: usize, value: u16, width: usize, height: usize, stream: CUstream) => memset::d2d16_async;
    handle Memset cuMemsetD2D16Async_ptsz(dst: DevicePtr, pitch: usize, value: u16, width: usize, height: usize, stream: CUstream) [per_thread] => memset::d2d16_async;
    handle Memset cuMemsetD2D32Async(dst: DevicePtr, pitch: usize, value: c_uint, width: usize, height: usize, stream: CUstream) => memset::d2d32_async;
    handle Memset cuMemsetD2D32Async_ptsz(dst: DevicePtr, pitch: usize, value: c_uint, width: usize, height: usize, stream: CUstream) [per_thread] => memset::d2d32_async;

    // --- launches -------------------------------------------------------------------
    handle Launch cuLaunchKernel(function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) => launch::kernel;
    handle Launch cuLaunchKernel_ptsz(function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void, extra: *mut *mut c_void) [per_thread] => launch::kernel;
    handle Launch cuLaunchKernelEx(config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) => launch::kernel_ex;
    handle Launch cuLaunchKernelEx_ptsz(config: *const CUlaunchConfig, function: CUfunction, params: *mut *mut c_void, extra: *mut *mut c_void) [per_thread] => launch::kernel_ex;
    handle Launch cuLaunchCooperativeKernel(function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) => launch::cooperative;
    handle Launch cuLaunchCooperativeKernel_ptsz(function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream, params: *mut *mut c_void) [per_thread] => launch::cooperative;
    handle Launch cuLaunchCooperativeKernelMultiDevice(launches: *mut CUDA_LAUNCH_PARAMS, count: c_uint, flags: c_uint) => launch::cooperative_multi_device;
    pass Launch cuLaunch(function: CUfunction);
    pass Launch cuLaunchGrid(function: CUfunction, width: c_int, height: c_int);
    pass Launch cuLaunchGridAsync(function: CUfunction, width: c_int, height: c_int, stream: CUstream);
    refuse Other cuParamSetv(function: CUfunction, offset: c_int, data: *mut c_void, bytes: c_uint) => launch::param_setv;
    handle Other cuModuleUnload(module: CUmodule) => modules::unload_module;
    handle Other cuLibraryUnload(library: CUlibrary) => modules::unload_library;
    handle Other cuLibraryGetKernel(kernel: *mut CUkernel, library: CUlibrary, name: *const c_char) => modules::get_kernel;
    handle Other cuLibraryEnumerateKernels(kernels: *mut CUkernel, count: c_uint, library: CUlibrary) => modules::enumerate_kernels;
    pass Other cuModuleLoad(module: *mut CUmodule, file: *const c_char);
    pass Other cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    pass Other cuModuleLoadDataEx(module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut c_int, values: *mut *mut c_void);
    pass Other cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void);
    pass Other cuLibraryLoadData(library: *mut CUlibrary, image: *const c_void, jit_options: *mut c_int, jit_values: *mut *mut c_void, jit_count: c_uint, options: *mut c_int, values: *mut *mut c_void, count: c_uint);
    pass Other cuLibraryLoadFromFile(library: *mut CUlibrary, file: *const c_char, jit_options: *mut c_int, jit_values: *mut *mut c_void, jit_count: c_uint, options: *mut c_int, values: *mut *mut c_void, count: c_uint);

    // --- streams and their memory operations -------------------------------------------
    handle Other cuStreamDestroy(stream: CUstream) => streams::destroy;
    handle Other cuStreamDestroy_v2(stream: CUstream) => streams::destroy;
    refuse Other cuStreamWriteValue32_v2(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) => streams::value32;
    refuse Other cuStreamWriteValue32_v2_ptsz(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) [per_thread] => streams::value32;
    refuse Other cuStreamWriteValue64_v2(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) => streams::value64;
    refuse Other cuStreamWriteValue64_v2_ptsz(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) [per_thread] => streams::value64;
    refuse Other cuStreamWaitValue32_v2(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) => streams::value32;
    refuse Other cuStreamWaitValue32_v2_ptsz(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) [per_thread] => streams::value32;
    refuse Other cuStreamWaitValue64_v2(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) => streams::value64;
    refuse Other cuStreamWaitValue64_v2_ptsz(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) [per_thread] => streams::value64;
    refuse Other cuStreamBatchMemOp_v2(stream: CUstream, count: c_uint, ops: *mut c_void, flags: c_uint) => streams::batch_mem_op;
    refuse Other cuStreamBatchMemOp_v2_ptsz(stream: CUstream, count: c_uint, ops: *mut c_void, flags: c_uint) [per_thread] => streams::batch_mem_op;
    refuse Other cuStreamWriteValue32(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) => streams::value32;
    refuse Other cuStreamWriteValue32_ptsz(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) [per_thread] => streams::value32;
    refuse Other cuStreamWriteValue64(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) => streams::value64;
    refuse Other cuStreamWriteValue64_ptsz(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) [per_thread] => streams::value64;
    refuse Other cuStreamWaitValue32(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) => streams::value32;
    refuse Other cuStreamWaitValue32_ptsz(stream: CUstream, address: DevicePtr, value: c_uint, flags: c_uint) [per_thread] => streams::value32;
    refuse Other cuStreamWaitValue64(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) => streams::value64;
    refuse Other cuStreamWaitValue64_ptsz(stream: CUstream, address: DevicePtr, value: u64, flags: c_uint) [per_thread] => streams::value64;
    refuse Other cuStreamBatchMemOp(stream: CUstream, count: c_uint, ops: *mut c_void, flags: c_uint) => streams::batch_mem_op;
    refuse Other cuStreamBatchMemOp_ptsz(stream: CUstream, count: c_uint, ops: *mut c_void, flags: c_uint) [per_thread] => streams::batch_mem_op;
    handle Other cuLaunchHostFunc(stream: CUstream, function: *mut c_void, data: *mut c_void) => streams::host_func;
    handle Other cuLaunchHostFunc_ptsz(stream: CUstream, function: *mut c_void, data: *mut c_void) [per_thread] => streams::host_func;
    handle Other cuLaunchHostFunc_v2(stream: CUstream, function: *mut c_void, data: *mut c_void, mode: c_uint) => streams::host_func_v2;
    handle Other cuLaunchHostFunc_v2_ptsz(stream: CUstream, function: *mut c_void, data: *mut c_void, mode: c_uint) [per_thread] => streams::host_func_v2;
    handle Other cuStreamAddCallback(stream: CUstream, callback: *mut c_void, data: *mut c_void, flags: c_uint) => streams::add_callback;
    handle Other cuStreamAddCallback_ptsz(stream: CUstream, callback: *mut c_void, data: *mut c_void, flags: c_uint) [per_thread] => streams::add_callback;
    handle Other cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) => streams::wait_event;
    handle Other cuStreamWaitEvent_ptsz(stream: CUstream, event: CUevent, flags: c_uint) [per_thread] => streams::wait_event;

    // --- capture and graphs -----------------------------------------------------------
    handle Other cuStreamBeginCapture(stream: CUstream) => graphs::begin_capture_v1;
    handle Other cuStreamBeginCapture_ptsz(stream: CUstream) [per_thread] => graphs::begin_capture_v1;
    handle Other cuStreamBeginCapture_v2(stream: CUstream, mode: c_int) => graphs::begin_capture;
    handle Other cuStreamBeginCapture_v2_ptsz(stream: CUstream, mode: c_int) [per_thread] => graphs::begin_capture;
    handle Other cuStreamBeginCaptureToGraph(stream: CUstream, graph: CUgraph, dependencies: *const CUgraphNode, edges: *const c_void, count: usize, mode: c_int) => graphs::begin_capture_to_graph;
    handle Other cuStreamBeginCaptureToGraph_ptsz(stream: CUstream, graph: CUgraph, dependencies: *const CUgraphNode, edges: *const c_void, count: usize, mode: c_int) [per_thread] => graphs::begin_capture_to_graph;
    handle Other cuStreamBeginRecaptureToGraph(stream: CUstream, mode: c_int, graph: CUgraph, callback: *mut c_void, data: *mut c_void) => graphs::begin_recapture;
    handle Other cuStreamBeginRecaptureToGraph_ptsz(stream: CUstream, mode: c_int, graph: CUgraph, callback: *mut c_void, data: *mut c_void) [per_thread] => graphs::begin_recapture;
    handle Other cuStreamBeginCaptureToCig(stream: CUstream, params: *mut c_void) => graphs::begin_capture_to_cig;
    handle Other cuStreamBeginCaptureToCig_ptsz(stream: CUstream, params: *mut c_void) [per_thread] => graphs::begin_capture_to_cig;
    handle Other cuStreamEndCaptureToCig(stream: CUstream) => graphs::end_capture_to_cig;
    handle Other cuStreamEndCaptureToCig_ptsz(stream: CUstream) [per_thread] => graphs::end_capture_to_cig;
    handle Other cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) => graphs::end_capture;
    handle Other cuStreamEndCapture_ptsz(stream: CUstream, graph: *mut CUgraph) [per_thread] => graphs::end_capture;
    handle GraphLaunch cuGraphLaunch(exec: CUgraphExec, stream: CUstream) => graphs::launch;
    handle GraphLaunch cuGraphLaunch_ptsz(exec: CUgraphExec, stream: CUstream) [per_thread] => graphs::launch;
    pass Other cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64);
    pass Other cuGraphInstantiate_v2(exec: *mut CUgraphExec, graph: CUgraph, node: *mut CUgraphNode, log: *mut c_char, log_bytes: usize);
    pass Other cuGraphInstantiateWithParams(exec: *mut CUgraphExec, graph: CUgraph, params: *mut c_void);
    pass Other cuGraphInstantiateWithParams_ptsz(exec: *mut CUgraphExec, graph: CUgraph, params: *mut c_void) [per_thread];
    pass Other cuGraphUpload(exec: CUgraphExec, stream: CUstream);
    pass Other cuGraphUpload_ptsz(exec: CUgraphExec, stream: CUstream) [per_thread];
    refuse Other cuGraphAddKernelNode(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *const c_void) => graphs::add_kernel_node;
    refuse Other cuGraphAddKernelNode_v2(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *const c_void) => graphs::add_kernel_node_v2;
    refuse Other cuGraphKernelNodeSetParams(node: CUgraphNode, params: *const c_void) => graphs::kernel_node_set_params;
    refuse Other cuGraphKernelNodeSetParams_v2(node: CUgraphNode, params: *const c_void) => graphs::kernel_node_set_params_v2;
    refuse Other cuGraphExecKernelNodeSetParams(exec: CUgraphExec, node: CUgraphNode, params: *const c_void) => graphs::exec_kernel_node_set_params;
    refuse Other cuGraphExecKernelNodeSetParams_v2(exec: CUgraphExec, node: CUgraphNode, params: *const c_void) => graphs::exec_kernel_node_set_params_v2;
    refuse Other cuGraphAddMemcpyNode(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, copy: *const CUDA_MEMCPY3D, ctx: CUcontext) => graphs::add_memcpy_node;
    refuse Other cuGraphMemcpyNodeSetParams(node: CUgraphNode, copy: *const CUDA_MEMCPY3D) => graphs::memcpy_node_set_params;
    refuse Other cuGraphExecMemcpyNodeSetParams(exec: CUgraphExec, node: CUgraphNode, copy: *const CUDA_MEMCPY3D, ctx: CUcontext) => graphs::exec_memcpy_node_set_params;
    refuse Other cuGraphAddMemsetNode(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, memset: *const c_void, ctx: CUcontext) => graphs::add_memset_node;
    refuse Other cuGraphMemsetNodeSetParams(node: CUgraphNode, memset: *const c_void) => graphs::memset_node_set_params;
    refuse Other cuGraphExecMemsetNodeSetParams(exec: CUgraphExec, node: CUgraphNode, memset: *const c_void, ctx: CUcontext) => graphs::exec_memset_node_set_params;
    refuse Other cuGraphAddNode(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *mut c_void) => graphs::add_node;
    refuse Other cuGraphAddNode_v2(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, edges: *const c_void, count: usize, params: *mut c_void) => graphs::add_node_v2;
    refuse Other cuGraphAddNode_v3(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, edges: *const c_void, count: usize, params: *mut c_void) => graphs::add_node_v2;
    refuse Other cuGraphNodeSetParams(node: CUgraphNode, params: *mut c_void) => graphs::node_set_params;
    refuse Other cuGraphNodeSetParams_v2(node: CUgraphNode, params: *mut c_void) => graphs::node_set_params;
    refuse Other cuGraphExecNodeSetParams(exec: CUgraphExec, node: CUgraphNode, params: *mut c_void) => graphs::exec_node_set_params;
    refuse Other cuGraphAddBatchMemOpNode(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *const c_void) => graphs::add_batch_mem_op_node;
    refuse Other cuGraphBatchMemOpNodeSetParams(node: CUgraphNode, params: *const c_void) => graphs::batch_mem_op_node_set_params;
    refuse Other cuGraphExecBatchMemOpNodeSetParams(exec: CUgraphExec, node: CUgraphNode, params: *const c_void) => graphs::exec_batch_mem_op_node_set_params;

    // --- what lets an address escape ---------------------------------------------------
    refuse Other cuIpcGetMemHandle(handle: *mut c_void, address: DevicePtr) => escape::ipc_get_mem_handle;
    refuse Other cuMemGetHandleForAddressRange(handle: *mut c_void, address: DevicePtr, bytes: usize, kind: c_int, flags: u64) => escape::handle_for_address_range;
    refuse Other cuMemRetainAllocationHandle(handle: *mut MemHandle, address: *mut c_void) => escape::retain_allocation_handle;
    refuse Other cuMulticastBindAddr(multicast: MemHandle, offset: usize, address: DevicePtr, bytes: usize, flags: u64) => escape::multicast_bind_addr;
    refuse Other cuMulticastBindAddr_v2(multicast: MemHandle, device: Device, offset: usize, address: DevicePtr, bytes: usize, flags: u64) => escape::multicast_bind_addr_v2;
    refuse Other cuLogicalEndpointBindAddr(endpoint: c_uint, device: Device, offset: u64, address: *mut c_void, bytes: u64, flags: u64) => escape::logical_endpoint_bind_addr;
    refuse Other cuTexRefSetAddress_v2(offset: *mut usize, texture: *mut c_void, address: DevicePtr, bytes: usize) => escape::texref_set_address;
    refuse Other cuTexRefSetAddress2D_v3(texture: *mut c_void, descriptor: *const c_void, address: DevicePtr, pitch: usize) => escape::texref_set_address_2d;
    refuse Other cuTexObjectCreate(texture: *mut u64, resource: *const c_void, description: *const c_void, view: *const c_void) => escape::texture_create;
    pass Alloc cuArrayCreate_v2(array: *mut *mut c_void, descriptor: *const c_void);
    pass Alloc cuArray3DCreate_v2(array: *mut *mut c_void, descriptor: *const c_void);
    pass Alloc cuMipmappedArrayCreate(array: *mut *mut c_void, descriptor: *const c_void, levels: c_uint);
}

/// Addresses of our exported functions, in the order of the list.
pub struct Addresses(pub [*const c_void; HOOKS.len()]);
// SAFETY: addresses of functions, never written.
unsafe impl Sync for Addresses {}
