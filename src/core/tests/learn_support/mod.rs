//! Programs for the learner, and a score of how well it follows them.

#![allow(dead_code, reason = "each test binary uses its part")]

use autooffload_core::address_map::ChunkId;
use autooffload_core::learn::{Cursor, Learner};

/// What each operation touches.
pub type Program = Vec<Vec<ChunkId>>;

/// A small generator of its own: SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How many operations ahead a use must have been named to be foreseen.
pub const FAR: usize = 12;

/// Chunks from here on are activations: not scored.
pub const ACTIVATION: ChunkId = 900;

/// Runs operations through a learner and keeps score.
#[derive(Default)]
pub struct Watch {
    pub learner: Learner,
    /// Uses that began (not touched by the operation before); of these,
    /// named for the very next operation, and for the one [`FAR`] after that.
    pub uses: u32,
    near: u32,
    far: u32,
    /// Uses before the first one named, since the score began.
    pub found_after: Option<u32>,
    last: Vec<ChunkId>,
    /// What was named before each of the last operations, by distance.
    named: Vec<Vec<(u32, ChunkId)>>,
}

/// What part of the uses was foreseen.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    pub near: f64,
    pub far: f64,
    /// Uses before the first one foreseen; all if none was.
    pub found_after: u32,
    pub slips: u64,
}

impl Watch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn operation(&mut self, chunks: &[ChunkId]) {
        let named = self.upcoming(4 * FAR + 24);
        self.named.push(named);
        let now = self.named.len() - 1;
        let foresaw = |named: &[(u32, ChunkId)], chunk, distance: usize| {
            named.iter().any(|&(d, c)| c == chunk && d.abs_diff(distance as u32) <= 3)
        };
        for &chunk in chunks {
            if chunk >= ACTIVATION || self.last.contains(&chunk) {
                continue;
            }
            self.uses += 1;
            if foresaw(&self.named[now], chunk, 1) {
                self.near += 1;
                self.found_after.get_or_insert(self.uses - 1);
            }
            if now >= FAR && foresaw(&self.named[now - FAR], chunk, FAR + 1) {
                self.far += 1;
            }
        }
        self.last = chunks.to_vec();
        self.learner.observe(chunks);
        if self.named.len() > 4096 {
            self.named.drain(..2048);
        }
    }

    fn upcoming(&self, count: usize) -> Vec<(u32, ChunkId)> {
        let Some(mut cursor): Option<Cursor> = self.learner.ahead() else { return Vec::new() };
        std::iter::from_fn(|| self.learner.next(&mut cursor))
            .take(count)
            .map(|next| (next.distance, next.chunk))
            .collect()
    }

    /// Runs `program` and says how much of it was foreseen.
    pub fn run(&mut self, program: &Program) -> Score {
        (self.uses, self.near, self.far, self.found_after) = (0, 0, 0, None);
        let epoch = self.learner.epoch();
        for chunks in program {
            self.operation(chunks);
        }
        self.learner.check();
        let uses = f64::from(self.uses.max(1));
        Score {
            near: f64::from(self.near) / uses,
            far: f64::from(self.far) / uses,
            found_after: self.found_after.unwrap_or(self.uses),
            slips: self.learner.epoch() - epoch,
        }
    }

    /// Steps and repeats of the phases described.
    pub fn phases(&self) -> Vec<(usize, u32)> {
        let phases = self.learner.describe().phases;
        phases.iter().map(|phase| (phase.steps.len(), phase.repeats)).collect()
    }
}

/// A model of `layers` layers, the weights from `first` on: each uses a weight
/// with an activation, then activations alone.
pub fn model(first: ChunkId, layers: u32) -> Program {
    let activation = |index: u32| ACTIVATION + index % 3;
    (0..layers)
        .flat_map(|layer| {
            [
                vec![first + layer, activation(layer)],
                vec![activation(layer), activation(layer + 1)],
                vec![activation(layer + 1)],
            ]
        })
        .collect()
}

pub fn repeat(times: usize, body: &Program) -> Program {
    std::iter::repeat_n(body, times).flatten().cloned().collect()
}

/// One chunk per operation.
pub fn plain(chunks: &[ChunkId]) -> Program {
    chunks.iter().map(|&chunk| vec![chunk]).collect()
}

/// A network drawn at random: layers of linears, their weights packed into
/// chunks as an allocator would, several to one or one by one, small tensors in
/// chunks of their own that whole layers share, and operations without weights.
pub struct Network {
    /// The chunks with weights, in the order in which they are loaded.
    pub weights: Vec<ChunkId>,
    pub iteration: Program,
}

impl Network {
    pub fn draw(random: &mut Random) -> Self {
        let layers = 2 + random.below(40);
        let linears = 1 + random.below(8);
        // Weights to a chunk, at the most; small tensors share one for so many
        // layers, if at all.
        let packed = 1 + random.below(4);
        let pooled = [0, 2, 8][random.below(3) as usize];
        let active = random.below(2) == 0;
        // Of each linear of a layer: small tensors come before it, with it, not.
        let shape: Vec<u64> = (0..linears).map(|_| random.below(3)).collect();
        let mut network = Self { weights: Vec::new(), iteration: Program::new() };
        let (mut pool, mut left) = (None, 0);
        for layer in 0..layers {
            if pooled > 0 && layer % pooled == 0 {
                pool = Some(network.chunk());
                left = 0; // What comes after it in memory is another chunk.
            }
            for (index, &kind) in shape.iter().enumerate() {
                if left == 0 || random.below(3) == 0 {
                    network.chunk();
                    left = packed;
                }
                left -= 1;
                let weight = network.weights.last().copied().filter(|&last| Some(last) != pool);
                let weight = weight.unwrap_or_else(|| network.chunk());
                let activation = ACTIVATION + (layer as u32 + index as u32) % 2;
                let small = pool.filter(|_| kind == 1);
                if let Some(pool) = pool.filter(|_| kind == 0) {
                    network.iteration.push(vec![pool, ACTIVATION]);
                }
                network.iteration.push([weight, activation].into_iter().chain(small).collect());
                if active {
                    let others = random.below(3);
                    network.iteration.extend((0..others).map(|_| vec![ACTIVATION]));
                }
            }
        }
        network
    }

    fn chunk(&mut self) -> ChunkId {
        self.weights.push(self.weights.len() as ChunkId);
        self.weights.len() as ChunkId - 1
    }
}
