//! The shortest steady period that any policy can reach on a tiny cyclic
//! problem, by search over every schedule.
//!
//! # The model
//! Steps `0..n` run one after the other, for ever, each for its time, each
//! only while every frame of its chunks is in memory. One engine copies one
//! batch at a time: `frames` frames of one chunk in `copy_units + frames *
//! frame_units`. A copy may start when as many frames as it fills are free;
//! a frame is made free by forgetting what it holds, which no running step may
//! use. Any frame may be forgotten, any chunk's frame may go anywhere (no
//! fixed slots), residency may change from iteration to iteration, and both
//! step and engine may idle. All times are whole units, so that time left of a
//! step or of a copy is a whole number and the states are finite.
//!
//! # Why this finds the optimum
//! A state is taken where a step or a copy has just ended: which step runs or
//! waits and for how much longer, what the engine copies and for how much
//! longer, and how many frames of each chunk are in memory. (Frames of one
//! chunk are needed together, so only their number counts.) An edge is a
//! decision, and takes the time to the next end. Any schedule is a walk:
//! - a step starts as soon as it can: an earlier start never delays anything,
//!   since a step only ever waits for copies, and copies only for steps' ends;
//! - a copy starts at an end of something: at other moments it could have
//!   started earlier, nothing having become free or changed since;
//! - memory is always full: a frame is forgotten only when a copy wants it.
//!
//! From any contents any others can be reached in bounded time, so the least
//! time per iteration in the long run is the least mean over all cycles of the
//! graph of states, which [`least_ratio`] finds exactly. The period may span
//! several iterations.
//!
//! # The rules
//! [`Search::Everything`] tries every batch and every set of frames to forget.
//! Its graph grows fast. Where a copy costs nothing beside its bytes, frames
//! may be copied one at a time without loss, and then [`Search::Rules`] may
//! leave out what an exchange shows never to be better (Cao, Felten, Karlin,
//! Li: "A study of integrated prefetching and caching strategies", 1995):
//! fetch what is missing and needed soonest; forget what is needed last among
//! what may be forgotten; never forget what is needed sooner than, or together
//! with, what is fetched for it. Each exchange turns a schedule into one that
//! obeys, with the same starts of copies and no later presence of anything a
//! step waits for. What is left to decide is when to wait instead. That both
//! searches agree is a test of its own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub const CHUNKS: usize = 7;

/// A cyclic problem in whole units.
#[derive(Clone, Debug)]
pub struct Tiny {
    /// Frames of each chunk, 1 to 7.
    pub chunks: Vec<u32>,
    /// Time, and what it needs, each chunk once.
    pub steps: Vec<(u32, Vec<usize>)>,
    /// Frames of memory.
    pub capacity: u32,
    pub frame_units: u32,
    /// Added to every copy.
    pub copy_units: u32,
}

impl Tiny {
    pub fn total_frames(&self) -> u32 {
        self.chunks.iter().sum()
    }

    pub fn compute(&self) -> u32 {
        self.steps.iter().map(|(time, _)| time).sum()
    }

    pub fn largest_step(&self) -> u32 {
        self.steps
            .iter()
            .map(|(_, needs)| needs.iter().map(|&c| self.chunks[c]).sum())
            .max()
            .unwrap_or(0)
    }

    fn needs(&self, step: usize, chunk: usize) -> bool {
        self.steps[step].1.contains(&chunk)
    }

