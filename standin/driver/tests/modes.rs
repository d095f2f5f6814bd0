//! Settings that make the device less obliging, and kernels that wait or read
//! through tables.

mod common;
use common::*;
use std::ffi::c_void;
use std::time::Duration;

const KERNELS: &str = "kernel standin_fill_u32 8,8,4\nkernel standin_poll_u32 8,4\n\
    kernel standin_table_u64 8,8,8,8\nkernel standin_add_through_u32 8,8,8,8\n\
    kernel standin_group_tables 8,8,8,8,8,8,8,4\nkernel standin_grouped_product 8,8,8,4\n";

fn at<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

/// Launches a kernel that runs until `word` is 1, in so many blocks.
fn poll(module: u64, stream: u64, word: &u32, blocks: u32) {
    let poll = function(module, "standin_poll_u32");
    let (address, value) = (std::ptr::from_ref(word) as u64, 1u32);
    let arguments = [at(&address), at(&value)];
    ok!(cuLaunchKernel(
        poll => u64, blocks => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 0 => u32,
        stream => u64, arguments.as_ptr() => *const *const c_void,
        std::ptr::null() => *const c_void
    ));
}

fn fill_kernel(module: u64, stream: u64, to: u64, value: u32) {
    let fill = function(module, "standin_fill_u32");
    assert_eq!(launch(fill, stream, &[at(&to), at(&1u64), at(&value)]), 0);
}

fn is_done(stream: u64) -> bool {
    // Queries move the model clock, so a few may be needed.
    (0..50).any(|_| cu!(cuStreamQuery(stream => u64)) == 0)
}

/// Work of one stream behind a poll, then independent work of a second one:
/// whether that gets done while the first waits.
fn second_stream_goes_on() -> bool {
    start();
    let own = module(KERNELS);
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    let word = &mut pinned(1)[0];
    poll(own, a, word, 1);
    fill_kernel(own, a, address, 1); // waits for the poll, at the head of its queue
    fill_kernel(own, b, address + 4, 2);
    let host = pinned(1);
    let copies = stream();
    ok!(cuMemcpyDtoHAsync_v2(host.as_mut_ptr() => *mut u32, address + 8 => u64, 4 => usize, copies => u64));
    sync(copies); // copy engines have queues of their own
    let went_on = is_done(b);
    assert!(!is_done(a));
    open(word);
    sync(a);
    sync(b);
    assert_eq!((read(address), read(address + 4)), (1, 2));
    went_on
}

gpu_test!(streams_of_one_queue_hold_each_other_up, ["STANDIN_QUEUES" = "1"], {
    assert!(!second_stream_goes_on());
});

gpu_test!(connections_are_queues, ["CUDA_DEVICE_MAX_CONNECTIONS" = "1"], {
    assert!(!second_stream_goes_on());
});

gpu_test!(streams_of_other_queues_go_on, ["STANDIN_QUEUES" = "32"], {
    assert!(second_stream_goes_on());
});

gpu_test!(streams_have_their_own_queue_unless_told, [], {
    assert!(second_stream_goes_on());
});

gpu_test!(eight_queues_come_round, ["STANDIN_QUEUES" = "8", "STANDIN_ORDER" = "late:1"], {
    start();
    let own = module(KERNELS);
    let address = alloc(FRAME);
    let streams: Vec<u64> = (0..9).map(|_| stream()).collect();
    let word = &mut pinned(1)[0];
    poll(own, streams[0], word, 1);
    fill_kernel(own, streams[0], address, 1);
    for (i, &stream) in (1u32..).zip(&streams[1..]) {
        fill_kernel(own, stream, address + 4 * u64::from(i), i);
    }
    // The ninth stream shares the first one's queue.
    streams[1..8].iter().for_each(|&stream| sync(stream));
    assert!(!is_done(streams[8]));
    open(word);
    sync(streams[8]);
});

gpu_test!(a_kernel_that_runs_lets_the_next_of_its_queue_start, ["STANDIN_QUEUES" = "1"], {
    start();
    let own = module(KERNELS);
    let (address, a, b) = (alloc(FRAME), stream(), stream());
    let word = &mut pinned(1)[0];
    poll(own, a, word, 1);
    fill_kernel(own, b, address, 2);
    sync(b);
    open(word);
    sync(a);
});

