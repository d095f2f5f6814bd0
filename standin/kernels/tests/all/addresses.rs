//! The text of `shim/addresses.ptx` itself, by the interpreter, beside its twin
//! in Rust: both find the words that were planted, in their places, and no others.

use standin_kernels::ptx::Module;
use standin_kernels::{Kernel, Launch, find};

use crate::common::{Bytes, Host};

const TEXT: &str = include_str!("../../../../shim/addresses.ptx");
const NAME: &str = "find_addresses";
const LOW: u64 = 0x7F12_0000_0000;
const SIZE: u64 = 1 << 40;
const OTHER: u64 = 0x7E00_0020_0000;
const OTHER_SIZE: u64 = 1 << 21;

fn text() -> Box<dyn Kernel> {
    Box::new(Module::read(TEXT).unwrap().entries[NAME].clone())
}

/// A buffer on a line of 64 bytes.
#[repr(align(64))]
struct Lines([u64; 1024]);

/// What `kernel` stores for `words`, which begin `skip` words behind a line.
fn found(kernel: &dyn Kernel, words: &[u64], skip: usize, blocks: u32, other: u64) -> Vec<u64> {
    let mut lines = Box::new(Lines([0; 1024]));
    lines.0[skip..skip + words.len()].copy_from_slice(words);
    let mut out = vec![0u64; words.len() + 1];
    let memory = Host::default();
    let base = memory.map(&mut lines.0[skip..skip + words.len()]);
    let to = memory.map(&mut out);
    let params = Bytes::default().u64(base).u64(8 * words.len() as u64).u64(LOW).u64(SIZE);
    let params = params.u64(OTHER).u64(other).u64(to);
    let layout: Vec<(u32, u32)> = (0..7).map(|index| (8 * index, 8)).collect();
    let launch = Launch {
        name: NAME,
        grid: [blocks, 1, 1],
        block: [128, 1, 1],
        shared_bytes: 0,
        params: &params.0,
        layout: &layout,
    };
    kernel.run(&launch, &memory).unwrap();
    out
}

#[test]
fn what_is_planted_is_found() {
    let tagged = (LOW + 77) | (0xA5 << 57);
    let mut words = vec![0x3F80_0000_3F80_0000; 600];
    // Just outside and just inside of both ranges; a tensor map, on a line and off.
    let planted = [
        (3, LOW, true),
        (4, LOW - 1, false),
        (5, LOW + SIZE - 1, true),
        (6, LOW + SIZE, false),
        (7, OTHER, true),
        (9, OTHER + OTHER_SIZE, false),
        (16, tagged, true),
        (17, tagged, false),
        (599, LOW + (5 << 21), true),
    ];
    for (at, word, _) in planted {
        words[at] = word;
    }
    for kernel in [text(), find(NAME).unwrap()] {
        let out = found(&*kernel, &words, 0, 2, OTHER_SIZE);
        assert_eq!(out[0], 1);
        for (at, &word) in out[1..].iter().enumerate() {
            let wanted = planted.iter().find(|&&(place, _, found)| found && place == at);
            assert_eq!(word, wanted.map_or(0, |&(_, word, _)| word), "word {at}");
        }
        assert_eq!(found(&*kernel, &words[20..500], 4, 1, OTHER_SIZE), [0; 481]);
        assert_eq!(found(&*kernel, &words[7..8], 7, 1, 0), [0; 2], "a second range of nothing");
    }
}

#[test]
fn the_text_and_its_twin_find_the_same() {
    let (text, twin) = (text(), find(NAME).unwrap());
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    for _ in 0..40 {
        let (count, skip) = (1 + next() as usize % 900, next() as usize % 8);
        let words: Vec<u64> = (0..count)
            .map(|_| match next() % 4 {
                0 => next(),
                1 => LOW - SIZE / 4 + next() % (SIZE + SIZE / 2),
                2 => OTHER + next() % (2 * OTHER_SIZE),
                _ => (LOW + next() % SIZE) | next() << 57,
            })
            .collect();
        let blocks = 1 + next() as u32 % 5;
        assert_eq!(
            found(&*text, &words, skip, blocks, OTHER_SIZE),
            found(&*twin, &words, skip, 1, OTHER_SIZE)
        );
    }
}
