//! The learner against programs whose order is known.

use autooffload_core::address_map::ChunkId;
use autooffload_core::learn::{Cursor, Learner};

/// A small generator of its own: SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How far ahead a use must have been named to count as foreseen.
const FAR: usize = 12;

/// Runs operations through a learner and keeps score.
#[derive(Default)]
struct Watch {
    learner: Learner,
    /// Uses that began (not touched by the operation before), foreseen just
    /// before, and foreseen [`FAR`] operations before.
    uses: u32,
    near: u32,
    far: u32,
    last: Vec<ChunkId>,
    /// What was named for coming operations: `named[k]` is for the one after `k` more.
    plans: Vec<Vec<(u32, ChunkId)>>,
    /// Accesses until the first one foreseen, since the scores were reset.
    found_after: Option<u32>,
    /// Chunks at or above are noise: not scored.
    noise: ChunkId,
}

impl Watch {
    fn new() -> Self {
        Self { noise: ChunkId::MAX, ..Self::default() }
    }

    fn upcoming(&self, count: usize) -> Vec<(u32, ChunkId)> {
        let Some(mut cursor): Option<Cursor> = self.learner.ahead() else { return Vec::new() };
        let mut named = Vec::new();
        while named.len() < count
            && let Some(next) = self.learner.next(&mut cursor)
        {
            assert!(named.last().is_none_or(|&(distance, _)| distance <= next.distance));
            assert!(next.distance >= 1);
            named.push((next.distance, next.chunk));
        }
        named
    }

    fn operation(&mut self, chunks: &[ChunkId]) {
        let named = self.upcoming(4 * FAR + 24);
        self.plans.push(named);
        for &chunk in chunks {
            if chunk >= self.noise || self.last.contains(&chunk) {
                continue;
            }
            self.uses += 1;
            let now = self.plans.len() - 1;
            let close = |distance: u32, expected: usize| distance.abs_diff(expected as u32) <= 3;
            let near = self.plans[now].iter().any(|&(d, c)| c == chunk && close(d, 1));
            self.near += u32::from(near);
            if near && self.found_after.is_none() {
                self.found_after = Some(self.uses - 1);
            }
            if let Some(then) = now.checked_sub(FAR) {
                let far = self.plans[then].iter().any(|&(d, c)| c == chunk && close(d, FAR + 1));
                self.far += u32::from(far);
            }
        }
        self.last = chunks.to_vec();
        self.learner.observe(chunks);
        if self.plans.len() > 4096 {
            self.plans.drain(..2048);
        }
    }

    fn run(&mut self, operations: &[Vec<ChunkId>]) {
        for chunks in operations {
            self.operation(chunks);
        }
    }

    fn reset(&mut self) {
        (self.uses, self.near, self.far, self.found_after) = (0, 0, 0, None);
    }

    fn share(&self) -> (f64, f64) {
        let uses = f64::from(self.uses.max(1));
        (f64::from(self.near) / uses, f64::from(self.far) / uses)
    }
}

/// A model of `layers` layers, the weights from `first` on: each uses a weight
/// with an activation, then the activations alone.
fn model(first: ChunkId, layers: u32) -> Vec<Vec<ChunkId>> {
    let activation = |index: u32| 900 + index % 3;
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

fn repeat(times: usize, body: &[Vec<ChunkId>]) -> Vec<Vec<ChunkId>> {
    std::iter::repeat_n(body, times).flatten().cloned().collect()
}

#[test]
fn explore() {
    let mut watch = Watch::new();
    watch.noise = 900;
    let t5 = model(0, 24);
    let flux = model(100, 57);
    let vae = model(200, 30);
    for image in 0..6 {
        for (name, body, times) in [("t5", &t5, 1), ("flux", &flux, 28), ("vae", &vae, 1)] {
            for step in 0..times {
                watch.reset();
                watch.run(body);
                if step < 4 || step == 27 {
                    let (near, far) = watch.share();
                    println!("image {image} {name} {step}: near {near:.2} far {far:.2} found {:?} version {} phases {:?} epoch {}", watch.found_after, watch.learner.version(),
                    watch.learner.describe().phases.iter().map(|p| (p.steps.len(), p.repeats)).collect::<Vec<_>>(), watch.learner.epoch());
                }
            }
        }
    }
}
