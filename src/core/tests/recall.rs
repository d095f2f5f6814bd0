//! An order that is kept: what is written is read, anything else is refused, and
//! what is recalled is predicted from the first operation on.

mod plan_support;

use autooffload_core::address_map::ChunkId;
use autooffload_core::order::{Named, Order, Outcome};
use autooffload_core::recall::{
    MAX_OPERATIONS, Place, Refused, Remembered, Step, decode, signature,
};
use plan_support::Random;

/// Whether the next operation, which names `named`, was foretold.
fn foretold(order: &mut Order, named: &[Named]) -> bool {
    let told = order.ahead().is_some();
    order.observe(named) != Outcome::Wrong && told
}

fn random(random: &mut Random) -> Remembered {
    let step = |random: &mut Random| {
        let place = |random: &mut Random| {
            let offset = (!random.one_in(4)).then(|| random.within(0, 1 << 40));
            Place { chunk: random.within(0, 1 << 20) as u32, offset }
        };
        let operations = random.within(1, 5) as u32;
        let (ns, count) = (random.within(0, 1 << 40), random.within(0, 3));
        Step { operations, ns, uses: (0..count).map(|_| place(random)).collect() }
    };
    let phases = random.within(0, 3);
    let steps = |random: &mut Random| {
        let count = random.within(1, 40);
        (0..count).map(|_| step(random)).collect()
    };
    Remembered { signature: random.next(), phases: (0..phases).map(|_| steps(random)).collect() }
}

#[test]
fn what_is_written_is_read() {
    let mut numbers = Random::new(1);
    for _ in 0..200 {
        let kept = random(&mut numbers);
        let file = kept.encode().expect("not too large");
        assert_eq!(decode(&file, kept.signature), Ok(kept.clone()));
        assert_eq!(decode(&file, kept.signature ^ 1), Err(Refused::OtherProgram));
    }
}

#[test]
fn one_changed_byte_or_a_lost_tail_is_noticed() {
    let mut numbers = Random::new(2);
    let kept = random(&mut numbers);
    let file = kept.encode().expect("not too large");
    for length in 0..file.len() {
        assert!(decode(&file[..length], kept.signature).is_err(), "cut to {length}");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= numbers.within(1, 255) as u8;
        let expected = match at {
            0..8 => Refused::NotAnOrder,
            8..10 => Refused::Version(u16::from_le_bytes([damaged[8], damaged[9]])),
            _ => Refused::Damaged,
        };
        assert_eq!(decode(&damaged, kept.signature), Err(expected), "byte {at}");
    }
}

#[test]
fn what_cannot_be_is_refused_behind_a_right_checksum() {
    let signed = |body: &[u8]| {
        let mut file = Remembered::default().encode().expect("empty");
        file.truncate(18);
        file.extend_from_slice(body);
        file.extend(crc32fast::hash(&file).to_le_bytes());
        decode(&file, 0)
    };
    assert_eq!(signed(&[0]), Ok(Remembered::default()));
    for body in [
        &[][..],                           // ends
        &[0, 0],                           // something follows
        &[255, 255, 255, 127],             // more phases than bytes
        &[1, 1, 0, 0, 0],                  // a step of no operation
        &[1, 1, 1, 0, 9, 0, 0],            // fewer uses than promised
        &[1, 1, 255, 255, 255, 127, 0, 0], // operations for minutes
    ] {
        assert!(matches!(signed(body), Err(Refused::Inconsistent(_))), "{body:?}");
    }
}

#[test]
fn what_is_too_long_to_be_shown_is_not_kept() {
    let step = Step { operations: MAX_OPERATIONS as u32, ..Step::default() };
    let mut kept = Remembered { signature: 1, phases: vec![vec![step.clone()]] };
    assert!(kept.encode().is_some());
    kept.phases.push(vec![step]);
    assert!(kept.encode().is_none());
}

