//! Copies. Each names at most one managed chunk on either side; the copy
//! itself is always the driver's, once its chunks are present.
//!
//! Host-to-device copies write from the host, everything else that writes a
//! chunk writes on the device. Synchronous forms run on the default stream.

use std::ffi::{c_uint, c_void};

use cudarc::driver::sys::CUmemorytype;

use super::tables;
use super::touches::{Touches, ordered, ordered_in};
use super::{Call, retry_when_out_of_memory};
use crate::driver::abi::*;
use crate::engine::{self, Touch};

/// One linear copy between addresses of any kind.
fn linear(
    stream: CUstream,
    dst: DevicePtr,
    src: DevicePtr,
    bytes: usize,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    // SAFETY: the program copies from there.
    if let Err(code) = unsafe { tables::keep_if_host(src, bytes) } {
        return code;
    }
    let mut touches = Touches::new();
    touches.add_sized(src, bytes, Touch::CopyFrom { bytes });
    touches.add_sized(dst, bytes, Touch::DeviceWrite { bytes });
    ordered(stream, &touches, forward)
}

/// Hook for `cuMemcpy` and `cuMemcpyDtoD_v2`. What kind of memory the other
/// side of a `cuMemcpy` is makes no difference to the managed side: a host
/// source is read in stream order either way.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn any(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    src: DevicePtr,
    bytes: usize,
) -> CuResult {
    linear(call.default_stream(), dst, src, bytes, forward)
}

/// Hook for `cuMemcpyAsync` and `cuMemcpyDtoDAsync_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn any_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    src: DevicePtr,
    bytes: usize,
    stream: CUstream,
) -> CuResult {
    linear(call.stream(stream), dst, src, bytes, forward)
}

/// Hook for `cuMemcpyHtoD_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn htod(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    src: *const c_void,
    bytes: usize,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { htod_async(call, forward, dst, src, bytes, call.default_stream()) }
}

/// Hook for `cuMemcpyHtoDAsync_v2`.
///
/// # Safety
/// As cuda.h asks.
#[inline]
pub unsafe fn htod_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    src: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> CuResult {
    let Some(managed) = engine::managed() else { return retry_when_out_of_memory(forward) };
    // SAFETY: the caller's promise.
    if let Err(code) = unsafe { tables::keep_managed(managed, src, bytes, 1, 0) } {
        return code;
    }
    let mut touches = Touches::new();
    if bytes > 0 {
        touches.add_managed(managed, dst, Touch::HostWrite { bytes });
    }
    ordered_in(managed, call.stream(stream), &touches, forward)
}

/// Hook for `cuMemcpyDtoH_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn dtoh(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: *mut c_void,
    src: DevicePtr,
    bytes: usize,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { dtoh_async(call, forward, dst, src, bytes, call.default_stream()) }
}

/// Hook for `cuMemcpyDtoHAsync_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn dtoh_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    _dst: *mut c_void,
    src: DevicePtr,
    bytes: usize,
    stream: CUstream,
) -> CuResult {
    let mut touches = Touches::new();
    touches.add_sized(src, bytes, Touch::CopyFrom { bytes });
    ordered(call.stream(stream), &touches, forward)
}

/// Hook for `cuMemcpyDtoA_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn dtoa(
    call: Call,
    forward: impl Fn() -> CuResult,
    _dst: *mut c_void,
    _offset: usize,
    src: DevicePtr,
    bytes: usize,
) -> CuResult {
    linear(call.default_stream(), 0, src, bytes, forward)
}

/// Hook for `cuMemcpyAtoD_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn atod(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    _src: *mut c_void,
    _offset: usize,
    bytes: usize,
) -> CuResult {
    linear(call.default_stream(), dst, 0, bytes, forward)
}

/// Hook for `cuMemcpyPeer`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn peer(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    _dst_ctx: CUcontext,
    src: DevicePtr,
    _src_ctx: CUcontext,
    bytes: usize,
) -> CuResult {
    linear(call.default_stream(), dst, src, bytes, forward)
}

/// Hook for `cuMemcpyPeerAsync`.
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn peer_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    _dst_ctx: CUcontext,
    src: DevicePtr,
    _src_ctx: CUcontext,
    bytes: usize,
    stream: CUstream,
) -> CuResult {
    linear(call.stream(stream), dst, src, bytes, forward)
}

