//! Capture and graphs. What a graph receives stays resident for as long as it
//! lives, and each replay is a use of it.
//!
//! A replay names nothing, so the addresses that any graph received are
//! remembered, in one list for all graphs: a replay is ordered after whatever
//! made them present. An address freed since is no chunk any more and drops
//! out at the next replay; one allocated anew is touched for nothing.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::{Mutex, MutexGuard};

use super::touches::{Touches, is_capturing, ordered};
use super::{Call, copy, launch as launches, retry_when_out_of_memory, streams};
use crate::driver::abi::*;
use crate::driver::driver;
use crate::engine::{self, Touch, Touched};

/// One address within each chunk that some graph received.
static REMEMBERED: Mutex<Vec<DevicePtr>> = Mutex::new(Vec::new());

/// Replays touch the chunks of `touched` from now on.
pub fn remember(touched: &[Touched]) {
    let mut remembered = REMEMBERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for &Touched { address, .. } in touched {
        let chunk = engine::chunk_of(address);
        if !remembered.iter().any(|&known| engine::chunk_of(known) == chunk) {
            remembered.push(address);
        }
    }
}

/// What a replay touches: chunks that some graph received and that live still.
/// One that was allocated since at the same address is not kept, and drops out.
fn touches_of_replay() -> Touches {
    let mut remembered = REMEMBERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut touches = Touches::new();
    remembered.retain(|&address| match engine::chunk_of(address) {
        Some(chunk) if engine::is_kept(chunk) => {
            touches.add_new(chunk, address, Touch::Kernel);
            true
        }
        _ => false,
    });
    touches
}

/// Hook for `cuGraphLaunch`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn launch(
    call: Call,
    forward: impl Fn() -> CuResult,
    _exec: CUgraphExec,
    stream: CUstream,
) -> CuResult {
    ordered(call.stream(stream), &touches_of_replay(), forward)
}

/// Hook for `cuStreamBeginCapture_v2`. Counted before the original: the first
/// captured launch may come from another thread as soon as it returns.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn begin_capture(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    _mode: c_int,
) -> CuResult {
    begin_with(call.stream(stream), forward)
}

/// Hook for `cuStreamBeginCapture`, of CUDA 10.0.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn begin_capture_v1(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
) -> CuResult {
    begin_with(call.stream(stream), forward)
}

/// Hook for `cuStreamBeginCaptureToGraph`.
///
/// # Safety
/// As cuda.h asks.
#[allow(clippy::too_many_arguments)]
pub unsafe fn begin_capture_to_graph(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    _graph: CUgraph,
    _dependencies: *const CUgraphNode,
    _edges: *const c_void,
    _count: usize,
    _mode: c_int,
) -> CuResult {
    begin_with(call.stream(stream), forward)
}

/// Hook for `cuStreamBeginRecaptureToGraph` (CUDA 13.3).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn begin_recapture(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    _mode: c_int,
    _graph: CUgraph,
    _callback: *mut c_void,
    _data: *mut c_void,
) -> CuResult {
    let stream = call.stream(stream);
    // Its callback may come back to us.
    let _ = engine::capture_begins(stream, || CuResult::SUCCESS);
    let code = forward();
    if code.is_success() {
        origins().push(stream as usize);
    } else {
        engine::capture_ended();
    }
    code
}

/// Hook for `cuStreamBeginCaptureToCig` (CUDA 13.2).
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn begin_capture_to_cig(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    _params: *mut c_void,
) -> CuResult {
    begin_with(call.stream(stream), forward)
}

/// Streams on which a capture began and has not ended.
static ORIGINS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn begin_with(stream: CUstream, forward: impl Fn() -> CuResult) -> CuResult {
    let code = engine::capture_begins(stream, forward);
    if code.is_success() {
        origins().push(stream as usize);
    }
    code
}

fn origins() -> MutexGuard<'static, Vec<usize>> {
    ORIGINS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A capture that began on `stream` is over, if one did.
fn ended(stream: CUstream) {
    let mut origins = origins();
    if let Some(index) = origins.iter().position(|&origin| origin == stream as usize) {
        origins.swap_remove(index);
        engine::capture_ended();
    }
}

