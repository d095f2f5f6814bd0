//! The device model on cases small enough to compute by hand.

use autooffload_lab::sim::device::{Device, Marked, Parameters, Stamp, Stream, Waits};

/// A link of one byte per nanosecond; a copy costs nothing beside its bytes,
/// and the host takes no time.
fn plain() -> Parameters {
    Parameters {
        in_bytes_per_s: 1e9,
        out_bytes_per_s: 1e9,
        in_while_out: 1.0,
        copy_ns: 0,
        launch_ns: 0,
        submit_ns: 0,
        event_ns: 0,
        sync_ns: 0,
        ..Parameters::default()
    }
}

fn finish(device: &mut Device) -> Marked {
    device.mark(0);
    device.wait_for_stream(Stream::Compute);
    device.marks().last().expect("the mark")
}

fn kernel(device: &mut Device, ns: u64, waits: impl Into<Waits>) -> Stamp {
    device.kernel(Stream::Compute, ns, 1, waits.into(), 0)
}

#[test]
fn a_copy_runs_beside_kernels_and_a_kernel_waits_for_it() {
    let mut device = Device::new(plain());
    let copy = device.copy_in(Stream::In, 500, Waits::NONE, 0);
    kernel(&mut device, 300, Waits::NONE);
    kernel(&mut device, 100, copy);
    let end = finish(&mut device);
    assert_eq!(end.at, 600);
    assert_eq!((end.totals.stalls.copy_ns, end.totals.stalls.total()), (200, 200));
    assert_eq!((end.totals.kernel_ns, end.totals.bytes_in, end.totals.copies_in), (400, 500, 1));
}

#[test]
fn a_kernel_that_reads_over_the_link_shares_it_with_copies() {
    // The whole link, for as long as the copy takes: both take twice as long.
    let mut device = Device::new(plain());
    let copy = device.copy_in(Stream::In, 500, Waits::NONE, 0);
    kernel(&mut device, 500, Waits::NONE);
    device.kernel_moves(500, 0, 1.0);
    let end = finish(&mut device);
    device.wait_for(copy);
    assert_eq!((end.at, device.now()), (1000, 1000));
    assert_eq!(device.totals().bytes_in, 1000);
    // A fifth of it: the copy gets the rest, and the kernel loses nothing.
    let mut device = Device::new(plain());
    let copy = device.copy_in(Stream::In, 800, Waits::NONE, 0);
    kernel(&mut device, 1000, Waits::NONE);
    device.kernel_moves(200, 0, 0.2);
    device.wait_for(copy);
    assert_eq!(device.now(), 1000);
    assert_eq!(finish(&mut device).at, 1000);
}

#[test]
fn every_copy_costs_its_overhead() {
    let mut device = Device::new(Parameters { copy_ns: 8, ..plain() });
    device.copy_in(Stream::In, 100, Waits::NONE, 0);
    let last = device.copy_in(Stream::In, 100, Waits::NONE, 0);
    kernel(&mut device, 0, last);
    assert_eq!(finish(&mut device).at, 216);
}

#[test]
fn copies_are_taken_as_they_become_ready_and_not_as_they_were_submitted() {
    let mut device = Device::new(plain());
    let late = kernel(&mut device, 1000, Waits::NONE);
    let first = device.copy_in(Stream::In, 10, late.into(), 0);
    // On another stream, and ready at once.
    let second = device.copy_in(Stream::Side, 700, Waits::NONE, 0);
    // On the first stream: behind one that is not ready.
    let third = device.copy_in(Stream::In, 10, Waits::NONE, 0);
    device.wait_for(second);
    assert_eq!(device.now(), 700);
    device.wait_for(first);
    assert_eq!(device.now(), 1010);
    device.wait_for(third);
    assert_eq!(device.now(), 1020);
}

#[test]
fn copies_ready_at_the_same_time_run_in_order_of_submission() {
    let mut device = Device::new(plain());
    let gate = kernel(&mut device, 100, Waits::NONE);
    let a = device.copy_in(Stream::Side, 10, gate.into(), 0);
    let b = device.copy_in(Stream::In, 10, gate.into(), 0);
    device.wait_for(a);
    assert_eq!((device.now(), device.over(b)), (110, false));
}

