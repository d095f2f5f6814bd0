//! What the tests of the preloaded library share: building it and the C
//! programs of `tests/c`, and running them with a time limit.

#![allow(dead_code)] // Each test file uses its part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The library under test.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build("autooffload", "libautooffload.so"))
}

/// `file` of `package`, built beside the test binaries. Cargo builds no
/// `cdylib` for integration tests, and a stale one would be tested without a
/// word.
pub fn build(package: &str, file: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let profile = exe.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let target = profile.parent().expect("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", package, "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "{package} does not build");
    profile.join(file)
}

/// An empty folder of this test process.
pub fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the target folder is writable");
    dir
}

/// Compiles sources of `tests/c` to `output`.
pub fn cc(args: &[&str], output: &Path) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let status = Command::new("cc")
        .current_dir(&sources)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"])
        .arg(output)
        .args(args)
        .status()
        .expect("cc runs");
    assert!(status.success(), "cc {args:?}");
}

/// The output of `command`, which is killed after `limit`.
pub fn within(limit: Duration, command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("the program starts");
    let pid = child.id().to_string();
    let (done, ended) = std::sync::mpsc::channel();
    // Another thread reads, or a full pipe would look like a hang.
    let reader = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    let start = Instant::now();
    let hung = ended.recv_timeout(limit).is_err();
    if hung {
        Command::new("kill").args(["-KILL", &pid]).status().expect("kill runs");
    }
    let output = reader.join().expect("no panic").expect("the program was waited for");
    assert!(
        !hung,
        "{command:?} hangs after {:?}\n{}",
        start.elapsed(),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
