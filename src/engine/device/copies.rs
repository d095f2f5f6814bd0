//! Copies between a chunk's frames and its host memory, on the two internal
//! streams; several neighbours at once where they lie side by side.
//!
//! Not here: what a copy waits for, and what waits for it (`order`).

use std::ops::Range;

use autooffload_core::address_map::ChunkId;
use autooffload_core::fingerprint::Saving;
use autooffload_core::memory::FrameId;
use smallvec::SmallVec;

use super::DeviceBackend;
use super::order::By;
use crate::engine::FRAME_BYTES;
use crate::engine::account::What;
use crate::engine::host::Span;

/// Frames of chunks, in an order.
pub(super) type Pieces = [(ChunkId, Range<u32>)];

pub(super) fn frame_count(pieces: &Pieces) -> u32 {
    pieces.iter().map(|(_, frames)| frames.end - frames.start).sum()
}

impl DeviceBackend {
    pub(super) fn copy_out(&mut self, chunk: ChunkId, frames: Range<u32>) {
        self.open(chunk);
        self.order.await_uses(chunk, By::CopyOut);
        for span in self.backing(chunk).pieces(&frames) {
            self.save(&span, chunk, 1);
        }
        self.order.copied_out([chunk].into_iter());
    }

    pub(super) fn copy_run_out(&mut self, pieces: &Pieces, slot: u32) {
        self.in_runs(pieces, slot, |backend, run, span| {
            let Some(span) = span else {
                return run
                    .iter()
                    .for_each(|(chunk, frames)| backend.copy_out(*chunk, frames.clone()));
            };
            for &(chunk, _) in run {
                backend.order.await_uses(chunk, By::CopyOut);
            }
            backend.save(&span, run[0].0, run.len());
            backend.stats.merged(run.len());
            backend.order.copied_out(run.iter().map(|&(chunk, _)| chunk));
        });
    }

    pub(super) fn copy_in(
        &mut self,
        chunk: ChunkId,
        frames: Range<u32>,
        content: bool,
        demanded: bool,
    ) {
        self.open(chunk);
        self.free_leaving();
        let pieces = if content { self.backing(chunk).pieces(&frames) } else { SmallVec::new() };
        for span in pieces {
            self.copy_to_device(&span, chunk, 1, demanded);
        }
        self.order.copied_in([chunk].into_iter());
    }

    pub(super) fn copy_run_in(&mut self, pieces: &Pieces, slot: u32, demanded: bool) {
        self.in_runs(pieces, slot, |backend, run, span| {
            let Some(span) = span else {
                return run.iter().for_each(|(chunk, frames)| {
                    backend.copy_in(*chunk, frames.clone(), true, demanded);
                });
            };
            backend.copy_to_device(&span, run[0].0, run.len(), demanded);
            backend.stats.merged(run.len());
            backend.order.copied_in(run.iter().map(|&(chunk, _)| chunk));
        });
    }

    /// Cuts `pieces`, which lie on consecutive slots from `slot` on, into runs
    /// that one copy can move, and tells `each` what that copy is; `None`: a
    /// run of pieces that are copied by themselves.
    pub(super) fn in_runs(
        &mut self,
        mut pieces: &Pieces,
        mut slot: u32,
        mut each: impl FnMut(&mut Self, &Pieces, Option<Span>),
    ) {
        while !pieces.is_empty() {
            let (run, rest) = pieces.split_at(self.side_by_side(pieces));
            let span = if run.len() > 1 { self.span_of(run, slot) } else { None };
            each(self, run, span);
            slot += frame_count(run);
            pieces = rest;
        }
    }

    /// How many of `pieces`, from the first on, are side by side in a slab; at
    /// least one.
    pub(super) fn side_by_side(&mut self, pieces: &Pieces) -> usize {
        let mut next = None;
        let neighbours = pieces.iter().take_while(|(chunk, frames)| {
            let bytes = frames.len() * FRAME_BYTES;
            let found = self.backing(*chunk).in_slab(frames);
            let follows = next.is_none() || (found.is_some() && next == Some(found));
            next = Some(found.map(|(slab, address)| (slab, address + bytes)));
            follows
        });
        neighbours.count()
    }

