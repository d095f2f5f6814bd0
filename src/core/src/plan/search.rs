//! The search: a family of layouts, judged by the planner's clock.
//!
//! What is varied, and why it matters:
//! - the ring: each of its frames is a frame less for residents, one more to
//!   stream; too small, and the link stands still while steps use its frames;
//! - the spread (`alpha`), see `spread`;
//! - the least and the most that a chunk streams: few large copies cost less
//!   overhead, many small ones need less ring;
//! - how a chunk's frames are split into copies: a part can arrive while
//!   frames of another are still in use.
//!
//! First the ring alone, coarsely; then everything else around the best; then
//! the ring again, finely; and last the choice among the best few, under
//! compute times and link rates that are not quite what was measured.

use super::ring::{RingLayout, lay_out};
use super::shape::Shape;
use super::spread::{Key, Knobs, spread};
use super::timeline::{Clock, NOMINAL, Scenario};
use super::{Effort, Machine};
use std::collections::HashSet;

/// Memory for one group of phases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Frames for residents and ring together.
    pub frames: u32,
    /// Resident frames however large the ring, if the ring comes out of memory
    /// that the phase would not use otherwise; with it, what a frame of the
    /// ring beyond `cheap_ring` costs all the same, ns per iteration.
    pub fixed_residents: Option<u32>,
    pub cheap_ring: u32,
    pub ring_frame_ns: f64,
    /// The ring's bound, as the user wished.
    pub window: Option<u32>,
}

/// A layout and what it was made from.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub knobs: Knobs,
    pub layout: RingLayout,
    /// Steady iteration, and with the costs of the ring and of deviations.
    pub period: f64,
}

/// Where the search begins: pieces of 16 MiB, copies of 32.
const START: Knobs = Knobs { ring: 1, alpha: 1.0, least: 8, most: 1, split: 16, hold: 80 };

/// Deviations under which the best few are compared, beside what was measured.
const SCENARIOS: [Scenario; 4] = [
    Scenario { compute: 0.9, ..LAGGING },
    Scenario { compute: 1.1, ..LAGGING },
    Scenario { link: 0.95, ..LAGGING },
    Scenario { compute: 1.2, link: 1.05, ..LAGGING },
];
/// What the search judges by: between the end of a step and the beginning of a
/// copy that waited for it pass an event or two and, in the streamer, the launch
/// of another operation. No plan should hinge on that.
const LAGGING: Scenario = Scenario { lag: 25_000.0, ..NOMINAL };
/// Weight of all deviations together against the nominal case.
const SCENARIO_WEIGHT: f64 = 0.25;
/// As if every release were a fingerprint that had to wait for its turn.
const IN_TURNS: Scenario = Scenario { turns: 1.0, ..LAGGING };
const FINALISTS: usize = 6;
/// So few chunks that everything can be tried.
const FEW: usize = 24;

pub(super) struct Search<'a> {
    shape: &'a Shape,
    machine: &'a Machine,
    room: Room,
    clock: Clock,
    /// Chunks that may be kept from streaming because they meet others.
    conflicts: usize,
    /// Everything tried, and with its cost what of it works.
    attempted: HashSet<Key>,
    tried: Vec<(f64, Knobs)>,
}

impl<'a> Search<'a> {
    pub fn new(shape: &'a Shape, machine: &'a Machine, room: Room) -> Self {
        Self {
            shape,
            machine,
            room,
            clock: Clock::default(),
            conflicts: 4,
            attempted: HashSet::new(),
            tried: Vec::new(),
        }
    }

