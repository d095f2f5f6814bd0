//! Replays `fuzz/seeds`, file by file, through the bodies of the fuzz targets.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

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
    }
    println!("{name}: {} files", files.len());
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
