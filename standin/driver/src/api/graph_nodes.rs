//! What graph nodes carry: adding nodes, reading and replacing their
//! parameters, in graphs and in executables.

use super::capture::EdgeData;
use super::copy::box_of;
use super::launch::{Extra, Params, Shape};
use crate::abi::{
    Handle, HostFn, INVALID_DEVICE, INVALID_VALUE, MEMORYTYPE_UNIFIED, Memcpy3D, NOT_SUPPORTED,
    Outcome, PoolProps,
};
use crate::edge::{In, Out};
use crate::engine::gpu::{self, Session};
use crate::engine::graph::NodeKind;
use crate::engine::work::{Copy, Fill, Side, Work};
use std::ffi::c_void;
use std::sync::Arc;

/// `CUDA_KERNEL_NODE_PARAMS`; before CUDA 12 it ended after `extra`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelParams {
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: *const u64,
    extra: *const c_void,
    kernel: Handle,
    context: Handle,
}

/// The part of [`KernelParams`] that every version has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelParamsV1 {
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: *const u64,
    extra: *const c_void,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemsetParams {
    dst: u64,
    pitch: usize,
    value: u32,
    element: u32,
    width: usize,
    height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HostParams {
    function: Option<HostFn>,
    data: *mut c_void,
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocParams {
    pool: PoolProps,
    accesses: *const c_void,
    access_count: usize,
    bytes: usize,
    address: u64,
}

/// `CUDA_MEMCPY_NODE_PARAMS`, as used in the generic form.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CopyParams {
    flags: i32,
    reserved: i32,
    context: Handle,
    copy: Memcpy3D,
}

/// `CUgraphNodeParams`: a type, and the parameters of that type at 16.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NodeParams {
    kind: i32,
    reserved: [i32; 3],
    payload: [u64; 29],
    reserved2: u64,
}

impl NodeParams {
    /// The payload as the structure its type says.
    fn read<T: std::marker::Copy>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<[u64; 29]>()) };
        // SAFETY: every T used here is plain C data no larger than the
        // payload, for which any bytes are a value the caller vouches for.
        unsafe { self.payload.as_ptr().cast::<T>().read_unaligned() }
    }
}

// ---- from parameters to work ------------------------------------------

fn kernel_kind(session: &mut Session, p: &KernelParams) -> Outcome<NodeKind> {
    let handle = if p.function != 0 { p.function } else { p.kernel };
    let shape = Shape { grid: p.grid, block: p.block, shared_bytes: p.shared_bytes };
    let (params, extra) =
        (Params::from_address(p.params.cast()), Extra::from_address(p.extra.cast()));
    Ok(NodeKind::Work(session.kernel_work(handle, shape, params, Some(extra))?))
}

impl From<KernelParamsV1> for KernelParams {
    fn from(p: KernelParamsV1) -> KernelParams {
        let KernelParamsV1 { function, grid, block, shared_bytes, params, extra } = p;
        KernelParams { function, grid, block, shared_bytes, params, extra, kernel: 0, context: 0 }
    }
}

fn copy_kind(copy: &Memcpy3D) -> Outcome<NodeKind> {
    Ok(NodeKind::Work(Work::Copy(box_of(copy)?)))
}

fn memset_kind(p: &MemsetParams) -> Outcome<NodeKind> {
    if !matches!(p.element, 1 | 2 | 4) {
        return Err(INVALID_VALUE);
    }
    let row = p.width as u64 * u64::from(p.element);
    Ok(NodeKind::Work(Work::Fill(Fill {
        dst: p.dst,
        value: p.value,
        element: p.element,
        width: p.width as u64,
        height: p.height as u64,
        pitch: if p.height > 1 { p.pitch as u64 } else { row },
    })))
}

fn host_kind(p: &HostParams) -> Outcome<NodeKind> {
    let function = p.function.ok_or(INVALID_VALUE)?;
    Ok(NodeKind::Work(Work::Host { function, data: p.data as usize }))
}

fn event_kind(session: &Session, event: Handle, work: fn(Handle) -> Work) -> Outcome<NodeKind> {
    session.events.get(&event).ok_or(INVALID_VALUE)?;
    Ok(NodeKind::Work(work(event)))
}

fn child_kind(session: &mut Session, child: Handle) -> Outcome<NodeKind> {
    let copy = session.clone_graph(child)?;
    session.mark_child(copy);
    Ok(NodeKind::Child(copy))
}

