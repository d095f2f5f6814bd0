//! Graphs as objects: making, asking, cloning, instantiating, launching.
//! Not here: what nodes carry (see `graph_nodes`).

use super::capture::EdgeData;
use crate::abi::{GRAPH_EXEC_UPDATE_FAILURE, Handle, INVALID_VALUE, NOT_FOUND, Outcome};
use crate::edge::{In, Out, Text};
use crate::engine::gpu::{self, DefaultStream};
use crate::engine::graph::NodeKind;
use std::fmt::Write;

/// `CUgraphExecUpdateResult`.
const UPDATE_SUCCESS: i32 = 0;
const UPDATE_TOPOLOGY_CHANGED: i32 = 2;

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UpdateInfo {
    result: i32,
    error_node: Handle,
    error_from_node: Handle,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InstantiateParams {
    flags: u64,
    upload_stream: Handle,
    error_node: Handle,
    result: i32,
}

pub fn create(out: Out<Handle>, flags: u32) -> Outcome {
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    out.set(gpu::lock()?.new_graph())
}

pub fn destroy(graph: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    if session.graph(graph)?.is_child {
        return Err(INVALID_VALUE);
    }
    session.destroy_graph(graph)
}

pub fn destroy_node(node: Handle) -> Outcome {
    gpu::lock()?.destroy_node(node)
}

pub fn clone(out: Out<Handle>, graph: Handle) -> Outcome {
    out.set(gpu::lock()?.clone_graph(graph)?)
}

pub fn find_in_clone(out: Out<Handle>, original: Handle, clone: Handle) -> Outcome {
    let session = gpu::lock()?;
    let nodes = &session.graph(clone)?.nodes;
    let found = nodes.iter().find(|n| session.nodes[n].cloned_from == original);
    out.set(*found.ok_or(INVALID_VALUE)?)
}

// ---- asking -----------------------------------------------------------

/// The driver's way of returning a list: with no array, its length; with one,
/// as many as there is room for, the rest zeroed.
fn answer(list: &[Handle], out: Out<Handle>, count: Out<usize>) -> Outcome {
    if out.is_null() {
        return count.set(list.len());
    }
    let room = count.get()?;
    let padded: Vec<Handle> = list.iter().copied().chain(std::iter::repeat(0)).take(room).collect();
    out.set_slice(&padded, room);
    count.set(list.len().min(room))
}

pub fn nodes(graph: Handle, out: Out<Handle>, count: Out<usize>) -> Outcome {
    answer(&gpu::lock()?.graph(graph)?.nodes, out, count)
}

pub fn roots(graph: Handle, out: Out<Handle>, count: Out<usize>) -> Outcome {
    let session = gpu::lock()?;
    let all = &session.graph(graph)?.nodes;
    let is_root = |n: &Handle| session.nodes[n].dependencies.is_empty();
    let roots: Vec<Handle> = all.iter().copied().filter(is_root).collect();
    answer(&roots, out, count)
}

pub fn dependencies(node: Handle, out: Out<Handle>, count: Out<usize>) -> Outcome {
    answer(&gpu::lock()?.node(node)?.dependencies, out, count)
}

pub fn dependencies_v2(
    node: Handle,
    out: Out<Handle>,
    e: Out<EdgeData>,
    count: Out<usize>,
) -> Outcome {
    dependencies(node, out, count)?;
    zero_edges(e, out, count)
}

pub fn dependents(node: Handle, out: Out<Handle>, count: Out<usize>) -> Outcome {
    let session = gpu::lock()?;
    let graph = session.node(node)?.graph;
    let all = &session.graph(graph)?.nodes;
    let depends = |n: &Handle| session.nodes[n].dependencies.contains(&node);
    let dependents: Vec<Handle> = all.iter().copied().filter(depends).collect();
    answer(&dependents, out, count)
}

pub fn dependents_v2(
    node: Handle,
    out: Out<Handle>,
    e: Out<EdgeData>,
    count: Out<usize>,
) -> Outcome {
    dependents(node, out, count)?;
    zero_edges(e, out, count)
}

fn zero_edges(edges: Out<EdgeData>, nodes: Out<Handle>, count: Out<usize>) -> Outcome {
    if !edges.is_null() && !nodes.is_null() {
        let count = count.get()?;
        edges.set_slice(&vec![EdgeData::default(); count], count);
    }
    Ok(())
}

pub fn edges(graph: Handle, from: Out<Handle>, to: Out<Handle>, count: Out<usize>) -> Outcome {
    let session = gpu::lock()?;
    let (mut sources, mut targets) = (Vec::new(), Vec::new());
    for node in &session.graph(graph)?.nodes {
        for dependency in &session.nodes[node].dependencies {
            sources.push(*dependency);
            targets.push(*node);
        }
    }
    if from.is_null() || to.is_null() {
        return count.set(sources.len());
    }
    let room = count.get()?;
    from.set_slice(&sources, room);
    to.set_slice(&targets, room);
    count.set(sources.len().min(room))
}

pub fn edges_v2(
    graph: Handle,
    from: Out<Handle>,
    to: Out<Handle>,
    data: Out<EdgeData>,
    count: Out<usize>,
) -> Outcome {
    edges(graph, from, to, count)?;
    zero_edges(data, from, count)
}

pub fn node_type(node: Handle, out: Out<i32>) -> Outcome {
    out.set(gpu::lock()?.node(node)?.kind.type_code())
}

pub fn add_dependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) -> Outcome {
    let mut session = gpu::lock()?;
    for i in 0..count {
        let (from, to) = (from.at(i)?, to.at(i)?);
        if from == to || session.node(from)?.graph != graph || session.node(to)?.graph != graph {
            return Err(INVALID_VALUE);
        }
        if let Some(node) = session.nodes.get_mut(&to)
            && !node.dependencies.contains(&from)
        {
            node.dependencies.push(from);
        }
    }
    Ok(())
}

