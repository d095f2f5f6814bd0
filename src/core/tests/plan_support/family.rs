//! The best of all plans on a tiny problem: every choice of resident frames,
//! every place of every other frame.
//!
//! A plan maps each frame for good: to a frame of its own, or to a shared one.
//! That is less than memory in general could do (`optimum` lets content go
//! anywhere), and is what makes copying need no change of any mapping. Here all
//! such mappings are tried, with frames copied one by one in order of need
//! (those needed together, in the order in which their places become free), as
//! early as engine and place allow. So this is what a planner could find, and
//! the rest of the way to the optimum is the price of fixed places.
//!
//! Where a copy costs nothing beside its bytes, larger copies gain nothing. The
//! order of need is assumed, as the planner assumes it.

use super::optimum::Tiny;

/// Units per iteration of the best plan, and how many were tried. `None`: more
/// than `limit` would have to be, or there is none.
pub fn best_plan(tiny: &Tiny, limit: u64) -> Option<(f64, u64)> {
    assert_eq!(tiny.copy_units, 0);
    let mut search = Search {
        tiny,
        // Frames by chunk; places are given to these.
        place: tiny.chunks.iter().map(|&frames| vec![OWN; frames as usize]).collect(),
        meets: (0..tiny.chunks.len())
            .map(|a| {
                let together = |needs: &Vec<usize>, b| needs.contains(&a) && needs.contains(&b);
                (0..tiny.chunks.len())
                    .filter(|&b| a != b && tiny.steps.iter().any(|(_, needs)| together(needs, b)))
                    .collect()
            })
            .collect(),
        shared: 0,
        best: f64::INFINITY,
        tried: 0,
        limit,
    };
    search.residents(0, tiny.capacity);
    (search.tried <= limit && search.best.is_finite()).then_some((search.best, search.tried))
}

const OWN: usize = usize::MAX;
/// To be placed.
const OPEN: usize = usize::MAX - 1;

struct Search<'a> {
    tiny: &'a Tiny,
    place: Vec<Vec<usize>>,
    /// Chunks that some step needs beside this one.
    meets: Vec<Vec<usize>>,
    shared: usize,
    best: f64,
    tried: u64,
    limit: u64,
}

impl Search<'_> {
    /// How many frames of each chunk are its own: the last ones, since frames
    /// of a chunk are all alike.
    fn residents(&mut self, chunk: usize, room: u32) {
        if self.tried > self.limit {
            return;
        }
        if chunk == self.place.len() {
            self.shared = room as usize;
            return self.places(0, 0, 0);
        }
        for own in 0..=self.tiny.chunks[chunk].min(room) {
            let streamed = (self.tiny.chunks[chunk] - own) as usize;
            self.place[chunk][..streamed].fill(OPEN);
            self.place[chunk][streamed..].fill(OWN);
            self.residents(chunk + 1, room - own);
        }
    }

    /// A place for frame `frame` of `chunk` and all after it. Shared frames
    /// are alike until used: the next fresh one stands for all fresh ones; and
    /// frames of a chunk take rising ones.
    fn places(&mut self, chunk: usize, frame: usize, fresh: usize) {
        if self.tried > self.limit {
            return;
        }
        if chunk == self.place.len() {
            self.tried += 1;
            let period = self.period();
            self.best = self.best.min(period);
            return;
        }
        if frame == self.place[chunk].len() || self.place[chunk][frame] == OWN {
            return self.places(chunk + 1, 0, fresh);
        }
        let least = if frame > 0 { self.place[chunk][frame - 1] + 1 } else { 0 };
        for place in least..self.shared.min(fresh + 1) {
            // Later chunks still have last attempt's places: look at earlier ones.
            let meets = |&other: &usize| other < chunk && self.place[other].contains(&place);
            if self.meets[chunk].iter().any(meets) {
                continue;
            }
            self.place[chunk][frame] = place;
            self.places(chunk, frame + 1, fresh.max(place + 1));
            self.place[chunk][frame] = OPEN;
        }
    }

    fn period(&self) -> f64 {
        const ITERATIONS: usize = 24;
        let mut holder = [(OWN, OWN); 64];
        let mut released = [0; 64];
        let mut copies = Vec::with_capacity(64);
        let (mut engine, mut now, mut half) = (0, 0, 0);
        for iteration in 0..ITERATIONS {
            for (time, needs) in &self.tiny.steps {
                copies.clear();
                for &chunk in needs {
                    for (frame, &place) in self.place[chunk].iter().enumerate() {
                        if place == OWN {
                            break;
                        }
                        if holder[place] != (chunk, frame) {
                            holder[place] = (chunk, frame);
                            copies.push(released[place]);
                        }
                    }
                }
                // Needed together: first what can come first. All copies of
                // earlier steps have come when these have.
                copies.sort_unstable();
                for &free in &copies {
                    engine = engine.max(free) + self.tiny.frame_units;
                    now = now.max(engine);
                }
                now += time;
                for &chunk in needs {
                    let streamed = self.place[chunk].iter().take_while(|&&place| place != OWN);
                    streamed.for_each(|&place| released[place] = now);
                }
            }
            if iteration + 1 == ITERATIONS / 2 {
                half = now;
            }
        }
        f64::from(now - half) / (ITERATIONS - ITERATIONS / 2) as f64
    }
}
