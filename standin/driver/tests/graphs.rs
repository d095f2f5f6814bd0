//! Capture and graphs.

mod common;
use common::*;
use std::ffi::c_void;

const GLOBAL: i32 = 0;
const RELAXED: i32 = 2;

fn begin(stream: u64, mode: i32) {
    ok!(cuStreamBeginCapture_v2(stream => u64, mode => i32));
}

fn end(stream: u64) -> Result<u64, i32> {
    let mut graph = 0u64;
    match cu!(cuStreamEndCapture(stream => u64, &mut graph => &mut u64)) {
        0 => Ok(graph),
        code => Err(code),
    }
}

fn instantiate(graph: u64) -> u64 {
    let mut exec = 0u64;
    ok!(cuGraphInstantiateWithFlags(&mut exec => &mut u64, graph => u64, 0 => u64));
    exec
}

fn replay(exec: u64, stream: u64) {
    ok!(cuGraphLaunch(exec => u64, stream => u64));
}

fn node_count(graph: u64) -> usize {
    let mut count = 0usize;
    ok!(cuGraphGetNodes(graph => u64, std::ptr::null_mut() => *mut u64, &mut count => &mut usize));
    count
}

gpu_test!(captured_work_runs_only_when_replayed, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    fill(address, 1, 2, stream);
    begin(stream, GLOBAL);
    assert_eq!(launch_add(add, stream, address, address + 4, 1), 0);
    let graph = end(stream).unwrap();
    sync(stream);
    assert_eq!(read(address), 1);
    let exec = instantiate(graph);
    for _ in 0..3 {
        replay(exec, stream);
    }
    sync(stream);
    assert_eq!(read(address), 4);
    assert_eq!((figure("graph_launches"), figure("graph_kernels"), figure("launches")), (3, 3, 0));
    ok!(cuGraphDestroy(graph => u64));
    replay(exec, stream);
    sync(stream);
    assert_eq!(read(address), 5, "an executable outlives its graph");
    ok!(cuGraphExecDestroy(exec => u64));
});

gpu_test!(forks_join_through_events, [], {
    start();
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    let (fork, join) = (event(), event());
    begin(a, GLOBAL);
    fill(address, 1, 1, a);
    record(fork, a);
    wait(b, fork);
    fill(address + 4, 2, 1, b);
    record(join, b);
    fill(address + 8, 3, 1, a);
    wait(a, join);
    fill(address, 4, 1, a);
    let graph = end(a).unwrap();
    assert_eq!(node_count(graph), 4);
    let mut count = 0usize;
    ok!(cuGraphGetEdges(graph => u64, 0 => u64, 0 => u64, &mut count => &mut usize));
    assert_eq!(count, 4, "a diamond");
    replay(instantiate(graph), a);
    sync(a);
    assert_eq!((read(address), read(address + 4), read(address + 8)), (4, 2, 3));
});

gpu_test!(what_breaks_a_capture, [], {
    start();
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    let (e, before) = (event(), event());
    record(before, b);
    begin(a, GLOBAL);
    record(e, a);
    wait(b, e);
    fill(address, 1, 1, b);
    assert_eq!(end(a), Err(904), "an unjoined fork");
    begin(a, GLOBAL);
    assert_eq!(cu!(cuStreamWaitEvent(a => u64, before => u64, 0 => u32)), 905);
    assert_eq!(end(a), Err(901));
    begin(a, GLOBAL);
    assert_eq!(cu!(cuStreamSynchronize(a => u64)), 900);
    assert_eq!(end(a), Err(901));
    begin(a, GLOBAL);
    record(e, a);
    wait(b, e);
    assert_eq!(end(b), Err(903), "not the stream it began on");
    assert_eq!(end(a), Err(901));
    assert_eq!(cu!(cuStreamBeginCapture_v2(1 => u64, GLOBAL => i32)), 900, "the legacy stream");
    fill(address, 7, 1, a);
    sync(a);
    assert_eq!(read(address), 7, "and afterwards all is well");
});

gpu_test!(unsafe_calls_while_somebody_captures, [], {
    let context = start();
    let stream = stream();
    begin(stream, GLOBAL);
    let elsewhere = move |mode: i32| {
        std::thread::spawn(move || {
            ok!(cuCtxSetCurrent(context => u64));
            let mut mode = mode;
            ok!(cuThreadExchangeStreamCaptureMode(&mut mode => &mut i32));
            let mut address = 0u64;
            cu!(cuMemAlloc_v2(&mut address => &mut u64, 4 => usize))
        })
        .join()
        .unwrap()
    };
    assert_eq!(elsewhere(RELAXED), 0);
    assert_eq!(elsewhere(1), 0, "thread-local: only its own captures count");
    let mut status = 0i32;
    ok!(cuStreamIsCapturing(stream => u64, &mut status => &mut i32));
    assert_eq!(status, 1);
    assert_eq!(elsewhere(GLOBAL), 900);
    ok!(cuStreamIsCapturing(stream => u64, &mut status => &mut i32));
    assert_eq!(status, 2);
    assert_eq!(end(stream), Err(901));
});