/// One side of a pitched copy.
struct Side {
    /// The device address of its first byte; `None`: host memory or an array.
    address: Option<DevicePtr>,
    is_host: bool,
}

impl Side {
    /// `kind` points at a `CUmemorytype`, read as a number: it comes from the
    /// program. For unified addressing `device` may be of either kind.
    ///
    /// # Safety
    /// `kind` is readable.
    unsafe fn new(kind: *const CUmemorytype, device: DevicePtr, offset: usize) -> Side {
        const HOST: u32 = 1;
        const ARRAY: u32 = 3;
        // SAFETY: the caller's promise; a CUmemorytype has 32 bits.
        let kind = unsafe { kind.cast::<u32>().read() };
        let address = device.wrapping_add(offset as u64);
        Side { address: (kind != HOST && kind != ARRAY).then_some(address), is_host: kind == HOST }
    }
}

/// What a pitched copy of `bytes` (payload) touches.
fn add_sides(touches: &mut Touches, src: Side, dst: Side, bytes: usize) {
    if let Some(address) = src.address {
        touches.add_sized(address, bytes, Touch::CopyFrom { bytes });
    }
    if let Some(address) = dst.address {
        let write =
            if src.is_host { Touch::HostWrite { bytes } } else { Touch::DeviceWrite { bytes } };
        touches.add_sized(address, bytes, write);
    }
}

/// # Safety
/// `copy` is null or readable.
unsafe fn touches_2d(copy: *const CUDA_MEMCPY2D) -> Touches {
    let mut touches = Touches::new();
    if !copy.is_null() {
        // SAFETY: the caller's promise; fields are read one by one, so that no
        // enum of the program's is ever read as a Rust enum.
        unsafe {
            let bytes = (*copy).WidthInBytes.saturating_mul((*copy).Height);
            let offset = |x: usize, y: usize, pitch: usize| x.wrapping_add(y.wrapping_mul(pitch));
            let src_offset = offset((*copy).srcXInBytes, (*copy).srcY, (*copy).srcPitch);
            let dst_offset = offset((*copy).dstXInBytes, (*copy).dstY, (*copy).dstPitch);
            let src = Side::new(&raw const (*copy).srcMemoryType, (*copy).srcDevice, src_offset);
            let dst = Side::new(&raw const (*copy).dstMemoryType, (*copy).dstDevice, dst_offset);
            add_sides(&mut touches, src, dst, bytes);
        }
    }
    touches
}

/// The touches of `$copy`, of one of the two 3D descriptors, whose fields
/// have the same names.
macro_rules! touches_3d {
    ($copy:expr) => {{
        let copy = $copy;
        let mut touches = Touches::new();
        if !copy.is_null() {
            // SAFETY: not null and readable; read field by field as above.
            unsafe {
                let bytes = (*copy)
                    .WidthInBytes
                    .saturating_mul((*copy).Height)
                    .saturating_mul((*copy).Depth);
                let offset = |x: usize, y: usize, z: usize, pitch: usize, height: usize| {
                    let rows = y.wrapping_add(z.wrapping_mul(height));
                    x.wrapping_add(rows.wrapping_mul(pitch))
                };
                let src_offset = offset(
                    (*copy).srcXInBytes,
                    (*copy).srcY,
                    (*copy).srcZ,
                    (*copy).srcPitch,
                    (*copy).srcHeight,
                );
                let dst_offset = offset(
                    (*copy).dstXInBytes,
                    (*copy).dstY,
                    (*copy).dstZ,
                    (*copy).dstPitch,
                    (*copy).dstHeight,
                );
                let src =
                    Side::new(&raw const (*copy).srcMemoryType, (*copy).srcDevice, src_offset);
                let dst =
                    Side::new(&raw const (*copy).dstMemoryType, (*copy).dstDevice, dst_offset);
                add_sides(&mut touches, src, dst, bytes);
            }
        }
        touches
    }};
}

/// What a 3D copy touches; also what a memcpy node of a graph will.
///
/// # Safety
/// `copy` is null or readable.
pub unsafe fn touches_of_3d(copy: *const CUDA_MEMCPY3D) -> Touches {
    touches_3d!(copy)
}