fn generic_kind(session: &mut Session, p: &NodeParams) -> Outcome<NodeKind> {
    match p.kind {
        0 => kernel_kind(session, &p.read::<KernelParams>()),
        1 => copy_kind(&p.read::<CopyParams>().copy),
        2 => memset_kind(&p.read::<MemsetParams>()),
        3 => host_kind(&p.read::<HostParams>()),
        4 => child_kind(session, p.read::<Handle>()),
        5 => Ok(NodeKind::Work(Work::Marker)),
        6 => event_kind(session, p.read::<Handle>(), Work::WaitEvent),
        7 => event_kind(session, p.read::<Handle>(), Work::RecordEvent),
        11 => Ok(NodeKind::Free { address: p.read::<u64>() }),
        _ => Err(NOT_SUPPORTED),
    }
}

// ---- adding -----------------------------------------------------------

fn add(
    out: Out<Handle>,
    graph: Handle,
    deps: In<Handle>,
    count: usize,
    kind: impl FnOnce(&mut Session) -> Outcome<NodeKind>,
) -> Outcome {
    let mut session = gpu::lock()?;
    session.graph(graph)?;
    let dependencies = deps.list(count)?;
    let kind = kind(&mut session)?;
    out.set(session.add_node(graph, kind, dependencies)?)
}

pub fn add_kernel(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    p: In<KernelParams>,
) -> Outcome {
    let p = p.get()?;
    add(o, g, d, n, |s| kernel_kind(s, &p))
}

pub fn add_kernel_v1(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    p: In<KernelParamsV1>,
) -> Outcome {
    let p = p.get()?.into();
    add(o, g, d, n, |s| kernel_kind(s, &p))
}

pub fn add_copy(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    p: In<Memcpy3D>,
    _c: Handle,
) -> Outcome {
    let p = p.get()?;
    add(o, g, d, n, |_| copy_kind(&p))
}

pub fn add_memset(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    p: In<MemsetParams>,
    _c: Handle,
) -> Outcome {
    let p = p.get()?;
    add(o, g, d, n, |_| memset_kind(&p))
}

pub fn add_host(o: Out<Handle>, g: Handle, d: In<Handle>, n: usize, p: In<HostParams>) -> Outcome {
    let p = p.get()?;
    add(o, g, d, n, |_| host_kind(&p))
}

pub fn add_child(o: Out<Handle>, g: Handle, d: In<Handle>, n: usize, child: Handle) -> Outcome {
    add(o, g, d, n, |s| child_kind(s, child))
}

pub fn add_empty(o: Out<Handle>, g: Handle, d: In<Handle>, n: usize) -> Outcome {
    add(o, g, d, n, |_| Ok(NodeKind::Work(Work::Marker)))
}

pub fn add_event_record(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    event: Handle,
) -> Outcome {
    add(o, g, d, n, |s| event_kind(s, event, Work::RecordEvent))
}

pub fn add_event_wait(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    event: Handle,
) -> Outcome {
    add(o, g, d, n, |s| event_kind(s, event, Work::WaitEvent))
}

pub fn add_alloc(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    n: usize,
    p: Out<AllocParams>,
) -> Outcome {
    let mut asked = p.get()?;
    let device = usize::try_from(asked.pool.location.id).map_err(|_| INVALID_DEVICE)?;
    let mut address = 0;
    add(o, g, d, n, |session| {
        if device >= session.gpu.settings.devices {
            return Err(INVALID_DEVICE);
        }
        let memory = Arc::new(session.new_graph_memory(device, asked.bytes as u64)?);
        address = memory.address;
        Ok(NodeKind::Alloc { memory })
    })?;
    asked.address = address;
    p.set(asked)
}

pub fn add_free(o: Out<Handle>, g: Handle, d: In<Handle>, n: usize, address: u64) -> Outcome {
    add(o, g, d, n, |_| Ok(NodeKind::Free { address }))
}

pub fn add_any(o: Out<Handle>, g: Handle, d: In<Handle>, n: usize, p: In<NodeParams>) -> Outcome {
    let p = p.get()?;
    add(o, g, d, n, |s| generic_kind(s, &p))
}

pub fn add_any_v2(
    o: Out<Handle>,
    g: Handle,
    d: In<Handle>,
    _edges: In<EdgeData>,
    n: usize,
    p: In<NodeParams>,
) -> Outcome {
    add_any(o, g, d, n, p)
}

// ---- reading ----------------------------------------------------------

