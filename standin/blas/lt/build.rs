//! Gives the library the soname and the symbol version that PyTorch asks for.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcublasLt.so.13");
    println!("cargo:rustc-cdylib-link-arg=-Wl,--version-script={here}/libcublasLt.map");
    println!("cargo:rerun-if-changed=libcublasLt.map");
}
