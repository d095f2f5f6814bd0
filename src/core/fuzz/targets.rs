//! What is tried on arbitrary bytes: by the fuzz targets, and on every file of
//! `fuzz/seeds` by `tests/fuzz_corpus.rs`, which includes this file too.

#![allow(dead_code, reason = "each fuzz target calls one")]

#[path = "../tests/plan_support/check.rs"]
mod check;

use autooffload_core::address_map::ChunkId;
use autooffload_core::config::{Config, SETTINGS};
use autooffload_core::learn::{Description, Learner};
use autooffload_core::order::Order;
use autooffload_core::params::{BLOCKS_FROM, Span, scan, scan_blocks};
use autooffload_core::plan::{
    Chunk, Effort, Machine, Phase, Place, Problem, SLAB_FRAMES, plan as make_plan,
};
use autooffload_core::recall::{Remembered, decode};
use autooffload_lab::workload::format;
use autooffload_shared::page::{CHUNKS, DEVICES, Page, Unreadable, WORDS};
use std::sync::atomic::AtomicU64;

/// Reading never panics; what it accepts is written and read again unchanged.
pub fn trace(data: &[u8]) {
    if let Ok(trace) = format::read(data) {
        let text = format::write(&trace);
        let again = format::read(text.as_bytes()).expect("what was written is read");
        assert!(again == trace.normalized());
        assert_eq!(format::write(&again), text);
    }
}

/// Reading never panics; nor does using what was accepted.
pub fn order_file(data: &[u8]) {
    let accepted = decode(data, signature_in(data));
    // The checksum keeps arbitrary bytes out. Behind a right one, they go on.
    let mut signed = Remembered::default().encode().expect("it holds nothing");
    signed.truncate(18);
    signed.extend_from_slice(data);
    signed.extend(crc32fast::hash(&signed).to_le_bytes());
    for kept in [accepted, decode(&signed, 0)].into_iter().flatten() {
        let again = kept.encode().expect("what was read is no longer than what is");
        assert!(decode(&again, kept.signature).as_ref() == Ok(&kept));
        let operations = kept.phases.iter().flatten().map(|step| step.operations).sum::<u32>();
        if operations <= 1 << 12 {
            let mut order = Order::default();
            (0..8).for_each(|chunk| order.filled(chunk, 4096..1 << 30));
            order.recall(&kept, |chunk| Some((chunk % 16, 4096)));
            describe(&order.describe());
        }
    }
}

/// Reading never panics; what it accepts is written and read again unchanged.
pub fn page(data: &[u8]) {
    let words = |data: &[u8]| -> [AtomicU64; WORDS] {
        let mut words = data.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            AtomicU64::new(u64::from_le_bytes(word))
        });
        std::array::from_fn(|_| words.next().unwrap_or_default())
    };
    let read_as_it_is = words(data);
    let _ = Page::new(&read_as_it_is).read();
    // The first words keep arbitrary bytes out. Behind right ones, they go on.
    let mut behind = vec![0; 16];
    behind.extend(2u64.to_le_bytes());
    behind.extend(data);
    let behind = words(&behind);
    Page::new(&behind).begin();
    let view = match Page::new(&behind).read() {
        Ok(view) => view,
        Err(why) => return assert!(matches!(why, Unreadable::Unfinished)),
    };
    assert!(view.devices.len() <= DEVICES);
    assert!(view.devices.iter().all(|(_, chunks)| chunks.len() <= CHUNKS));
    let again = words(&[]);
    Page::new(&again).begin();
    Page::new(&again).write(&view);
    let mut same = Page::new(&again).read().expect("what was written is read");
    // What was told to follow may have been more than there is.
    same.process.devices = view.process.devices;
    for ((device, _), (told, _)) in same.devices.iter_mut().zip(&view.devices) {
        device.listed = told.listed;
    }
    assert!(same == view);
}