/// What the host rows of `$copy`, of one of the pitched descriptors, name stays
/// resident.
macro_rules! keep_pitched {
    ($copy:expr, $offset:expr, $rows:expr) => {{
        let copy = $copy;
        const HOST: u32 = 1;
        if copy.is_null() {
            Ok(())
        } else {
            // SAFETY: not null and readable; the program copies from the rows.
            unsafe {
                let kind = (&raw const (*copy).srcMemoryType).cast::<u32>().read();
                let start = (*copy).srcHost.wrapping_byte_add($offset);
                if kind == HOST {
                    tables::keep_rows(start, (*copy).WidthInBytes, $rows, (*copy).srcPitch)
                } else {
                    Ok(())
                }
            }
        }
    }};
}

/// # Safety
/// `copy` is null or readable, and so are its host rows.
unsafe fn keep_2d(copy: *const CUDA_MEMCPY2D) -> Result<()> {
    keep_pitched!(
        copy,
        (*copy).srcXInBytes.wrapping_add((*copy).srcY.wrapping_mul((*copy).srcPitch)),
        (*copy).Height
    )
}

/// The rows of the first plane: a table in several is none that anybody has seen.
///
/// # Safety
/// As above.
unsafe fn keep_3d(copy: *const CUDA_MEMCPY3D) -> Result<()> {
    keep_pitched!(
        copy,
        {
            let rows = (*copy).srcY.wrapping_add((*copy).srcZ.wrapping_mul((*copy).srcHeight));
            (*copy).srcXInBytes.wrapping_add(rows.wrapping_mul((*copy).srcPitch))
        },
        (*copy).Height
    )
}

/// Hook for `cuMemcpy2D_v2` and `cuMemcpy2DUnaligned_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn copy_2d(
    call: Call,
    forward: impl Fn() -> CuResult,
    copy: *const CUDA_MEMCPY2D,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { copy_2d_async(call, forward, copy, call.default_stream()) }
}

/// Hook for `cuMemcpy2DAsync_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn copy_2d_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    copy: *const CUDA_MEMCPY2D,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    if let Err(code) = unsafe { keep_2d(copy) } {
        return code;
    }
    // SAFETY: as above.
    ordered(call.stream(stream), &unsafe { touches_2d(copy) }, forward)
}

/// Hook for `cuMemcpy3D_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn copy_3d(
    call: Call,
    forward: impl Fn() -> CuResult,
    copy: *const CUDA_MEMCPY3D,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { copy_3d_async(call, forward, copy, call.default_stream()) }
}

/// Hook for `cuMemcpy3DAsync_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn copy_3d_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    copy: *const CUDA_MEMCPY3D,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    if let Err(code) = unsafe { keep_3d(copy) } {
        return code;
    }
    ordered(call.stream(stream), &touches_3d!(copy), forward)
}

/// Hook for `cuMemcpy3DPeer`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn copy_3d_peer(
    call: Call,
    forward: impl Fn() -> CuResult,
    copy: *const CUDA_MEMCPY3D_PEER,
) -> CuResult {
    ordered(call.default_stream(), &touches_3d!(copy), forward)
}

/// Hook for `cuMemcpy3DPeerAsync`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn copy_3d_peer_async(
    call: Call,
    forward: impl Fn() -> CuResult,
    copy: *const CUDA_MEMCPY3D_PEER,
    stream: CUstream,
) -> CuResult {
    ordered(call.stream(stream), &touches_3d!(copy), forward)
}

/// # Safety
/// The three arrays have `count` entries, unless `count` is 0 or one is null.
unsafe fn batch(
    stream: CUstream,
    dsts: *const DevicePtr,
    srcs: *const DevicePtr,
    sizes: *const usize,
    count: usize,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    let mut touches = Touches::new();
    if !dsts.is_null() && !srcs.is_null() && !sizes.is_null() {
        for i in 0..count {
            // SAFETY: the caller's promise.
            let (dst, src, bytes) = unsafe { (*dsts.add(i), *srcs.add(i), *sizes.add(i)) };
            // SAFETY: the program copies from there.
            if let Err(code) = unsafe { tables::keep_if_host(src, bytes) } {
                return code;
            }
            touches.add_sized(src, bytes, Touch::CopyFrom { bytes });
            touches.add_sized(dst, bytes, Touch::DeviceWrite { bytes });
        }
    }
    ordered(stream, &touches, forward)
}

