//! Every function that cuda.h declares is classified: in the list of hooks
//! (`src/hooks/table.rs`), or among those that need none, with the reason
//! (`src/hooks/unhooked.txt`).
//!
//! The header is the one that cudarc's bindings were made from, all versions
//! of it together; so a newer cudarc with a newer header fails here until
//! somebody has decided. Not here: whether a hook does the right thing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file of cudarc's bindings, where cargo put it.
fn bindings() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        // Packages of other platforms were never downloaded.
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == "cudarc"))
        .and_then(|package| package["manifest_path"].as_str())
        .expect("cudarc is a dependency");
    Path::new(manifest).with_file_name("src/driver/sys/mod.rs")
}

/// Identifiers that follow `before` in `text` and begin with `cu`.
fn names_after(text: &str, before: &str) -> BTreeSet<String> {
    text.split(before)
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            rest[..end].to_string()
        })
        .filter(|name| name.starts_with("cu") && name != "culib")
        .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref())
        .unwrap_or_else(|why| panic!("{}: {why}", path.as_ref().display()))
}

#[test]
fn every_function_of_the_header_is_classified_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let declared = names_after(&read(bindings()), "pub unsafe fn ");
    assert!(declared.len() > 450, "only {} functions were found", declared.len());

    let table = read(root.join("src/hooks/table.rs"));
    let hooked: BTreeSet<String> = ["handle", "pass", "refuse"]
        .iter()
        .flat_map(|class| {
            // A row: class, group, name.
            table.lines().filter_map(move |line| {
                let mut words = line.split_whitespace();
                (words.next()? == *class).then_some(())?;
                let name = words.nth(1)?.split('(').next()?;
                name.starts_with("cu").then(|| name.to_string())
            })
        })
        .collect();
    let unhooked: BTreeSet<String> = read(root.join("src/hooks/unhooked.txt"))
        .lines()
        .filter(|line| line.starts_with("cu"))
        .map(str::to_string)
        .collect();

    let unclassified: Vec<_> = declared
        .iter()
        .filter(|name| !hooked.contains(*name) && !unhooked.contains(*name))
        .collect();
    assert!(unclassified.is_empty(), "classify these: {unclassified:?}");
    let both: Vec<_> = hooked.intersection(&unhooked).collect();
    assert!(both.is_empty(), "hooked and not: {both:?}");
    let gone: Vec<_> = unhooked.difference(&declared).collect();
    assert!(gone.is_empty(), "no header declares these: {gone:?}");
}
