//! One chunk: which frames it has, and where its bytes are.
//!
//! While mapped, every frame of a chunk is *its own* or belongs to a *part*,
//! which lies on shared frames. While unmapped it has no parts, but may keep
//! frames of its own; the other frames are *holes*, whose bytes are saved.
//!
//! Its last frames may be *on the host*: its own as well, but host memory, which
//! kernels read over the link. They count in nothing that is about the device,
//! and are there whether it is mapped or not.

use std::ops::Range;

use super::FrameId;
use crate::learn::Operation;
use crate::plan::{Part, Place};

#[derive(Debug)]
pub(super) struct ChunkState {
    pub frames: u32,
    pub mapped: bool,
    /// By index within the chunk.
    pub own: Vec<Option<FrameId>>,
    /// So many of its last frames are host memory.
    pub on_host: u32,
    /// What a use of it is known to read at the most, in bytes.
    pub read_bytes: Option<u64>,
    /// Which of its own frames still await their content, which is saved;
    /// and how many.
    pub blank: Vec<bool>,
    pub blanks: u32,
    /// In order, without overlap.
    pub parts: Vec<Streamed>,
    /// Of which frames the host copy equals the content.
    pub saved: Vec<bool>,
    /// For which frames there is host memory; and where it is to be.
    pub hosted: Vec<bool>,
    pub place: Option<Place>,
    /// Nothing was ever written to it, or the program gave the content up.
    pub undefined: bool,
    pub pinned: bool,
    /// Found written each time it left: to stream it costs twice its bytes.
    pub rewritten: bool,
    /// The present plan says where its frames are.
    pub planned: bool,
    /// Launches under way, between begin and end, on any thread.
    pub holds: u32,
    /// Operation that touched it last; its allocation counts as a touch.
    pub touched_at: Operation,
    /// How often it was touched after a pause, by something else than a copy
    /// that is known to fill it.
    pub reuse_count: u32,
    /// The number of the copy from the host that filled some of it last, and
    /// whether the next touch is by that.
    pub filled_at: Option<u64>,
    pub filling: bool,
    /// The longest of its short pauses: it is in use, still.
    pub pause: Operation,
    /// When it was missing last, and no plan named it, nobody made room for it.
    pub denied_room: bool,
    /// Fetched ahead of a use that has not come yet.
    pub expected: Option<Expected>,
    /// Fetched on a guess by this operation.
    pub guessed_at: Option<Operation>,
}

/// Until when something is awaited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The number of that prediction.
    pub epoch: u64,
    /// Where in the predicted order it is, by [`crate::learn::Upcoming::at`].
    pub at: u64,
    /// Which operation it repeats, if that is known.
    pub operation: Option<Operation>,
}

/// A part, whether its content is on its frames, and when it should come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streamed {
    pub part: Part,
    pub present: bool,
    /// Its copy may be ready when this many operations are left before the one
    /// that needs it. `None`: as early as its frames are free.
    pub lead: Option<u32>,
    /// The run of the plan that it is in, and which member of it.
    pub run: Option<(u32, u32)>,
}

impl ChunkState {
    /// A resident of `own` frames.
    pub fn new(own: Vec<FrameId>, touched_at: Operation) -> Self {
        let frames = own.len();
        Self {
            frames: frames as u32,
            mapped: true,
            own: own.into_iter().map(Some).collect(),
            on_host: 0,
            read_bytes: None,
            blank: vec![false; frames],
            blanks: 0,
            parts: Vec::new(),
            saved: vec![false; frames],
            hosted: vec![false; frames],
            place: None,
            undefined: false,
            pinned: false,
            rewritten: false,
            planned: false,
            holds: 0,
            touched_at,
            reuse_count: 0,
            filled_at: None,
            filling: false,
            pause: 0,
            denied_room: false,
            expected: None,
            guessed_at: None,
        }
    }

    /// Filled, and not used since, after `fills` copies that fill something.
    /// Where these are not told of, the first touch is one.
    pub fn is_fresh(&self, fills: u64) -> bool {
        if fills == 0 {
            self.reuse_count <= 1
        } else {
            self.filled_at.is_some() && self.reuse_count == 0
        }
    }

    /// All its frames are its own, and mapped.
    pub fn resident(&self) -> bool {
        self.mapped && self.parts.is_empty()
    }

    /// It is resident, and nothing has to come any more.
    pub fn complete(&self) -> bool {
        self.resident() && self.blanks == 0
    }

    pub fn present(&self) -> bool {
        self.mapped && self.blanks == 0 && self.parts.iter().all(|streamed| streamed.present)
    }