fn kernel_params(session: &mut Session, handle: Handle) -> Outcome<KernelParams> {
    let node = session.nodes.get_mut(&handle).ok_or(INVALID_VALUE)?;
    let NodeKind::Work(Work::Kernel(launch)) = &node.kind else { return Err(INVALID_VALUE) };
    let base = launch.params.as_ptr() as u64;
    node.param_pointers =
        launch.function.layout.iter().map(|&(offset, _)| base + u64::from(offset)).collect();
    let (params, launch) = (node.param_pointers.as_ptr(), launch.clone());
    let module = session.modules.get(&launch.function.module).ok_or(INVALID_VALUE)?;
    let (_, kernel, function) = module.functions.get(&launch.function.name).ok_or(INVALID_VALUE)?;
    Ok(KernelParams {
        function: *function,
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        params,
        extra: std::ptr::null(),
        kernel: *kernel,
        context: 0,
    })
}

pub fn get_kernel(node: Handle, out: Out<KernelParams>) -> Outcome {
    out.set(kernel_params(&mut gpu::lock()?, node)?)
}

pub fn get_kernel_v1(node: Handle, out: Out<KernelParamsV1>) -> Outcome {
    let p = kernel_params(&mut gpu::lock()?, node)?;
    let KernelParams { function, grid, block, shared_bytes, params, extra, .. } = p;
    out.set(KernelParamsV1 { function, grid, block, shared_bytes, params, extra })
}

pub fn get_copy(node: Handle, out: Out<Memcpy3D>) -> Outcome {
    let session = gpu::lock()?;
    let NodeKind::Work(Work::Copy(copy)) = &session.node(node)?.kind else {
        return Err(INVALID_VALUE);
    };
    out.set(memcpy_3d(copy))
}

/// A copy in the driver's terms; both sides unified, origins folded in.
fn memcpy_3d(copy: &Copy) -> Memcpy3D {
    let address = |side: &Side| match side {
        Side::Address(address) => *address,
        Side::Staged(bytes) => bytes.as_ptr() as u64,
    };
    let rows = |slice: u64, pitch: u64| slice.checked_div(pitch).unwrap_or(0) as usize;
    Memcpy3D {
        src_x: 0,
        src_y: 0,
        src_z: 0,
        src_lod: 0,
        src_type: MEMORYTYPE_UNIFIED,
        src_host: 0,
        src_device: address(&copy.src),
        src_array: 0,
        reserved0: 0,
        src_pitch: copy.src_pitch as usize,
        src_height: rows(copy.src_slice, copy.src_pitch),
        dst_x: 0,
        dst_y: 0,
        dst_z: 0,
        dst_lod: 0,
        dst_type: MEMORYTYPE_UNIFIED,
        dst_host: 0,
        dst_device: address(&copy.dst),
        dst_array: 0,
        reserved1: 0,
        dst_pitch: copy.dst_pitch as usize,
        dst_height: rows(copy.dst_slice, copy.dst_pitch),
        width: copy.width as usize,
        height: copy.height as usize,
        depth: copy.depth as usize,
    }
}

pub fn get_memset(node: Handle, out: Out<MemsetParams>) -> Outcome {
    let session = gpu::lock()?;
    let NodeKind::Work(Work::Fill(fill)) = session.node(node)?.kind else {
        return Err(INVALID_VALUE);
    };
    out.set(MemsetParams {
        dst: fill.dst,
        pitch: fill.pitch as usize,
        value: fill.value,
        element: fill.element,
        width: fill.width as usize,
        height: fill.height as usize,
    })
}

pub fn get_host(node: Handle, out: Out<HostParams>) -> Outcome {
    let session = gpu::lock()?;
    let NodeKind::Work(Work::Host { function, data }) = session.node(node)?.kind else {
        return Err(INVALID_VALUE);
    };
    out.set(HostParams { function: Some(function), data: data as *mut c_void })
}

pub fn get_child(node: Handle, out: Out<Handle>) -> Outcome {
    let session = gpu::lock()?;
    let NodeKind::Child(child) = session.node(node)?.kind else { return Err(INVALID_VALUE) };
    out.set(child)
}

pub fn get_event(node: Handle, out: Out<Handle>) -> Outcome {
    let session = gpu::lock()?;
    match session.node(node)?.kind {
        NodeKind::Work(Work::RecordEvent(event) | Work::WaitEvent(event)) => out.set(event),
        _ => Err(INVALID_VALUE),
    }
}

pub fn get_free(node: Handle, out: Out<u64>) -> Outcome {
    let session = gpu::lock()?;
    let NodeKind::Free { address } = session.node(node)?.kind else { return Err(INVALID_VALUE) };
    out.set(address)
}

// ---- replacing --------------------------------------------------------

