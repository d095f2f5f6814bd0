//! Kernel images that are damaged anywhere: refused, or read without harm. The seeds are those
//! of the fuzz target (`fuzz/`); what it finds is added to them.

use std::path::Path;

/// Changed forms of each seed.
const CHANGED: u64 = 4000;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let entries = std::fs::read_dir(folder).expect("seeds are part of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read(path).expect("readable"))).collect()
}

#[test]
fn whole_ones_are_read() {
    for (name, bytes) in seeds() {
        let expected = match name.as_str() {
            "cubin" | "fat-plain" | "fat-packed" => Some((1, 1)),
            "text" => Some((2, 0)),
            "ptx-fingerprint" | "ptx-addresses" => {
                assert!(cuda::image_symbols(&bytes).is_some_and(|(kernels, _)| kernels > 0));
                continue;
            }
            _ => continue,
        };
        assert_eq!(cuda::image_symbols(&bytes), expected, "{name}");
    }
}

#[test]
fn damaged_ones_do_no_harm() {
    let seeds = seeds();
    assert!(seeds.len() >= 5);
    for (name, bytes) in seeds {
        println!("{name}");
        // Text is long, and each form of it is read to its end.
        let changed = if bytes.len() > 4096 { CHANGED / 16 } else { CHANGED };
        for cut in 0..bytes.len().min(600) {
            cuda::image_symbols(&bytes[..cut]);
        }
        for seed in 0..changed {
            let mut state = seed << 32 | bytes.len() as u64 | 1;
            let mut next = || {
                // xorshift64*
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
            };
            let mut bytes = bytes.clone();
            for _ in 0..1 + next() % 3 {
                let at = next() % bytes.len();
                match next() % 4 {
                    // A whole number becomes the largest of all.
                    0 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                    1 => bytes[at..].iter_mut().take(10).for_each(|byte| *byte = b'9'),
                    _ => bytes[at] = [0, 1, 0x7f, 0x80, b' ', next() as u8][next() % 6],
                }
            }
            cuda::image_symbols(&bytes);
        }
    }
}
