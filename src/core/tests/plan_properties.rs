//! What must hold of any plan, on random problems.

mod plan_support;

use autooffload_core::plan::{Chunk, Effort, Fault, Machine, Phase, Place, Plan, Problem, plan};
use plan_support::check::check;
use plan_support::problems::{in_slabs, least_planned_frames, random_problem, total_frames};
use plan_support::{Random, Spread, cases};

/// It fits, nothing is missing when it is needed, no copy waits for a step
/// that waits for it, the clock is right, and the backlog is bounded; by the
/// planner's own proof and by carrying it out.
#[test]
fn any_plan_can_be_carried_out() {
    let mut random = Random::new(1);
    let mut places = Random::new(5);
    let (mut planned, mut unfit, mut missed, mut over_backlog) = (0, 0, 0, 0);
    let mut joined = 0;
    let (mut clock, mut excess) = (Spread::default(), Spread::default());
    let mut faults = Vec::new();
    for case in 0..cases(500) {
        let mut problem = random_problem(&mut random);
        let effort = if case % 2 == 0 { Effort::Searched } else { Effort::Quick };
        if case % 3 > 0 {
            in_slabs(&mut problem, &mut places);
        }
        let available = problem.machine.frames;
        let found = match plan(&problem, None, effort) {
            Ok(found) => found,
            Err(_) => {
                assert!(available < total_frames(&problem), "case {case}: everything fits");
                let least = least_planned_frames(&problem);
                println!("case {case}: no plan: {available} frames, at least {least} needed");
                missed += u32::from(available >= least);
                unfit += 1;
                continue;
            }
        };
        planned += 1;
        let seen = match (found.verify(&problem), check(&problem, &found, 16)) {
            (Ok(()), Ok(seen)) => seen,
            (verified, carried_out) => {
                let carried_out = carried_out.map(|_| ());
                faults.push(format!("case {case}: {verified:?}, carried out: {carried_out:?}"));
                continue;
            }
        };
        if total_frames(&problem) <= available {
            assert!(found.phases.iter().all(|phase| phase.copies.is_empty()), "case {case}");
        }
        for (seen, phase) in seen.iter().zip(&found.phases) {
            joined += phase.copies.iter().filter(|copy| copy.joined).count();
            assert_eq!(seen.streamed_bytes, phase.streamed_bytes, "case {case}");
            if seen.streamed_bytes == 0 {
                continue;
            }
            clock.add(seen.period_ns / phase.period_ns as f64);
            // A copy becomes ready where a step begins. While a long one runs,
            // what is to come during it must already be ready.
            let machine = &problem.machine;
            let hidden = seen.longest_step_ns * machine.link_bytes_per_s / 1e9;
            let limit = machine.backlog_bytes + seen.largest_copy_bytes;
            over_backlog += u32::from(seen.backlog_bytes > limit);
            excess.add(seen.backlog_bytes.saturating_sub(limit) as f64 / hidden);
        }
    }
    println!("{planned} planned, {unfit} not, of which {missed} might have been");
    println!("{joined} parts came in one copy with others");
    println!("phases: {over_backlog} over the backlog");
    println!("excess over what the longest step hides: {excess}");
    println!("period carried out over planned: {clock}");
    assert_eq!(faults, Vec::<String>::new());
    assert!(joined > 30, "{joined}");
    assert!(clock.len() > 300 && unfit * 20 < planned);
    assert!(clock.least() > 0.95 && clock.most() < 1.05, "{clock}");
    assert!(excess.most() <= 1.0, "{excess}");
}

