//! A place in a phase, and what the lap under way has been like.
//!
//! Positions are kept twice: as the landmark that comes next, which only
//! landmarks move, and as the step that comes next, which every step moves, up
//! to that landmark's.
//! Not here: what moves them (see `follow`, `surprise`).

use super::phase::Phase;
use super::record::Moment;
use super::visits::VisitNumber;
use crate::address_map::{ChunkId, NO_CHUNK};

/// The lap under way.
#[derive(Clone, Copy, Default)]
pub(super) struct Lap {
    /// The step of its first landmark, if it was followed from there.
    pub start: Option<Moment>,
    pub hits: u32,
    pub missed: u32,
    pub skipped: u32,
    pub slips: u32,
    /// Those to another place than a few landmarks further on.
    pub jumps: u32,
    /// It was left for something that never came before, and resumed.
    pub detour: bool,
    /// Misses and skips that the lap before had, too.
    pub recurred: u32,
    /// Those that the lap before the last had, but not the last.
    pub alternated: u32,
}

impl Lap {
    /// What came and what should have: something else in its place counts once.
    pub fn total(&self) -> u32 {
        self.hits + self.missed.max(self.skipped)
    }
}

/// What the end of a lap asks to be done with it when the next one begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Lay the phase out anew.
    Update,
    /// Make it a phase of its own.
    Variant,
    /// The same, if it was longer or shorter: a router's choice is no variant.
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct Track {
    pub slot: usize,
    /// The landmark that comes next, and its chunk.
    pub next: u32,
    pub expected: ChunkId,
    /// The one after the last that was seen, and when that was.
    pub from: u32,
    pub hit_at: Moment,
    /// The step that comes next.
    pub next_step: u32,
    /// The last landmark of the lap was seen, the first of the next not yet.
    pub between: bool,
    /// So are steps of the old lap: `next_step` and `base` are of that.
    pub trailing: bool,
    /// Virtual operations: the beginning of the lap, and the last one observed.
    pub base: i64,
    pub now: i64,
    /// Times this visit passed the end.
    pub laps: u32,
    /// The landmark at which it began, and the step.
    pub entry: u32,
    pub begun: Moment,
    /// The past visit that it is expected to repeat.
    pub model: Option<VisitNumber>,
    pub lap: Lap,
    pub change: Change,
    /// The lap that ended was left and resumed.
    pub detour: bool,
    pub doubts: u32,
    /// Chunks without a place here, held or ignored, since the last landmark,
    /// and the step of the first.
    pub strays: u32,
    pub strayed_at: Moment,
    /// The landmark that was next before a skip that nothing has confirmed yet.
    pub skipped_from: Option<u32>,
    /// All that is held was used before, but not of late: it may be a stretch
    /// between phases that comes back.
    pub returning: bool,
    /// The first step held.
    pub doubted_at: Moment,
    /// The last lap was mostly something else.
    pub poor: bool,
    /// Of a candidate: where the unknown stretch before it began and ended.
    pub prelude: Option<(Moment, Moment)>,
}

impl Track {
    /// Panics unless it is a place in `phase`.
    pub fn check(&self, phase: &Phase) {
        assert_ne!(self.expected, NO_CHUNK);
        assert_eq!(phase.landmarks[self.next as usize].chunk, self.expected);
        assert!(self.next_step as usize <= phase.steps.len());
        let end = self.base + i64::from(phase.offset(self.next_step));
        assert!(self.now < end, "the present, {}, is past the next step, {end}", self.now);
    }
}

/// The last landmarks, newest first.
#[derive(Default)]
pub(super) struct Recent {
    ring: [(ChunkId, Moment); 8],
    count: usize,
}

impl Recent {
    pub fn push(&mut self, chunk: ChunkId, at: Moment) {
        self.ring[self.count % 8] = (chunk, at);
        self.count += 1;
    }

    /// The one `back` before the newest.
    pub fn get(&self, back: u32) -> Option<(ChunkId, Moment)> {
        let index = self.count.checked_sub(1 + back as usize)?;
        (back < 8).then(|| self.ring[index % 8])
    }

    pub fn forget(&mut self, chunk: ChunkId) {
        for entry in &mut self.ring {
            if entry.0 == chunk {
                entry.0 = NO_CHUNK;
            }
        }
    }
}
