//! Allocations and questions about them.
//!
//! A managed address is ordinary `cuMemAlloc` memory to the program: what the
//! driver would say about the physical memory behind it is never shown.

use std::ffi::{c_int, c_uint, c_void};

use super::{Call, retry_when_out_of_memory, say_once};
use crate::driver::abi::*;
use crate::engine::{self, Allocation};

/// Hook for `cuMemAlloc_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn alloc(
    _call: Call,
    forward: impl Fn() -> CuResult,
    address: *mut DevicePtr,
    bytes: usize,
) -> CuResult {
    if address.is_null() || bytes == 0 {
        // The driver's own error.
        return forward();
    }
    match engine::mem_alloc(bytes) {
        // SAFETY: not null, and the caller's to be written.
        Ok(answer) => unsafe { deliver(answer, address) },
        // SAFETY: as above.
        Err(why) => unsafe { passed_on(why, bytes, address, &forward) },
    }
}

/// `forward` gives the driver's own memory, at `address`.
///
/// # Safety
/// `forward` writes `address` when it succeeds.
unsafe fn passed_on(
    why: engine::PassedOn,
    bytes: usize,
    address: *const DevicePtr,
    forward: &dyn Fn() -> CuResult,
) -> CuResult {
    let small = matches!(why, engine::PassedOn::TooSmall);
    let code = engine::pass_on(why, bytes, || retry_when_out_of_memory(forward));
    if code.is_success() && small {
        // SAFETY: the caller's promise.
        engine::small_allocated(unsafe { *address }, bytes);
    }
    code
}

/// # Safety
/// `address` is writable.
pub unsafe fn deliver(answer: Result<DevicePtr>, address: *mut DevicePtr) -> CuResult {
    match answer {
        Ok(allocated) => {
            // SAFETY: the caller's promise.
            unsafe { *address = allocated };
            CuResult::SUCCESS
        }
        Err(code) => code,
    }
}

/// Hook for `cuMemAllocPitch_v2`: rows at the pitch that the driver uses.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn alloc_pitch(
    _call: Call,
    forward: impl Fn() -> CuResult,
    address: *mut DevicePtr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
) -> CuResult {
    /// What drivers answer on every card so far; a multiple of it is enough.
    const PITCH_BYTES: usize = 512;
    let row = width.checked_next_multiple_of(PITCH_BYTES);
    let bytes = row.and_then(|row| row.checked_mul(height)).filter(|&bytes| bytes > 0);
    let (Some(row), Some(bytes)) = (row, bytes) else {
        return forward();
    };
    // Elements of these sizes there are; others are the driver's own error.
    if address.is_null() || pitch.is_null() || !matches!(element, 4 | 8 | 16) {
        return forward();
    }
    match engine::mem_alloc(bytes) {
        Ok(answer) => {
            // SAFETY: both are not null, and the caller's to be written.
            unsafe {
                *pitch = row;
                deliver(answer, address)
            }
        }
        // SAFETY: not null, and the caller's to be written.
        Err(why) => unsafe { passed_on(why, bytes, address, &forward) },
    }
}

/// Hook for `cuMemFree_v2`; blocks as the driver's does.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn free(_call: Call, forward: impl Fn() -> CuResult, address: DevicePtr) -> CuResult {
    match engine::mem_free(address) {
        Some(Ok(())) => CuResult::SUCCESS,
        Some(Err(code)) => code,
        None => {
            engine::small_freed(address);
            engine::watch_card(0, forward)
        }
    }
}

/// Hook for `cuMemGetInfo_v2`: what design calls "what we report".
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn get_info(
    _call: Call,
    forward: impl Fn() -> CuResult,
    free: *mut usize,
    total: *mut usize,
) -> CuResult {
    let code = forward();
    if code.is_success() && !free.is_null() && !total.is_null() {
        // SAFETY: the driver has just written both.
        unsafe { (*free, *total) = engine::mem_get_info(*free, *total) };
    }
    code
}

/// Hook for `cuDeviceTotalMem_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn device_total(
    _call: Call,
    forward: impl Fn() -> CuResult,
    bytes: *mut usize,
    device: Device,
) -> CuResult {
    let code = forward();
    if code.is_success() && !bytes.is_null() {
        // SAFETY: the driver has just written it.
        unsafe { *bytes = engine::device_total_mem(device, *bytes) };
    }
    code
}

