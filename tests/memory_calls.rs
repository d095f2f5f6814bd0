//! Every form of copy, memset, query and launch sees the same bytes: one C
//! program (`tests/c/memory_calls.c`), once on a large device without the
//! library, and on small ones with it, work queued in several legal orders.
//!
//! Runs on the stand-in's driver. Not here: PyTorch (see `tests/e2e`).

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use support::{build, cc, folder, library, within};

/// The folder with the program and the driver under its own name.
fn built() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = folder("memory-calls");
        let driver = dir.join("libcuda.so.1");
        let _ = std::fs::remove_file(&driver);
        std::os::unix::fs::symlink(build("standin-driver", "libcuda.so"), driver)
            .expect("writable");
        cc(&["memory_calls.c"], &dir.join("memory_calls"));
        dir
    })
}

/// What the program prints, and the account if it ran preloaded.
fn run(env: &[(&str, &str)], preloaded: bool) -> (String, serde_json::Value) {
    let dir = built();
    let stats = dir.join(format!("{:?}.json", std::thread::current().id()));
    let mut command = Command::new(dir.join("memory_calls"));
    command.env_clear().env("LD_LIBRARY_PATH", dir).envs(env.iter().copied());
    if preloaded {
        command.env("LD_PRELOAD", library()).env("AUTOOFFLOAD_STATS", &stats);
    }
    let output = within(Duration::from_secs(300), &mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{env:?}: {}\n{stderr}", output.status);
    let account = match std::fs::read(&stats) {
        Ok(text) => serde_json::from_slice(&text).expect("the account is JSON"),
        Err(_) => serde_json::Value::Null,
    };
    let _ = std::fs::remove_file(&stats);
    (String::from_utf8(output.stdout).expect("ASCII"), account)
}

/// The program has 80 MiB of buffers.
fn reference() -> &'static str {
    static REFERENCE: OnceLock<String> = OnceLock::new();
    REFERENCE.get_or_init(|| run(&[("STANDIN_VRAM", "1G")], false).0)
}

fn same_on(vram: &str, order: &str) {
    let (text, account) = run(&[("STANDIN_VRAM", vram), ("STANDIN_ORDER", order)], true);
    assert_eq!(text, reference(), "{vram}, {order}");
    let streamed = account["streaming"]["streamed_bytes"].as_u64().unwrap_or(0);
    assert!(streamed > 100 << 20, "{vram}, {order}: only {streamed} bytes were streamed");
}

#[test]
fn same_on_a_device_of_half_the_size() {
    same_on("40M", "eager");
}

#[test]
fn same_with_copies_early_and_kernels_late() {
    same_on("40M", "copies-first");
}

#[test]
fn same_with_kernels_early_and_copies_late() {
    same_on("40M", "kernels-first");
}

#[test]
fn same_in_any_legal_order() {
    for seed in 1..=3 {
        same_on("34M", &format!("random:{seed}"));
        same_on("34M", &format!("late:{seed}"));
    }
}

#[test]
fn same_when_everything_fits_and_nothing_is_streamed() {
    let (text, account) = run(&[("STANDIN_VRAM", "1G")], true);
    assert_eq!(text, reference());
    assert_eq!(account["streaming"]["streamed_bytes"], 0);
}

#[test]
fn without_the_library_the_small_device_is_too_small() {
    let mut command = Command::new(built().join("memory_calls"));
    command.env_clear().env("LD_LIBRARY_PATH", built()).env("STANDIN_VRAM", "40M");
    let output = within(Duration::from_secs(300), &mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("cuMemAlloc_v2 answers 2"), "{stderr}");
}