    /// The best layout found. `None`: nothing in the family fits.
    pub fn run(mut self, effort: Effort) -> Option<Found> {
        let excess = self.shape.frames.saturating_sub(self.room.frames);
        if excess == 0 && self.room.fixed_residents.is_none() {
            let layout =
                lay_out(self.shape, &vec![0; self.shape.locals.len()], 1, 1, self.machine).ok()?;
            let period = self.shape.compute_ns() as f64;
            let knobs = Knobs { ring: 0, ..START };
            return Some(Found { knobs, layout, period });
        }
        match effort {
            Effort::Quick => self.quick(),
            Effort::Searched if self.shape.locals.len() <= FEW => self.exhaustive(),
            Effort::Searched => self.thorough(),
        }
        if self.tried.is_empty() {
            self.last_resort();
        }
        self.tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.tried.dedup_by(|a, b| a.1 == b.1);
        let finalists = match effort {
            Effort::Quick => 1,
            Effort::Searched => FINALISTS,
        };
        let best = (0..self.tried.len().min(finalists))
            .map(|index| (self.robust_cost(self.tried[index].1), index))
            .min_by(|a, b| a.0.total_cmp(&b.0))?;
        let knobs = self.tried[best.1].1;
        let (shares, layout) = self.layout(&knobs)?;
        let period = self.period(&layout);
        let found = Found { knobs, layout, period };
        Some(if effort == Effort::Searched { self.improve_locally(found, shares) } else { found })
    }

    /// Moves frames between chunks as long as that gains: what a family with
    /// a few knobs cannot express.
    fn improve_locally(&mut self, mut best: Found, mut shares: Vec<u32>) -> Found {
        let floor = self.shape.compute_ns() as f64;
        let size = best.layout.copies.len() + self.shape.order.len();
        let attempts = (3_000_000 / size.max(1)).min(1500);
        let mut random = 1u64;
        let mut below = |bound: usize| {
            // Knuth's linear congruential generator, MMIX.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % bound.max(1)
        };
        let wrap = best.layout.parts.iter().map(|part| part.wrap).min().unwrap_or(0);
        for _ in 0..attempts {
            if best.period <= floor * 1.0005 {
                break;
            }
            let from = below(shares.len());
            let to = below(shares.len());
            let local = &self.shape.locals[to];
            let room = local.frames.min(wrap) - shares[to].min(wrap);
            let count = shares[from].min(room).min(1 << below(6));
            if from == to || count == 0 {
                continue;
            }
            shares[from] -= count;
            shares[to] += count;
            let layout =
                lay_out(self.shape, &shares, best.knobs.ring, best.knobs.split, self.machine);
            if let Ok(layout) = layout {
                let period = self.period(&layout);
                if period < best.period {
                    best = Found { layout, period, ..best };
                    continue;
                }
            }
            shares[from] += count;
            shares[to] -= count;
        }
        best
    }

    /// Each attempt is a walk over everything: a few, and none with a ring much
    /// smaller than one that was too small.
    fn quick(&mut self) {
        const TOO_SMALL: f64 = 1.2;
        let rings = self.rings(2.4);
        let mut best: Option<(f64, u32)> = None;
        for &ring in &rings {
            let tried = self.tried.len();
            self.attempt(Knobs { ring, most: ring / 2, ..START });
            let Some(&(cost, _)) = self.tried.get(tried) else { continue };
            match best {
                Some((least, _)) if cost > least * TOO_SMALL => break,
                Some((least, _)) if cost >= least => (),
                _ => best = Some((cost, ring)),
            }
        }
        for ring in best.map_or(rings, |(_, ring)| vec![ring]) {
            self.attempt(Knobs { ring, most: ring, ..START });
        }
    }

    /// For a few chunks, where trying is cheap and the steps are coarse.
    fn exhaustive(&mut self) {
        let mut rings: Vec<u32> = self.rings(1.03);
        rings.dedup();
        for ring in rings {
            for most in [ring, ring * 3 / 4, ring / 2, ring / 3] {
                for least in [1, 8, u32::MAX] {
                    for split in [1, 4, 16] {
                        for hold in [40, 80, 400] {
                            self.attempt(Knobs { ring, most, least, split, hold, ..START });
                        }
                    }
                }
            }
        }
        for base in self.best_rings(4) {
            for alpha in [0.5, 0.0] {
                self.attempt(Knobs { alpha, ..base });
            }
        }
    }