/// Hook for `cuMemcpyBatchAsync` (CUDA 12.8).
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn batch_v1(
    call: Call,
    forward: impl Fn() -> CuResult,
    dsts: *mut DevicePtr,
    srcs: *mut DevicePtr,
    sizes: *mut usize,
    count: usize,
    _attributes: *mut c_void,
    _indices: *mut usize,
    _attribute_count: usize,
    _fail_index: *mut usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { batch(call.stream(stream), dsts, srcs, sizes, count, forward) }
}

/// Hook for `cuMemcpyBatchAsync_v2` (CUDA 13.0).
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn batch_v2(
    call: Call,
    forward: impl Fn() -> CuResult,
    dsts: *mut DevicePtr,
    srcs: *mut DevicePtr,
    sizes: *mut usize,
    count: usize,
    _attributes: *mut c_void,
    _indices: *mut usize,
    _attribute_count: usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { batch(call.stream(stream), dsts, srcs, sizes, count, forward) }
}

/// Whatever managed addresses an array of `count` descriptors of
/// `DESCRIPTOR_BYTES` holds, taken as read and written on the device.
///
/// # Safety
/// `descriptors` is null or readable for `count` descriptors.
unsafe fn scanned<const DESCRIPTOR_BYTES: usize>(
    descriptors: *const c_void,
    count: usize,
) -> Touches {
    let mut touches = Touches::new();
    if !descriptors.is_null() {
        let (low, high) = engine::arena();
        let span = autooffload_core::params::Span { base: low, bytes: high - low };
        // SAFETY: the caller's promise.
        let bytes = unsafe {
            std::slice::from_raw_parts(descriptors.cast::<u8>(), count * DESCRIPTOR_BYTES)
        };
        autooffload_core::params::scan(bytes, span, |address| touches.add(address, Touch::Kernel));
    }
    touches
}

/// `sizeof(CUDA_MEMCPY3D_BATCH_OP)`.
const BATCH_OP_BYTES: usize = std::mem::size_of::<cudarc::driver::sys::CUDA_MEMCPY3D_BATCH_OP_st>();
/// `sizeof(CUmemDecompressParams)`.
const DECOMPRESS_BYTES: usize = std::mem::size_of::<cudarc::driver::sys::CUmemDecompressParams>();

/// Hook for `cuMemcpy3DBatchAsync` (CUDA 12.8).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn batch_3d_v1(
    call: Call,
    forward: impl Fn() -> CuResult,
    count: usize,
    ops: *mut c_void,
    _fail_index: *mut usize,
    _flags: u64,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    ordered(call.stream(stream), &unsafe { scanned::<BATCH_OP_BYTES>(ops, count) }, forward)
}

/// Hook for `cuMemcpy3DBatchAsync_v2` (CUDA 13.0).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn batch_3d_v2(
    call: Call,
    forward: impl Fn() -> CuResult,
    count: usize,
    ops: *mut c_void,
    _flags: u64,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    ordered(call.stream(stream), &unsafe { scanned::<BATCH_OP_BYTES>(ops, count) }, forward)
}

/// Hook for `cuMemcpyWithAttributesAsync` (CUDA 13.2).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn with_attributes(
    call: Call,
    forward: impl Fn() -> CuResult,
    dst: DevicePtr,
    src: DevicePtr,
    bytes: usize,
    _attributes: *mut c_void,
    stream: CUstream,
) -> CuResult {
    linear(call.stream(stream), dst, src, bytes, forward)
}

/// Hook for `cuMemcpy3DWithAttributesAsync` (CUDA 13.2).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn with_attributes_3d(
    call: Call,
    forward: impl Fn() -> CuResult,
    op: *mut c_void,
    _flags: u64,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    ordered(call.stream(stream), &unsafe { scanned::<BATCH_OP_BYTES>(op, 1) }, forward)
}

/// Hook for `cuMemBatchDecompressAsync`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn decompress(
    call: Call,
    forward: impl Fn() -> CuResult,
    params: *mut c_void,
    count: usize,
    _flags: c_uint,
    _error_index: *mut usize,
    stream: CUstream,
) -> CuResult {
    // SAFETY: the caller's promise.
    ordered(call.stream(stream), &unsafe { scanned::<DECOMPRESS_BYTES>(params, count) }, forward)
}
