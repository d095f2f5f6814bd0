//! Fuzz target: any bytes as a kernel image, as the stand-in's driver reads it: fat binary,
//! cubin, PTX, its own text.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cuda::image_symbols(data);
});