    /// Gives up its own frame `index`, if it has it.
    pub fn take_own(&mut self, index: u32) -> Option<FrameId> {
        self.set_blank(index, false);
        self.own[index as usize].take()
    }

    pub fn set_blank(&mut self, index: u32, blank: bool) {
        let before = std::mem::replace(&mut self.blank[index as usize], blank);
        self.blanks = self.blanks + u32::from(blank) - u32::from(before);
    }

    /// The runs of its own frames that await their content.
    pub fn blank_runs(&self) -> Vec<Range<u32>> {
        if self.blanks == 0 {
            return Vec::new();
        }
        self.of_one_kind(0..self.frames, |index| self.blank[index as usize])
    }

    /// The first frame on the host, if any is: before it are the device's.
    pub fn device_end(&self) -> u32 {
        self.frames - self.on_host
    }

    /// Frames of the device that are its own.
    pub fn own_frames(&self) -> u32 {
        self.own[..self.device_end() as usize].iter().flatten().count() as u32
    }

    /// The frames that change between device and host if the last `host` are to
    /// be there.
    pub fn crossing(&self, host: u32) -> Range<u32> {
        self.frames - host.max(self.on_host)..self.frames - host.min(self.on_host)
    }

    /// Shared frames that it takes, or would take were it mapped now.
    pub fn shared_frames(&self) -> u32 {
        if self.mapped {
            self.parts.iter().map(|streamed| streamed.part.frames).sum()
        } else {
            self.device_end() - self.own_frames()
        }
    }

    /// Whether the bytes of frame `index` are on the device.
    pub fn holds_content(&self, index: u32) -> bool {
        (self.own[index as usize].is_some() && !self.blank[index as usize])
            || self.parts.iter().any(|streamed| streamed.present && streamed.part.names(index))
    }

    /// The runs of frames without place.
    pub fn holes(&self) -> Vec<Range<u32>> {
        runs(0..self.frames, |index| self.own[index as usize].is_none())
    }

    /// The runs of `range` whose bytes exist only where they are.
    pub fn unsaved(&self, range: Range<u32>) -> Vec<Range<u32>> {
        if self.undefined {
            return Vec::new();
        }
        self.of_one_kind(range, |index| !self.saved[index as usize])
    }

    /// The runs of `range` that `which` chooses, none of which spans memory of
    /// the device and of the host: no copy is asked to.
    fn of_one_kind(&self, range: Range<u32>, which: impl Fn(u32) -> bool) -> Vec<Range<u32>> {
        let end = self.device_end().clamp(range.start, range.end);
        let mut found = runs(range.start..end, &which);
        found.extend(runs(end..range.end, which));
        found
    }

    /// Something may have been written to it.
    pub fn written(&mut self) {
        self.undefined = false;
        self.saved.fill(false);
    }

    /// Whether its parts are exactly `parts`, and its last `host` frames on the
    /// host.
    pub fn laid_out_as(&self, parts: &[Part], host: u32) -> bool {
        self.mapped
            && self.on_host == host
            && self.parts.iter().map(|streamed| &streamed.part).eq(parts)
    }
}

/// The maximal runs of indices of `range` that `which` chooses.
pub(super) fn runs(range: Range<u32>, which: impl Fn(u32) -> bool) -> Vec<Range<u32>> {
    let mut found: Vec<Range<u32>> = Vec::new();
    for index in range.filter(|&index| which(index)) {
        match found.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => found.push(index..index + 1),
        }
    }
    found
}

/// What the streamer asks of a part.
pub(super) trait PartExt {
    fn range(&self) -> Range<u32>;
    fn names(&self, index: u32) -> bool;
    fn slots(&self) -> SlotsOf;
    /// The highest shared frame that it lies on, plus one.
    fn reach(&self) -> u32;
    fn meets(&self, other: &Part) -> bool;
}

/// The shared frames of a part: at most two runs.
pub(super) type SlotsOf = std::iter::Chain<Range<u32>, Range<u32>>;

fn spans(part: &Part) -> [Range<u32>; 2] {
    let end = part.at + part.frames;
    [part.at..end.min(part.wrap), 0..end.saturating_sub(part.wrap)]
}

impl PartExt for Part {
    fn range(&self) -> Range<u32> {
        self.first..self.first + self.frames
    }

    fn names(&self, index: u32) -> bool {
        self.range().contains(&index)
    }

    fn slots(&self) -> SlotsOf {
        let [first, second] = spans(self);
        first.chain(second)
    }

    fn reach(&self) -> u32 {
        (self.at + self.frames).min(self.wrap)
    }

    fn meets(&self, other: &Part) -> bool {
        spans(self).iter().any(|a| {
            spans(other)
                .iter()
                .any(|b| !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end)
        })
    }
}
