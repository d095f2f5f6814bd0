//! Captured graphs: instantiation, launch, and what PyTorch asks about them.

use std::ffi::{c_char, c_void};

use crate::abi::Handle;
use crate::{api, context};

api! {
    fn cudaGraphDestroy(graph: Handle) {
        // SAFETY: the caller's graph, not used afterwards.
        unsafe { context::bind()?.cuGraphDestroy(graph) }
    }

    fn cudaGraphExecDestroy(exec: Handle) {
        // SAFETY: the caller's exec, not used afterwards.
        unsafe { context::bind()?.cuGraphExecDestroy(exec) }
    }

    fn cudaGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize) {
        // SAFETY: `nodes` is null or has room for `*count` handles.
        unsafe { context::bind()?.cuGraphGetNodes(graph, nodes, count) }
    }

    /// The form of CUDA 13, with edge data.
    fn cudaGraphNodeGetDependencies(node: Handle, dependencies: *mut Handle, edges: *mut c_void, count: *mut usize) {
        // SAFETY: the arrays are null or have room for `*count` entries.
        unsafe { context::bind()?.cuGraphNodeGetDependencies(node, dependencies, edges, count) }
    }

    /// The form of CUDA 12 and later.
    fn cudaGraphInstantiate(exec: *mut Handle, graph: Handle, flags: u64) {
        // SAFETY: the caller's pointer and graph.
        unsafe { context::bind()?.cuGraphInstantiateWithFlags(exec, graph, flags) }
    }

    fn cudaGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, flags: u64) {
        // SAFETY: the caller's pointer and graph.
        unsafe { context::bind()?.cuGraphInstantiateWithFlags(exec, graph, flags) }
    }

    fn cudaGraphLaunch(exec: Handle, stream: Handle) {
        // SAFETY: the caller's exec and stream.
        unsafe { context::bind()?.cuGraphLaunch(exec, stream) }
    }

    fn cudaGraphDebugDotPrint(graph: Handle, path: *const c_char, flags: u32) {
        // SAFETY: the caller's graph and NUL-terminated path.
        unsafe { context::bind()?.cuGraphDebugDotPrint(graph, path, flags) }
    }
}