/// `stream` was destroyed, and with it a capture that had begun on it.
pub fn stream_destroyed(stream: CUstream) {
    if engine::any_capture() {
        ended(stream);
    }
}

/// Hook for `cuStreamEndCapture`. A capture ends also when the answer is an
/// error, unless there was none on this stream: so the driver is asked.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn end_capture(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    _graph: *mut CUgraph,
) -> CuResult {
    end_with(call.stream(stream), forward)
}

/// Hook for `cuStreamEndCaptureToCig`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn end_capture_to_cig(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
) -> CuResult {
    end_with(call.stream(stream), forward)
}

fn end_with(stream: CUstream, forward: impl Fn() -> CuResult) -> CuResult {
    let was_capturing = is_capturing(stream);
    let code = forward();
    let still = driver().stream_is_capturing(stream).unwrap_or(false);
    if was_capturing && !still {
        ended(stream);
    }
    code
}

/// Pins what a node received; then the original.
fn pinned(touches: Result<Touches>, forward: impl Fn() -> CuResult) -> CuResult {
    let pinned = touches
        .and_then(|touches| if touches.is_empty() { Ok(()) } else { touches.pin_for_graph() });
    match pinned {
        Ok(()) => retry_when_out_of_memory(forward),
        Err(code) => code,
    }
}

/// The beginning that all versions of CUDA_KERNEL_NODE_PARAMS share.
#[repr(C)]
struct KernelNode {
    function: CUfunction,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
}

/// From version 2 on: a kernel in place of a function.
#[repr(C)]
struct KernelNodeV2 {
    v1: KernelNode,
    kernel: CUkernel,
    ctx: CUcontext,
}

/// # Safety
/// `params` is null or a CUDA_KERNEL_NODE_PARAMS of version 1.
unsafe fn kernel_touches(params: *const c_void) -> Result<Touches> {
    let mut touches = Touches::new();
    if !params.is_null() {
        let node = params.cast::<KernelNode>();
        // SAFETY: the caller's promise.
        unsafe {
            let grid = ((*node).grid[0], (*node).grid[1]);
            let (params, extra) = ((*node).params, (*node).extra);
            launches::add_kernel(&mut touches, (*node).function, grid, params, extra)?;
        }
    }
    Ok(touches)
}

/// # Safety
/// `params` is null or a CUDA_KERNEL_NODE_PARAMS of version 2 or 3.
unsafe fn kernel_touches_v2(params: *const c_void) -> Result<Touches> {
    let mut touches = Touches::new();
    if !params.is_null() {
        let node = params.cast::<KernelNodeV2>();
        // SAFETY: the caller's promise.
        unsafe {
            let function = (*node).v1.function;
            let handle = if function.is_null() { (*node).kernel.cast() } else { function };
            let grid = ((*node).v1.grid[0], (*node).v1.grid[1]);
            let (params, extra) = ((*node).v1.params, (*node).v1.extra);
            launches::add_kernel(&mut touches, handle, grid, params, extra)?;
        }
    }
    Ok(touches)
}

/// # Safety
/// `memset` is null or one of the CUDA_MEMSET_NODE_PARAMS, all of which begin
/// with the address.
unsafe fn memset_touches(memset: *const c_void) -> Result<Touches> {
    let mut touches = Touches::new();
    if !memset.is_null() {
        // SAFETY: the caller's promise.
        touches.add(unsafe { memset.cast::<DevicePtr>().read() }, Touch::Kernel);
    }
    Ok(touches)
}

/// # Safety
/// `params` is null or a CUgraphNodeParams.
unsafe fn node_touches(params: *const c_void) -> Result<Touches> {
    const KERNEL: c_int = 0;
    const MEMCPY: c_int = 1;
    const MEMSET: c_int = 2;
    const BATCH_MEM_OP: c_int = 12;
    /// A CUgraphNodeParams is a type, three reserved words and the union.
    const UNION_OFFSET: usize = 16;
    /// In the union a copy has flags, a reserved word and a context before it.
    const COPY_OFFSET: usize = UNION_OFFSET + 16;
    if params.is_null() {
        return Ok(Touches::new());
    }
    // SAFETY: the caller's promise.
    unsafe {
        match params.cast::<c_int>().read() {
            KERNEL => kernel_touches_v2(params.byte_add(UNION_OFFSET)),
            MEMCPY => Ok(copy::touches_of_3d(params.byte_add(COPY_OFFSET).cast())),
            MEMSET => memset_touches(params.byte_add(UNION_OFFSET)),
            BATCH_MEM_OP => batch_mem_op_touches(params.byte_add(UNION_OFFSET)),
            _ => Ok(Touches::new()),
        }
    }
}

