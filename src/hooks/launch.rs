//! Kernel launches: every parameter is searched for managed addresses, on
//! every launch (a struct may be filled later than it is first passed).

use std::ffi::{c_int, c_uint, c_void};

use autooffload_core::address_map::AddressMap;
use autooffload_core::params::{ADDRESS_MASK, BLOCKS_FROM, Span, scan, scan_blocks};

use super::layouts::{Layout, Met, Param};
use super::touches::{Touches, ordered_fast, ordered_launch};
use super::{Call, layouts, retry_when_out_of_memory, say_once};
use crate::driver::abi::*;
use crate::engine::{self, Launched, Managed, Touch, Touched};

/// Blocks of a launch along the first two dimensions.
pub type Grid = (c_uint, c_uint);

/// Hook for `cuLaunchKernel`.
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
#[inline]
pub unsafe fn kernel(
    call: Call,
    forward: impl Fn() -> CuResult,
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    _grid_z: c_uint,
    _block_x: c_uint,
    _block_y: c_uint,
    _block_z: c_uint,
    _shared_bytes: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe { launch(call.stream(stream), function, (grid_x, grid_y), params, extra, forward) }
}

/// Hook for `cuLaunchKernelEx`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn kernel_ex(
    call: Call,
    forward: impl Fn() -> CuResult,
    config: *const CUlaunchConfig,
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult {
    if config.is_null() {
        return forward();
    }
    // SAFETY: not null, and the caller's promise.
    unsafe {
        let grid = ((*config).gridDimX, (*config).gridDimY);
        launch(call.stream((*config).hStream), function, grid, params, extra, forward)
    }
}

/// Hook for `cuLaunchCooperativeKernel`.
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn cooperative(
    call: Call,
    forward: impl Fn() -> CuResult,
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    _grid_z: c_uint,
    _block_x: c_uint,
    _block_y: c_uint,
    _block_z: c_uint,
    _shared_bytes: c_uint,
    stream: CUstream,
    params: *mut *mut c_void,
) -> CuResult {
    // SAFETY: the caller's promise.
    unsafe {
        let grid = (grid_x, grid_y);
        launch(call.stream(stream), function, grid, params, std::ptr::null_mut(), forward)
    }
}

