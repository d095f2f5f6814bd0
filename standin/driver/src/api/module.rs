//! Modules, libraries, kernels, functions.

use crate::abi::{
    FILE_NOT_FOUND, Handle, INVALID_HANDLE, INVALID_VALUE, JIT_COMPILATION_DISABLED, NOT_FOUND,
    NOT_SUPPORTED, Outcome,
};
use crate::api::device::{SHARED_PER_MULTIPROCESSOR, THREADS_PER_MULTIPROCESSOR, device};
use crate::edge::{Out, Text};
use crate::engine::gpu::{self, HandleKind, Session};
use crate::engine::module::{Function, Module};
use crate::engine::settings::Ptx;
use crate::image::Image;
use std::ffi::c_char;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `CU_MODULE_LAZY_LOADING`.
const LAZY: i32 = 2;
const MAX_BLOCKS_PER_MULTIPROCESSOR: i32 = 16;

// ---- loading ----------------------------------------------------------

/// A module or library from an image in memory.
fn load(out: Out<Handle>, image: *const u8) -> Outcome {
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    let gpu = gpu::gpu()?;
    // SAFETY: not null; by the driver's contract an image, and one with the
    // fat-binary wrapper belongs to a loaded object that unloads us first.
    let image = unsafe { Image::open(image, gpu.settings.capability)? };
    if gpu.settings.ptx == Ptx::Off && !image.symbols()?.ptx.is_empty() {
        return Err(JIT_COMPILATION_DISABLED);
    }
    let mut session = gpu.lock().implied_wait();
    let handle = session.handle(HandleKind::Module);
    session.modules.insert(handle, Module::new(image, gpu.settings.ptx == Ptx::Text));
    out.set(handle)
}

fn load_file(out: Out<Handle>, path: Text) -> Outcome {
    let mut bytes = std::fs::read(path.get()?).map_err(|_| FILE_NOT_FOUND)?;
    // The text form ends with a NUL; the others know their length.
    bytes.push(0);
    load(out, bytes.as_ptr())
}

pub fn module_load(out: Out<Handle>, path: Text) -> Outcome {
    gpu::lock()?.current()?;
    load_file(out, path)
}

pub fn module_load_data(out: Out<Handle>, image: *const u8) -> Outcome {
    gpu::lock()?.current()?;
    load(out, image)
}

pub fn module_load_data_ex(
    out: Out<Handle>,
    image: *const u8,
    _count: u32,
    _options: *mut i32,
    _values: *mut *mut u8,
) -> Outcome {
    module_load_data(out, image)
}

