//! Kernel launches: from the caller's arguments to a queued kernel.

use crate::abi::{
    Handle, INVALID_HANDLE, INVALID_VALUE, LAUNCH_PARAM_BUFFER_POINTER, LAUNCH_PARAM_BUFFER_SIZE,
    LAUNCH_PARAM_END, LaunchConfig, NOT_FOUND, Outcome,
};
use crate::edge::In;
use crate::engine::gpu::{self, DefaultStream, Session};
use crate::engine::module::Function;
use crate::engine::settings::Unknown;
use crate::engine::work::{KernelLaunch, Work};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `kernelParams`: an array of pointers to the arguments.
pub type Params = In<In<u8>>;
/// `extra`: a list of (marker, pointer) pairs.
pub type Extra = In<*mut c_void>;

#[derive(Clone, Copy)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
}

const MAX_THREADS: u64 = 1024;

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn kernel(
    d: DefaultStream,
    function: Handle,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared_bytes: u32,
    stream: Handle,
    params: Params,
    extra: Extra,
) -> Outcome {
    let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes };
    launch(d, function, shape, stream, params, extra)
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub fn cooperative(
    d: DefaultStream,
    function: Handle,
    gx: u32,
    gy: u32,
    gz: u32,
    bx: u32,
    by: u32,
    bz: u32,
    shared_bytes: u32,
    stream: Handle,
    params: Params,
) -> Outcome {
    let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes };
    let mut session = gpu::lock()?.load(function)?;
    let work = session.kernel_work(function, shape, params, None)?;
    session.launch(stream, d, work)
}

pub fn kernel_ex(
    d: DefaultStream,
    config: In<LaunchConfig>,
    function: Handle,
    params: Params,
    extra: Extra,
) -> Outcome {
    let c = config.get()?;
    let shape = Shape { grid: c.grid, block: c.block, shared_bytes: c.shared_bytes };
    launch(d, function, shape, c.stream, params, extra)
}

fn launch(
    d: DefaultStream,
    function: Handle,
    shape: Shape,
    stream: Handle,
    params: Params,
    extra: Extra,
) -> Outcome {
    let mut session = gpu::lock()?.load(function)?;
    let work = session.kernel_work(function, shape, params, Some(extra))?;
    session.launch(stream, d, work)
}

impl Session {
    fn launch(&mut self, stream: Handle, d: DefaultStream, work: Work) -> Outcome {
        let stream = self.resolve(stream, d)?;
        self.faults.check("launch")?;
        self.enqueue(stream, work).map(drop)
    }

    /// Modules load their kernels lazily, and loading may wait for the context.
    pub fn load(self, function: Handle) -> Outcome<Session> {
        let loaded = self.any_function(function)?.loaded.swap(true, Ordering::Relaxed);
        Ok(if loaded { self } else { self.implied_wait() })
    }

    /// A function handle or, as the runtime of CUDA 13 passes, a kernel's.
    pub fn any_function(&self, handle: Handle) -> Outcome<Arc<Function>> {
        let found = self.kernels.get(&handle).or_else(|| self.functions.get(&handle));
        found.cloned().ok_or(INVALID_HANDLE)
    }

    /// Checks a launch and copies its parameters.
    pub fn kernel_work(
        &mut self,
        handle: Handle,
        shape: Shape,
        params: Params,
        extra: Option<Extra>,
    ) -> Outcome<Work> {
        let function = self.any_function(handle)?;
        let threads: u64 = shape.block.iter().map(|&n| u64::from(n)).product();
        if shape.grid.contains(&0) || threads == 0 || threads > MAX_THREADS {
            return Err(INVALID_VALUE);
        }
        let extra = extra.filter(|e| !e.is_null());
        let params = match extra {
            Some(extra) => from_extra(extra, function.param_bytes as usize)?,
            None => from_pointers(params, &function)?,
        };
        if function.kernel.is_none() {
            self.unknown_kernel(&function.name)?;
        }
        let Shape { grid, block, shared_bytes } = shape;
        Ok(Work::Kernel(Arc::new(KernelLaunch { function, grid, block, shared_bytes, params })))
    }

    /// A kernel nobody implemented: fails with NOT_FOUND and its name, unless
    /// `STANDIN_UNKNOWN` lets it pass.
    fn unknown_kernel(&mut self, name: &str) -> Outcome {
        let count = self.account.unknown_kernels.entry(name.to_string()).or_insert(0);
        *count += 1;
        if self.gpu.settings.unknown != Unknown::Fail {
            return Ok(());
        }
        eprintln!("standin: no implementation of kernel {} ({name})", demangled(name));
        Err(NOT_FOUND)
    }
}

fn from_pointers(params: Params, function: &Function) -> Outcome<Vec<u8>> {
    let mut buffer = vec![0u8; function.param_bytes as usize];
    for (i, &(offset, size)) in function.layout.iter().enumerate() {
        let value = params.at(i)?.list(size as usize)?;
        buffer[offset as usize..][..size as usize].copy_from_slice(&value);
    }
    Ok(buffer)
}

/// The packed form. A shorter buffer than the kernel's parameters is refused.
fn from_extra(extra: Extra, needed: usize) -> Outcome<Vec<u8>> {
    let (mut buffer, mut bytes) = (None, None);
    let mut at = 0;
    loop {
        match extra.at(at)? as usize {
            LAUNCH_PARAM_END => break,
            LAUNCH_PARAM_BUFFER_POINTER => buffer = Some(extra.at(at + 1)?.cast::<u8>()),
            LAUNCH_PARAM_BUFFER_SIZE => bytes = Some(extra.at(at + 1)?.cast::<usize>()),
            _ => return Err(INVALID_VALUE),
        }
        at += 2;
    }
    let (Some(buffer), Some(bytes)) = (buffer, bytes) else { return Err(INVALID_VALUE) };
    if buffer.is_null() || bytes.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: by the contract of the `extra` form, a size and that many bytes.
    let packed = unsafe { std::slice::from_raw_parts(buffer, bytes.read_unaligned()) };
    packed.get(..needed).map(<[u8]>::to_vec).ok_or(INVALID_VALUE)
}

/// A mangled name as a person reads it.
fn demangled(name: &str) -> String {
    cpp_demangle::Symbol::new(name).map_or_else(|_| name.to_string(), |symbol| symbol.to_string())
}