/// # Safety
/// `params` and `extra` are as `function` and cuda.h ask.
#[inline]
unsafe fn launch(
    stream: CUstream,
    function: CUfunction,
    grid: Grid,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    let Some(managed) = engine::managed() else { return retry_when_out_of_memory(forward) };
    if !managed.moves() {
        let mut touches = Touches::new();
        // SAFETY: the caller's promise.
        let done = match unsafe { see_kernel(managed, &mut touches, function, grid, params, extra) }
        {
            Ok(Met::Before) => ordered_fast(managed, stream, &touches, &forward),
            Ok(Met::Now) => Some(first_launch(stream, &touches, None, &forward)),
            Err(code) => Some(unknown_kernel(code)),
        };
        if let Some(code) = done {
            return code;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { launch_carefully(stream, function, grid, params, extra, &forward) }
}

/// A kernel's first launch loads it, which takes device memory.
#[cold]
#[inline(never)]
fn first_launch(
    stream: CUstream,
    touches: &Touches,
    launched: Option<&Launched>,
    forward: &dyn Fn() -> CuResult,
) -> CuResult {
    let watched = || engine::watch_card(engine::UNKNOWN_BYTES, forward);
    ordered_launch(stream, touches, launched, &watched)
}

/// A launch while memory moves, or while something is captured.
///
/// # Safety
/// As of [`launch`].
#[cold]
#[inline(never)]
unsafe fn launch_carefully(
    stream: CUstream,
    function: CUfunction,
    grid: Grid,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    forward: &dyn Fn() -> CuResult,
) -> CuResult {
    let mut touches = Touches::new();
    // SAFETY: the caller's promise.
    let (met, launched) = unsafe {
        let met = add_kernel(&mut touches, function, grid, params, extra);
        (met, note_launch(function, params, extra))
    };
    let launched = launched.as_ref();
    match met {
        Ok(Met::Before) => ordered_launch(stream, &touches, launched, forward),
        Ok(Met::Now) => first_launch(stream, &touches, launched, forward),
        Err(code) => unknown_kernel(code),
    }
}

#[cold]
#[inline(never)]
fn unknown_kernel(code: CuResult) -> CuResult {
    say_once!(
        error,
        "the driver does not say what parameters a kernel takes ({code}); such launches fail, for their weights might be absent; install driver 550 or newer"
    );
    code
}

/// Adds every managed chunk that the parameters of one launch name. Whether the
/// kernel is known.
///
/// Errors: the driver's, when it does not know the kernel.
///
/// # Safety
/// `params` and `extra` are as `function` and cuda.h ask.
pub unsafe fn add_kernel(
    touches: &mut Touches,
    function: CUfunction,
    grid: Grid,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<Met> {
    let Some(managed) = engine::managed() else { return Ok(Met::Before) };
    // SAFETY: the caller's promise.
    unsafe { see_kernel(managed, touches, function, grid, params, extra) }
}

/// The same where it is known that there is managed memory.
///
/// # Safety
/// As of [`add_kernel`].
#[inline(always)]
unsafe fn see_kernel(
    managed: Managed,
    touches: &mut Touches,
    function: CUfunction,
    grid: Grid,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<Met> {
    let map = managed.map();
    let mut met = Met::Before;
    if !params.is_null() {
        met = layouts::with(function, |layout| {
            for &Param { index, bytes } in &layout.params {
                // SAFETY: the array has an entry for each parameter.
                let data = unsafe { *params.add(index as usize) }.cast_const();
                if data.is_null() {
                    continue;
                }
                if bytes == 8 {
                    // SAFETY: the entry points at `bytes` bytes, as the kernel asks.
                    let word = unsafe { data.cast::<u64>().read_unaligned() };
                    see_address(word & ADDRESS_MASK, map, touches);
                    continue;
                }
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts(data.cast(), bytes as usize) };
                see_struct(layout, index as usize, bytes, grid, map, touches);
            }
        })?;
    }
    if !extra.is_null() {
        // SAFETY: the caller's promise.
        if let Some(buffer) = unsafe { extra_buffer(extra) } {
            see(buffer, map, touches);
        }
    }
    Ok(met)
}

/// Which kernel it is, and what it names of the driver's own small allocations: it
/// may read through tables there.
///
/// # Safety
/// As of [`add_kernel`].
#[cold]
#[inline(never)]
unsafe fn note_launch(
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Option<Launched> {
    let small = engine::small_span();
    let mut noted = None;
    let known = layouts::with(function, |layout| {
        let launched = noted.insert(Launched::of(layout.kernel));
        if engine::verifies() {
            launched.name = layout.name.clone();
        }
        if small.bytes > 0 && !params.is_null() {
            for param in &layout.params {
                // SAFETY: entry `index` points at `bytes` bytes, as the kernel asks.
                unsafe {
                    let data = *params.add(param.index as usize);
                    if !data.is_null() {
                        let bytes = std::slice::from_raw_parts(data.cast(), param.bytes as usize);
                        scan(bytes, small, |address| launched.small.push(address));
                    }
                }
            }
        }
    });
    // What the driver does not know, it does not launch.
    known.ok()?;
    if small.bytes > 0
        && !extra.is_null()
        // SAFETY: the caller's promise.
        && let Some(buffer) = unsafe { extra_buffer(extra) }
        && let Some(launched) = &mut noted
    {
        scan(buffer, small, |address| launched.small.push(address));
    }
    noted
}

/// Adds what the parameter `index` names, which is more than one word.
#[inline(never)]
fn see_struct(
    layout: &Layout,
    index: usize,
    bytes: &[u8],
    grid: Grid,
    map: &AddressMap,
    touches: &mut Touches,
) {
    // Of a struct whose slots are known, those that this launch reads.
    let told = layout.slots.as_ref().is_some_and(|slots| {
        slots.param == index && slots.read(bytes, grid, |at| touches.add(at, Touch::Kernel))
    });
    if !told {
        see(bytes, map, touches);
    }
}

/// Adds every managed chunk that `bytes` name.
#[inline(always)]
fn see(bytes: &[u8], map: &AddressMap, touches: &mut Touches) {
    if bytes.len() < BLOCKS_FROM {
        scan(bytes, span_of(map), |address| see_address(address, map, touches));
    } else {
        see_long(bytes, map, touches);
    }
}

#[inline(always)]
fn span_of(map: &AddressMap) -> Span {
    let (low, high) = map.bounds();
    Span { base: low, bytes: high - low }
}

#[inline(always)]
fn see_address(address: DevicePtr, map: &AddressMap, touches: &mut Touches) {
    if let Some(chunk) = map.owner(address) {
        touches.add_new(chunk, address, Touch::Kernel);
    }
}

fn see_long(bytes: &[u8], map: &AddressMap, touches: &mut Touches) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn with_avx2(bytes: &[u8], map: &AddressMap, touches: &mut Touches) {
            scan_blocks(bytes, span_of(map), |address| see_address(address, map, touches));
        }
        // SAFETY: this processor has it.
        return unsafe { with_avx2(bytes, map, touches) };
    }
    scan_blocks(bytes, span_of(map), |address| see_address(address, map, touches));
}

/// The packed parameter buffer of the `extra` form: (key, value) pairs.
///
/// # Safety
/// `extra` ends with `END`, its values are what their keys ask for.
unsafe fn extra_buffer<'a>(extra: *mut *mut c_void) -> Option<&'a [u8]> {
    const END: usize = 0;
    const BUFFER_POINTER: usize = 1;
    const BUFFER_SIZE: usize = 2;
    /// More pairs than any driver knows: the list is not what we take it for.
    const MOST_PAIRS: usize = 8;
    let mut buffer: *const u8 = std::ptr::null();
    let mut bytes = 0usize;
    for pair in 0..MOST_PAIRS {
        // SAFETY: the caller's promise; no pair is read after END.
        unsafe {
            let key = *extra.add(2 * pair) as usize;
            if key == END {
                break;
            }
            let value = *extra.add(2 * pair + 1);
            match key {
                BUFFER_POINTER => buffer = value.cast(),
                BUFFER_SIZE if !value.is_null() => bytes = value.cast::<usize>().read(),
                _ => {}
            }
        }
    }
    // SAFETY: the buffer has the size that the program gave with it.
    (!buffer.is_null()).then(|| unsafe { std::slice::from_raw_parts(buffer, bytes) })
}

/// Hook for `cuLaunchCooperativeKernelMultiDevice` (removed in CUDA 13): the
/// kernels wait for each other, so all their chunks stay resident.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn cooperative_multi_device(
    _call: Call,
    forward: impl Fn() -> CuResult,
    launches: *mut CUDA_LAUNCH_PARAMS,
    count: c_uint,
    _flags: c_uint,
) -> CuResult {
    let mut touches = Touches::new();
    if !launches.is_null() {
        for i in 0..count as usize {
            // SAFETY: the array has `count` entries.
            let added = unsafe {
                let launch = launches.add(i);
                let (function, params) = ((*launch).function, (*launch).kernelParams);
                let grid = ((*launch).gridDimX, (*launch).gridDimY);
                add_kernel(&mut touches, function, grid, params, std::ptr::null_mut())
            };
            if let Err(code) = added {
                return code;
            }
        }
    }
    for &Touched { chunk, .. } in touches.as_slice() {
        if let Err(code) = engine::pin_for_good(chunk, "a cooperative launch on several devices") {
            return code;
        }
    }
    retry_when_out_of_memory(forward)
}

/// Hook for `cuParamSetv`, of the launch family before CUDA 4 (`cuLaunch`,
/// `cuLaunchGrid`): what is set stays set for any number of launches that name
/// nothing, so it stays resident.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn param_setv(
    _call: Call,
    forward: impl Fn() -> CuResult,
    _function: CUfunction,
    _offset: c_int,
    data: *mut c_void,
    bytes: c_uint,
) -> CuResult {
    let (low, high) = engine::arena();
    let mut touches = Touches::new();
    if low != high && !data.is_null() {
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes as usize) };
        let span = Span { base: low, bytes: high - low };
        scan(bytes, span, |address| touches.add(address, Touch::Kernel));
    }
    for &Touched { chunk, .. } in touches.as_slice() {
        if let Err(code) = engine::pin_for_good(chunk, "the launch functions of CUDA 3") {
            return code;
        }
    }
    forward()
}
