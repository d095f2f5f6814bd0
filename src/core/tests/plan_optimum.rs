//! How far bound and planner are from the true optimum, on tiny problems on
//! which it can be found by search (see `plan_support/optimum.rs`).

mod plan_support;

use plan_support::optimum::{Search, Tiny, optimum};
use plan_support::{Random, cases};

const STATES: usize = 400_000;

/// At most `chunks` chunks of at most `frames` frames.
fn random_problem(random: &mut Random, chunks: u64, frames: u64, steps: u64) -> Tiny {
    loop {
        let count = random.within(2, chunks) as usize;
        let sizes: Vec<u32> = (0..count).map(|_| random.within(1, frames) as u32).collect();
        let mut order: Vec<Vec<usize>> = (0..count).map(|chunk| vec![chunk]).collect();
        // Now and then a chunk is used again, several together, or none.
        while (order.len() as u64) < steps && random.one_in(2) {
            let at = random.within(0, order.len() as u64) as usize;
            let mut needs = Vec::new();
            for _ in 0..random.within(0, 2) {
                let chunk = random.within(0, count as u64 - 1) as usize;
                if !needs.contains(&chunk) {
                    needs.push(chunk);
                }
            }
            order.insert(at, needs);
        }
        // Compute from a tenth of what copying all would take to thrice that.
        let frame_units = random.within(1, 6) as u32;
        let all = u64::from(sizes.iter().sum::<u32>() * frame_units);
        let each = all * random.within(2, 60) / 10 / order.len() as u64;
        let steps = order
            .into_iter()
            .map(|needs| (random.within(1, (2 * each).clamp(1, 200)) as u32, needs))
            .collect();
        let mut tiny = Tiny { chunks: sizes, steps, capacity: 0, frame_units, copy_units: 0 };
        let (least, most) = (tiny.largest_step(), tiny.total_frames() - 1);
        if least <= most {
            tiny.capacity = random.within(least.into(), most.into()) as u32;
            return tiny;
        }
    }
}

/// Small enough to see the answer.
#[test]
fn by_hand() {
    let problem = |chunks: &[u32], steps: &[(u32, &[usize])], capacity, frame_units, copy_units| {
        let steps = steps.iter().map(|&(time, needs)| (time, needs.to_vec())).collect();
        Tiny { chunks: chunks.to_vec(), steps, capacity, frame_units, copy_units }
    };
    let period = |tiny: &Tiny| {
        optimum(tiny, Search::Everything, &vec![0; tiny.chunks.len()], STATES).unwrap().period
    };
    // One frame, two takers: nothing overlaps.
    assert_eq!(period(&problem(&[1, 1], &[(3, &[0]), (3, &[1])], 1, 2, 0)), 10.0);
    assert_eq!(period(&problem(&[1, 1], &[(3, &[0]), (3, &[1])], 1, 2, 1)), 12.0);
    // Two frames, three takers in turn: each copy hides behind the step before
    // it, every chunk ends up in the other frame every other time.
    let rotation = problem(&[1, 1, 1], &[(5, &[0]), (5, &[1]), (5, &[2])], 2, 5, 0);
    assert_eq!(period(&rotation), 15.0);
    // With the first chunk always there, the other two share a frame.
    let kept = optimum(&rotation, Search::Rules, &[1, 0, 0], STATES).unwrap().period;
    assert_eq!(kept, 20.0);
    // A third of the larger chunk does not fit; a batch of two costs less than
    // two of one, but both can only start when the step that holds them ends.
    assert_eq!(period(&problem(&[3, 1], &[(4, &[0]), (2, &[1])], 3, 3, 1)), 4.0 + 4.0 + 2.0 + 4.0);
    // Everything fits.
    assert_eq!(period(&problem(&[1, 1], &[(3, &[0]), (4, &[1])], 2, 9, 9)), 7.0);
}

/// The exchange arguments hold: leaving out what the rules leave out costs
/// nothing.
#[test]
fn the_rules_lose_nothing() {
    let mut random = Random::new(1);
    let (mut compared, mut streamed) = (0, 0);
    for case in 0..cases(400) {
        let tiny = random_problem(&mut random, 5, 3, 8);
        let none = vec![0; tiny.chunks.len()];
        let Some(all) = optimum(&tiny, Search::Everything, &none, STATES) else { continue };
        let ruled = optimum(&tiny, Search::Rules, &none, STATES).expect("the smaller graph");
        assert!((all.period - ruled.period).abs() < 1e-6, "{case}: {all:?} {ruled:?} {tiny:?}");
        compared += 1;
        streamed += u32::from(all.period > f64::from(tiny.compute()) + 0.5);
    }
    println!("{compared} compared, {streamed} of which had to wait for the link");
    assert!(compared > 100 && streamed > 50);
}