/// The reason for the limit on the backlog: the program's own copy, ready
/// later, waits for all of ours that were ready by then.
#[test]
fn a_copy_of_the_programs_queues_behind_what_is_ready() {
    let delay = |gated: bool| {
        let mut device = Device::new(plain());
        let first = kernel(&mut device, 100, Waits::NONE);
        device.copy_in(Stream::In, 150, Waits::NONE, 0);
        for _ in 0..3 {
            let gate = if gated { device.last(Stream::Compute).into() } else { Waits::NONE };
            device.copy_in(Stream::In, 1000, gate, 0);
            kernel(&mut device, 0, Waits::NONE);
        }
        let _ = first;
        device.copy_in(Stream::Compute, 1, Waits::NONE, 0);
        kernel(&mut device, 10, Waits::NONE);
        finish(&mut device)
    };
    // 150 and three times 1000 before it.
    let end = delay(false);
    assert_eq!(end.at, 3161);
    assert_eq!(end.totals.stalls.program_copy_ns, 3151 - 100);
    assert_eq!(end.totals.program_bytes, 1);
    // With gates, all three become ready at 100 just as well: submitted earlier.
    assert_eq!(delay(true).at, 3161);

    // A gate that opens after the program's copy lets it through.
    let mut device = Device::new(plain());
    device.copy_in(Stream::In, 150, Waits::NONE, 0);
    kernel(&mut device, 100, Waits::NONE);
    device.copy_in(Stream::Compute, 1, Waits::NONE, 0);
    let gate = kernel(&mut device, 10, Waits::NONE);
    device.copy_in(Stream::In, 1000, gate.into(), 0);
    let end = finish(&mut device);
    assert_eq!((end.at, end.totals.stalls.program_copy_ns), (161, 51));
}

#[test]
fn the_ready_backlog_is_what_has_not_begun() {
    let mut device = Device::new(plain());
    let gate = kernel(&mut device, 100, Waits::NONE);
    device.copy_in(Stream::In, 50, Waits::NONE, 0);
    device.copy_in(Stream::In, 60, Waits::NONE, 0);
    device.copy_in(Stream::In, 70, gate.into(), 0);
    assert_eq!(device.backlog_bytes(), 60);
}

#[test]
fn copies_both_ways_run_together_and_slow_those_in() {
    let mut device = Device::new(Parameters { in_while_out: 0.5, ..plain() });
    let into = device.copy_in(Stream::In, 1000, Waits::NONE, 0);
    let out = device.copy_out(Stream::Out, 600, Waits::NONE);
    device.wait_for(out);
    assert_eq!(device.now(), 600);
    // 300 of 1000 were done in the 600.
    device.wait_for(into);
    assert_eq!(device.now(), 1300);
    assert_eq!((device.totals().bytes_in, device.totals().bytes_out), (1000, 600));
}

#[test]
fn kernels_are_slower_while_a_copy_runs() {
    let mut device = Device::new(Parameters { kernel_while_copy: 0.5, ..plain() });
    device.copy_in(Stream::In, 100, Waits::NONE, 0);
    kernel(&mut device, 200, Waits::NONE);
    // 50 done by 100, the other 150 at full speed.
    assert_eq!(finish(&mut device).at, 250);
}

#[test]
fn kernels_of_two_streams_take_turns() {
    let mut device = Device::new(plain());
    let a = kernel(&mut device, 100, Waits::NONE);
    let b = device.kernel(Stream::Side, 50, 1, Waits::NONE, 0);
    kernel(&mut device, 10, b);
    device.wait_for(a);
    assert_eq!(device.now(), 100);
    assert_eq!(finish(&mut device).at, 160);
}

#[test]
fn delays_pass_side_by_side() {
    let mut device = Device::new(plain());
    let first = kernel(&mut device, 100, Waits::NONE);
    let second = kernel(&mut device, 20, Waits::NONE);
    let a = device.delay(Stream::Release, 50, first.into(), 0);
    let b = device.delay(Stream::Release, 50, second.into(), 0);
    device.wait_for(a);
    assert_eq!(device.now(), 150);
    device.wait_for(b);
    assert_eq!(device.now(), 170);
}

