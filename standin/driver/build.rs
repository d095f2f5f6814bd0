//! Gives the library the name the world looks for, and binds its references to
//! its own symbols: an interposer's `cu*` must not be called from inside.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