    fn thorough(&mut self) {
        for ring in self.rings(1.3) {
            for (most, split) in [(ring / 2, 16), (ring * 7 / 10, u32::MAX), (ring, 16)] {
                self.attempt(Knobs { ring, most, split, ..START });
            }
        }
        if self.tried.is_empty() {
            return;
        }
        for base in self.best_rings(5) {
            for alpha in [1.0, 0.5, 0.0] {
                for least in [1, 4, 12, 24] {
                    for most in [34, 50, 70, 100] {
                        let most = (base.ring * most / 100).max(1);
                        self.attempt(Knobs { alpha, least, most, ..base });
                    }
                }
            }
        }
        for base in self.best(2) {
            for split in [8, 16, 32, u32::MAX] {
                self.attempt(Knobs { split, ..base });
            }
        }
        for base in self.best(2) {
            for hold in [40, 160, 400] {
                self.attempt(Knobs { hold, ..base });
            }
        }
        for base in self.best(2) {
            for percent in [70, 78, 88, 94, 106, 113, 128] {
                let ring = self.whole_rounds((base.ring * percent).div_ceil(100));
                let most = (u64::from(base.most) * u64::from(ring) / u64::from(base.ring)) as u32;
                self.attempt(Knobs { ring, most: most.max(1), ..base });
                self.attempt(Knobs { ring, ..base });
            }
        }
    }

    /// Anything that fits at all.
    fn last_resort(&mut self) {
        self.conflicts = self.shape.locals.len();
        self.attempted.clear();
        for ring in self.rings(1.1) {
            for most in [100, 50, 25, 10] {
                for least in [1, u32::MAX] {
                    let most = (ring * most / 100).max(1);
                    self.attempt(Knobs { ring, alpha: 0.0, least, most, split: u32::MAX, ..START });
                }
            }
            if !self.tried.is_empty() {
                return;
            }
        }
    }

    /// Frames that stream in an iteration beside those that a ring of its own
    /// adds.
    fn excess(&self) -> u32 {
        match self.room.fixed_residents {
            Some(residents) => self.shape.frames.saturating_sub(residents),
            None => self.shape.frames.saturating_sub(self.room.frames),
        }
    }

    /// Ring sizes from the largest sensible to the smallest, each smaller by
    /// `factor`.
    fn rings(&self, factor: f64) -> Vec<u32> {
        let excess = self.excess();
        let mut largest = self.room.frames.min(excess).max(1);
        if self.room.fixed_residents.is_some() {
            // In a single round nothing would be displaced, and the clock, which
            // sees the phase alone, would see no copies.
            largest = largest.min(excess.div_ceil(2)).max(1);
        }
        if let Some(window) = self.room.window {
            largest = largest.min(window.max(1));
        }
        let mut rings = Vec::new();
        let mut size = f64::from(largest);
        while size >= 1.0 {
            rings.push(self.whole_rounds(size as u32));
            size /= factor;
        }
        rings.dedup();
        rings
    }

    /// The largest ring of at most `ring` frames that is used to the full: an
    /// iteration is a whole number of rounds.
    fn whole_rounds(&self, ring: u32) -> u32 {
        let excess = self.excess().max(1);
        let ring = ring.clamp(1, self.room.window.unwrap_or(u32::MAX).max(1));
        if self.room.fixed_residents.is_some() {
            return excess.div_ceil(excess.div_ceil(ring));
        }
        excess.div_ceil(excess.div_ceil(ring.min(excess)))
    }

