//! The C calls of `include/autooffload.h` by address range, made by a C program
//! (`tests/c/ranges.c`) on the stand-in's driver, work queued in several legal
//! orders.

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
        let dir = folder("ranges");
        let driver = dir.join("libcuda.so.1");
        let _ = std::fs::remove_file(&driver);
        std::os::unix::fs::symlink(build("standin-driver", "libcuda.so"), driver)
            .expect("writable");
        cc(&["ranges.c"], &dir.join("ranges"));
        dir
    })
}

/// Runs the program preloaded; what it says on standard error.
fn right(argument: &str, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(built().join("ranges"));
    command.arg(argument).env_clear().env("LD_LIBRARY_PATH", built());
    command.env("LD_PRELOAD", library()).env("STANDIN_VRAM", "40M").envs(env.iter().copied());
    let output = within(Duration::from_secs(300), &mut command);
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && stdout == "right\n" && !stderr.contains("violation"),
        "{argument}, {env:?}: {}\n{stdout}{stderr}",
        output.status
    );
    stderr.into_owned()
}

#[test]
fn what_is_kept_stays_while_the_rest_takes_turns() {
    for order in ["eager", "late:1", "random:2"] {
        let said = right("on", &[("STANDIN_ORDER", order)]);
        assert!(said.contains("streamed uses"), "nothing moved:\n{said}");
        let refused = "error: device 0: memory that the program keeps needs";
        assert_eq!(said.matches(refused).count(), 1, "{said}");
    }
}

#[test]
fn switched_off_it_says_so() {
    right("off", &[("AUTOOFFLOAD", "0")]);
}

/// The header names the functions that the library exports, and no others.
#[test]
fn the_header_is_what_is_exported() {
    let header = include_str!("../include/autooffload.h");
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output();
    let symbols = String::from_utf8(output.expect("nm runs").stdout).expect("ASCII");
    let exported: Vec<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| name.starts_with("autooffload_"))
        // For the build of this repository.
        .filter(|&name| name != "autooffload_settings_markdown")
        .collect();
    assert!(exported.len() >= 6, "{exported:?}");
    for name in exported {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
}
