//! Memory: capacity, poison, virtual memory management, pools, pinned memory.

mod common;
use common::*;

gpu_test!(host_cannot_dereference, [], {
    start();
    let address = alloc(FRAME);
    // SAFETY: forks a child whose only act is the access under test.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            std::ptr::read_volatile(address as *const u8);
            libc::_exit(0);
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        status
    };
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
});

gpu_test!(capacity_is_enforced, ["STANDIN_VRAM" = "16M"], {
    start();
    let (mut free, mut total) = (0usize, 0usize);
    let kept = alloc(9 * MIB);
    ok!(cuMemGetInfo_v2(&mut free => &mut usize, &mut total => &mut usize));
    assert_eq!((free, total), (6 * MIB, 16 * MIB));
    let mut other = 0u64;
    assert_eq!(cu!(cuMemAlloc_v2(&mut other => &mut u64, 7 * MIB => usize)), 2);
    let prop = device_memory(0);
    assert_eq!(
        cu!(cuMemCreate(&mut other => &mut u64, 8 * MIB => usize, &prop => &AllocationProp, 0 => u64)),
        2
    );
    ok!(cuMemFree_v2(kept => u64));
    alloc(16 * MIB);
    assert_eq!(figure("device_peak_bytes"), 16 * MIB as u64);
});

gpu_test!(fresh_memory_is_poisoned, [], {
    start();
    let address = alloc(FRAME);
    assert_eq!(read(address), u32::MAX);
    assert!(f32::from_bits(read(address + FRAME as u64 - 4)).is_nan());
    write(address, 5);
    ok!(cuMemFree_v2(address => u64));
    assert_eq!(read(alloc(FRAME)), u32::MAX);
});

gpu_test!(two_mappings_of_a_handle_are_the_same_bytes, [], {
    start();
    let handle = create(FRAME);
    let range = reserve(4 * FRAME);
    let alias = range + 2 * FRAME as u64;
    for address in [range, alias] {
        assert_eq!(map(address, FRAME, handle), 0);
        assert_eq!(access(address, FRAME, 3), 0);
    }
    write(range, 77);
    assert_eq!(read(alias), 77);
    // A released handle lives while it is mapped.
    ok!(cuMemRelease(handle => u64));
    ok!(cuMemUnmap(range => u64, FRAME => usize));
    assert_eq!(read(alias), 77);
    assert_eq!(figure("device_bytes"), FRAME as u64);
    ok!(cuMemUnmap(alias => u64, FRAME => usize));
    assert_eq!(figure("device_bytes"), 0);
    ok!(cuMemAddressFree(range => u64, 4 * FRAME => usize));
});

gpu_test!(mapping_rules, [], {
    start();
    let range = reserve(4 * FRAME);
    let handle = create(2 * FRAME);
    let code = cu!(cuMemMap(range => u64, FRAME => usize, FRAME => usize, handle => u64, 0 => u64));
    assert_eq!(code, 1, "an offset other than 0");
    assert_eq!(map(range, FRAME, handle), 1, "part of a handle");
    assert_eq!(map(range, 2 * FRAME, handle), 0);
    assert_eq!(map(range, 2 * FRAME, handle), 1, "already mapped");
    assert_eq!(cu!(cuMemUnmap(range => u64, FRAME => usize)), 1, "part of a mapping");
    let more = create(2 * FRAME);
    assert_eq!(map(range + 2 * FRAME as u64, 2 * FRAME, more), 0);
    assert_eq!(access(range, 4 * FRAME, 3), 0, "one call over two mappings");
    assert_eq!(cu!(cuMemAddressFree(range => u64, 4 * FRAME => usize)), 1, "still mapped");
    ok!(cuMemUnmap(range => u64, 4 * FRAME => usize));
    assert_eq!(figure("mappings"), 0);
});

gpu_test!(no_access_before_set_access, [], {
    start();
    let range = reserve(FRAME);
    assert_eq!(map(range, FRAME, create(FRAME)), 0);
    let mut word = 0u32;
    let code = cu!(cuMemcpyDtoH_v2(&mut word => &mut u32, range => u64, 4 => usize));
    assert_eq!(code, 700);
});

gpu_test!(read_only_is_enforced, [], {
    start();
    let range = reserve(FRAME);
    assert_eq!(map(range, FRAME, create(FRAME)), 0);
    assert_eq!(access(range, FRAME, 1), 0);
    assert_eq!(read(range), u32::MAX);
    let word = 1u32;
    assert_eq!(cu!(cuMemcpyHtoD_v2(range => u64, &word => &u32, 4 => usize)), 700);
});

