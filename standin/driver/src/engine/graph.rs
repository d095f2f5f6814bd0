//! Graphs: nodes of work with dependencies, and their executable form.
//!
//! Instantiating flattens a graph, children included, into a list in
//! dependency order; launching submits that list, each node behind the ones
//! it depends on, the roots behind the stream and behind the same executable's
//! previous launch. Memory of allocation nodes is taken when the node is made
//! and kept until the last graph or executable that has the node is gone.

use super::gpu::{HandleKind, Session};
use super::scheduler::OpId;
use super::stream::{Front, Recording};
use super::work::Work;
use crate::abi::{Handle, INVALID_HANDLE, INVALID_VALUE, Outcome};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Clone)]
pub enum NodeKind {
    Work(Work),
    Child(Handle),
    /// Memory that is there while the graph is.
    Alloc {
        memory: Arc<GraphMemory>,
    },
    Free {
        address: u64,
    },
}

/// An allocation made for a graph; freed when no graph refers to it.
pub struct GraphMemory {
    pub address: u64,
}

impl NodeKind {
    /// `CUgraphNodeType`.
    pub fn type_code(&self) -> i32 {
        match self {
            NodeKind::Work(work) => match work {
                Work::Kernel(_) => 0,
                Work::Copy(_) => 1,
                Work::Fill(_) | Work::Poison { .. } => 2,
                Work::Host { .. } | Work::Callback { .. } => 3,
                Work::Marker => 5,
                Work::WaitEvent(_) => 6,
                Work::RecordEvent(_) => 7,
                Work::WaitValue { .. } | Work::WriteValue { .. } => 12,
            },
            NodeKind::Child(_) => 4,
            NodeKind::Alloc { .. } => 10,
            NodeKind::Free { .. } => 11,
        }
    }
}

pub struct Node {
    pub graph: Handle,
    pub kind: NodeKind,
    pub dependencies: Vec<Handle>,
    /// Pointers to a kernel's arguments, as handed out by NodeGetParams; they
    /// stay valid while the node keeps its kernel.
    pub param_pointers: Vec<u64>,
    /// The node this one was cloned from.
    pub cloned_from: Handle,
}

#[derive(Default)]
pub struct Graph {
    /// In the order they were added.
    pub nodes: Vec<Handle>,
    /// Owned by a node of another graph.
    pub is_child: bool,
}

#[derive(Clone)]
pub struct ExecNode {
    pub origin: Handle,
    pub kind: NodeKind,
    /// Indices of earlier entries.
    pub dependencies: Vec<usize>,
    pub enabled: bool,
}

pub struct Exec {
    pub nodes: Vec<ExecNode>,
    pub flags: u64,
    /// The previous launch: its last operations and their virtual end.
    last: Vec<OpId>,
    last_ns: u64,
}

impl Session {
    pub fn new_graph(&mut self) -> Handle {
        let handle = self.handle(HandleKind::Graph);
        self.graphs.insert(handle, Graph::default());
        handle
    }

    pub fn graph(&self, graph: Handle) -> Outcome<&Graph> {
        self.graphs.get(&graph).ok_or(INVALID_VALUE)
    }

    pub fn node(&self, node: Handle) -> Outcome<&Node> {
        self.nodes.get(&node).ok_or(INVALID_VALUE)
    }

    pub fn exec(&mut self, exec: Handle) -> Outcome<&mut Exec> {
        self.execs.get_mut(&exec).ok_or(INVALID_VALUE)
    }

    pub fn add_node(
        &mut self,
        graph: Handle,
        kind: NodeKind,
        mut dependencies: Vec<Handle>,
    ) -> Outcome<Handle> {
        self.graph(graph)?;
        dependencies.sort_unstable();
        dependencies.dedup();
        if dependencies.iter().any(|d| self.nodes.get(d).is_none_or(|n| n.graph != graph)) {
            return Err(INVALID_VALUE);
        }
        let handle = self.handle(HandleKind::Node);
        let node =
            Node { graph, kind, dependencies, param_pointers: Vec::new(), cloned_from: handle };
        self.nodes.insert(handle, node);
        if let Some(graph) = self.graphs.get_mut(&graph) {
            graph.nodes.push(handle);
        }
        Ok(handle)
    }

    /// Nodes of a graph in an order in which dependencies come first.
    fn in_order(&self, graph: Handle) -> Outcome<Vec<Handle>> {
        let mut todo = self.graph(graph)?.nodes.clone();
        let mut order: Vec<Handle> = Vec::with_capacity(todo.len());
        let mut placed = std::collections::HashSet::new();
        while !todo.is_empty() {
            let before = todo.len();
            todo.retain(|handle| {
                let ready = self.nodes[handle].dependencies.iter().all(|d| placed.contains(d));
                if ready {
                    placed.insert(*handle);
                    order.push(*handle);
                }
                !ready
            });
            if todo.len() == before {
                return Err(INVALID_VALUE); // a cycle
            }
        }
        Ok(order)
    }

