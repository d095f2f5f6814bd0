//! The text of `shim/fingerprint.ptx` itself, by the interpreter, beside its
//! twin in Rust: the same tables, the same host copies, the same counts.

use standin_kernels::ptx::{Module, is_ptx};
use standin_kernels::{Kernel, Launch, find};

use crate::common::{Bytes, Host};

const TEXT: &str = include_str!("../../../../shim/fingerprint.ptx");
const NAME: &str = "fingerprint_pieces";
const PIECE: usize = 1 << 16;

/// Deterministic, and another sequence for each seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> usize {
        (self.next() % end) as usize
    }
}

/// A range of the device with its table, its host copy and its counts. Words, so that all are
/// aligned; the range begins `skip` bytes into the data.
#[derive(Clone, PartialEq, Debug)]
struct State {
    data: Vec<u64>,
    skip: usize,
    bytes: usize,
    table: Vec<u64>,
    host: Vec<u64>,
    saved: Vec<u32>,
}

impl State {
    fn new(random: &mut Random, skip: usize, bytes: usize) -> State {
        let pieces = bytes.div_ceil(PIECE);
        State {
            data: (0..(skip + bytes) / 8 + 1).map(|_| random.next()).collect(),
            skip,
            bytes,
            table: vec![0; pieces],
            host: vec![0; (skip + bytes) / 8 + 1],
            saved: vec![0; pieces],
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.data[(self.skip + at) / 8].to_le_bytes()[(self.skip + at) % 8]
    }

    fn flip(&mut self, at: usize, bit: u32) {
        let at = self.skip + at;
        self.data[at / 8] ^= 1 << ((at % 8 * 8) as u32 + bit);
    }

    fn run(&mut self, kernel: &dyn Kernel, blocks: u32, compare: bool) {
        let memory = Host::default();
        let base = memory.map(&mut self.data) + self.skip as u64;
        let table = memory.map(&mut self.table);
        let host = memory.map(&mut self.host) + self.skip as u64;
        let saved = memory.map(&mut self.saved);
        let params = Bytes::default().u64(base).u64(self.bytes as u64).u64(table);
        let params = params.u64(if compare { host } else { 0 }).u64(saved);
        let launch = Launch {
            name: NAME,
            grid: [blocks, 1, 1],
            block: [128, 1, 1],
            shared_bytes: 0,
            params: &params.0,
            layout: &[(0, 8), (8, 8), (16, 8), (24, 8), (32, 8)],
        };
        kernel.run(&launch, &memory).unwrap();
    }
}

fn text() -> Box<dyn Kernel> {
    assert!(is_ptx(TEXT));
    let module = Module::read(TEXT).unwrap();
    assert_eq!(module.entries[NAME].layout, [(0, 8), (8, 8), (16, 8), (24, 8), (32, 8)]);
    Box::new(module.entries[NAME].clone())
}

fn seed() -> u64 {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    seed
}

#[test]
fn zeros_give_the_published_sequence() {
    // The first outputs of SplitMix64 from seed 0 (Vigna's splitmix64.c).
    const PUBLISHED: [u64; 3] = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F];
    fn mix(z: u64) -> u64 {
        let z = (z ^ z >> 30).wrapping_mul(0xBF58476D1CE4E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D049BB133111EB);
        z ^ z >> 31
    }
    for (kernel, words) in [(text(), 3), (find(NAME).unwrap(), 3), (text(), 1), (text(), 2)] {
        let mut state = State::new(&mut Random(1), 0, 8 * words);
        state.data.fill(0);
        state.run(&*kernel, 1, false);
        let sum = PUBLISHED[..words].iter().fold(0u64, |sum, &word| sum.wrapping_add(word));
        assert_eq!(state.table, [mix(sum.wrapping_add(8 * words as u64))]);
    }
}

#[test]
fn the_text_and_its_twin_do_the_same() {
    let (text, twin) = (text(), find(NAME).unwrap());
    let mut random = Random(seed());
    for round in 0..40 {
        let skip = if round % 3 == 0 { random.below(24) } else { 0 };
        let bytes = match round % 4 {
            0 => random.below(600),
            1 => random.below(PIECE as u64),
            2 => PIECE * (1 + random.below(3)),
            _ => random.below(3 * PIECE as u64),
        };
        let mut one = State::new(&mut random, skip, bytes);
        let blocks = 1 + random.below(3) as u32;
        let mut other = one.clone();
        one.run(&*text, blocks, false);
        other.run(&*twin, 1, false);
        assert_eq!(one, other, "{bytes} bytes from {skip}");
        for _ in 0..2 {
            for _ in 0..random.below(3) {
                if bytes > 0 {
                    let (at, bit) = (random.below(bytes as u64), random.below(8) as u32);
                    one.flip(at, bit);
                    other.flip(at, bit);
                }
            }
            one.run(&*text, blocks, true);
            other.run(&*twin, 1, true);
            assert_eq!(one, other, "{bytes} bytes from {skip}, compared");
        }
    }
}

#[test]
fn what_changed_is_stored_and_nothing_else() {
    for kernel in [text(), find(NAME).unwrap()] {
        let mut state = State::new(&mut Random(7), 0, 3 * PIECE + 5);
        state.run(&*kernel, 2, false);
        let taken = state.table.clone();
        state.run(&*kernel, 2, true);
        assert_eq!(state.saved, [0; 4]);
        assert!(state.host.iter().all(|&word| word == 0), "clean bytes were stored");
        // One bit of the second piece, and the very last byte.
        state.flip(PIECE + 12_345, 3);
        state.flip(3 * PIECE + 4, 0);
        state.run(&*kernel, 2, true);
        assert_eq!(state.saved, [0, 1, 0, 1]);
        assert_eq!(state.host[PIECE / 8..2 * PIECE / 8], state.data[PIECE / 8..2 * PIECE / 8]);
        assert!(state.host[..PIECE / 8].iter().all(|&word| word == 0));
        assert_eq!(state.host[3 * PIECE / 8].to_le_bytes()[4], state.byte(3 * PIECE + 4));
        assert_eq!((state.table[0], state.table[2]), (taken[0], taken[2]));
        // Renewed together with what was saved: nothing is stored twice.
        state.run(&*kernel, 2, true);
        assert_eq!(state.saved, [0, 1, 0, 1]);
    }
}

#[test]
fn moved_words_and_repeated_blocks_show() {
    let twin = find(NAME).unwrap();
    let mut state = State::new(&mut Random(9), 0, PIECE);
    state.run(&*twin, 1, false);
    let before = state.table[0];
    let mut shows = |change: &dyn Fn(&mut Vec<u64>)| {
        let former = state.data.clone();
        change(&mut state.data);
        assert_ne!(former, state.data);
        state.run(&*twin, 1, false);
        assert_ne!(state.table[0], before);
        state.data = former;
    };
    shows(&|data| data.swap(3, 4));
    shows(&|data| data.swap(0, 8191));
    shows(&|data| data.swap(100, 164));
    shows(&|data| data.copy_within(0..64, 64));
    shows(&|data| data.rotate_left(1));
    for bit in 0..64 {
        shows(&|data| data[5000] ^= 1 << bit);
        shows(&|data| data[8191] ^= 1 << bit);
    }
}

#[test]
fn what_is_not_known_is_named() {
    let text =
        TEXT.replace("shr.u64         pieces, pieces, 16;", "sin.approx.f32 pieces, pieces;");
    let fault = Module::read(&text).err().unwrap();
    assert!(fault.contains("sin.approx.f32 pieces, pieces"), "{fault}");
}
