//! Replays `fuzz/seeds`, file by file, through the bodies of the fuzz targets: as it is,
//! cut off, and changed in a few random places, always the same ones.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// Changed forms of each file.
const CHANGED: u64 = 100;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let entries = std::fs::read_dir(&folder).expect("seeds are part of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} has {} files", folder.display(), files.len());
    for file in &files {
        let data = std::fs::read(file).expect("readable");
        // Whole, and as they are when a write or a transfer breaks off.
        println!("{}", file.display());
        target(&data);
        for cut in 1..4 {
            target(&data[..data.len() * cut / 4]);
        }
        for seed in 0..CHANGED {
            target(&changed(&data, seed));
        }
    }
    println!("{name}: {} files", files.len());
}

/// Bytes replaced, or a stretch repeated, or left out.
fn changed(data: &[u8], seed: u64) -> Vec<u8> {
    const VALUES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b' '];
    let mut state = seed << 32 | data.len() as u64 | 1;
    let mut below = |end: usize| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end.max(1)
    };
    let mut data = data.to_vec();
    for _ in 0..1 + below(4) {
        let (from, to) = (below(data.len()), below(data.len()));
        match below(4) {
            0 if from < to => drop(data.drain(from..to)),
            1 if from < to => data.extend_from_within(from..to),
            _ if from < data.len() => data[from] = VALUES[below(VALUES.len())],
            _ => {}
        }
    }
    data
}

#[test]
fn trace() {
    replay("trace", targets::trace);
}

#[test]
fn order_file() {
    replay("order_file", targets::order_file);
}

#[test]
fn settings() {
    replay("settings", targets::settings);
}

#[test]
fn planner() {
    replay("planner", targets::planner);
}

#[test]
fn learner() {
    replay("learner", targets::learner);
}

#[test]
fn page() {
    replay("page", targets::page);
}

#[test]
fn parameters() {
    replay("parameters", targets::parameters);
}
