//! Writes the first seeds of the fuzz targets.
//!
//!     cargo run --release -p autooffload-core --example fuzz_seeds
//!
//! Files already there stay, but for those of the same name: what fuzzing found
//! is kept beside them.

#[path = "../tests/plan_support/mod.rs"]
mod plan_support;

use autooffload_core::recall::{Place, Remembered, Step};
use autooffload_lab::workload::format;
use plan_support::Random;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let mut random = Random::new(1);
    let mut written = 0;
    let mut write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        std::fs::create_dir_all(&folder)?;
        written += 1;
        std::fs::write(folder.join(name), bytes)
    };

    for (index, text) in TRACES.iter().enumerate() {
        write("trace", &format!("seed-{index}"), text.as_bytes())?;
        let trace = format::read(text.as_bytes()).expect("a well-formed trace");
        write("trace", &format!("rewritten-{index}"), format::write(&trace).as_bytes())?;
    }
    for (index, (phases, steps)) in [(0, 0), (1, 1), (1, 12), (2, 30), (3, 9)].iter().enumerate() {
        let file = order(&mut random, *phases, *steps).encode().expect("small");
        write("order_file", &format!("whole-{index}"), &file)?;
        // What the target puts its own header and checksum around.
        write("order_file", &format!("body-{index}"), &file[18..file.len() - 4])?;
    }
    for (index, text) in SETTINGS.iter().enumerate() {
        write("settings", &format!("text-{index}"), text.as_bytes())?;
    }
    for index in 0..12 {
        let length = random.within(20, 300);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        write("planner", &format!("random-{index}"), &bytes)?;
    }
    for index in 0..8 {
        let length = random.within(40, 400);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        write("learner", &format!("random-{index}"), &bytes)?;
    }
    for (index, program) in PROGRAMS.iter().enumerate() {
        write("learner", &format!("program-{index}"), program)?;
    }
    for (index, number) in [0u64, 3, 1 << 40, u64::MAX].into_iter().enumerate() {
        let words: Vec<u8> = (0..400).flat_map(|_| number.to_le_bytes()).collect();
        write("page", &format!("all-{index}"), &words)?;
    }
    for index in 0..6 {
        let length = random.within(1, 4000);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        write("page", &format!("random-{index}"), &bytes)?;
        // A span of 4 GiB at 1 TiB, and addresses of it here and there.
        let mut parameter = vec![1, 20, 1, 32];
        for _ in 0..random.within(1, 200) {
            let word = match random.within(0, 3) {
                0 => 1 << 40 | random.within(0, u64::from(u32::MAX)),
                1 => random.next(),
                _ => random.within(0, 9),
            };
            parameter.extend(&word.to_le_bytes()[..random.within(4, 8) as usize / 4 * 4]);
        }
        write("parameters", &format!("mixed-{index}"), &parameter)?;
    }
    println!("{written} files");
    Ok(())
}

fn order(random: &mut Random, phases: u64, steps: u64) -> Remembered {
    let mut step = || {
        let place = |number: u64| {
            let offset = (!number.is_multiple_of(3)).then_some(number << 12);
            Place { chunk: number as u32 % 6, offset }
        };
        let uses = (0..random.within(0, 2)).map(|_| place(random.within(0, 40))).collect();
        Step { operations: random.within(1, 4) as u32, ns: random.within(0, 1 << 24), uses }
    };
    let phases = (0..phases).map(|_| (0..steps).map(|_| step()).collect()).collect();
    Remembered { signature: 5, phases }
}

/// A value, and another that replaces it.
const SETTINGS: [&str; 8] = [
    "8G\n75%",
    "auto\nbanana",
    "\n",
    "1e400\n-1",
    "99999999999999999999T\n0.0000001K",
    "12.5 GiB\n1000000%",
    "off\nenlarged",
    "warn,autooffload=trace\n/tmp/%p%p%%p",
];

const TRACES: [&str; 5] = [
    "autooffload-trace 1\nname empty\nactivations 0\nevents 0\n",
    "autooffload-trace 1\nname one\nactivations 4096\nchunks 2 2097152\nchunks 1 20971520\n\
     launch 1000 0 0 1 0\nlaunch 0 5000000 4096 3 1 2/250\nagain 0\nevents 3\n",
    "autooffload-trace 1\nname steps\nactivations 893386752\nchunks 4 18874368\niteration 0\n\
     loop 3\nlaunch 5 6 7 1 0\nlaunch 5 6 7 1 1\nlaunch 5 6 7 1 2 3!\nend\nsync 30000\n\
     to-device 4096\nto-host 8\nevents 13\n",
    "autooffload-trace 1\nname cache\nactivations 1\nchunks 3 2097152\niteration 0\n\
     allocate 2\nlaunch 9 0 0 1 0 2/500!\nfree 2\niteration 1\nlaunch 9 0 0 1\nevents 6\n",
    "autooffload-trace 1\nname nested\nactivations 0\nchunks 2 4194304\nloop 2\niteration 0\n\
     loop 2\nlaunch 1 2 3 4 0\nlaunch 1 2 3 4 1\nend\nend\nevents 10\n",
];

/// For `targets::learner`: a control byte above 2, length, repeats, chunks.
const PROGRAMS: [&[u8]; 3] = [
    // A cycle of six, thrice, looked at; again after a detour.
    &[3, 5, 2, 1, 2, 3, 4, 5, 6, 2, 3, 1, 0, 40, 41, 3, 5, 2, 1, 2, 3, 4, 5, 6, 2],
    // Two phases that take turns, times measured, a chunk freed.
    &[
        3, 3, 4, 1, 2, 3, 4, 3, 3, 4, 11, 12, 13, 14, 1, 20, 16, 9, 3, 3, 4, 1, 2, 3, 4, 2, 0, 2,
        3, 3, 4, 11, 12, 13, 14, 2,
    ],
    // One chunk in most operations, and operations that touch nothing.
    &[3, 7, 9, 193, 60, 194, 60, 195, 60, 191, 196, 60, 197, 60, 198, 60, 191, 2],
];