/// As above, where kernels can read host memory and much is read in part.
#[test]
fn any_plan_with_chunks_read_in_place_can_be_carried_out() {
    let mut random = Random::new(5);
    let (mut planned, mut on_host, mut beside_copies, mut rescued) = (0, 0, 0, 0);
    let mut gain = Spread::default();
    for case in 0..cases(200) {
        let mut problem = random_problem(&mut random);
        // Chunks large enough to be considered.
        problem.machine.frame_bytes = 64 << 20;
        problem.machine.zero_copy_bytes_per_s =
            Some(problem.machine.link_bytes_per_s * random.within(5, 10) as f64 / 10.0);
        for phase in &mut problem.phases {
            for step in &mut phase.steps {
                step.ns *= 3; // little, for frames that are 32 times as large
                let touched = &phase.uses[step.first_use as usize..][..step.use_count as usize];
                let frames = touched.iter().map(|&chunk| problem.chunks[chunk as usize].frames);
                let bytes = u64::from(frames.sum::<u32>()) * problem.machine.frame_bytes;
                step.read_bytes = match random.within(0, 3) {
                    0 => u64::MAX,
                    1 => 0,
                    _ => bytes * random.within(0, 60) / 100,
                };
            }
        }
        let effort = if case % 2 == 0 { Effort::Searched } else { Effort::Quick };
        let mut streamed = problem.clone();
        streamed.machine.zero_copy_bytes_per_s = None;
        let streamed = plan(&streamed, None, effort);
        let Ok(found) = plan(&problem, None, effort) else {
            assert!(streamed.is_err(), "case {case}");
            continue;
        };
        planned += 1;
        found.verify(&problem).unwrap_or_else(|fault| panic!("case {case}: {fault}"));
        let seen = check(&problem, &found, 16).unwrap_or_else(|why| panic!("case {case}: {why}"));
        let host: u32 = found.layouts.iter().map(|layout| layout.host_frames).sum();
        if host == 0 {
            continue;
        }
        on_host += 1;
        for (seen, phase) in seen.iter().zip(&found.phases) {
            beside_copies += u32::from(seen.streamed_bytes > 0);
            // Less where kernels and copies use the link at once, which only
            // the planner's clock knows about.
            assert!(seen.period_ns < phase.period_ns as f64 * 1.05, "case {case}");
        }
        match streamed {
            Ok(streamed) => gain.add(cost(&problem, &streamed) / cost(&problem, &found)),
            Err(_) => rescued += 1,
        }
        let again = plan(&problem, Some(&found), effort).expect("as before");
        assert_eq!(again.moved_frames(&found), 0, "case {case}");
    }
    println!("{planned} planned, {on_host} with frames on the host, {rescued} only so");
    println!("{beside_copies} phases with copies beside them; time streamed over in place: {gain}");
    assert!(on_host > 30 && beside_copies > 5);
    assert!(gain.least() > 0.9 && gain.at(0.5) > 1.1, "{gain}");
}

/// The same question gets the same answer; nothing else goes into it.
#[test]
fn plans_are_repeated_to_the_letter() {
    let mut random = Random::new(2);
    for case in 0..cases(100) {
        let problem = random_problem(&mut random);
        let effort = if case % 2 == 0 { Effort::Searched } else { Effort::Quick };
        let once = plan(&problem, None, effort);
        assert_eq!(once, plan(&problem.clone(), None, effort), "case {case}");
        if let Ok(once) = once {
            let again = plan(&problem, Some(&once), effort).expect("as before");
            assert_eq!(again.moved_frames(&once), 0, "case {case}");
            check(&problem, &again, 4).unwrap_or_else(|why| panic!("case {case}: {why}"));
        }
    }
}

/// New measurements of the same program move little.
#[test]
fn a_small_change_moves_little() {
    let mut random = Random::new(3);
    let (mut moved, mut afresh, mut lost) =
        (Spread::default(), Spread::default(), Spread::default());
    for case in 0..cases(180) {
        let problem = random_problem(&mut random);
        let Ok(before) = plan(&problem, None, Effort::Searched) else { continue };
        if before.phases.iter().all(|phase| phase.copies.is_empty()) {
            continue;
        }
        let mut measured = problem.clone();
        for step in measured.phases.iter_mut().flat_map(|phase| &mut phase.steps) {
            step.ns = step.ns * random.within(97, 103) / 100;
        }
        measured.machine.link_bytes_per_s *= random.within(98, 102) as f64 / 100.0;
        let fresh = plan(&measured, None, Effort::Searched).expect("as before");
        let kept = plan(&measured, Some(&before), Effort::Searched).expect("as before");
        let seen = check(&measured, &kept, 4).unwrap_or_else(|why| panic!("case {case}: {why}"));
        assert_eq!(seen.len(), problem.phases.len());
        let share =
            |plan: &Plan| f64::from(plan.moved_frames(&before)) / f64::from(total_frames(&problem));
        moved.add(share(&kept));
        afresh.add(share(&fresh));
        lost.add(cost(&measured, &kept) / cost(&measured, &fresh));
    }
    println!("frames moved, of all: {moved}");
    println!("by a plan made afresh: {afresh}");
    println!("time kept over afresh: {lost}");
    assert!(moved.len() > 100);
    assert!(moved.at(0.5) <= afresh.at(0.5) && moved.mean() < 0.2, "{moved}");
    assert!(lost.most() < 1.05, "{lost}");
}