/// Hook for `cuMemGetAddressRange_v2`: the allocation's bounds. The driver
/// would answer those of one frame.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn get_address_range(
    _call: Call,
    forward: impl Fn() -> CuResult,
    base: *mut DevicePtr,
    bytes: *mut usize,
    address: DevicePtr,
) -> CuResult {
    let Some(allocation) = engine::lookup(address) else {
        // Behind an allocation's last byte there may be the rest of a frame.
        return if engine::is_reserved(address) { CuResult::NOT_FOUND } else { forward() };
    };
    // SAFETY: either is null or the caller's to be written.
    unsafe {
        if !base.is_null() {
            *base = allocation.base;
        }
        if !bytes.is_null() {
            *bytes = allocation.bytes;
        }
    }
    CuResult::SUCCESS
}

/// Hook for `cuPointerGetAttribute`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn pointer_get_attribute(
    _call: Call,
    forward: impl Fn() -> CuResult,
    data: *mut c_void,
    attribute: c_int,
    address: DevicePtr,
) -> CuResult {
    match engine::lookup(address) {
        Some(allocation) if !data.is_null() => {
            match attribute_of(&allocation, address, attribute) {
                Some(value) => {
                    // SAFETY: `data` has the size that the attribute asks for.
                    unsafe { value.write(data) };
                    CuResult::SUCCESS
                }
                None => CuResult::INVALID_VALUE,
            }
        }
        None if engine::is_reserved(address) => CuResult::INVALID_VALUE,
        _ => forward(),
    }
}

/// Hook for `cuPointerGetAttributes`, which succeeds as a whole and zeroes
/// what does not apply.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn pointer_get_attributes(
    _call: Call,
    forward: impl Fn() -> CuResult,
    count: c_uint,
    attributes: *mut c_int,
    data: *mut *mut c_void,
    address: DevicePtr,
) -> CuResult {
    let Some(allocation) = engine::lookup(address) else {
        return forward();
    };
    if attributes.is_null() || data.is_null() {
        return CuResult::INVALID_VALUE;
    }
    for i in 0..count as usize {
        // SAFETY: both arrays have `count` entries.
        let (attribute, data) = unsafe { (*attributes.add(i), *data.add(i)) };
        if data.is_null() || !(attribute::CONTEXT..=attribute::LAST).contains(&attribute) {
            return CuResult::INVALID_VALUE;
        }
        let value = attribute_of(&allocation, address, attribute).or_else(|| {
            // Documented: what does not apply to this memory comes out null.
            (attribute == attribute::HOST_POINTER).then_some(Value::Word(0))
        });
        if let Some(value) = value {
            // SAFETY: each entry has the size that its attribute asks for.
            unsafe { value.write(data) };
        }
    }
    CuResult::SUCCESS
}

/// Hook for `cuPointerSetAttribute`. `SYNC_MEMOPS` asks synchronous copies to
/// be finished when they return; ours are, so there is nothing to set.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn pointer_set_attribute(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _value: *const c_void,
    attribute: c_int,
    address: DevicePtr,
) -> CuResult {
    if attribute == attribute::SYNC_MEMOPS && engine::lookup(address).is_some() {
        return CuResult::SUCCESS;
    }
    forward()
}

/// `CUpointer_attribute`.
mod attribute {
    use std::ffi::c_int;

    pub const CONTEXT: c_int = 1;
    pub const MEMORY_TYPE: c_int = 2;
    pub const DEVICE_POINTER: c_int = 3;
    pub const HOST_POINTER: c_int = 4;
    pub const SYNC_MEMOPS: c_int = 6;
    pub const BUFFER_ID: c_int = 7;
    pub const IS_MANAGED: c_int = 8;
    pub const DEVICE_ORDINAL: c_int = 9;
    pub const IS_LEGACY_CUDA_IPC_CAPABLE: c_int = 10;
    pub const RANGE_START_ADDR: c_int = 11;
    pub const RANGE_SIZE: c_int = 12;
    pub const MAPPED: c_int = 13;
    pub const ALLOWED_HANDLE_TYPES: c_int = 14;
    pub const IS_GPU_DIRECT_RDMA_CAPABLE: c_int = 15;
    pub const ACCESS_FLAGS: c_int = 16;
    pub const MEMPOOL_HANDLE: c_int = 17;
    pub const MAPPING_SIZE: c_int = 18;
    pub const MAPPING_BASE_ADDR: c_int = 19;
    pub const MEMORY_BLOCK_ID: c_int = 20;
    pub const IS_HW_DECOMPRESS_CAPABLE: c_int = 21;
    /// Of those that there are.
    pub const LAST: c_int = IS_HW_DECOMPRESS_CAPABLE;
}