    /// The copy that moves all of `run`, whose host memory is side by side.
    pub(super) fn span_of(&mut self, run: &Pieces, slot: u32) -> Option<Span> {
        let (first, frames) = run.first()?;
        let (_, host) = self.backing(*first).in_slab(frames)?;
        let record = self.backing(*first).record_of(frames.start);
        let mut placed = Vec::with_capacity(frame_count(run) as usize);
        for (chunk, frames) in run {
            let there = &self.backing(*chunk).placed;
            placed.extend(there.get(frames.start as usize..frames.end as usize)?);
        }
        // The last chunk may end within its last frame; before that, what fills
        // up a chunk's last frame is of its slab and its ring frame as well.
        let (last, frames) = run.last()?;
        let (_, last_bytes) = self.backing(*last).span(frames);
        let bytes = (placed.len() - frames.len()) * FRAME_BYTES + last_bytes;
        let handles = &self.frames;
        let handle = |frame: FrameId| handles[frame as usize].handle;
        let (driver, slots) = (self.driver, placed.into_iter());
        let device = self.view.address(driver, self.device, slot, slots, handle)?;
        self.view.used = true;
        Some(Span { device, host: host as *mut _, bytes, record })
    }

    /// Unmaps the ring's view from `slot` on, as soon as no copy uses it.
    pub(super) fn cut_view(&mut self, slot: usize) {
        let queued = Some(self.order.copies_queued()).filter(|queued| {
            self.view.used && !queued.iter().all(|&point| self.order.is_over(point))
        });
        let outcome = self.view.give_up(self.driver, slot, queued);
        self.order.note(outcome);
    }

    /// Queues whatever brings the bytes of `span` to the host: a copy, or a
    /// kernel that stores those that differ from what the host has. They are of
    /// `chunks` chunks from `chunk` on.
    pub(super) fn save(&mut self, span: &Span, chunk: ChunkId, chunks: usize) {
        let Some(fingerprints) = self.fingerprints else {
            return self.copy_to_host(span, chunk, chunks);
        };
        self.rewritten = None;
        for part in span.savings() {
            self.stats.stored(part.stored_bytes);
            if part.saving == Saving::All && part.span.record.is_some() {
                self.rewritten = Some(chunk).filter(|_| chunks == 1);
            }
            let queued = match part.saving {
                Saving::All => {
                    self.copy_to_host(&part.span, chunk, chunks);
                    continue;
                }
                Saving::Anew => {
                    self.copy_to_host(&part.span, chunk, chunks);
                    fingerprints.take(self.driver, self.order.copy_out(), &part.span)
                }
                Saving::Written => {
                    self.stats.compared(part.span.bytes);
                    let start = self.order.record_copy_begin(By::CopyOut);
                    let driver = self.driver;
                    let queued =
                        fingerprints.save_written(driver, self.order.copy_out(), &part.span);
                    let what = What::Look { chunk, bytes: part.span.bytes };
                    self.order.record_copy_end(By::CopyOut, start, what);
                    queued
                }
            };
            if queued.is_err() {
                part.span.forget();
                if part.saving == Saving::Written {
                    self.copy_to_host(&part.span, chunk, chunks);
                }
            }
        }
    }

    fn copy_to_host(&mut self, span: &Span, chunk: ChunkId, chunks: usize) {
        let &Span { device, host, bytes, .. } = span;
        let recorded = self.order.record_copy_begin(By::CopyOut);
        // SAFETY: the buffer holds the bytes and lives until the chunks are
        // freed, which waits for this copy; nobody reads it before the event.
        let copied =
            unsafe { self.driver.memcpy_dtoh_async(host, device, bytes, self.order.copy_out()) };
        let what = What::Copy { into: false, chunk, chunks, bytes, demanded: false };
        self.order.record_copy_end(By::CopyOut, recorded, what);
        self.order.note(copied);
        self.stats.wrote_back(bytes);
    }

    fn copy_to_device(&mut self, span: &Span, chunk: ChunkId, chunks: usize, demanded: bool) {
        let &Span { device, host, bytes, .. } = span;
        const PROBE_BYTES: usize = 1 << 20;
        const PROBE_ONE_IN: u32 = 64;
        self.read_probe();
        self.unprobed = self.unprobed.saturating_add(1);
        let probe = self.probe.is_none() && bytes >= PROBE_BYTES && self.unprobed >= PROBE_ONE_IN;
        let start = if probe { self.timed_event() } else { None };
        let recorded = self.order.record_copy_begin(By::CopyIn);
        // SAFETY: the buffer holds the bytes, lives until the chunks are
        // freed, and is written only by copies this stream waited for.
        let copied = unsafe {
            self.driver.memcpy_htod_async(device, host.cast_const(), bytes, self.order.copy_in())
        };
        let what = What::Copy { into: true, chunk, chunks, bytes, demanded };
        self.order.record_copy_end(By::CopyIn, recorded, what);
        if let Some(start) = start
            && let Some(end) = self.timed_event()
        {
            self.probe = Some((start, end, bytes));
            self.unprobed = 0;
        }
        self.order.note(copied);
        self.stats.streamed(bytes, demanded);
    }
}