/// More memory never costs much time: the planner could leave it unused. (It
/// searches, and so may miss by more on a handful of chunks: of 6608 problems
/// with `AUTOOFFLOAD_TEST_CASES=10000`, 4 by more than 4 %, the worst by 19 %,
/// with three chunks one of which is most of memory.)
#[test]
fn more_memory_does_not_hurt() {
    let mut random = Random::new(4);
    let mut ratios = Spread::default();
    for _ in 0..cases(180) {
        let mut problem = random_problem(&mut random);
        if problem.phases.len() > 1 {
            continue; // the weight of phases against each other is another test
        }
        let Ok(less) = plan(&problem, None, Effort::Searched) else { continue };
        let extra = random.within(1, 1 + u64::from(total_frames(&problem)) / 4) as u32;
        problem.machine.frames += extra;
        let more = plan(&problem, None, Effort::Searched).expect("more memory");
        ratios.add(cost(&problem, &more) / cost(&problem, &less));
    }
    println!("time with more memory over time with less: {ratios}");
    assert!(ratios.len() > 50 && ratios.at(0.99) <= 1.02 && ratios.most() < 1.25, "{ratios}");
}

/// Time of all phases, each as often as it repeats.
fn cost(problem: &Problem, plan: &Plan) -> f64 {
    let each = plan.phases.iter().zip(&problem.phases);
    each.map(|(plan, phase)| plan.period_ns as f64 * f64::from(phase.repeats.max(1))).sum()
}

/// Where copies have a price, neighbours come together: fewer copies, and never
/// slower by the planner's clock than without places; and only what lies side
/// by side.
#[test]
fn neighbours_are_copied_at_once() {
    let mut random = Random::new(6);
    let (mut fewer, mut time, mut clock) =
        (Spread::default(), Spread::default(), Spread::default());
    for case in 0..cases(10) {
        let count = random.within(100, 300) as u32;
        let chunk = |id| Chunk { id, frames: 1 + id % 2, ..Chunk::default() };
        let chunks: Vec<Chunk> = (0..count).map(chunk).collect();
        let total: u32 = chunks.iter().map(|chunk| chunk.frames).sum();
        let machine = Machine {
            frames: total * random.within(15, 80) as u32 / 100,
            link_bytes_per_s: 55e9,
            ..Machine::default()
        };
        let mut phase = Phase { repeats: 10, ..Phase::default() };
        let ns = random.within(5_000, 60_000);
        // Once or twice through; here and there two at a time, or out of order.
        for _ in 0..random.within(1, 2) {
            let mut chunk = 0;
            while chunk < count {
                let pair = [chunk, (chunk + 1).min(count - 1)];
                match random.within(0, 19) {
                    // Two tensors in each, one by one.
                    _ if case % 3 == 2 => {
                        pair.iter().for_each(|&one| {
                            phase.push(ns / 2, &[one]);
                            phase.push(ns / 9, &[]);
                            phase.push(ns / 2, &[one]);
                        });
                    }
                    _ if pair[0] == pair[1] => phase.push(ns, &[chunk]),
                    0 => phase.push(2 * ns, &pair),
                    1 => pair.iter().rev().for_each(|&one| phase.push(ns, &[one])),
                    _ => pair.iter().for_each(|&one| phase.push(ns, &[one])),
                }
                chunk += 2;
            }
        }
        let apart = Problem { chunks, phases: vec![phase], machine, window_frames: None };
        let mut beside = apart.clone();
        in_slabs(&mut beside, &mut random);
        let [before, after] =
            [&apart, &beside].map(|problem| plan(problem, None, Effort::Searched).expect("a plan"));
        after.verify(&beside).unwrap_or_else(|fault| panic!("case {case}: {fault}"));
        let seen = check(&beside, &after, 8).unwrap_or_else(|why| panic!("case {case}: {why}"));
        clock.add(seen[0].period_ns / after.phases[0].period_ns as f64);
        assert!(before.runs.is_empty());
        let copies =
            |plan: &Plan| plan.phases[0].copies.iter().filter(|c| !c.joined).count() as f64;
        fewer.add(copies(&after) / copies(&before));
        time.add(cost(&beside, &after) / cost(&apart, &before));
        // Elsewhere in the slabs, the same plan is none.
        if let Some(&(chunk, _)) = after.runs.first().and_then(|run| run.last()) {
            let mut moved = beside.clone();
            let place = &mut moved.chunks[chunk as usize].place;
            *place = place.map(|place| Place { slab: place.slab + 9999, ..place });
            assert!(matches!(after.verify(&moved), Err(Fault::BadRun { .. })), "case {case}");
        }
    }
    println!("copies with places over without: {fewer}");
    println!("time: {time}");
    println!("period carried out over planned: {clock}");
    assert!(fewer.most() < 0.9 && fewer.at(0.5) < 0.6, "{fewer}");
    assert!(time.least() < 0.97 && time.most() <= 1.002, "{time}");
    assert!(clock.least() > 0.98 && clock.most() < 1.02, "{clock}");
}