gpu_test!(illegal_address_is_sticky, [], {
    start();
    let (address, stream) = (alloc(FRAME), stream());
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    let beyond = address + FRAME as u64;
    assert_eq!(launch_add(add, stream, address, beyond, 4), 0, "found only when it runs");
    assert_eq!(cu!(cuStreamSynchronize(stream => u64)), 700);
    assert_eq!(cu!(cuCtxSynchronize()), 700);
    let mut other = 0u64;
    assert_eq!(cu!(cuMemAlloc_v2(&mut other => &mut u64, 4 => usize)), 700);
});

gpu_test!(unmapping_what_queued_work_needs_is_a_violation, [], {
    start();
    let (range, stream) = (reserve(FRAME), stream());
    assert_eq!(map(range, FRAME, create(FRAME)), 0);
    assert_eq!(access(range, FRAME, 3), 0);
    let gate = gate(stream);
    fill(range, 1, 16, stream);
    assert_eq!(figure("violations"), 0);
    ok!(cuMemUnmap(range => u64, FRAME => usize));
    assert_eq!(figure("violations"), 1);
    assert!(account()["violation_sentences"][0].as_str().unwrap().contains("cuMemUnmap"));
    open(gate);
    assert_eq!(cu!(cuStreamSynchronize(stream => u64)), 700, "and the work fails");
});

gpu_test!(handles_can_be_found_again, [], {
    start();
    let range = reserve(FRAME);
    let handle = create(FRAME);
    assert_eq!(map(range, FRAME, handle), 0);
    let mut found = 0u64;
    ok!(cuMemRetainAllocationHandle(&mut found => &mut u64, range => u64));
    assert_eq!(found, handle);
    let mut prop = device_memory(7);
    ok!(cuMemGetAllocationPropertiesFromHandle(&mut prop => &mut AllocationProp, found => u64));
    assert_eq!(prop.location, [1, 0]);
    let mut size = 0usize;
    ok!(cuMemGetAllocationGranularity(&mut size => &mut usize, &prop => &AllocationProp, 0 => i32));
    assert_eq!(size, FRAME);
    for _ in 0..2 {
        ok!(cuMemRelease(handle => u64));
    }
    assert_eq!(cu!(cuMemRelease(handle => u64)), 1);
});

/// A handle in the host's memory, or the code that refuses it.
fn create_in_host(bytes: usize) -> Result<u64, i32> {
    let (mut handle, prop) = (0u64, host_memory(0));
    let code = cu!(cuMemCreate(
        &mut handle => &mut u64, bytes => usize, &prop => &AllocationProp, 0 => u64
    ));
    if code == 0 { Ok(handle) } else { Err(code) }
}

fn attribute(number: i32) -> i32 {
    let mut value = 0;
    ok!(cuDeviceGetAttribute(&mut value => &mut i32, number => i32, 0 => i32));
    value
}

gpu_test!(host_located_handles, ["STANDIN_VRAM" = "4M"], {
    start();
    assert_eq!((attribute(134), attribute(141)), (0, 1));
    let mut size = 0usize;
    let prop = host_memory(0);
    ok!(cuMemGetAllocationGranularity(&mut size => &mut usize, &prop => &AllocationProp, 0 => i32));
    assert_eq!(size, FRAME);
    let elsewhere = host_memory(1);
    let mut none = 0u64;
    assert_eq!(
        cu!(cuMemCreate(&mut none => &mut u64, FRAME => usize, &elsewhere => &AllocationProp, 0 => u64)),
        1
    );
    // One range, a frame of the device and then three of the host, which take
    // nothing of the device's capacity.
    let range = reserve(8 * FRAME);
    let host: Vec<u64> = (0..3).map(|_| create_in_host(FRAME).unwrap()).collect();
    assert_eq!(map(range, FRAME, create(FRAME)), 0);
    for (index, &handle) in host.iter().enumerate() {
        assert_eq!(map(range + ((index + 1) * FRAME) as u64, FRAME, handle), 0);
    }
    let host_part = range + FRAME as u64;
    let mut word = 0u32;
    let code = cu!(cuMemcpyDtoH_v2(&mut word => &mut u32, host_part => u64, 4 => usize));
    assert_eq!(code, 700, "no access was granted");
});