/// The context-free form: usable before any context exists.
#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn library_load_data(
    out: Out<Handle>,
    image: *const u8,
    _jit: *mut i32,
    _jit_values: *mut *mut u8,
    _jit_count: u32,
    _options: *mut i32,
    _values: *mut *mut u8,
    _count: u32,
) -> Outcome {
    load(out, image)
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn library_load_file(
    out: Out<Handle>,
    path: Text,
    _jit: *mut i32,
    _jit_values: *mut *mut u8,
    _jit_count: u32,
    _options: *mut i32,
    _values: *mut *mut u8,
    _count: u32,
) -> Outcome {
    load_file(out, path)
}

pub fn unload(handle: Handle) -> Outcome {
    let mut session = gpu::lock()?.implied_wait();
    let module = session.modules.remove(&handle).ok_or(INVALID_HANDLE)?;
    for (_, kernel, function) in module.functions.values() {
        session.kernels.remove(kernel);
        session.functions.remove(function);
    }
    for (address, _) in module.globals.into_values() {
        session.check_unneeded(address, 1, "unloading a module's global");
        session.free_plain(address)?;
    }
    Ok(())
}

pub fn loading_mode(out: Out<i32>) -> Outcome {
    out.set(LAZY)
}

// ---- symbols ----------------------------------------------------------

impl Session {
    /// The kernel and function handles of a name, made when first asked for.
    fn function_handles(&mut self, module: Handle, name: &str) -> Outcome<(Handle, Handle)> {
        let found = self.modules.get(&module).ok_or(INVALID_HANDLE)?;
        if let Some((_, kernel, function)) = found.functions.get(name) {
            return Ok((*kernel, *function));
        }
        let function = Arc::new(found.find(name, module)?);
        let (k, f) = (self.handle(HandleKind::Kernel), self.handle(HandleKind::Function));
        self.kernels.insert(k, function.clone());
        self.functions.insert(f, function.clone());
        if let Some(module) = self.modules.get_mut(&module) {
            module.functions.insert(name.to_string(), (function, k, f));
        }
        Ok((k, f))
    }

    fn function(&self, handle: Handle) -> Outcome<&Arc<Function>> {
        self.functions.get(&handle).ok_or(INVALID_HANDLE)
    }

    fn kernel(&self, handle: Handle) -> Outcome<&Arc<Function>> {
        self.kernels.get(&handle).ok_or(INVALID_HANDLE)
    }

    fn names(&self, module: Handle) -> Outcome<Vec<String>> {
        let module = self.modules.get(&module).ok_or(INVALID_HANDLE)?;
        Ok(module.image.symbols()?.kernels.keys().cloned().collect())
    }
}

pub fn get_function(out: Out<Handle>, module: Handle, name: Text) -> Outcome {
    let (_, function) = gpu::lock()?.function_handles(module, &name.get()?)?;
    out.set(function)
}

pub fn get_kernel(out: Out<Handle>, library: Handle, name: Text) -> Outcome {
    let (kernel, _) = gpu::lock()?.function_handles(library, &name.get()?)?;
    out.set(kernel)
}

/// A library's module is the library itself.
pub fn library_module(out: Out<Handle>, library: Handle) -> Outcome {
    let session = gpu::lock()?;
    session.modules.get(&library).ok_or(INVALID_HANDLE)?;
    out.set(library)
}

pub fn kernel_function(out: Out<Handle>, kernel: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let (module, name) = {
        let kernel = session.kernel(kernel)?;
        (kernel.module, kernel.name.clone())
    };
    let (_, function) = session.function_handles(module, &name)?;
    out.set(function)
}

pub fn kernel_library(out: Out<Handle>, kernel: Handle) -> Outcome {
    out.set(gpu::lock()?.kernel(kernel)?.module)
}

pub fn function_module(out: Out<Handle>, function: Handle) -> Outcome {
    out.set(gpu::lock()?.function(function)?.module)
}

pub fn count(out: Out<u32>, module: Handle) -> Outcome {
    out.set(gpu::lock()?.names(module)?.len() as u32)
}

pub fn enumerate_kernels(out: Out<Handle>, room: u32, library: Handle) -> Outcome {
    enumerate(out, room, library, |(kernel, _)| kernel)
}

pub fn enumerate_functions(out: Out<Handle>, room: u32, module: Handle) -> Outcome {
    enumerate(out, room, module, |(_, function)| function)
}

fn enumerate(
    out: Out<Handle>,
    room: u32,
    m: Handle,
    pick: fn((Handle, Handle)) -> Handle,
) -> Outcome {
    let mut session = gpu::lock()?;
    let mut handles = Vec::new();
    for name in session.names(m)?.into_iter().take(room as usize) {
        handles.push(pick(session.function_handles(m, &name)?));
    }
    out.set_slice(&handles, room as usize);
    Ok(())
}

/// A global variable: zeroed device memory, made when first asked for.
pub fn get_global(address: Out<u64>, bytes: Out<usize>, module: Handle, name: Text) -> Outcome {
    let mut session = gpu::lock()?;
    let device = session.current_device().unwrap_or(0);
    let name = name.get()?;
    let found = session.modules.get(&module).ok_or(INVALID_HANDLE)?;
    let key = (name, device);
    let (at, size) = match found.globals.get(&key) {
        Some(&known) => known,
        None => {
            let size = *found.image.symbols()?.globals.get(&key.0).ok_or(NOT_FOUND)?;
            let at = session.allocate(device, size)?;
            session.zero(at, size)?;
            if let Some(module) = session.modules.get_mut(&module) {
                module.globals.insert(key, (at, size));
            }
            (at, size)
        }
    };
    address.set_if_asked(at);
    bytes.set_if_asked(size as usize);
    Ok(())
}

impl Session {
    /// Clears fresh memory that no queued work can know.
    fn zero(&self, address: u64, bytes: u64) -> Outcome {
        let space = self.gpu.space();
        let at = space.access_any(address, bytes, true).map_err(|_| INVALID_VALUE)?;
        // SAFETY: the space vouches for the range.
        unsafe { std::ptr::write_bytes(at, 0, bytes as usize) };
        Ok(())
    }
}

// ---- properties -------------------------------------------------------

fn name_of(function: &Function) -> *const c_char {
    function.c_name.as_ptr()
}

pub fn function_name(out: Out<*const c_char>, function: Handle) -> Outcome {
    out.set(name_of(gpu::lock()?.function(function)?))
}

pub fn kernel_name(out: Out<*const c_char>, kernel: Handle) -> Outcome {
    out.set(name_of(gpu::lock()?.kernel(kernel)?))
}

fn param(function: &Function, index: usize, offset: Out<usize>, size: Out<usize>) -> Outcome {
    let (at, bytes) = *function.layout.get(index).ok_or(INVALID_VALUE)?;
    offset.set(at as usize)?;
    size.set_if_asked(bytes as usize);
    Ok(())
}

pub fn function_param(f: Handle, index: usize, offset: Out<usize>, size: Out<usize>) -> Outcome {
    param(gpu::lock()?.function(f)?, index, offset, size)
}

pub fn kernel_param(k: Handle, index: usize, offset: Out<usize>, size: Out<usize>) -> Outcome {
    param(gpu::lock()?.kernel(k)?, index, offset, size)
}

pub fn function_attribute(out: Out<i32>, attribute: i32, function: Handle) -> Outcome {
    let session = gpu::lock()?;
    let capability = session.gpu.settings.capability;
    out.set(session.function(function)?.attribute(attribute, capability).ok_or(INVALID_VALUE)?)
}

pub fn kernel_attribute(out: Out<i32>, attribute: i32, kernel: Handle, ordinal: i32) -> Outcome {
    let session = gpu::lock()?;
    device(session.gpu, ordinal)?;
    let capability = session.gpu.settings.capability;
    out.set(session.kernel(kernel)?.attribute(attribute, capability).ok_or(INVALID_VALUE)?)
}

pub fn set_function_attribute(function: Handle, attribute: i32, value: i32) -> Outcome {
    let set = gpu::lock()?.function(function)?.set_attribute(attribute, value);
    if set { Ok(()) } else { Err(INVALID_VALUE) }
}

pub fn set_kernel_attribute(attribute: i32, value: i32, kernel: Handle, _ordinal: i32) -> Outcome {
    let set = gpu::lock()?.kernel(kernel)?.set_attribute(attribute, value);
    if set { Ok(()) } else { Err(INVALID_VALUE) }
}

pub fn set_function_preference(function: Handle, _value: i32) -> Outcome {
    gpu::lock()?.function(function).map(drop)
}

pub fn set_kernel_preference(kernel: Handle, _value: i32, _ordinal: i32) -> Outcome {
    gpu::lock()?.kernel(kernel).map(drop)
}

pub fn is_loaded(out: Out<i32>, function: Handle) -> Outcome {
    let session = gpu::lock()?;
    out.set(i32::from(session.function(function)?.loaded.load(Ordering::Relaxed)))
}

pub fn load_function(function: Handle) -> Outcome {
    gpu::lock()?.load(function).map(drop)
}

// ---- occupancy --------------------------------------------------------

/// Occupancy takes a function or, as the runtime of CUDA 13 passes, a kernel.
fn check_any(handle: Handle) -> Outcome {
    let session = gpu::lock()?;
    session.kernel(handle).or_else(|_| session.function(handle)).map(drop)
}

/// Limited by threads and shared memory; registers are not modelled.
fn active_blocks(block: i32, shared: usize) -> Outcome<i32> {
    if block <= 0 {
        return Err(INVALID_VALUE);
    }
    let by_threads = THREADS_PER_MULTIPROCESSOR / block;
    let by_shared = match shared {
        0 => i32::MAX,
        bytes => (SHARED_PER_MULTIPROCESSOR as usize / bytes) as i32,
    };
    Ok(by_threads.min(by_shared).min(MAX_BLOCKS_PER_MULTIPROCESSOR))
}

pub fn occupancy(out: Out<i32>, function: Handle, block: i32, shared: usize) -> Outcome {
    check_any(function)?;
    out.set(active_blocks(block, shared)?)
}

pub fn occupancy_with_flags(
    o: Out<i32>,
    f: Handle,
    block: i32,
    shared: usize,
    _flags: u32,
) -> Outcome {
    occupancy(o, f, block, shared)
}

pub fn available_shared(out: Out<usize>, function: Handle, blocks: i32, _block: i32) -> Outcome {
    check_any(function)?;
    if blocks <= 0 {
        return Err(INVALID_VALUE);
    }
    out.set((SHARED_PER_MULTIPROCESSOR / blocks) as usize)
}

type DynamicShared = unsafe extern "C" fn(i32) -> usize;

pub fn potential_block(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_for: Option<DynamicShared>,
    shared: usize,
    limit: i32,
) -> Outcome {
    check_any(function)?;
    let sms = gpu::gpu()?.lock().gpu.settings.devices.min(1) as i32 * 28;
    let most = if limit > 0 { limit.min(1024) } else { 1024 };
    let mut best = (0, 0);
    for size in (1..=most / 32).rev().map(|warps| warps * 32) {
        // SAFETY: the program's own function, called as documented.
        let bytes = shared_for.map_or(shared, |f| unsafe { f(size) });
        let blocks = active_blocks(size, bytes)?;
        if blocks * size > best.0 * best.1 {
            best = (blocks, size);
        }
    }
    grid.set(best.0 * sms)?;
    block.set(best.1)
}

pub fn potential_block_with_flags(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_for: Option<DynamicShared>,
    shared: usize,
    limit: i32,
    _flags: u32,
) -> Outcome {
    potential_block(grid, block, function, shared_for, shared, limit)
}

// ---- not on this device -----------------------------------------------
//
// There is no linker, and tensor maps need compute capability 9.0. Libraries
// refer to these symbols by name, so they exist and say so.

pub fn link_create(_n: u32, _o: *mut i32, _v: *mut *mut u8, _state: Out<Handle>) -> Outcome {
    Err(NOT_SUPPORTED)
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn link_add_data(
    _state: Handle,
    _kind: i32,
    _data: *mut u8,
    _bytes: usize,
    _name: *const c_char,
    _n: u32,
    _o: *mut i32,
    _v: *mut *mut u8,
) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn link_add_file(
    _s: Handle,
    _k: i32,
    _p: Text,
    _n: u32,
    _o: *mut i32,
    _v: *mut *mut u8,
) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn link_complete(_state: Handle, _cubin: Out<*mut u8>, _bytes: Out<usize>) -> Outcome {
    Err(NOT_SUPPORTED)
}

pub fn link_destroy(_state: Handle) -> Outcome {
    Err(INVALID_HANDLE)
}

/// A descriptor as kernels of ours read it: the address in the lower 57 bits of
/// its first word, as on a card, and nothing else.
#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn tensor_map_encode_tiled(
    map: *mut u8,
    _kind: i32,
    rank: u32,
    address: u64,
    _dims: *const u64,
    _strides: *const u64,
    _boxes: *const u32,
    _element: *const u32,
    _interleave: i32,
    _swizzle: i32,
    _l2: i32,
    _fill: i32,
) -> Outcome {
    const BYTES: usize = 128;
    const ADDRESS_BITS: u32 = 57;
    if map.is_null() || address >> ADDRESS_BITS != 0 || !address.is_multiple_of(16) {
        return Err(INVALID_VALUE);
    }
    let mut words = [0u64; BYTES / 8];
    words[0] = address | u64::from(rank) << ADDRESS_BITS;
    // SAFETY: not null, and as long as cuda.h's `CUtensorMap`.
    unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast(), map, BYTES) };
    Ok(())
}
