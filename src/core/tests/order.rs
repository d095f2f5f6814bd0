//! The order of uses, told in addresses and answered in chunks.

use autooffload_core::address_map::ChunkId;
use autooffload_core::learn::Description;
use autooffload_core::order::{Named, Order, Outcome};

const MIB: u64 = 1 << 20;
/// Chunks lie so far from each other, and hold weights of so many bytes.
const STRIDE: u64 = 22 * MIB;
const WEIGHT: u64 = 2 * MIB;

fn address(chunk: ChunkId, weight: u64) -> u64 {
    (u64::from(chunk) + 1) * STRIDE + weight * WEIGHT
}

fn weight(chunk: ChunkId, weight: u64) -> Named {
    Named { chunk, address: address(chunk, weight) }
}

/// Layers of four weights, two layers to a chunk, each weight used with an
/// activation that lies anywhere in a chunk of its own.
fn pass(layers: u32, iteration: u64) -> Vec<Vec<Named>> {
    let activations = layers;
    let operation = |index: u64| {
        let (layer, number) = ((index / 4) as u32, index % 4);
        let (chunk, place) = (layer / 2, u64::from(layer % 2) * 4 + number);
        let anywhere = (index * 7 + iteration * 13) % 11;
        vec![weight(chunk, place), weight(activations, anywhere)]
    };
    (0..u64::from(layers) * 4).map(operation).collect()
}

fn loaded(layers: u32) -> Order {
    let mut order = Order::default();
    for index in 0..u64::from(layers) * 4 {
        let (chunk, place) = ((index / 8) as u32, index % 8);
        let start = address(chunk, place);
        order.filled(chunk, start..start + WEIGHT);
        order.observe(&[weight(chunk, place)]);
    }
    order
}

fn operations(description: &Description) -> Vec<u32> {
    let of = |phase: &autooffload_core::learn::Phase| {
        phase.steps.iter().map(|step| step.operations).sum::<u32>()
    };
    description.phases.iter().map(of).collect()
}

#[test]
fn layers_that_share_a_chunk_are_not_taken_for_iterations() {
    const LAYERS: u32 = 12;
    let mut order = loaded(LAYERS);
    for iteration in 0..4 {
        for named in pass(LAYERS, iteration) {
            order.observe(&named);
        }
    }
    let description = order.describe();
    assert_eq!(operations(&description), [LAYERS * 4]);
    // What comes next is told in chunks, each as often as its weights are named.
    let mut cursor = order.ahead().unwrap();
    let mut weights =
        std::iter::from_fn(|| order.next(&mut cursor)).filter(|next| next.chunk < LAYERS);
    for named in pass(LAYERS, 9) {
        assert_eq!(weights.next().unwrap().chunk, named[0].chunk);
    }
    // And what a chunk is used for in a row is one step; the iteration may begin
    // and end in the middle of one.
    let phase = &description.phases[0];
    assert!(phase.steps.len() <= LAYERS as usize / 2 + 1, "{:?}", phase.steps);
    assert!(phase.steps.iter().all(|step| step.use_count == 2));
}

/// Each operation writes what the next one reads, anywhere in a chunk of its own.
fn activations(iteration: u64, place: impl Fn(u64) -> u64) -> Vec<[Named; 2]> {
    const CHUNKS: u64 = 20;
    let written = |operation: u64| weight((operation % CHUNKS) as u32, place(operation));
    let first = iteration * CHUNKS;
    (first..first + CHUNKS).map(|at| [written(at + CHUNKS), written(at + CHUNKS - 1)]).collect()
}

#[test]
fn what_is_written_to_be_read_says_nothing_by_its_address() {
    let mut order = Order::default();
    let anywhere = |operation| operation / 20 * 3 % 9 + operation % 3;
    for named in (0..5).flat_map(|iteration| activations(iteration, anywhere)) {
        order.observe(&named);
    }
    assert_eq!(operations(&order.describe()), [20]);
    let epoch = order.epoch();
    for named in activations(5, |at| if at < 120 { anywhere(at) } else { 10 }) {
        assert!(order.ahead().is_some());
        assert_ne!(order.observe(&named), Outcome::Wrong, "{named:?}");
    }
    assert_eq!(order.epoch(), epoch);
}