/// The hooks of calls that give a node its parameters: which of the arguments
/// they are, and how they are read.
macro_rules! node_hooks {
    ($( $hook:ident ( $( $arg:ident : $ty:ty ),* ) $params:ident $touches:expr; )*) => { $(
        /// # Safety
        /// As cuda.h asks.
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn $hook(
            _call: Call,
            forward: impl Fn() -> CuResult,
            $( $arg: $ty ),*
        ) -> CuResult {
            $( let _ = $arg; )*
            // SAFETY: the caller's promise.
            pinned(unsafe { $touches($params) }, forward)
        }
    )* };
}

/// # Safety
/// `copy` is null or readable.
unsafe fn copy_touches(copy: *const CUDA_MEMCPY3D) -> Result<Touches> {
    // SAFETY: the caller's promise.
    Ok(unsafe { copy::touches_of_3d(copy) })
}

/// # Safety
/// `params` is null or a CUDA_BATCH_MEM_OP_NODE_PARAMS.
unsafe fn batch_mem_op_touches(params: *const c_void) -> Result<Touches> {
    #[repr(C)]
    struct BatchMemOpNode {
        ctx: CUcontext,
        count: c_uint,
        ops: *const c_void,
        flags: c_uint,
    }
    let mut touches = Touches::new();
    if !params.is_null() {
        let node = params.cast::<BatchMemOpNode>();
        // SAFETY: the caller's promise.
        for address in unsafe { streams::words_of_batch((*node).ops, (*node).count) } {
            touches.add(address, Touch::Kernel);
        }
    }
    Ok(touches)
}

node_hooks! {
    add_kernel_node(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *const c_void) params kernel_touches;
    add_kernel_node_v2(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *const c_void) params kernel_touches_v2;
    kernel_node_set_params(node: CUgraphNode, params: *const c_void) params kernel_touches;
    kernel_node_set_params_v2(node: CUgraphNode, params: *const c_void) params kernel_touches_v2;
    exec_kernel_node_set_params(exec: CUgraphExec, node: CUgraphNode, params: *const c_void) params kernel_touches;
    exec_kernel_node_set_params_v2(exec: CUgraphExec, node: CUgraphNode, params: *const c_void) params kernel_touches_v2;
    add_memcpy_node(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, copy: *const CUDA_MEMCPY3D, ctx: CUcontext) copy copy_touches;
    memcpy_node_set_params(node: CUgraphNode, copy: *const CUDA_MEMCPY3D) copy copy_touches;
    exec_memcpy_node_set_params(exec: CUgraphExec, node: CUgraphNode, copy: *const CUDA_MEMCPY3D, ctx: CUcontext) copy copy_touches;
    add_memset_node(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, memset: *const c_void, ctx: CUcontext) memset memset_touches;
    memset_node_set_params(node: CUgraphNode, memset: *const c_void) memset memset_touches;
    exec_memset_node_set_params(exec: CUgraphExec, node: CUgraphNode, memset: *const c_void, ctx: CUcontext) memset memset_touches;
    add_node(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *mut c_void) params node_touches;
    add_node_v2(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, edges: *const c_void, count: usize, params: *mut c_void) params node_touches;
    node_set_params(node: CUgraphNode, params: *mut c_void) params node_touches;
    exec_node_set_params(exec: CUgraphExec, node: CUgraphNode, params: *mut c_void) params node_touches;
    add_batch_mem_op_node(node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize, params: *const c_void) params batch_mem_op_touches;
    batch_mem_op_node_set_params(node: CUgraphNode, params: *const c_void) params batch_mem_op_touches;
    exec_batch_mem_op_node_set_params(exec: CUgraphExec, node: CUgraphNode, params: *const c_void) params batch_mem_op_touches;
}
