//! Link options of the preloaded library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libautooffload.so");
    // Our own references to `dlsym` and `cu*` are to our own symbols, whatever
    // else is preloaded before us.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