gpu_test!(host_located_bytes_are_seen_by_copies_and_kernels, ["STANDIN_VRAM" = "8M"], {
    start();
    let range = reserve(8 * FRAME);
    let first = create_in_host(FRAME).unwrap();
    let alias = range + 4 * FRAME as u64;
    assert_eq!(map(range, FRAME, create(FRAME)), 0);
    assert_eq!(map(range + FRAME as u64, FRAME, first), 0);
    assert_eq!(access(range, 2 * FRAME, 3), 0, "one call over both kinds");
    assert_eq!(map(alias, FRAME, first), 0);
    assert_eq!(access(alias, FRAME, 3), 0);
    let (device, host) = (figure("device_bytes"), figure("host_located_bytes"));
    assert_eq!((device, host), (FRAME as u64, FRAME as u64));
    assert_eq!(read(alias), u32::MAX, "fresh memory is poisoned");
    write(range + FRAME as u64, 40);
    assert_eq!(read(alias), 40, "two mappings, the same bytes");
    let to = alloc(FRAME);
    write(to, 2);
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    assert_eq!(launch_add(add, LEGACY, to, range + FRAME as u64, 1), 0);
    assert_eq!(read(to), 42, "a kernel reads it in place");
    // It lives while it is mapped, and takes nothing of the device.
    ok!(cuMemRelease(first => u64));
    ok!(cuMemUnmap(range => u64, 2 * FRAME => usize));
    assert_eq!(read(alias), 40);
    ok!(cuMemUnmap(alias => u64, FRAME => usize));
    assert_eq!(
        (figure("host_located_bytes"), figure("host_located_peak_bytes")),
        (0, FRAME as u64)
    );
    alloc(4 * MIB);
});

gpu_test!(
    kernels_read_host_located_bytes_at_the_rate_of_the_link,
    ["STANDIN_LINK" = "10", "STANDIN_MEMORY" = "400"],
    {
        start();
        assert_eq!(attribute(36) as u64 * 2000 * attribute(37) as u64 / 8, 400_000_000_000);
        let add = function(module(OWN_KERNELS), "standin_add_u32");
        let to = alloc(FRAME);
        let time = |handle: u64| {
            let from = reserve(FRAME);
            assert_eq!(map(from, FRAME, handle), 0);
            assert_eq!(access(from, FRAME, 3), 0);
            fill(from, 1, FRAME / 4, LEGACY);
            sync(LEGACY);
            let began = figure("clock_ns");
            assert_eq!(launch_add(add, LEGACY, to, from, FRAME as u64 / 4), 0);
            sync(LEGACY);
            figure("clock_ns") - began
        };
        let (here, there) = (time(create(FRAME)), time(create_in_host(FRAME).unwrap()));
        // Of three frames that it moves in all, half are taken to be the
        // host's, which has but one of the two that it reaches: one frame.
        assert!(here < 40_000, "{here}");
        assert!(there > FRAME as u64 / 10, "{there}");
        assert!(figure("in_place_bytes") > 0);
        let busy = account()["engines"][0]["h2d_ns"].as_u64().unwrap();
        assert!(busy > FRAME as u64 / 10, "later copies wait: {busy}");
    }
);

gpu_test!(a_device_without_host_located_handles, ["STANDIN_HOST_LOCATED" = "no"], {
    start();
    assert_eq!((attribute(134), attribute(141)), (-1, 0));
    assert_eq!(create_in_host(FRAME), Err(801));
});

gpu_test!(host_located_handles_may_be_refused, ["STANDIN_HOST_LOCATED" = "refused"], {
    start();
    assert_eq!(attribute(141), 1);
    assert_eq!(create_in_host(FRAME), Err(800));
});

gpu_test!(faults_on_demand, ["STANDIN_FAULT" = "alloc:2:2,hostalloc:1:999,launch:1:719"], {
    start();
    let address = alloc(FRAME);
    let mut other = 0u64;
    assert_eq!(cu!(cuMemAlloc_v2(&mut other => &mut u64, 4 => usize)), 2);
    alloc(FRAME);
    assert_eq!(cu!(cuMemHostAlloc(&mut other => &mut u64, 4 => usize, 0 => u32)), 999);
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    assert_eq!(launch_add(add, LEGACY, address, address, 1), 719);
    assert_eq!(launch_add(add, LEGACY, address, address, 1), 0);
});

gpu_test!(faults_by_name, ["STANDIN_FAULT" = "cuMemHostAlloc:2+:304", "STANDIN_VMM" = "no"], {
    start();
    let mut other = 0u64;
    for code in [0, 304, 304] {
        assert_eq!(cu!(cuMemHostAlloc(&mut other => &mut u64, 4 => usize, 0 => u32)), code);
    }
    assert_eq!(attribute(102), 0);
});

fn alloc_async(bytes: usize, stream: u64) -> u64 {
    let mut address = 0u64;
    ok!(cuMemAllocAsync(&mut address => &mut u64, bytes => usize, stream => u64));
    address
}

gpu_test!(pools_reuse_in_stream_order, [], {
    start();
    let (a, b) = (stream(), stream());
    let first = alloc_async(MIB, a);
    fill(first, 9, 4, a);
    ok!(cuMemFreeAsync(first => u64, a => u64));
    let second = alloc_async(MIB, a);
    assert_eq!(second, first, "the same stream takes it at once");
    sync(a);
    assert_eq!(read(second), u32::MAX, "freed memory is poisoned");
    let gate = gate(a);
    ok!(cuMemFreeAsync(second => u64, a => u64));
    assert_ne!(alloc_async(MIB, b), second, "another stream does not while it is in use");
    open(gate);
});