    fn layout(&self, knobs: &Knobs) -> Option<(Vec<u32>, RingLayout)> {
        let streamed = match self.room.fixed_residents {
            Some(_) => self.excess(),
            None => self.excess() + knobs.ring,
        };
        let free = self.room.fixed_residents.unwrap_or(0);
        if knobs.ring + free > self.room.frames {
            return None;
        }
        // No chunk may meet itself on the shortest round.
        let wrap = streamed / streamed.div_ceil(knobs.ring).max(1);
        let knobs = &Knobs { most: knobs.most.min(wrap), ..*knobs };
        // A chunk that some step needs together with another, far away in the
        // order of first use, may meet it on the ring: it stays then.
        let mut barred = Vec::new();
        while barred.len() <= self.conflicts {
            let streamed = streamed.min(self.shape.frames);
            let shares = spread(self.shape, streamed, knobs, &barred)?;
            match lay_out(self.shape, &shares, knobs.ring, knobs.split, self.machine) {
                Ok(layout) => return Some((shares, layout)),
                Err(local) => barred.push(local),
            }
        }
        None
    }

    /// A steady iteration under `layout`. One release in so many is a
    /// fingerprint, which takes turns with kernels; whose copy it is that comes
    /// late, nobody knows beforehand, so each counts as far as it may.
    fn period(&mut self, layout: &RingLayout) -> f64 {
        let likely = self.clock.period(&layout.schedule, self.machine, LAGGING);
        let share = self.machine.release_gpu_share;
        if share == 0.0 {
            return likely;
        }
        let late = self.clock.period(&layout.schedule, self.machine, IN_TURNS);
        likely + share * (late - likely).max(0.0)
    }

    fn attempt(&mut self, knobs: Knobs) {
        if knobs.ring == 0 || knobs.most == 0 || !self.attempted.insert(knobs.key()) {
            return;
        }
        if let Some((_, layout)) = self.layout(&knobs) {
            let cost = self.period(&layout);
            self.tried.push((cost + self.ring_cost(&knobs), knobs));
        }
    }

    /// What the ring costs beside time: where time is the same, a smaller one
    /// moves fewer bytes.
    fn ring_cost(&self, knobs: &Knobs) -> f64 {
        const TIE: f64 = 1e-3;
        let frame_ns = self.machine.frame_bytes as f64 * 1e9 / self.machine.link_bytes_per_s;
        let beyond = f64::from(knobs.ring.saturating_sub(self.room.cheap_ring));
        beyond * self.room.ring_frame_ns + f64::from(knobs.ring) * frame_ns * TIE
    }

    fn robust_cost(&mut self, knobs: Knobs) -> f64 {
        let Some((_, layout)) = self.layout(&knobs) else { return f64::INFINITY };
        let nominal = self.period(&layout);
        let compute = self.shape.compute_ns() as f64;
        let bytes = u64::from(self.excess()) * self.machine.frame_bytes;
        let link = bytes as f64 * 1e9 / self.machine.link_bytes_per_s;
        // Relative to what the deviation costs any layout.
        let floor = |scenario: Scenario| {
            (compute * scenario.compute).max(link / scenario.link) / compute.max(link)
        };
        let deviating: f64 = SCENARIOS
            .iter()
            .map(|&scenario| {
                self.clock.period(&layout.schedule, self.machine, scenario) / floor(scenario)
            })
            .sum();
        let mean = deviating / SCENARIOS.len() as f64;
        nominal * (1.0 - SCENARIO_WEIGHT) + mean * SCENARIO_WEIGHT + self.ring_cost(&knobs)
    }

    fn best(&mut self, count: usize) -> Vec<Knobs> {
        self.tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.tried.iter().take(count).map(|&(_, knobs)| knobs).collect()
    }

    fn best_rings(&mut self, count: usize) -> Vec<Knobs> {
        let mut best: Vec<Knobs> = Vec::new();
        for knobs in self.best(usize::MAX) {
            if best.len() < count && best.iter().all(|known| known.ring != knobs.ring) {
                best.push(knobs);
            }
        }
        best
    }
}
