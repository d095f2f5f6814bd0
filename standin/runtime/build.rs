//! Gives the library the soname and the symbol version that PyTorch asks for.

use std::{env, fs, path::Path};

const SONAME: &str = "libcudart.so.13";
const EXPORTS: &str = "cuda*; __cuda*; standin_runtime_marker;";

fn main() {
    // Written where cargo's files are, not taken from the source tree: a target
    // directory may serve several copies of the tree (scripts/test --mutants).
    let map = Path::new(&env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("exports.map");
    fs::write(&map, format!("{SONAME} {{ global: {EXPORTS} local: *; }};\n"))
        .expect("OUT_DIR is writable");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--version-script={}", map.display());
    println!("cargo:rerun-if-changed=build.rs");
}