    /// Steps from `from` to the next that needs `chunk`, `from` included.
    fn distance(&self, from: usize, chunk: usize) -> usize {
        let n = self.steps.len();
        (0..n).find(|ahead| self.needs((from + ahead) % n, chunk)).unwrap_or(usize::MAX)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    Everything,
    Rules,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Optimum {
    /// Units per iteration.
    pub period: f64,
    /// Size of the graph.
    pub states: usize,
}

/// The least period in the long run, or `None` where the search would pass
/// `limit` states. `floor`: frames of each chunk that are never forgotten (all
/// zero for the true optimum).
pub fn optimum(tiny: &Tiny, search: Search, floor: &[u32], limit: usize) -> Option<Optimum> {
    assert!(tiny.chunks.len() <= CHUNKS && tiny.chunks.iter().all(|&f| (1..=7).contains(&f)));
    assert!(search == Search::Everything || tiny.copy_units == 0);
    if tiny.total_frames() <= tiny.capacity {
        return Some(Optimum { period: tiny.compute().into(), states: 1 });
    }
    let graph = Graph::explore(tiny, search, floor, limit)?;
    let steps = tiny.steps.len() as f64;
    Some(Optimum { period: least_ratio(&graph) * steps, states: graph.first.len() - 1 })
}

/// See the module's text. What is in flight counts as neither here nor there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    frames: [u8; CHUNKS],
    step: u8,
    /// Time until the step ends; 0: it has not started.
    left: u16,
    /// Chunk and frames that the engine copies, and for how much longer; all 0
    /// when it is idle.
    copied: u8,
    batch: u8,
    copy_left: u16,
}

impl State {
    fn key(&self) -> u128 {
        let mut key = 0;
        for &frames in &self.frames {
            key = key << 3 | u128::from(frames);
        }
        key = key << 4 | u128::from(self.step);
        key = key << 16 | u128::from(self.left);
        key = key << 3 | u128::from(self.copied);
        key = key << 3 | u128::from(self.batch);
        key << 16 | u128::from(self.copy_left)
    }
}

/// Edges leave state `s` at `first[s]..first[s + 1]`.
struct Graph {
    first: Vec<u32>,
    to: Vec<u32>,
    /// Duration.
    units: Vec<u16>,
    /// Steps that end with it, 0 or 1.
    ends: Vec<u8>,
}

impl Graph {
    fn explore(tiny: &Tiny, search: Search, floor: &[u32], limit: usize) -> Option<Self> {
        let mut numbers: HashMap<u128, u32, BuildHasherDefault<Mix>> = HashMap::default();
        let mut states = Vec::new();
        let mut graph =
            Self { first: vec![0], to: Vec::new(), units: Vec::new(), ends: Vec::new() };

        // Full memory: the floor, the first step's chunks, then whatever comes.
        let mut start =
            State { frames: [0; CHUNKS], step: 0, left: 0, copied: 0, batch: 0, copy_left: 0 };
        let mut room = tiny.capacity;
        let mut fill = |chunk: usize, upto: u32, start: &mut State| {
            let more = upto.saturating_sub(start.frames[chunk].into()).min(room);
            start.frames[chunk] += more as u8;
            room -= more;
        };
        for (chunk, &frames) in floor.iter().enumerate() {
            fill(chunk, frames, &mut start);
        }
        for &chunk in &tiny.steps[0].1 {
            fill(chunk, tiny.chunks[chunk], &mut start);
        }
        for (chunk, &frames) in tiny.chunks.iter().enumerate() {
            fill(chunk, frames, &mut start);
        }
        start_step(tiny, &mut start);
        numbers.insert(start.key(), 0);
        states.push(start);

        let mut at = 0;
        while at < states.len() {
            if states.len() > limit {
                return None;
            }
            let state: State = states[at];
            let mut edge = |next: State| {
                // Both busy, or one: the next end.
                let units = match (next.left, next.copy_left) {
                    (0, 0) => return, // nothing would ever happen
                    (0, only) | (only, 0) => only,
                    (a, b) => a.min(b),
                };
                let (mut next, mut ended) = (next, 0);
                if next.left > 0 {
                    next.left -= units;
                    if next.left == 0 {
                        next.step = ((usize::from(next.step) + 1) % tiny.steps.len()) as u8;
                        ended = 1;
                    }
                }
                if next.copy_left > 0 {
                    next.copy_left -= units;
                    if next.copy_left == 0 {
                        next.frames[usize::from(next.copied)] += next.batch;
                        (next.copied, next.batch) = (0, 0);
                    }
                }
                start_step(tiny, &mut next);
                let new = states.len() as u32;
                let number = *numbers.entry(next.key()).or_insert(new);
                if number == new {
                    states.push(next);
                }
                graph.to.push(number);
                graph.units.push(units);
                graph.ends.push(ended);
            };
            edge(state);
            if state.copy_left == 0 {
                match search {
                    Search::Everything => every_copy(tiny, state, &mut edge),
                    Search::Rules => sensible_copy(tiny, state, floor, &mut edge),
                }
            }
            if graph.to.len() as u32 == graph.first[at] {
                // Stuck for good, which only a floor too high can bring about.
                graph.to.push(at as u32);
                graph.units.push(1);
                graph.ends.push(0);
            }
            graph.first.push(graph.to.len() as u32);
            at += 1;
        }
        Some(graph)
    }
}

/// A step that waits starts when all it needs is there.
fn start_step(tiny: &Tiny, state: &mut State) {
    let (time, needs) = &tiny.steps[usize::from(state.step)];
    if state.left == 0 && needs.iter().all(|&c| u32::from(state.frames[c]) == tiny.chunks[c]) {
        state.left = *time as u16;
    }
}

fn running(tiny: &Tiny, state: &State, chunk: usize) -> bool {
    state.left > 0 && tiny.needs(state.step.into(), chunk)
}

fn begin(tiny: &Tiny, state: &mut State, chunk: usize, batch: u8) {
    state.copied = chunk as u8;
    state.batch = batch;
    state.copy_left = (tiny.copy_units + tiny.frame_units * u32::from(batch)) as u16;
}

/// Any batch of any chunk, in place of any frames.
fn every_copy(tiny: &Tiny, state: State, edge: &mut impl FnMut(State)) {
    for chunk in 0..tiny.chunks.len() {
        let missing = tiny.chunks[chunk] as u8 - state.frames[chunk];
        for batch in 1..=missing {
            let mut next = state;
            begin(tiny, &mut next, chunk, batch);
            forget(tiny, next, chunk, 0, batch, edge);
        }
    }
}

/// Forgets `count` frames of chunks from `from` on in every way.
fn forget(
    tiny: &Tiny,
    state: State,
    except: usize,
    from: usize,
    count: u8,
    edge: &mut impl FnMut(State),
) {
    if count == 0 {
        return edge(state);
    }
    if from == tiny.chunks.len() {
        return;
    }
    let most = if from == except || running(tiny, &state, from) { 0 } else { state.frames[from] };
    for taken in 0..=most.min(count) {
        let mut next = state;
        next.frames[from] -= taken;
        forget(tiny, next, except, from + 1, count - taken, edge);
    }
}

/// The one copy that the rules leave, if any.
fn sensible_copy(tiny: &Tiny, state: State, floor: &[u32], edge: &mut impl FnMut(State)) {
    // What a running step needs, it has; its next need is an iteration away.
    let from = usize::from(state.step) + usize::from(state.left > 0);
    let distance = |chunk| tiny.distance(from, chunk);
    let chunks = || 0..tiny.chunks.len();
    let soonest = chunks()
        .filter(|&c| u32::from(state.frames[c]) < tiny.chunks[c])
        .min_by_key(|&c| distance(c));
    let last = chunks()
        .filter(|&c| u32::from(state.frames[c]) > floor[c] && !running(tiny, &state, c))
        .max_by_key(|&c| distance(c));
    if let (Some(fetched), Some(forgotten)) = (soonest, last)
        && distance(fetched) < distance(forgotten)
    {
        let mut next = state;
        next.frames[forgotten] -= 1;
        begin(tiny, &mut next, fetched, 1);
        edge(next);
    }
}

/// The least of units over ends among all cycles, by Howard's policy
/// iteration: follow one edge from every state, evaluate the cycles that this
/// closes, take better edges where there are any. It ends with the optimum.
fn least_ratio(graph: &Graph) -> f64 {
    const NEVER: f64 = 1e12; // a cycle in which no step ever ends
    const EQUAL: f64 = 1e-9;
    let count = graph.first.len() - 1;
    let mut chosen: Vec<u32> = graph.first[..count].to_vec();
    let mut ratio = vec![0.0; count];
    let mut bias = vec![0.0; count];
    loop {
        // Evaluate: walk until something known, or a cycle, then back.
        let mut mark = vec![0_u32; count]; // 0 unseen, walk number, u32::MAX done
        let mut path = Vec::new();
        for (walk, root) in (1..).zip(0..count) {
            let mut at = root;
            while mark[at] == 0 {
                mark[at] = walk;
                path.push(at);
                at = graph.to[chosen[at] as usize] as usize;
            }
            if mark[at] == walk {
                let (mut units, mut ends) = (0.0, 0.0);
                let start = at;
                loop {
                    let edge = chosen[at] as usize;
                    units += f64::from(graph.units[edge]);
                    ends += f64::from(graph.ends[edge]);
                    at = graph.to[edge] as usize;
                    if at == start {
                        break;
                    }
                }
                ratio[start] = if ends > 0.0 { units / ends } else { NEVER };
                bias[start] = 0.0;
                mark[start] = u32::MAX;
            }
            while let Some(state) = path.pop() {
                if mark[state] == u32::MAX {
                    continue; // where the cycle was cut
                }
                let edge = chosen[state] as usize;
                let next = graph.to[edge] as usize;
                ratio[state] = ratio[next];
                bias[state] = f64::from(graph.units[edge])
                    - ratio[next] * f64::from(graph.ends[edge])
                    + bias[next];
                mark[state] = u32::MAX;
            }
        }

        // Improve: a better cycle first, then a shorter way to as good a one.
        let mut better = false;
        for by_ratio in [true, false] {
            for state in 0..count {
                let mut best = (ratio[state], bias[state]);
                for edge in graph.first[state]..graph.first[state + 1] {
                    let next = graph.to[edge as usize] as usize;
                    let value = f64::from(graph.units[edge as usize])
                        - ratio[next] * f64::from(graph.ends[edge as usize])
                        + bias[next];
                    let wins = if by_ratio {
                        ratio[next] < best.0 - EQUAL
                    } else {
                        (ratio[next] - best.0).abs() <= EQUAL && value < best.1 - EQUAL
                    };
                    if wins {
                        best = (ratio[next], value);
                        chosen[state] = edge;
                        better = true;
                    }
                }
            }
            if better {
                break;
            }
        }
        if !better {
            return ratio[0]; // of the start
        }
    }
}

/// A quick hash: the keys are not hostile.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, key: u128) {
        self.write_u64(key as u64);
        self.write_u64((key >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