pub fn add_dependencies_v2(
    graph: Handle,
    from: In<Handle>,
    to: In<Handle>,
    _edges: In<EdgeData>,
    count: usize,
) -> Outcome {
    add_dependencies(graph, from, to, count)
}

pub fn remove_dependencies(
    graph: Handle,
    from: In<Handle>,
    to: In<Handle>,
    count: usize,
) -> Outcome {
    let mut session = gpu::lock()?;
    session.graph(graph)?;
    for i in 0..count {
        let (from, to) = (from.at(i)?, to.at(i)?);
        let node = session.nodes.get_mut(&to).ok_or(INVALID_VALUE)?;
        let before = node.dependencies.len();
        node.dependencies.retain(|&d| d != from);
        if node.dependencies.len() == before {
            return Err(INVALID_VALUE);
        }
    }
    Ok(())
}

pub fn remove_dependencies_v2(
    graph: Handle,
    from: In<Handle>,
    to: In<Handle>,
    _edges: In<EdgeData>,
    count: usize,
) -> Outcome {
    remove_dependencies(graph, from, to, count)
}

// ---- executables ------------------------------------------------------

pub fn instantiate(out: Out<Handle>, graph: Handle, flags: u64) -> Outcome {
    out.set(gpu::lock()?.instantiate(graph, flags)?)
}

/// The form before CUDA 12, with an error node and a log.
pub fn instantiate_with_log(
    out: Out<Handle>,
    graph: Handle,
    error_node: Out<Handle>,
    _log: *mut u8,
    _room: usize,
) -> Outcome {
    error_node.set_if_asked(0);
    instantiate(out, graph, 0)
}

pub fn instantiate_with_params(
    _d: DefaultStream,
    out: Out<Handle>,
    graph: Handle,
    params: Out<InstantiateParams>,
) -> Outcome {
    const INSTANTIATE_SUCCESS: i32 = 0;
    let mut asked = params.get()?;
    instantiate(out, graph, asked.flags)?;
    asked.error_node = 0;
    asked.result = INSTANTIATE_SUCCESS;
    params.set(asked)
}

pub fn launch(default: DefaultStream, exec: Handle, stream: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    session.exec(exec)?;
    let Some(capture) = session.stream(stream)?.capture else {
        return session.launch_exec(exec, stream);
    };
    let state = session.captures.get(&capture).filter(|c| !c.invalid);
    let state = state.ok_or(crate::abi::STREAM_CAPTURE_INVALIDATED)?;
    let (graph, front) = (state.graph, state.fronts.get(&stream).cloned().unwrap_or_default());
    let leaves = session.inline_exec(exec, graph, &front)?;
    if !leaves.is_empty() {
        session.set_front(capture, stream, leaves);
    }
    Ok(())
}