#[test]
fn weights_that_the_device_made_are_told_apart_as_those_that_were_copied() {
    const LAYERS: u32 = 12;
    let mut order = Order::default();
    // Drawn, and scaled by the operation after that; or cast from elsewhere.
    for index in 0..u64::from(LAYERS) * 4 {
        let named = weight((index / 8) as u32, index % 8);
        order.observe(&[named, named]);
        if index % 3 == 0 {
            order.observe(&[named, weight(LAYERS, 0)]);
        }
    }
    for iteration in 0..5 {
        for mut named in pass(LAYERS, iteration) {
            named.push(named[0]);
            order.observe(&named);
        }
    }
    let description = order.describe();
    assert!(operations(&description).contains(&(LAYERS * 4)), "{:?}", operations(&description));
    let mut cursor = order.ahead().unwrap();
    let mut weights =
        std::iter::from_fn(|| order.next(&mut cursor)).filter(|next| next.chunk < LAYERS);
    for named in pass(LAYERS, 9) {
        assert_eq!(weights.next().unwrap().chunk, named[0].chunk);
    }
}

/// Passes over twelve layers, each operation with one of a few places where activations
/// lie for long, chosen anew in each pass. Answers how often the last `passes` were not
/// what was foretold.
fn slips_with(order: &mut Order, passes: u64, place: impl Fn(u64) -> Named) -> u64 {
    const LAYERS: u32 = 12;
    const FIRST: u64 = 8;
    let mut random = 1u64;
    let mut before = 0;
    for iteration in 0..FIRST + passes {
        if iteration == FIRST {
            before = order.epoch();
        }
        for mut named in pass(LAYERS, iteration) {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            named.push(place((random >> 33) % 40));
            order.observe(&named);
        }
    }
    order.epoch() - before
}

#[test]
fn what_lies_long_where_activations_lie_does_not_disturb_the_order_of_weights() {
    let mut order = loaded(12);
    let slips = slips_with(&mut order, 12, |place| weight(20, place));
    assert!(slips <= 2, "{slips} slips in 12 passes");
}

#[test]
fn inputs_that_are_sent_again_and_again_do_not_disturb_the_order_of_weights() {
    let mut order = loaded(12);
    let input = |place| weight(20, place);
    for _ in 0..2 {
        for place in 0..40 {
            let Named { chunk, address } = input(place);
            order.filled(chunk, address..address + WEIGHT);
            order.observe(&[input(place)]);
        }
    }
    let slips = slips_with(&mut order, 12, input);
    assert!(slips <= 2, "{slips} slips in 12 passes");
}

#[test]
fn a_freed_chunk_is_never_named_again_and_its_symbols_are_used_anew() {
    const LAYERS: u32 = 12;
    let mut order = loaded(LAYERS);
    for iteration in 0..3 {
        pass(LAYERS, iteration).iter().for_each(|named| {
            order.observe(named);
        });
    }
    order.forget(2);
    assert!(order.describe().phases.iter().all(|phase| !phase.uses.contains(&2)));
    let mut cursor = order.ahead().unwrap();
    for _ in 0..200 {
        assert_ne!(order.next(&mut cursor).unwrap().chunk, 2);
    }
    // Another allocation of the same number, again and again; the learner
    // remembers as much as it ever will.
    for iteration in 0..3000 {
        pass(LAYERS, iteration).iter().for_each(|named| {
            order.observe(named);
        });
    }
    order.forget(2);
    let before = order.footprint();
    for round in 0..1000u64 {
        order.filled(2, address(2, 0)..address(2, 8));
        (0..8).for_each(|place| {
            order.observe(&[weight(2, (place + round) % 8)]);
        });
        order.forget(2);
    }
    assert!(order.footprint() < before + (64 << 10), "{} {before}", order.footprint());
}

#[test]
fn memory_is_bounded_however_many_addresses_are_named() {
    let mut order = Order::default();
    order.filled(0, 0..1 << 40);
    for index in 0..100_000u64 {
        order.observe(&[Named { chunk: 0, address: index * 512 }]);
        order.filled(1, index * 4096..index * 4096 + 512);
    }
    assert!(order.footprint() < 16 << 20, "{}", order.footprint());
}
