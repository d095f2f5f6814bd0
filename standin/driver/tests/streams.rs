//! Asynchrony: what waits for what, what the host waits for, and the clock.

mod common;
use common::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

fn dtoh_async(to: &mut [u32], from: u64, stream: u64) {
    let bytes = size_of_val(to);
    ok!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr() => *mut u32, from => u64, bytes => usize, stream => u64));
}

fn htod_async(to: u64, from: &[u32], stream: u64) {
    let bytes = size_of_val(from);
    ok!(cuMemcpyHtoDAsync_v2(to => u64, from.as_ptr() => *const u32, bytes => usize, stream => u64));
}

gpu_test!(reading_without_synchronising_sees_old_bytes, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    fill(address, 5, 1, stream);
    let host = pinned(1);
    host[0] = 1234;
    let gate = gate(stream);
    dtoh_async(host, address, stream);
    assert_eq!(host[0], 1234, "the copy has not run");
    open(gate);
    sync(stream);
    assert_eq!(host[0], 5);
});

gpu_test!(an_unordered_stream_sees_poison, [], {
    start();
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    let gate = gate(a);
    fill(address, 5, 1, a);
    let host = pinned(2);
    dtoh_async(&mut host[..1], address, b);
    sync(b);
    assert_eq!(host[0], u32::MAX, "b does not wait for a");
    let done = event();
    record(done, a);
    wait(b, done);
    dtoh_async(&mut host[1..], address, b);
    assert_eq!(cu!(cuStreamQuery(b => u64)), 600);
    open(gate);
    sync(b);
    assert_eq!(host[1], 5, "an event makes it wait");
});

gpu_test!(a_wait_is_for_the_recording_at_that_time, [], {
    start();
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    let e = event();
    wait(b, e);
    fill(address, 1, 1, b);
    sync(b); // waiting for what was never recorded is no wait
    record(e, a);
    wait(b, e);
    let gate = gate(a);
    record(e, a);
    fill(address, 2, 1, b);
    sync(b); // the second recording is not waited for
    assert_eq!(cu!(cuEventQuery(e => u64)), 600);
    open(gate);
    ok!(cuEventSynchronize(e => u64));
    ok!(cuEventQuery(e => u64));
});

gpu_test!(legacy_stream_and_blocking_streams_wait_for_each_other, [], {
    start();
    let (address, free) = (alloc(FRAME), stream());
    let mut blocking = 0u64;
    ok!(cuStreamCreate(&mut blocking => &mut u64, 0 => u32));
    let gate = gate(blocking);
    fill(address, 1, 1, blocking);
    fill(address, 2, 1, LEGACY);
    fill(address, 3, 1, blocking);
    let host = pinned(1);
    dtoh_async(host, address, free);
    sync(free);
    assert_eq!(host[0], u32::MAX, "a non-blocking stream takes no part");
    assert_eq!(cu!(cuStreamQuery(LEGACY => u64)), 600);
    open(gate);
    sync(blocking);
    assert_eq!(read(address), 3);
});

gpu_test!(per_thread_default_streams_are_apart, [], {
    start();
    let address = alloc(FRAME);
    const PER_THREAD: u64 = 2;
    let gate = gate(PER_THREAD);
    let context = {
        let mut context = 0u64;
        ok!(cuCtxGetCurrent(&mut context => &mut u64));
        context
    };
    std::thread::spawn(move || {
        ok!(cuCtxSetCurrent(context => u64));
        ok!(cuMemsetD32Async_ptsz(address => u64, 8 => u32, 1 => usize, 0 => u64));
        ok!(cuStreamSynchronize_ptsz(0 => u64));
    })
    .join()
    .unwrap();
    let own = stream();
    let host = pinned(1);
    dtoh_async(host, address, own);
    sync(own);
    assert_eq!(host[0], 8, "the other thread's stream did not wait for ours");
    open(gate);
    sync(PER_THREAD);
});

gpu_test!(pageable_sources_are_staged_pinned_ones_are_not, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    let gate = gate(stream);
    let mut pageable = vec![1u32];
    let source = pinned(1);
    source[0] = 1;
    htod_async(address, &pageable, stream);
    htod_async(address + 4, source, stream);
    pageable[0] = 2;
    source[0] = 2;
    open(gate);
    sync(stream);
    assert_eq!((read(address), read(address + 4)), (1, 2));
});

gpu_test!(only_the_documented_calls_block, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    let (e, host) = (event(), pinned(4));
    fill(address, 5, 4, stream);
    htod_async(address, &[1, 2, 3, 4], stream);
    htod_async(address, host, stream);
    dtoh_async(host, address, stream);
    record(e, stream);
    wait(LEGACY, e);
    assert_eq!(figure("blocking_calls"), 0);
    let mut pageable = [0u32; 4];
    dtoh_async(&mut pageable, address, stream);
    assert_eq!(figure("blocking_calls"), 1, "to pageable memory");
    assert_eq!(figure("query_polls"), 0);
    ok!(cuEventQuery(e => u64));
    assert_eq!(figure("query_polls"), 1);
    sync(stream);
    ok!(cuMemFree_v2(address => u64));
    assert_eq!(figure("blocking_calls"), 3);
});

static CALLED: AtomicU32 = AtomicU32::new(0);
static HOLD: AtomicBool = AtomicBool::new(true);

extern "C" fn held(data: *mut c_void) {
    while HOLD.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    CALLED.store(data as usize as u32, Ordering::Release);
}