#[repr(C)]
struct KernelParams {
    function: u64,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    params: *const *const c_void,
    extra: u64,
    kernel: u64,
    context: u64,
}

gpu_test!(kernel_nodes_can_be_read_and_replaced, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    fill(address, 1, 4, stream);
    let mut graph = 0u64;
    ok!(cuGraphCreate(&mut graph => &mut u64, 0 => u32));
    let (from, count) = (address + 4, 1u64);
    let p = |v: &u64| std::ptr::from_ref(v).cast::<c_void>();
    let list = [p(&address), p(&from), p(&count)];
    let mut params = KernelParams {
        function: add,
        grid: [1; 3],
        block: [1; 3],
        shared: 0,
        params: list.as_ptr(),
        extra: 0,
        kernel: 0,
        context: 0,
    };
    let mut node = 0u64;
    ok!(cuGraphAddKernelNode_v2(&mut node => &mut u64, graph => u64, 0 => u64, 0 => usize, &params => &KernelParams));
    let exec = instantiate(graph);
    let other = address + 8;
    let changed = [p(&other), p(&from), p(&count)];
    params.params = changed.as_ptr();
    ok!(cuGraphKernelNodeSetParams_v2(node => u64, &params => &KernelParams));
    params.function = 0;
    ok!(cuGraphKernelNodeGetParams_v2(node => u64, &mut params => &mut KernelParams));
    // SAFETY: the driver keeps the node's parameters while the node has them.
    let first = unsafe { params.params.read().cast::<u64>().read() };
    assert_eq!((params.function, first), (add, other));
    replay(exec, stream);
    sync(stream);
    assert_eq!((read(address), read(other)), (2, 1), "the executable is as it was");
    let mut info = [0u64; 3];
    ok!(cuGraphExecUpdate_v2(exec => u64, graph => u64, &mut info => &mut [u64; 3]));
    replay(exec, stream);
    sync(stream);
    assert_eq!((read(address), read(other)), (2, 2));
    let (mut copy, mut twin) = (0u64, 0u64);
    ok!(cuGraphClone(&mut copy => &mut u64, graph => u64));
    ok!(cuGraphNodeFindInClone(&mut twin => &mut u64, node => u64, copy => u64));
    assert_ne!(twin, node);
});

gpu_test!(a_capture_can_be_added_to, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    begin(stream, GLOBAL);
    fill(address, 1, 1, stream);
    let (mut status, mut id, mut graph) = (0i32, 0u64, 0u64);
    let (mut front, mut count) = (std::ptr::null::<u64>(), 0usize);
    ok!(cuStreamGetCaptureInfo_v2(stream => u64, &mut status => &mut i32, &mut id => &mut u64,
        &mut graph => &mut u64, &mut front => &mut *const u64, &mut count => &mut usize));
    assert_eq!((status, count), (1, 1));
    let mut node = 0u64;
    ok!(cuGraphAddEmptyNode(&mut node => &mut u64, graph => u64, front => *const u64, count => usize));
    ok!(cuStreamUpdateCaptureDependencies(stream => u64, &node => &u64, 1 => usize, 1 => u32));
    fill(address, 2, 1, stream);
    let graph = end(stream).unwrap();
    let mut edges = 0usize;
    ok!(cuGraphGetEdges(graph => u64, 0 => u64, 0 => u64, &mut edges => &mut usize));
    assert_eq!((node_count(graph), edges), (3, 2), "a chain through the added node");
});

gpu_test!(stream_ordered_memory_of_a_graph, [], {
    start();
    let stream = stream();
    begin(stream, GLOBAL);
    let mut address = 0u64;
    ok!(cuMemAllocAsync(&mut address => &mut u64, MIB => usize, stream => u64));
    fill(address, 3, 1, stream);
    let graph = end(stream).unwrap();
    let exec = instantiate(graph);
    replay(exec, stream);
    sync(stream);
    assert_eq!(read(address), 3);
    ok!(cuGraphExecDestroy(exec => u64));
    ok!(cuGraphDestroy(graph => u64));
    assert_eq!(read(address), 3, "what was not freed stays");
    ok!(cuMemFreeAsync(address => u64, stream => u64));
    assert_eq!(figure("device_bytes"), 0);
});