#[test]
fn a_signature_tells_sizes_their_order_and_number() {
    let of = |sizes: &[u64]| signature(sizes.iter().copied());
    assert_eq!(of(&[]), 0xa8c7_f832_281a_39c5, "files depend on it");
    let all = [of(&[]), of(&[0]), of(&[1, 2]), of(&[2, 1]), of(&[1, 2, 0])];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one));
    }
}

const MIB: u64 = 1 << 20;

/// `chunks` of 20 MiB, with eight weights each, at addresses that begin at `base`.
struct Program {
    chunks: u32,
    base: u64,
    first_id: ChunkId,
}

impl Program {
    fn place(&self, number: u32) -> Option<(ChunkId, u64)> {
        (number < self.chunks)
            .then(|| (self.first_id + number, self.base + u64::from(number) * 22 * MIB))
    }

    fn load(&self, order: &mut Order) {
        for number in 0..self.chunks {
            let (chunk, start) = self.place(number).expect("one of its own");
            order.filled(chunk, start..start + 16 * MIB);
            order.observe(&[Named { chunk, address: start }]);
        }
    }

    /// One iteration: every weight once, in another order than that of loading, each
    /// with an activation.
    fn pass(&self) -> Vec<Vec<Named>> {
        let operation = |index: u32| {
            let (number, weight) = (index * 5 % self.chunks, u64::from(index / self.chunks));
            let (chunk, start) = self.place(number).expect("one of its own");
            let weight = Named { chunk, address: start + weight * 2 * MIB };
            vec![weight, Named { chunk: 500, address: 1 }]
        };
        (0..8 * self.chunks).map(operation).collect()
    }
}

#[test]
fn what_is_recalled_is_predicted_from_the_first_operation_on() {
    let before = Program { chunks: 12, base: 1 << 40, first_id: 3 };
    let mut order = Order::default();
    before.load(&mut order);
    for _ in 0..5 {
        let first = order.operations();
        before.pass().iter().for_each(|named| _ = order.observe(named));
        order.measured(first..order.operations(), 96_000_000);
    }
    let number = |chunk: ChunkId| chunk.checked_sub(3).filter(|&number| number < 12);
    let base = |number: u32| before.place(number).expect("one of its own").1;
    let kept = order.remember(7, |chunk| number(chunk).map(|number| (number, base(number))));
    assert_eq!(kept.phases.len(), 1);
    let operations: u32 = kept.phases[0].iter().map(|step| step.operations).sum();
    assert_eq!(operations, 8 * 12);
    assert!(kept.phases[0].iter().all(|step| step.ns > 0));

    // Another start: other addresses, other numbers.
    let after = Program { base: 1 << 41, first_id: 40, ..before };
    let mut order = Order::default();
    after.load(&mut order);
    let kept = decode(&kept.encode().expect("small"), 7).expect("whole");
    order.recall(&kept, |number| after.place(number));
    let mut slips = 0;
    for named in after.pass() {
        slips += u32::from(!foretold(&mut order, &named));
    }
    assert!(slips <= 4, "{slips} of 96 were not foretold");
    let steps = &order.describe().phases[0].steps;
    assert!(steps.iter().all(|step| step.ns > 0), "times are recalled, too");
}

#[test]
fn what_is_recalled_wrongly_is_unlearned() {
    let program = Program { chunks: 12, base: 1 << 40, first_id: 3 };
    let mut order = Order::default();
    program.load(&mut order);
    let step = |number: u32| {
        let uses = vec![Place { chunk: number % 12, offset: Some(0) }];
        Step { operations: 1, ns: 1000, uses }
    };
    let backwards = (0..96).rev().map(step).collect();
    let kept = Remembered { signature: 0, phases: vec![backwards] };
    order.recall(&kept, |number| program.place(number));
    for _ in 0..4 {
        program.pass().iter().for_each(|named| _ = order.observe(named));
    }
    let slips = program.pass().iter().filter(|named| !foretold(&mut order, named)).count();
    assert!(slips <= 4, "{slips} of 96 were not foretold");
}
