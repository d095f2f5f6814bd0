//! Names the library by what it is. The name and the symbol version that
//! PyTorch asks for are given by a generated library in front of it
//! (standin/stubs), since they differ from one release of CUDA to the next.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libstandin_cublasLt.so");
    println!("cargo:rerun-if-changed=build.rs");
}