/// There is nothing to upload.
pub fn upload(default: DefaultStream, exec: Handle, stream: Handle) -> Outcome {
    let mut session = gpu::lock()?;
    session.resolve(stream, default)?;
    session.exec(exec).map(drop)
}

pub fn exec_destroy(exec: Handle) -> Outcome {
    gpu::lock()?.destroy_exec(exec)
}

pub fn exec_flags(exec: Handle, out: Out<u64>) -> Outcome {
    out.set(gpu::lock()?.exec(exec)?.flags)
}

pub fn exec_update(exec: Handle, graph: Handle, info: Out<UpdateInfo>) -> Outcome {
    let same = gpu::lock()?.update_exec(exec, graph)?;
    let result = if same { UPDATE_SUCCESS } else { UPDATE_TOPOLOGY_CHANGED };
    info.set_if_asked(UpdateInfo { result, error_node: 0, error_from_node: 0 });
    if same { Ok(()) } else { Err(GRAPH_EXEC_UPDATE_FAILURE) }
}

/// The form before CUDA 12.
pub fn exec_update_v1(exec: Handle, graph: Handle, node: Out<Handle>, result: Out<i32>) -> Outcome {
    let same = gpu::lock()?.update_exec(exec, graph)?;
    node.set_if_asked(0);
    result.set_if_asked(if same { UPDATE_SUCCESS } else { UPDATE_TOPOLOGY_CHANGED });
    if same { Ok(()) } else { Err(GRAPH_EXEC_UPDATE_FAILURE) }
}

pub fn set_enabled(exec: Handle, node: Handle, enabled: u32) -> Outcome {
    let mut session = gpu::lock()?;
    let found = session.exec(exec)?.nodes.iter_mut().find(|n| n.origin == node);
    found.ok_or(INVALID_VALUE)?.enabled = enabled != 0;
    Ok(())
}

pub fn get_enabled(exec: Handle, node: Handle, out: Out<u32>) -> Outcome {
    let mut session = gpu::lock()?;
    let found = session.exec(exec)?.nodes.iter().find(|n| n.origin == node);
    out.set(u32::from(found.ok_or(INVALID_VALUE)?.enabled))
}

/// A graph as Graphviz text: nodes by type and kernel name, and edges.
pub fn dot_print(graph: Handle, path: Text, _flags: u32) -> Outcome {
    let session = gpu::lock()?;
    let mut text = String::from("digraph {\n");
    for handle in &session.graph(graph)?.nodes {
        let node = session.node(*handle)?;
        let label = match &node.kind {
            NodeKind::Work(crate::engine::work::Work::Kernel(k)) => k.function.name.clone(),
            kind => format!("type {}", kind.type_code()),
        };
        let _ = writeln!(text, "  \"{handle:#x}\" [label=\"{label}\"]");
        for dependency in &node.dependencies {
            let _ = writeln!(text, "  \"{dependency:#x}\" -> \"{handle:#x}\"");
        }
    }
    text.push_str("}\n");
    std::fs::write(path.get()?, text).map_err(|_| NOT_FOUND)
}

/// `CUgraphMem_attribute`: used and reserved bytes, now and at most. Memory
/// of graphs is not cached, so trimming has nothing to do.
pub fn device_memory(ordinal: i32, attribute: i32, out: Out<u64>) -> Outcome {
    use crate::engine::memory::AllocationKind;
    let session = gpu::lock()?;
    let device = super::device::device(session.gpu, ordinal)?;
    let used = session
        .allocations
        .values()
        .filter(|a| a.device == device && matches!(a.kind, AllocationKind::Graph { .. }))
        .map(|a| a.reserved_bytes)
        .sum();
    if (0..=3).contains(&attribute) { out.set(used) } else { Err(INVALID_VALUE) }
}

pub fn set_device_memory(ordinal: i32, attribute: i32, _value: Out<u64>) -> Outcome {
    super::device::device(gpu::gpu()?, ordinal)?;
    // Only the high-water marks (1, 3) can be reset; they follow the present use.
    if matches!(attribute, 1 | 3) { Ok(()) } else { Err(INVALID_VALUE) }
}

pub fn device_memory_trim(ordinal: i32) -> Outcome {
    super::device::device(gpu::gpu()?, ordinal).map(drop)
}