    /// Appends a graph to `list`, its roots behind `roots`; returns the leaves.
    fn flatten(
        &self,
        graph: Handle,
        roots: &[usize],
        list: &mut Vec<ExecNode>,
    ) -> Outcome<Vec<usize>> {
        // What stands for each node: itself, or its child graph's leaves.
        let mut ends: HashMap<Handle, Vec<usize>> = HashMap::new();
        let order = self.in_order(graph)?;
        for handle in &order {
            let node = self.node(*handle)?;
            let mut dependencies: Vec<usize> =
                node.dependencies.iter().flat_map(|d| ends[d].iter().copied()).collect();
            if node.dependencies.is_empty() {
                dependencies.extend_from_slice(roots);
            }
            let end = if let NodeKind::Child(child) = node.kind {
                let leaves = self.flatten(child, &dependencies, list)?;
                if leaves.is_empty() { dependencies } else { leaves }
            } else {
                let (origin, kind) = (*handle, node.kind.clone());
                list.push(ExecNode { origin, kind, dependencies, enabled: true });
                vec![list.len() - 1]
            };
            ends.insert(*handle, end);
        }
        let inner: Vec<Handle> =
            order.iter().flat_map(|h| self.nodes[h].dependencies.clone()).collect();
        let leaves = order.iter().filter(|h| !inner.contains(h));
        Ok(leaves.flat_map(|h| ends[h].clone()).collect())
    }

    pub fn instantiate(&mut self, graph: Handle, flags: u64) -> Outcome<Handle> {
        let mut nodes = Vec::new();
        self.flatten(graph, &[], &mut nodes)?;
        let handle = self.handle(HandleKind::Exec);
        self.execs.insert(handle, Exec { nodes, flags, last: Vec::new(), last_ns: 0 });
        Ok(handle)
    }

    /// Replaces the work of an executable by that of a graph of the same
    /// shape. False if the shapes differ.
    pub fn update_exec(&mut self, exec: Handle, graph: Handle) -> Outcome<bool> {
        let mut fresh = Vec::new();
        self.flatten(graph, &[], &mut fresh)?;
        let exec = self.exec(exec)?;
        let same = exec.nodes.len() == fresh.len()
            && exec.nodes.iter().zip(&fresh).all(|(a, b)| {
                a.kind.type_code() == b.kind.type_code() && a.dependencies == b.dependencies
            });
        if same {
            for (old, new) in exec.nodes.iter_mut().zip(fresh) {
                old.kind = new.kind;
                old.origin = new.origin;
            }
        }
        Ok(same)
    }