/// An attribute's value in the size that cuda.h gives it.
enum Value {
    /// `bool`.
    Byte(u8),
    /// `unsigned int`, `int`, enums.
    Half(u32),
    /// Pointers, handles, `size_t`, `unsigned long long`.
    Word(u64),
}

impl Value {
    /// # Safety
    /// `data` is writable for the value's size.
    unsafe fn write(self, data: *mut c_void) {
        // SAFETY: the caller's promise; unaligned, as `data` is a void pointer.
        unsafe {
            match self {
                Value::Byte(value) => data.cast::<u8>().write_unaligned(value),
                Value::Half(value) => data.cast::<u32>().write_unaligned(value),
                Value::Word(value) => data.cast::<u64>().write_unaligned(value),
            }
        }
    }
}

/// `attribute` of managed memory; `None`: not one it has.
fn attribute_of(allocation: &Allocation, address: DevicePtr, attribute: c_int) -> Option<Value> {
    const MEMORY_TYPE_DEVICE: u32 = 2;
    const ACCESS_READ_WRITE: u32 = 3;
    Some(match attribute {
        attribute::CONTEXT => Value::Word(allocation.ctx as u64),
        attribute::MEMORY_TYPE => Value::Half(MEMORY_TYPE_DEVICE),
        attribute::DEVICE_POINTER => Value::Word(address),
        attribute::SYNC_MEMOPS | attribute::IS_MANAGED => Value::Half(0),
        // Unique while the allocation lives, as the driver's are.
        attribute::BUFFER_ID | attribute::MEMORY_BLOCK_ID => Value::Word(allocation.base),
        attribute::DEVICE_ORDINAL => Value::Half(allocation.device as u32),
        attribute::RANGE_START_ADDR | attribute::MAPPING_BASE_ADDR => Value::Word(allocation.base),
        attribute::RANGE_SIZE | attribute::MAPPING_SIZE => Value::Word(allocation.bytes as u64),
        attribute::MAPPED => Value::Byte(1),
        // Frames move: no handle of any kind can be given out.
        attribute::IS_LEGACY_CUDA_IPC_CAPABLE
        | attribute::IS_GPU_DIRECT_RDMA_CAPABLE
        | attribute::IS_HW_DECOMPRESS_CAPABLE => Value::Byte(0),
        attribute::ALLOWED_HANDLE_TYPES => Value::Half(0),
        attribute::ACCESS_FLAGS => Value::Half(ACCESS_READ_WRITE),
        attribute::MEMPOOL_HANDLE => Value::Word(engine::pool_of(allocation) as u64),
        _ => return None,
    })
}

/// Hook for `cuMemCreate`: the program's own virtual memory management. It
/// stays resident, within the budget.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn create(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _handle: *mut MemHandle,
    bytes: usize,
    prop: *const CUmemAllocationProp,
    _flags: u64,
) -> CuResult {
    const LOCATION_TYPE_DEVICE: u32 = 1;
    if prop.is_null() {
        return forward();
    }
    // SAFETY: not null, and readable for the call; read as a number, for the
    // enum may have grown.
    let (kind, device) =
        unsafe { ((&raw const (*prop).location.type_).cast::<u32>().read(), (*prop).location.id) };
    if kind != LOCATION_TYPE_DEVICE {
        return forward();
    }
    say_once!(
        warn,
        "this program maps device memory itself (expandable_segments:True, NCCL, or ComfyUI's dynamic VRAM, which offloads by itself): autooffload leaves that memory alone; take expandable_segments:True out of PyTorch's settings, or leave it if all fits"
    );
    engine::pass_on_mapping(device, bytes, || retry_when_out_of_memory(&forward))
}

/// Hook for `cuMemRelease` and `cuMemUnmap`: the program's own mappings end, with
/// whichever of the two comes last.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn release(_call: Call, forward: impl Fn() -> CuResult, _handle: MemHandle) -> CuResult {
    engine::watch_card(0, forward)
}

/// # Safety
/// As cuda.h asks.
pub unsafe fn unmap(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _address: DevicePtr,
    _bytes: usize,
) -> CuResult {
    engine::watch_card(0, forward)
}
