//! What the planner lets kernels read in host memory, and what not.

use autooffload_core::plan::{Chunk, Effort, Fault, Machine, Phase, Plan, Problem, plan};

const FRAME_BYTES: u64 = 2 << 20;

/// `layers` times a chunk of 100 frames that is read whole and one of 400 of
/// which `percent` are, on a device with `frames` frames. The time of each step
/// is what reading takes.
fn stacked(layers: u32, percent: u64, frames: u32) -> Problem {
    let mut phase = Phase { repeats: 10, ..Phase::default() };
    let mut chunks = Vec::new();
    for layer in 0..layers {
        for (id, frames, percent) in [(2 * layer, 100, 100), (2 * layer + 1, 400, percent)] {
            chunks.push(Chunk { id, frames, pinned: false, place: None });
            let read = u64::from(frames) * FRAME_BYTES * percent / 100;
            phase.push_reading(read / 1000, read, 0, &[id]);
        }
    }
    let machine = Machine {
        frames,
        frame_bytes: FRAME_BYTES,
        device_bytes_per_s: 1e12,
        zero_copy_bytes_per_s: Some(22e9),
        ..Machine::default()
    };
    Problem { chunks, phases: vec![phase], machine, window_frames: None }
}

fn host_frames(plan: &Plan) -> Vec<u32> {
    plan.layouts.iter().map(|layout| layout.host_frames).collect()
}

fn planned(problem: &Problem) -> Plan {
    let searched = plan(problem, None, Effort::Searched).unwrap();
    searched.verify(problem).unwrap();
    let quick = plan(problem, None, Effort::Quick).unwrap();
    quick.verify(problem).unwrap();
    assert_eq!(host_frames(&quick), host_frames(&searched));
    searched
}

#[test]
fn what_is_read_in_part_is_read_in_place_and_memory_goes_to_the_rest() {
    for (percent, frames) in [(25, 2000), (25, 4000), (5, 1200), (50, 3000)] {
        let problem = stacked(10, percent, frames);
        let found = planned(&problem);
        let host = host_frames(&found);
        assert!(host.iter().step_by(2).all(|&frames| frames == 0), "{percent} %: {host:?}");
        // All of the device is used, and nothing streams.
        assert_eq!(host.iter().sum::<u32>(), 5000 - frames, "{percent} %");
        assert!(found.phases.iter().all(|phase| phase.copies.is_empty()));
        // Evenly: no kernel waits longer than another.
        let each: Vec<u32> = host.iter().copied().skip(1).step_by(2).collect();
        let [least, most] = [each.iter().min(), each.iter().max()].map(Option::unwrap);
        assert!(most - least <= 1, "{each:?}");
        let bytes = u64::from(5000 - frames) * FRAME_BYTES * percent / 100;
        let link_ns = bytes as f64 / 22.0;
        let period = found.phases[0].period_ns as f64;
        assert!((link_ns * 0.98..link_ns * 1.2 + 1e7).contains(&period), "{period} of {link_ns}");
    }
}

#[test]
fn what_is_read_whole_streams() {
    for percent in [75, 100] {
        let found = planned(&stacked(10, percent, 2000));
        assert_eq!(host_frames(&found).iter().sum::<u32>(), 0, "{percent} %");
        assert!(!found.phases[0].copies.is_empty());
    }
}

#[test]
fn where_copies_are_hidden_behind_kernels_nothing_waits_for_the_link() {
    let mut problem = stacked(10, 25, 3000);
    // Ten times as long as copying everything takes.
    problem.phases[0].steps.iter_mut().for_each(|step| step.ns = 80_000_000);
    let found = planned(&problem);
    let compute: u64 = problem.phases[0].steps.iter().map(|step| step.ns).sum();
    assert!(found.phases[0].period_ns as f64 <= compute as f64 * 1.001);
}

#[test]
fn nothing_lies_on_the_host_without_reason_or_permission() {
    // Everything fits.
    let found = planned(&stacked(10, 25, 5000));
    assert_eq!(host_frames(&found), vec![0; 20]);
    // Nothing was measured.
    let mut unknown = stacked(10, 25, 2000);
    unknown.phases[0].steps.iter_mut().for_each(|step| step.read_bytes = u64::MAX);
    assert_eq!(host_frames(&planned(&unknown)), vec![0; 20]);
    // Kernels cannot read there.
    let mut impossible = stacked(10, 25, 2000);
    impossible.machine.zero_copy_bytes_per_s = None;
    assert_eq!(host_frames(&planned(&impossible)), vec![0; 20]);
    // One must have frames of the device.
    let mut pinned = stacked(10, 25, 2000);
    pinned.chunks[3].pinned = true;
    let found = planned(&pinned);
    assert_eq!((found.layouts[3].host_frames, found.layouts[3].own_frames()), (0, 400));
    assert!(host_frames(&found).iter().sum::<u32>() > 0);
    // What one use reads, another must not be forgotten: read whole elsewhere.
    let mut twice = stacked(10, 25, 2000);
    for id in (1..20).step_by(2) {
        twice.phases[0].push_reading(800_000, u64::MAX, 0, &[id]);
    }
    assert_eq!(host_frames(&planned(&twice)).iter().sum::<u32>(), 0);
}

#[test]
fn measurements_that_differ_a_little_move_nothing() {
    let problem = stacked(10, 25, 2000);
    let before = planned(&problem);
    let mut measured = problem.clone();
    for (index, step) in measured.phases[0].steps.iter_mut().enumerate() {
        let percent = 96 + (index as u64 * 7) % 9;
        step.ns = step.ns * percent / 100;
        step.read_bytes = step.read_bytes * percent / 100;
    }
    let after = plan(&measured, Some(&before), Effort::Searched).unwrap();
    assert_eq!(after.moved_frames(&before), 0);
}

#[test]
fn the_proof_refuses_what_cannot_lie_on_the_host() {
    let problem = stacked(10, 25, 2000);
    let good = planned(&problem);
    let mut pinned = problem.clone();
    pinned.chunks[1].pinned = true;
    assert_eq!(good.verify(&pinned), Err(Fault::OnHost { chunk: 1 }));
    let mut impossible = problem.clone();
    impossible.machine.zero_copy_bytes_per_s = None;
    assert_eq!(good.verify(&impossible), Err(Fault::OnHost { chunk: 1 }));
    let mut more = good.clone();
    more.layouts[1].host_frames = 401;
    assert_eq!(more.verify(&problem), Err(Fault::OnHost { chunk: 1 }));
    let mut fewer = good.clone();
    fewer.layouts[1].host_frames = 0;
    assert!(matches!(fewer.verify(&problem), Err(Fault::TooLarge { .. })));
}
