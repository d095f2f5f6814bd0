//! The learner against programs drawn at random: whatever it is told, its
//! invariants hold.

mod learn_support;

use autooffload_core::address_map::ChunkId;
use autooffload_core::learn::{Learner, Phase};
use learn_support::{Network, Program, Random};

/// A loop nest: loops of loops of stretches, with what comes now and then.
fn nest(random: &mut Random, chunks: u64, depth: u32) -> Program {
    let mut program = Program::new();
    for _ in 0..1 + random.below(3) {
        let body = if depth > 0 && random.below(3) > 0 {
            nest(random, chunks, depth - 1)
        } else {
            let first = random.below(chunks);
            let length = 1 + random.below(20);
            (0..length)
                .map(|index| match random.below(8) {
                    0 => vec![],
                    1 => (0..random.below(5)).map(|k| (first + index + k) as ChunkId).collect(),
                    2 => vec![random.below(chunks) as ChunkId],
                    _ => vec![(first + index) as ChunkId],
                })
                .collect()
        };
        for _ in 0..1 + random.below(5) {
            program.extend_from_slice(&body);
        }
        program.truncate(3000);
    }
    program
}

/// Looks ahead and checks what is said.
fn look(learner: &Learner, freed: &[bool]) {
    let Some(mut cursor) = learner.ahead() else { return };
    let mut last = 1;
    for _ in 0..100 {
        let Some(next) = learner.next(&mut cursor) else { return };
        assert!(!freed[next.chunk as usize], "{next:?} was freed");
        assert!(next.distance >= last, "{next:?} after {last}");
        last = next.distance;
    }
}

fn describe(learner: &Learner, freed: &[bool]) {
    let description = learner.describe();
    assert!(description.phases.len() <= 64);
    assert!(description.present.is_none_or(|present| present < description.phases.len()));
    for phase in &description.phases {
        assert!(phase.repeats >= 1);
        let mut first_use = 0;
        for step in &phase.steps {
            assert_eq!(step.first_use, first_use);
            first_use += step.use_count;
            assert!(step.operations > 0);
            let uses = &phase.uses[step.first_use as usize..][..step.use_count as usize];
            assert!(uses.iter().all(|&chunk| !freed[chunk as usize]));
            assert!((1..uses.len()).all(|index| !uses[..index].contains(&uses[index])));
        }
        assert_eq!(first_use as usize, phase.uses.len());
    }
}

fn play(seed: u64) -> (Learner, Vec<bool>) {
    let mut random = Random(seed);
    let chunks = 4 + random.below(60);
    let mut freed = vec![false; 256];
    let mut learner = Learner::new();
    let noise = random.below(4);
    let frees = random.below(3) == 0;
    for _ in 0..3 {
        let body = nest(&mut random, chunks, 3);
        for _ in 0..1 + random.below(4) {
            for operation in &body {
                let mut operation = operation.clone();
                if random.below(8) < noise {
                    operation.push(200 + random.below(6) as ChunkId);
                }
                if random.below(64) < noise {
                    // Now and then something is left out.
                    continue;
                }
                operation.iter().for_each(|&chunk| freed[chunk as usize] = false);
                let before = learner.operations();
                let epoch = learner.epoch();
                let version = learner.version();
                let stands = learner.ahead().map(|_| learner.position());
                learner.observe(&operation);
                assert_eq!(learner.operations(), before + 1);
                assert!(learner.epoch() >= epoch && learner.version() >= version);
                if let (Some(then), Some(_), true) =
                    (stands, learner.ahead(), epoch == learner.epoch())
                {
                    assert!(
                        learner.position() >= then,
                        "went back within an epoch: {then} {}",
                        learner.position()
                    );
                }
                if frees && random.below(150) == 0 {
                    let chunk = random.below(chunks) as ChunkId;
                    freed[chunk as usize] = true;
                    learner.forget(chunk);
                    learner.check();
                }
                match random.below(40) {
                    0 => look(&learner, &freed),
                    1 => {
                        let from = learner.operations().saturating_sub(random.below(200));
                        learner.measured(from..from + random.below(64), random.below(1 << 20));
                    }
                    2 => learner.check(),
                    _ => (),
                }
            }
            describe(&learner, &freed);
        }
    }
    learner.check();
    (learner, freed)
}

#[test]
fn invariants_hold_for_any_program() {
    for seed in 0..300 {
        let result = std::panic::catch_unwind(|| play(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn the_same_calls_give_the_same_answers() {
    for seed in 0..20 {
        let ((one, _), (other, _)) = (play(seed), play(seed));
        assert_eq!(one.describe(), other.describe());
        assert_eq!((one.epoch(), one.version()), (other.epoch(), other.version()));
    }
}

#[test]
fn operations_in_no_order_are_survived_and_memory_is_bounded() {
    let mut random = Random(7);
    let mut learner = Learner::new();
    for index in 0..400_000u64 {
        let count = if random.below(50_000) == 0 { 6_000 } else { random.below(4) };
        let first = random.below(5_000);
        let operation: Vec<ChunkId> =
            (first..first + count).map(|chunk| chunk as ChunkId).collect();
        learner.observe(&operation);
        if index % 100_000 == 0 {
            learner.check();
        }
    }
    learner.observe(&[ChunkId::MAX - 1, 1 << 30]);
    learner.check();
    assert!(learner.footprint() < 40 << 20, "{} bytes", learner.footprint());
}

/// How many iterations of a network, drawn by `seed`, it takes until it is
/// described by what it is, an iteration of so many operations and nothing
/// else, for good. `None`: it never is.
fn described_after(seed: u64) -> Option<u32> {
    const ITERATIONS: u32 = 12;
    let mut random = Random(seed);
    let Network { weights, iteration } = Network::draw(&mut random);
    let mut learner = Learner::new();
    if random.below(4) > 0 {
        weights.iter().for_each(|&chunk| {
            learner.observe(&[chunk]);
        });
    }
    let mut since = None;
    for number in 1..=ITERATIONS {
        iteration.iter().for_each(|chunks| {
            learner.observe(chunks);
        });
        let phases = learner.describe().phases;
        let operations = |phase: &Phase| phase.steps.iter().map(|s| s.operations).sum::<u32>();
        let is_it = phases.len() == 1 && operations(&phases[0]) as usize == iteration.len();
        since = if is_it { since.or(Some(number)) } else { None };
    }
    learner.check();
    since
}

#[test]
fn networks_are_described_soon_however_their_weights_are_packed() {
    const NETWORKS: u64 = 4000;
    let after: Vec<Option<u32>> = (0..NETWORKS).map(described_after).collect();
    let within = |most: u32| after.iter().flatten().filter(|&&after| after <= most).count();
    let never = after.iter().filter(|after| after.is_none()).count();
    println!(
        "of {NETWORKS}: {} by the third, {} by the fifth, {never} never",
        within(3),
        within(5)
    );
    assert!(within(3) >= 3520, "{} by the third iteration", within(3));
    assert!(within(5) >= 3840, "{} by the fifth iteration", within(5));
    assert!(never <= 75, "{never} never");
}