gpu_test!(an_event_wait_takes_its_place_in_the_queue, ["STANDIN_QUEUES" = "1"], {
    start();
    let own = module(KERNELS);
    let (address, a, b, c) = (alloc(FRAME), stream(), stream(), stream());
    let (polled, recorded) = (event(), event());
    let word = &mut pinned(1)[0];
    poll(own, a, word, 1);
    record(polled, a);
    wait(b, polled); // nothing of b follows, and yet
    fill_kernel(own, c, address, 2);
    record(recorded, c);
    assert!(!is_done(c));
    assert_eq!(cu!(cuEventQuery(recorded => u64)), 600);
    open(word);
    sync(c);
});

gpu_test!(a_kernel_of_many_blocks_leaves_no_room, [], {
    start();
    let own = module(KERNELS);
    let (address, a, b, c) = (alloc(FRAME), stream(), stream(), stream());
    let word = &mut pinned(1)[0];
    poll(own, a, word, 448);
    fill_kernel(own, b, address, 2);
    let host = pinned(1);
    ok!(cuMemcpyDtoHAsync_v2(host.as_mut_ptr() => *mut u32, address => u64, 4 => usize, c => u64));
    sync(c);
    assert!(!is_done(b), "copies go on, kernels do not");
    open(word);
    sync(b);
});

/// Calls that may wait, each while a kernel polls: how many did.
fn calls_that_wait() -> u32 {
    start();
    let own = module(KERNELS);
    let stream = stream();
    let word = pinned(1);
    let handle = create(FRAME);
    let range = reserve(FRAME);
    let mut memory = vec![0u8; 1 << 16];
    let memory = memory.as_mut_ptr();
    let calls: [&dyn Fn(); 5] = [
        &|| assert_eq!(map(range, FRAME, handle), 0),
        &|| assert_eq!(access(range, FRAME, 3), 0),
        &|| ok!(cuMemHostRegister_v2(memory => *mut u8, 1 << 16 => usize, 0 => u32)),
        &|| assert_ne!(module(KERNELS), 0),
        &|| ok!(cuMemUnmap(range => u64, FRAME => usize)),
    ];
    let mut waited = 0;
    for call in calls {
        word[0] = 0;
        poll(own, stream, &word[0], 1);
        let address = word.as_mut_ptr() as usize;
        // Opened later, by another thread: a call that waits returns after that.
        let opener = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            // SAFETY: the pinned word, which outlives this thread.
            unsafe { std::ptr::write_volatile(address as *mut u32, 1) };
        });
        call();
        // SAFETY: the pinned word; the other thread may write it meanwhile.
        let opened = unsafe { std::ptr::read_volatile(address as *const u32) } == 1;
        waited += u32::from(opened);
        opener.join().unwrap();
        sync(stream);
    }
    waited
}

gpu_test!(whatever_may_wait_for_its_context_does, ["STANDIN_IMPLIED_WAITS" = "yes"], {
    assert_eq!(calls_that_wait(), 5);
    assert!(figure("implied_waits") >= 5);
});

gpu_test!(nothing_waits_unless_told, [], {
    calls_that_wait();
    assert_eq!(figure("implied_waits"), 0);
});

gpu_test!(a_first_launch_loads_its_kernel, ["STANDIN_IMPLIED_WAITS" = "yes"], {
    start();
    let own = module(KERNELS);
    let (address, a) = (alloc(FRAME), stream());
    fill(address, 1, 4, a);
    sync(a);
    let before = figure("implied_waits");
    let word = &mut pinned(1)[0];
    fill_kernel(own, a, address, 1); // its first
    *word = 1;
    poll(own, a, word, 1);
    let loaded = figure("implied_waits");
    assert!(loaded > before);
    fill_kernel(own, a, address, 1);
    assert_eq!(figure("implied_waits"), loaded, "it is loaded");
    sync(a);
});