/// Every address of the span that stands there is found, and nothing else, in both ways.
pub fn parameters(data: &[u8]) {
    let mut input = Bytes(data);
    let base = u64::from(input.next()) << (20 + input.next() % 37);
    let bytes = u64::from(input.next()) << (input.next() % 42);
    let (span, param) = (Span { base, bytes }, input.0);
    let (mut plain, mut blocks) = (Vec::new(), Vec::new());
    scan(param, span, |address| plain.push(address));
    scan_blocks(param, span, |address| blocks.push(address));
    assert!(plain.iter().all(|&address| span.contains(address)));
    assert!(plain == blocks || param.len() < BLOCKS_FROM && blocks.is_empty());
    let words = param
        .windows(8)
        .step_by(4)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")) & ((1 << 57) - 1));
    assert!(words.filter(|&word| word.wrapping_sub(base) < bytes).eq(plain));
}

fn signature_in(data: &[u8]) -> u64 {
    let bytes = data.get(10..18).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// Settings of any text: read without harm; what is echoed is what was understood.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    for setting in SETTINGS {
        let one = |name: &str| (name == setting.name).then(|| first.to_string());
        let (mut config, warnings) = Config::read(one);
        assert!(warnings.len() <= 1);
        let _ = config.set(setting.name, second);
        assert!(config.echo().contains(setting.name));
        let total = 24 << 30;
        assert!(config.budget_bytes(total, total / 2, total / 4) <= total);
    }
}

/// Any small problem: no panic, and a plan that can be carried out.
pub fn planner(data: &[u8]) {
    let mut input = Bytes(data);
    let mut problem = Problem {
        machine: Machine {
            link_bytes_per_s: 1e9 * (1.0 + f64::from(input.next())),
            copy_ns: 250 * u64::from(input.next()),
            release_ns: 1000 * u64::from(input.next()),
            release_bytes_per_s: match input.next() {
                0 => f64::INFINITY,
                rate => 1e9 * f64::from(rate),
            },
            backlog_bytes: u64::from(input.next()) << 20,
            ..Machine::default()
        },
        window_frames: match input.next() {
            0..128 => None,
            window => Some(u32::from(window) - 128),
        },
        ..Problem::default()
    };
    let effort = if input.next() % 8 > 0 { Effort::Quick } else { Effort::Searched };
    let available = u32::from(input.next()) << (input.next() % 4);
    problem.machine.frames = available;
    let count = 1 + u32::from(input.next() % 24);
    let (mut slab, mut at) = (0, 0);
    for id in 0..count {
        let size = u32::from(input.next());
        let frames = 1 + size / 8;
        if at + frames > SLAB_FRAMES {
            (slab, at) = (slab + 1, 0);
        }
        // Most small ones side by side.
        let place = (frames <= 8 && size % 8 > 0).then_some(Place { slab, at });
        at += frames;
        problem.chunks.push(Chunk { id: 7 * id, frames, pinned: size % 8 == 7, place });
    }
    let phases = 1 + input.next() % 3;
    let mut used = vec![false; count as usize];
    for _ in 0..phases {
        let (repeats, visits) = (u32::from(input.next()), u32::from(input.next()));
        let mut phase = Phase { repeats, visits, ..Phase::default() };
        let steps = 1 + input.next() % 40;
        for _ in 0..steps {
            let ns = u64::from(input.next()) << (input.next() % 24);
            let mut needs: Vec<u32> =
                (0..input.next() % 4).map(|_| u32::from(input.next()) % count).collect();
            needs.sort_unstable();
            needs.dedup();
            needs.iter().for_each(|&chunk| used[chunk as usize] = true);
            phase.push(ns, &needs);
        }
        problem.phases.push(phase);
    }
    // A problem names the chunks of its phases, and no others.
    let rest: Vec<u32> = (0..count).filter(|&chunk| !used[chunk as usize]).collect();
    rest.iter().for_each(|&chunk| problem.phases[0].push(1000, &[chunk]));

    let Ok(first) = make_plan(&problem, None, effort) else { return };
    first.verify(&problem).expect("it proves itself");
    check::check(&problem, &first, 4).expect("it can be carried out");
    // Something changed; the plan in force may be kept, in whole or in part.
    problem.machine.frames += u32::from(input.next() % 16);
    problem.machine.link_bytes_per_s *= f64::from(200 + u32::from(input.next())) / 256.0;
    for step in problem.phases.iter_mut().flat_map(|phase| &mut phase.steps) {
        step.ns += u64::from(input.next());
    }
    if let Ok(second) = make_plan(&problem, Some(&first), effort) {
        second.verify(&problem).expect("it proves itself");
        check::check(&problem, &second, 4).expect("it can be carried out");
    }
    // Kernels may read host memory, and read some chunks in part.
    problem.machine.frame_bytes = 64 << 20;
    let rate = problem.machine.link_bytes_per_s * f64::from(1 + input.next()) / 256.0;
    problem.machine.zero_copy_bytes_per_s = Some(rate);
    for step in problem.phases.iter_mut().flat_map(|phase| &mut phase.steps) {
        step.read_bytes = match input.next() {
            255 => u64::MAX,
            read => u64::from(read) << 23,
        };
    }
    if let Ok(third) = make_plan(&problem, Some(&first), effort) {
        third.verify(&problem).expect("it proves itself");
        check::check(&problem, &third, 4).expect("it can be carried out");
    }
}