gpu_test!(a_context_is_idle_when_what_its_streams_wait_for_is_over, [], {
    start();
    let (a, e) = (stream(), event());
    let gate = gate(a);
    record(e, a);
    let mut other = 0u64;
    ok!(cuCtxCreate_v2(&mut other => &mut u64, 0 => u32, 0 => i32));
    wait(stream(), e);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            open(gate);
        });
        ok!(cuCtxSynchronize());
        ok!(cuEventQuery(e => u64));
    });
});

gpu_test!(host_functions_run_in_stream_order, [], {
    start();
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    ok!(cuLaunchHostFunc(a => u64, held => extern "C" fn(*mut c_void), 7 as *mut c_void => *mut c_void));
    fill(address, 1, 1, a);
    fill(address + 4, 2, 1, b);
    sync(b);
    assert_eq!(CALLED.load(Ordering::Acquire), 0, "the other stream went on");
    assert_eq!(cu!(cuStreamQuery(a => u64)), 600);
    HOLD.store(false, Ordering::Release);
    sync(a);
    assert_eq!(CALLED.load(Ordering::Acquire), 7);
});

fn elapsed(start: u64, end: u64) -> f32 {
    let mut ms = 0f32;
    ok!(cuEventElapsedTime(&mut ms => &mut f32, start => u64, end => u64));
    ms
}

gpu_test!(streams_overlap_on_the_clock, ["STANDIN_LINK" = "1"], {
    start();
    const BYTES: usize = 50 * MIB;
    let (device, other) = (alloc(BYTES), alloc(BYTES));
    let host = pinned(BYTES / 4);
    let (up, down) = (stream(), stream());
    let (from, to) = (event(), event());
    record(from, up);
    htod_async(device, host, up);
    dtoh_async(host, other, down);
    let both = event();
    record(both, down);
    wait(up, both);
    record(to, up);
    ok!(cuCtxSynchronize());
    let one = BYTES as f32 / 1e6;
    let together = elapsed(from, to);
    assert!((one..one * 1.1).contains(&together), "each way takes {one} ms, both took {together}");
    record(from, up);
    htod_async(device, host, up);
    htod_async(other, host, down);
    record(both, down);
    wait(up, both);
    record(to, up);
    ok!(cuCtxSynchronize());
    assert!(elapsed(from, to) > 2.0 * one, "one engine per direction");
});

gpu_test!(the_clock_does_not_know_wall_time, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    let (a, b) = (event(), event());
    let run = || {
        record(a, stream);
        fill(address, 1, 1000, stream);
        record(b, stream);
        sync(stream);
        elapsed(a, b)
    };
    let first = run();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(run(), first);
});

gpu_test!(streamed_uses_and_hits, [], {
    start();
    let (weights, other) = (alloc(4 * MIB), alloc(FRAME));
    let (compute, copies) = (stream(), stream());
    let host = pinned(MIB);
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    let copied = event();
    let upload = || {
        htod_async(weights, host, copies);
        record(copied, copies);
    };
    upload();
    wait(compute, copied);
    assert_eq!(launch_add(add, compute, other, weights, 4), 0);
    assert_eq!(
        (figure("streamed_uses"), figure("streamed_hits")),
        (1, 0),
        "just in time is too late"
    );
    assert!(figure("stall_ns") > 0);
    upload();
    for _ in 0..100 {
        assert_eq!(launch_add(add, compute, other, other, 4), 0);
    }
    wait(compute, copied);
    assert_eq!(launch_add(add, compute, other, weights, 4), 0);
    assert_eq!((figure("streamed_uses"), figure("streamed_hits")), (2, 1));
    assert_eq!(launch_add(add, compute, other, weights, 4), 0);
    assert_eq!(figure("streamed_uses"), 2, "a second reader of the same copy is no new use");
});

gpu_test!(a_copy_through_another_mapping_is_a_streamed_use, [], {
    start();
    let handle = create(FRAME);
    let range = reserve(4 * FRAME);
    let (weights, alias) = (range, range + 2 * FRAME as u64);
    for address in [weights, alias] {
        assert_eq!(map(address, FRAME, handle), 0);
        assert_eq!(access(address, FRAME, 3), 0);
    }
    let (other, stream) = (alloc(FRAME), stream());
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    htod_async(alias, pinned(MIB / 2), stream);
    assert_eq!(launch_add(add, stream, other, weights, 4), 0);
    assert_eq!(figure("streamed_uses"), 1);
});

gpu_test!(late_order_runs_only_what_is_waited_for, ["STANDIN_ORDER" = "late:3"], {
    start();
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    fill(address, 1, 1, a);
    let host = pinned(1);
    dtoh_async(host, address, b);
    sync(b);
    assert_eq!(host[0], u32::MAX, "a missing wait shows");
    let e = event();
    record(e, a);
    wait(b, e);
    dtoh_async(host, address, b);
    sync(b);
    assert_eq!(host[0], 1);
});

gpu_test!(marks_bracket_a_stretch, [], {
    start();
    let address = alloc(FRAME);
    ok!(cuProfilerStart());
    fill(address, 1, 1, LEGACY);
    ok!(cuCtxSynchronize());
    ok!(cuProfilerStop());
    let account = account();
    let marks = account["marks"].as_array().unwrap();
    assert_eq!(marks[0]["label"], "start");
    assert_eq!(marks[1]["label"], "stop");
    let calls = |i: usize| marks[i]["blocking_calls"].as_u64().unwrap();
    assert_eq!(calls(1) - calls(0), 1);
});