/// Gives a node other work of the same type.
fn set(node: Handle, kind: impl FnOnce(&mut Session) -> Outcome<NodeKind>) -> Outcome {
    let mut session = gpu::lock()?;
    let kind = kind(&mut session)?;
    let node = session.nodes.get_mut(&node).ok_or(INVALID_VALUE)?;
    if node.kind.type_code() != kind.type_code() {
        return Err(INVALID_VALUE);
    }
    let old = std::mem::replace(&mut node.kind, kind);
    node.param_pointers.clear();
    session.drop_kind(old)
}

/// Gives one node of an executable other work of the same type.
fn set_exec(
    exec: Handle,
    node: Handle,
    kind: impl FnOnce(&mut Session) -> Outcome<NodeKind>,
) -> Outcome {
    let mut session = gpu::lock()?;
    let kind = kind(&mut session)?;
    let found = session.exec(exec)?.nodes.iter_mut().find(|n| n.origin == node);
    let found = found.ok_or(INVALID_VALUE)?;
    if found.kind.type_code() != kind.type_code() {
        return Err(INVALID_VALUE);
    }
    found.kind = kind;
    Ok(())
}

pub fn set_kernel(node: Handle, p: In<KernelParams>) -> Outcome {
    let p = p.get()?;
    set(node, |s| kernel_kind(s, &p))
}

pub fn set_kernel_v1(node: Handle, p: In<KernelParamsV1>) -> Outcome {
    let p = p.get()?.into();
    set(node, |s| kernel_kind(s, &p))
}

pub fn set_copy(node: Handle, p: In<Memcpy3D>) -> Outcome {
    let p = p.get()?;
    set(node, |_| copy_kind(&p))
}

pub fn set_memset(node: Handle, p: In<MemsetParams>) -> Outcome {
    let p = p.get()?;
    set(node, |_| memset_kind(&p))
}

pub fn set_host(node: Handle, p: In<HostParams>) -> Outcome {
    let p = p.get()?;
    set(node, |_| host_kind(&p))
}

pub fn set_event_record(node: Handle, event: Handle) -> Outcome {
    set(node, |s| event_kind(s, event, Work::RecordEvent))
}

pub fn set_event_wait(node: Handle, event: Handle) -> Outcome {
    set(node, |s| event_kind(s, event, Work::WaitEvent))
}

pub fn set_any(node: Handle, p: In<NodeParams>) -> Outcome {
    let p = p.get()?;
    set(node, |s| generic_kind(s, &p))
}

pub fn exec_set_kernel(exec: Handle, node: Handle, p: In<KernelParams>) -> Outcome {
    let p = p.get()?;
    set_exec(exec, node, |s| kernel_kind(s, &p))
}

pub fn exec_set_kernel_v1(exec: Handle, node: Handle, p: In<KernelParamsV1>) -> Outcome {
    let p = p.get()?.into();
    set_exec(exec, node, |s| kernel_kind(s, &p))
}

pub fn exec_set_copy(exec: Handle, node: Handle, p: In<Memcpy3D>, _context: Handle) -> Outcome {
    let p = p.get()?;
    set_exec(exec, node, |_| copy_kind(&p))
}

pub fn exec_set_memset(
    exec: Handle,
    node: Handle,
    p: In<MemsetParams>,
    _context: Handle,
) -> Outcome {
    let p = p.get()?;
    set_exec(exec, node, |_| memset_kind(&p))
}

pub fn exec_set_host(exec: Handle, node: Handle, p: In<HostParams>) -> Outcome {
    let p = p.get()?;
    set_exec(exec, node, |_| host_kind(&p))
}

pub fn exec_set_event_record(exec: Handle, node: Handle, event: Handle) -> Outcome {
    set_exec(exec, node, |s| event_kind(s, event, Work::RecordEvent))
}

pub fn exec_set_event_wait(exec: Handle, node: Handle, event: Handle) -> Outcome {
    set_exec(exec, node, |s| event_kind(s, event, Work::WaitEvent))
}

pub fn exec_set_any(exec: Handle, node: Handle, p: In<NodeParams>) -> Outcome {
    let p = p.get()?;
    set_exec(exec, node, |s| generic_kind(s, &p))
}

/// Launch attributes of kernel nodes have no effect here.
pub fn copy_attributes(dst: Handle, src: Handle) -> Outcome {
    let session = gpu::lock()?;
    session.node(dst)?;
    session.node(src).map(drop)
}

pub fn get_attribute(node: Handle, _attribute: i32, out: Out<[u8; 64]>) -> Outcome {
    gpu::lock()?.node(node)?;
    out.set([0; 64])
}

pub fn set_attribute(node: Handle, _attribute: i32, _value: In<[u8; 64]>) -> Outcome {
    gpu::lock()?.node(node).map(drop)
}