/// Any program: what is predicted names no freed chunk and comes in order, and
/// what is described is consistent.
pub fn learner(data: &[u8]) {
    let mut input = Bytes(data);
    let mut learner = Learner::new();
    let mut freed = [false; 64];
    let mut version = learner.version();
    // A program is a list of loops: repetitions of a stretch of operations.
    let mut operations = 0;
    while !input.0.is_empty() && operations < 5_000 {
        let control = input.next();
        match control % 16 {
            0 => {
                let chunk = input.next() % 64;
                freed[usize::from(chunk)] = true;
                learner.forget(ChunkId::from(chunk));
            }
            1 => {
                let from = learner.operations().saturating_sub(u64::from(input.next()));
                let count = u64::from(input.next());
                learner.measured(from..from + count, u64::from(input.next()) << 12);
            }
            2 => look(&learner, &freed),
            _ => {
                let length = usize::from(1 + input.next() % 32);
                let repeats = 1 + input.next() % 32;
                let stretch: Vec<Vec<ChunkId>> = (0..length)
                    .map(|_| {
                        let word = input.next();
                        let more = if word >= 192 { input.next() } else { word };
                        let mut chunks = vec![ChunkId::from(word % 64), ChunkId::from(more % 64)];
                        chunks.sort_unstable();
                        chunks.dedup();
                        if word == 191 {
                            chunks.clear();
                        }
                        chunks
                    })
                    .collect();
                for _ in 0..repeats {
                    for chunks in &stretch {
                        chunks.iter().for_each(|&chunk| freed[chunk as usize] = false);
                        learner.observe(chunks);
                        operations += 1;
                    }
                }
            }
        }
        if learner.version() != version {
            assert!(learner.version() > version);
            version = learner.version();
            describe(&learner.describe());
        }
    }
    assert_eq!(learner.operations(), operations);
    look(&learner, &freed);
    describe(&learner.describe());
}

fn look(learner: &Learner, freed: &[bool]) {
    let Some(mut cursor) = learner.ahead() else { return };
    let mut last = 0;
    for _ in 0..200 {
        let Some(next) = learner.next(&mut cursor) else { return };
        assert!(!freed[next.chunk as usize], "{next:?} was freed");
        assert!(next.distance >= last.max(1), "{next:?} after {last}");
        last = next.distance;
    }
}

/// Whoever uses it indexes without a second look.
fn describe(description: &Description) {
    assert!(description.present.is_none_or(|phase| phase < description.phases.len()));
    for phase in &description.phases {
        let mut end = 0;
        for step in &phase.steps {
            assert_eq!(step.first_use, end);
            end += step.use_count;
            let uses = &phase.uses[step.first_use as usize..end as usize];
            assert!(uses.iter().enumerate().all(|(index, id)| !uses[..index].contains(id)));
        }
        assert_eq!(end as usize, phase.uses.len());
    }
}

/// Bytes to decide by; zeros when they have run out.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }
}