#[test]
fn a_slot_that_is_released_late_is_not_the_links_fault() {
    let mut device = Device::new(plain());
    let use_of_slot = kernel(&mut device, 100, Waits::NONE);
    let released = device.delay(Stream::Release, 30, use_of_slot.into(), 0);
    let copy = device.copy_in(Stream::In, 40, released.into(), 0);
    kernel(&mut device, 10, copy);
    let end = finish(&mut device);
    assert_eq!(end.at, 180);
    let stalls = end.totals.stalls;
    assert_eq!((stalls.slot_ns, stalls.copy_ns, stalls.total()), (30, 40, 70));
}

#[test]
fn a_fingerprint_takes_the_kernels_time() {
    let mut device = Device::new(plain());
    let used = kernel(&mut device, 100, Waits::NONE);
    device.kernel(Stream::Release, 25, 1, used.into(), 0);
    kernel(&mut device, 10, Waits::NONE);
    let end = finish(&mut device);
    // Submitted first, so it goes first among those ready at 100... the
    // kernel of the program was submitted after it.
    assert_eq!((end.at, end.totals.stalls.release_ns), (135, 25));
    assert_eq!(end.totals.kernel_ns, 110);
}

#[test]
fn the_host_pays_for_each_submission_and_the_device_waits_for_it() {
    let mut device = Device::new(Parameters { launch_ns: 50, ..plain() });
    for _ in 0..4 {
        kernel(&mut device, 10, Waits::NONE);
    }
    let end = finish(&mut device);
    assert_eq!(end.at, 210);
    assert_eq!((end.totals.stalls.host_ns, end.totals.kernel_ns), (170, 40));
}

#[test]
fn the_host_runs_ahead_by_the_launch_queue_and_no_further() {
    let mut device = Device::new(Parameters { launch_ns: 1, launch_queue: 3, ..plain() });
    let times: Vec<u64> = (0..6)
        .map(|_| {
            kernel(&mut device, 100, Waits::NONE);
            device.host_ns()
        })
        .collect();
    // The first begins at 1; three more fit; each later one when another begins.
    assert_eq!(times, [1, 2, 3, 4, 101, 201]);
    assert_eq!(finish(&mut device).at, 601);
}

#[test]
fn a_host_sync_is_a_bubble_until_the_next_launch() {
    let mut device = Device::new(Parameters { launch_ns: 5, sync_ns: 20, ..plain() });
    kernel(&mut device, 100, Waits::NONE);
    device.wait_for_stream(Stream::Compute);
    device.host_busy(30);
    kernel(&mut device, 10, Waits::NONE);
    let end = finish(&mut device);
    // 5 + 100, 20 to wake up, 30 of its own, 5 to launch.
    assert_eq!((end.at, end.totals.stalls.host_ns), (170, 5 + 55));
}

#[test]
fn memory_is_counted_in_virtual_time() {
    let mut device = Device::new(plain());
    device.acquire(100);
    let used = kernel(&mut device, 50, Waits::NONE);
    device.release_after(used, 100);
    let copy = device.copy_in(Stream::In, 100, used.into(), 100);
    device.wait_for(copy);
    assert_eq!((device.memory_bytes(), device.peak_bytes()), (100, 100));

    // The same without waiting for the use: two contents at a time.
    let mut device = Device::new(plain());
    device.acquire(100);
    let used = kernel(&mut device, 50, Waits::NONE);
    device.release_after(used, 100);
    let copy = device.copy_in(Stream::In, 100, Waits::NONE, 100);
    device.wait_for(copy);
    assert_eq!((device.memory_bytes(), device.peak_bytes()), (100, 200));
}

#[test]
fn jitter_is_bounded_and_the_same_for_the_same_seed() {
    let run = |seed| {
        let jitter = Parameters { kernel_jitter: 0.2, copy_jitter: 0.1, seed, ..plain() };
        let mut device = Device::new(jitter);
        (0..100)
            .map(|_| {
                let before = device.now();
                let stamp = kernel(&mut device, 1000, Waits::NONE);
                device.wait_for(stamp);
                device.now() - before
            })
            .collect::<Vec<u64>>()
    };
    let times = run(7);
    assert!(times.iter().all(|ns| (800..=1200).contains(ns)));
    assert!(times.iter().any(|&ns| ns < 850) && times.iter().any(|&ns| ns > 1150));
    assert_eq!(times, run(7));
    assert_ne!(times, run(8));
}