gpu_test!(pools_count_and_release, ["STANDIN_VRAM" = "8M"], {
    start();
    let stream = stream();
    let block = alloc_async(3 * MIB, stream);
    assert_eq!(figure("device_bytes"), 4 * MIB as u64);
    ok!(cuMemFreeAsync(block => u64, stream => u64));
    sync(stream);
    assert_eq!(figure("device_bytes"), 0, "threshold 0: given back at a synchronisation");
    let (mut pool, keep) = (0u64, u64::MAX);
    ok!(cuDeviceGetDefaultMemPool(&mut pool => &mut u64, 0 => i32));
    ok!(cuMemPoolSetAttribute(pool => u64, 4 => i32, &keep => &u64));
    let block = alloc_async(3 * MIB, stream);
    ok!(cuMemFreeAsync(block => u64, stream => u64));
    sync(stream);
    assert_eq!(figure("device_bytes"), 4 * MIB as u64, "kept below the threshold");
    alloc(8 * MIB);
    assert_eq!(figure("device_bytes"), 8 * MIB as u64, "but given up when memory is short");
    let mut block = 0u64;
    assert_eq!(cu!(cuMemAllocAsync(&mut block => &mut u64, 4 => usize, stream => u64)), 2);
});

gpu_test!(pool_short_of_memory_waits_on_the_device, ["STANDIN_VRAM" = "4M"], {
    start();
    let (a, b) = (stream(), stream());
    let block = alloc_async(4 * MIB, a);
    let gate = gate(a);
    fill(block, 1, 4, a);
    ok!(cuMemFreeAsync(block => u64, a => u64));
    let next = alloc_async(4 * MIB, b);
    assert_eq!(next, block);
    fill(next, 2, 4, b);
    open(gate);
    sync(b);
    assert_eq!(read(next), 2, "b's work came after a's");
});

gpu_test!(pinned_and_registered_memory, [], {
    start();
    let address = alloc(FRAME);
    let mut own = vec![3u32; 1024];
    let pointer = own.as_mut_ptr();
    ok!(cuMemHostRegister_v2(pointer => *mut u32, 4096 => usize, 0 => u32));
    assert_eq!(cu!(cuMemHostRegister_v2(pointer => *mut u32, 4096 => usize, 0 => u32)), 712);
    let mut device = 0u64;
    ok!(cuMemHostGetDevicePointer_v2(&mut device => &mut u64, pointer => *mut u32, 0 => u32));
    assert_eq!(device, pointer as u64);
    write(address, 4);
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    assert_eq!(launch_add(add, LEGACY, address, device, 1), 0, "a kernel reads it directly");
    assert_eq!(read(address), 7);
    let mut kind = 0u32;
    ok!(cuPointerGetAttribute(&mut kind => &mut u32, 2 => i32, pointer as u64 => u64));
    assert_eq!(kind, 1);
    ok!(cuPointerGetAttribute(&mut kind => &mut u32, 2 => i32, address => u64));
    assert_eq!(kind, 2);
    assert_eq!(figure("pinned_bytes"), 4096);
    ok!(cuMemHostUnregister(pointer => *mut u32));
    assert_eq!(
        cu!(cuPointerGetAttribute(&mut kind => &mut u32, 2 => i32, pointer as u64 => u64)),
        1
    );
    assert_eq!((figure("pinned_bytes"), figure("pinned_peak_bytes")), (0, 4096));
});

gpu_test!(address_ranges, [], {
    start();
    let address = alloc(3 * MIB);
    let (mut base, mut size) = (0u64, 0usize);
    ok!(cuMemGetAddressRange_v2(&mut base => &mut u64, &mut size => &mut usize, address + 99 => u64));
    assert_eq!((base, size), (address, 3 * MIB));
    assert_eq!(
        cu!(cuMemGetAddressRange_v2(&mut base => &mut u64, &mut size => &mut usize, 4096 => u64)),
        500
    );
});

gpu_test!(two_devices, ["STANDIN_DEVICES" = "2", "STANDIN_VRAM" = "8M"], {
    let first = start();
    let here = alloc(8 * MIB);
    let mut second = 0u64;
    ok!(cuDevicePrimaryCtxRetain(&mut second => &mut u64, 1 => i32));
    ok!(cuCtxSetCurrent(second => u64));
    let there = alloc(8 * MIB);
    write(there, 6);
    ok!(cuMemcpyPeer(here => u64, first => u64, there => u64, second => u64, 4 => usize));
    assert_eq!(read(here), 6);
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    assert_eq!(launch_add(add, LEGACY, there, here, 1), 0);
    assert_eq!(cu!(cuCtxSynchronize()), 700, "no peer access without asking for it");
});