    /// Submits every node of an executable behind a stream.
    pub fn launch_exec(&mut self, exec: Handle, stream: Handle) -> Outcome {
        let context = self.stream(stream)?.context;
        let start = self.front(stream)?;
        self.clock.host_call();
        self.poll_streak = 0;
        self.account.graph_launches += 1;
        let exec_state = self.exec(exec)?;
        let (nodes, last, last_ns) =
            (exec_state.nodes.clone(), exec_state.last.clone(), exec_state.last_ns);
        let mut root = start.clone();
        root.stream_number = None;
        root.ops.extend(self.hold_queue(stream)?);
        root.ops.extend(last);
        root.ready_ns = root.ready_ns.max(last_ns);
        let mut done: Vec<(OpId, u64)> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let mut front =
                if node.dependencies.is_empty() { root.clone() } else { Front::default() };
            front.in_graph = true;
            for &d in &node.dependencies {
                let (op, end) = done[d];
                front.ops.push(op);
                front.work_end_ns = front.work_end_ns.max(end);
                front.ready_ns = front.ready_ns.max(end);
            }
            done.push(self.launch_node(context, node, front)?);
        }
        let (ops, end) = self.leaves_of(&nodes, &done, &root);
        let exec_state = self.exec(exec)?;
        exec_state.last = ops.clone();
        exec_state.last_ns = end;
        let stream = self.stream_mut(stream)?;
        stream.tail = ops;
        stream.work_end_ns = stream.work_end_ns.max(end);
        Ok(())
    }

    fn launch_node(
        &mut self,
        context: Handle,
        node: &ExecNode,
        mut front: Front,
    ) -> Outcome<(OpId, u64)> {
        let work = match &node.kind {
            NodeKind::Work(work) if node.enabled => work.clone(),
            NodeKind::Alloc { memory } => {
                self.set_graph_memory_live(memory.address, true);
                Work::Marker
            }
            NodeKind::Free { address } => {
                self.set_graph_memory_live(*address, false);
                Work::Marker
            }
            _ => Work::Marker,
        };
        let record = match work {
            Work::WaitEvent(event) => {
                let event = self.events.get(&event).ok_or(INVALID_HANDLE)?;
                if let Some(recording) = event.recording.clone() {
                    front.ops.extend(recording.ops);
                    front.ready_ns = front.ready_ns.max(recording.ns);
                }
                None
            }
            Work::RecordEvent(event) => Some(event),
            _ => None,
        };
        let submitted = self.place(context, work, front)?;
        if let Some(event) = record {
            let event = self.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
            event.recording = Some(Recording { ops: vec![submitted.op], ns: submitted.end_ns });
        }
        Ok((submitted.op, submitted.end_ns))
    }

    fn leaves_of(
        &self,
        nodes: &[ExecNode],
        done: &[(OpId, u64)],
        root: &Front,
    ) -> (Vec<OpId>, u64) {
        let mut leaf = vec![true; nodes.len()];
        nodes.iter().flat_map(|n| &n.dependencies).for_each(|&d| leaf[d] = false);
        let ops: Vec<OpId> = (0..nodes.len()).filter(|&i| leaf[i]).map(|i| done[i].0).collect();
        let end = done.iter().map(|d| d.1).max().unwrap_or(root.ready_ns);
        (if nodes.is_empty() { root.ops.clone() } else { ops }, end)
    }

    /// A deep copy of a graph; each copied node remembers its original.
    pub fn clone_graph(&mut self, graph: Handle) -> Outcome<Handle> {
        let order = self.in_order(graph)?;
        let copy = self.new_graph();
        let mut copies: HashMap<Handle, Handle> = HashMap::new();
        for handle in order {
            let node = self.node(handle)?;
            let mut kind = node.kind.clone();
            let dependencies = node.dependencies.iter().map(|d| copies[d]).collect();
            if let NodeKind::Child(child) = kind {
                let child = self.clone_graph(child)?;
                self.mark_child(child);
                kind = NodeKind::Child(child);
            }
            let made = self.add_node(copy, kind, dependencies)?;
            if let Some(node) = self.nodes.get_mut(&made) {
                node.cloned_from = handle;
            }
            copies.insert(handle, made);
        }
        Ok(copy)
    }

    pub fn mark_child(&mut self, graph: Handle) {
        if let Some(graph) = self.graphs.get_mut(&graph) {
            graph.is_child = true;
        }
    }

    /// Adds all nodes of an executable to a graph; returns the leaves.
    pub fn inline_exec(
        &mut self,
        exec: Handle,
        graph: Handle,
        roots: &[Handle],
    ) -> Outcome<Vec<Handle>> {
        let nodes = self.exec(exec)?.nodes.clone();
        let mut made: Vec<Handle> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let dependencies = if node.dependencies.is_empty() {
                roots.to_vec()
            } else {
                node.dependencies.iter().map(|&d| made[d]).collect()
            };
            made.push(self.add_node(graph, node.kind.clone(), dependencies)?);
        }
        let mut leaf = vec![true; nodes.len()];
        nodes.iter().flat_map(|n| &n.dependencies).for_each(|&d| leaf[d] = false);
        Ok((0..nodes.len()).filter(|&i| leaf[i]).map(|i| made[i]).collect())
    }

    pub fn destroy_graph(&mut self, graph: Handle) -> Outcome {
        let gone = self.graphs.remove(&graph).ok_or(INVALID_VALUE)?;
        for handle in gone.nodes {
            if let Some(node) = self.nodes.remove(&handle) {
                self.drop_kind(node.kind)?;
            }
        }
        Ok(())
    }

    pub fn destroy_node(&mut self, handle: Handle) -> Outcome {
        let node = self.nodes.remove(&handle).ok_or(INVALID_VALUE)?;
        if let Some(graph) = self.graphs.get_mut(&node.graph) {
            graph.nodes.retain(|&n| n != handle);
        }
        for other in self.nodes.values_mut().filter(|n| n.graph == node.graph) {
            other.dependencies.retain(|&d| d != handle);
        }
        self.drop_kind(node.kind)
    }

    pub fn destroy_exec(&mut self, exec: Handle) -> Outcome {
        let gone = self.execs.remove(&exec).ok_or(INVALID_VALUE)?;
        gone.nodes.into_iter().try_for_each(|node| self.drop_kind(node.kind))
    }

    /// Lets go of what a node holds: a child graph, memory nobody else has.
    pub fn drop_kind(&mut self, kind: NodeKind) -> Outcome {
        match kind {
            NodeKind::Child(child) if self.graphs.contains_key(&child) => self.destroy_graph(child),
            NodeKind::Alloc { memory } => match Arc::into_inner(memory) {
                Some(memory) => self.drop_graph_memory(memory.address),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