gpu_test!(a_poll_of_what_is_not_mapped_is_an_error, [], {
    start();
    let own = module(KERNELS);
    let poll = function(own, "standin_poll_u32");
    let range = reserve(FRAME);
    assert_eq!(launch(poll, LEGACY, &[at(&range), at(&1u32)]), 0);
    assert_eq!(cu!(cuCtxSynchronize()), 700);
});

gpu_test!(kernels_read_through_tables, [], {
    start();
    let own = module(KERNELS);
    let (weights, table, to) = (alloc(FRAME), alloc(FRAME), alloc(FRAME));
    fill(weights, 7, 1024, LEGACY);
    fill(to, 1, 1024, LEGACY);
    let (write, add) =
        (function(own, "standin_table_u64"), function(own, "standin_add_through_u32"));
    let written = [at(&table), at(&weights), at(&2048u64), at(&2u64)];
    assert_eq!(launch(write, LEGACY, &written), 0);
    let added = |index: &u64| launch(add, LEGACY, &[at(&to), at(&table), at(index), at(&16u64)]);
    assert_eq!((added(&0), added(&1)), (0, 0));
    assert_eq!((read(to), read(to + 60), read(to + 64)), (15, 15, 1));
    ok!(cuMemFree_v2(weights => u64));
    assert_eq!(added(&0), 0);
    assert_eq!(cu!(cuCtxSynchronize()), 700, "what the table names has gone");
});

gpu_test!(a_grouped_product_names_only_its_tables, [], {
    start();
    let own = module(KERNELS);
    let (n, k, groups) = (3u64, 2u64, 2u32);
    let (a, b, d) = (alloc(FRAME), alloc(FRAME), alloc(FRAME));
    let (tables, ends) = (alloc(FRAME), alloc(FRAME));
    let upload = |to: u64, values: &[f32]| {
        values.iter().zip(0..).for_each(|(v, i)| write(to + 4 * i, v.to_bits()));
    };
    // Rows 0 and 1 are group 0's, row 2 is group 1's.
    upload(a, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    upload(b, &[1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 2.0, 1.0]);
    write(ends, 2);
    write(ends + 4, 3);
    let tables_of = function(own, "standin_group_tables");
    let product = function(own, "standin_grouped_product");
    let arguments = [at(&a), at(&b), at(&d), at(&tables), at(&ends), at(&n), at(&k), at(&groups)];
    assert_eq!(launch(tables_of, LEGACY, &arguments), 0);
    assert_eq!(launch(product, LEGACY, &[at(&tables), at(&n), at(&k), at(&groups)]), 0);
    let seen: Vec<f32> = (0..9).map(|i| f32::from_bits(read(d + 4 * i))).collect();
    assert_eq!(seen, [1.0, 2.0, 3.0, 3.0, 4.0, 7.0, 10.0, 12.0, 6.0]);
});

fn init() -> i32 {
    cu!(cuInit(0 => u32))
}

/// The last byte of a device's UUID: its number on the machine, as a digit.
fn number_of(device: i32) -> u8 {
    let mut uuid = [0u8; 16];
    ok!(cuDeviceGetUuid_v2(&mut uuid => &mut [u8; 16], device => i32));
    uuid[15]
}

const NO_DEVICE: i32 = 100;

gpu_test!(there_may_be_no_device, ["STANDIN_DEVICES" = "0"], {
    assert_eq!(init(), NO_DEVICE);
    assert_eq!(init(), NO_DEVICE);
});

gpu_test!(all_devices_may_be_hidden, ["CUDA_VISIBLE_DEVICES" = ""], {
    assert_eq!(init(), NO_DEVICE);
});

gpu_test!(a_device_named_twice_hides_all, ["CUDA_VISIBLE_DEVICES" = "0,0"], {
    assert_eq!(init(), NO_DEVICE);
});

gpu_test!(
    devices_are_chosen_in_an_order,
    ["STANDIN_DEVICES" = "4", "CUDA_VISIBLE_DEVICES" = "2,1,7,0"],
    {
        start();
        let mut count = 0i32;
        ok!(cuDeviceGetCount(&mut count => &mut i32));
        assert_eq!(count, 2, "what comes behind one that is not there is not seen");
        assert_eq!((number_of(0), number_of(1)), (b'2', b'1'));
    }
);
