//! One device's backend: carries out what its [`Streamer`] decides, with
//! two internal streams and events.
//!
//! ```text
//!   program's streams   ...use Y... --e1              e3--> use X
//!   copy out                          e1--> Y to host --e2
//!   copy in                                 e2, e1--> X from host --e3
//! ```
//!
//! `e1`: the last uses of Y (one event per stream). `e2`: Y is safe in host
//! memory. `e3`: X's fence. Every arrow is a wait on the device; the host
//! waits only in `order`. Two internal streams, because the link
//! carries both directions at once; copies of one direction stay in order.
//!
//! Everything here is called under the device's lock, with the device's
//! context current unless a stream's handle says which one is meant.
//! A driver error inside an operation that cannot answer one (the context is
//! broken: nothing works any more) is kept and answered by the next `begin`.

mod copies;
mod fingerprints;
mod frames;
mod host_pieces;
mod in_place;
mod measure;
mod order;
mod ring_view;
mod stall;
mod timing;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::{FrameId, MemoryOps, RecentCaps, Refused, Streamer, Window};
use autooffload_core::plan::Place;
use smallvec::SmallVec;

use super::account::{Stats, WaitReason};
use super::host::{HostStore, Record, SharedBlocks, Span};
use super::planning::Planner;
use super::{FRAME_BYTES, inflight};
use crate::driver::Driver;
use crate::driver::abi::Device as DeviceNumber;
use crate::driver::abi::*;
use copies::Pieces;
use fingerprints::Fingerprints;
use frames::Frame;
use host_pieces::{HostPiece, Leaving};
use in_place::InPlace;
use order::{Fence, Use};
use ring_view::RingView;
use stall::StallProbe;
use timing::OperationTimer;

/// One device: the decisions and the means.
pub struct Device {
    pub streamer: Streamer,
    pub backend: DeviceBackend,
    pub planner: Planner,
}

/// What the backend knows of a chunk.
struct Backing {
    base: DevicePtr,
    bytes: usize,
    frames: u32,
    /// The frames that it is mapped to, in order; none while it is not.
    placed: Vec<FrameId>,
    /// Host memory; no two pieces are for the same frame.
    host: Vec<HostPiece>,
    /// Recorded behind the copy that brought the present content.
    fence: Option<Fence>,
    /// Last use on each stream since it was displaced. Residents are covered
    /// by `hot::streams`, but for default streams of contexts other than ours.
    uses: Vec<Use>,
    /// Recorded behind the copy to the host, until somebody waited for it.
    written_back: Option<CUevent>,
    /// The internal streams wait for uses that are forgotten here.
    displaced: bool,
}

impl Backing {
    /// First byte, and number of bytes, of a run of frames; the chunk may end
    /// within its last frame.
    pub(super) fn span(&self, frames: &Range<u32>) -> (usize, usize) {
        let start = frames.start as usize * FRAME_BYTES;
        let end = (frames.end as usize * FRAME_BYTES).min(self.bytes);
        (start, end - start)
    }

    /// The pieces of a run of frames, as its host memory divides it.
    pub(super) fn pieces(&self, frames: &Range<u32>) -> SmallVec<[Span; 4]> {
        let meeting = self.host.iter().filter_map(|HostPiece { frames: range, buffer, .. }| {
            let common = range.start.max(frames.start)..range.end.min(frames.end);
            (common.start < common.end).then(|| {
                let (start, bytes) = self.span(&common);
                let within = start - range.start as usize * FRAME_BYTES;
                buffer.span(self.base + start as u64, within, bytes)
            })
        });
        let pieces: SmallVec<[Span; 4]> = meeting.collect();
        debug_assert_eq!(
            pieces.iter().map(|span| span.bytes).sum::<usize>(),
            self.span(frames).1,
            "host memory before a copy"
        );
        pieces
    }

    /// What is known of the host memory that `frame` has.
    pub(super) fn record_of(&self, frame: u32) -> Option<Arc<Record>> {
        self.host.iter().find(|piece| piece.frames.contains(&frame))?.buffer.record()
    }

    /// Where a run of frames is in a slab: which, and its first byte. `None`:
    /// some of it has memory of its own.
    pub(super) fn in_slab(&self, frames: &Range<u32>) -> Option<(usize, usize)> {
        let mut found = None;
        let mut missing = frames.len();
        for HostPiece { frames: range, buffer, .. } in &self.host {
            let common = range.start.max(frames.start)..range.end.min(frames.end);
            if common.is_empty() {
                continue;
            }
            let within = (common.start - range.start) as usize * FRAME_BYTES;
            let before = (common.start - frames.start) as usize * FRAME_BYTES;
            let place = (buffer.slab()?, buffer.address as usize + within - before);
            if found.is_some_and(|found| found != place) {
                return None;
            }
            found = Some(place);
            missing -= common.len();
        }
        found.filter(|_| missing == 0)
    }
}

/// Frames, streams, events and copies of one device.
pub struct DeviceBackend {
    driver: &'static Driver,
    host_store: &'static HostStore,
    stats: &'static Stats,
    pub device: DeviceNumber,
    pub ctx: CUcontext,
    copy_in: CUstream,
    copy_out: CUstream,
    /// `None`: what leaves is copied out, whether it was written or not.
    fingerprints: Option<Fingerprints>,
    /// By id; ids of released frames are reused.
    frames: Vec<Frame>,
    unused_ids: Vec<FrameId>,
    slabs: SharedBlocks,
    view: RingView,
    in_place: InPlace,
    leaving: Vec<Leaving>,
    /// Indexed by chunk id.
    backings: Vec<Option<Backing>>,
    /// Events nobody needs any more, by context.
    spare_events: HashMap<usize, Vec<CUevent>>,
    /// Everything queued is known to be over: waits are not needed.
    pub idle: bool,
    /// Rises with every copy and wait that we queue.
    pub queued: u64,
    /// Of the last operation, if it is one of our context.
    pub last_stream: Option<CUstream>,
    /// Why the host waits, should it.
    pub reason: WaitReason,
    /// An error that no operation could answer.
    pub failure: Option<CuResult>,
    /// Bytes of the card that other processes held when we began.
    pub foreign_bytes: Option<u64>,
    /// What there was room for of late.
    pub caps: RecentCaps,
    /// Timed copy whose rate is read at the next wait: events and bytes.
    probe: Option<(CUevent, CUevent, usize)>,
    /// Copies since the last one that was timed.
    unprobed: u32,
    link_bytes_per_s: Option<f64>,
    stalls: StallProbe,
    timer: OperationTimer,
}

// SAFETY: driver handles may be used from any thread; the pointers to host
// memory are ours alone.
unsafe impl Send for DeviceBackend {}

impl Device {
    /// Sets up `device`, whose context `ctx` is current.
    pub fn new(
        driver: &'static Driver,
        host_store: &'static HostStore,
        stats: &'static Stats,
        device: DeviceNumber,
        ctx: CUcontext,
        window: Window,
    ) -> Result<Self> {
        let copy_in = driver.stream_create_nonblocking(0)?;
        // Our kernel runs there: before the program's, of which there may be many.
        let priority = driver.highest_stream_priority().unwrap_or(0);
        let copy_out = driver.stream_create_nonblocking(priority)?;
        let fingerprints = Fingerprints::set_up(driver, host_store, copy_out)
            .inspect_err(|why| {
                log::warn!(
                    "device {device}: {why}: all that kernels receive is copied back, written or not"
                );
            })
            .ok();
        Ok(Self {
            planner: Planner::default(),
            streamer: Streamer::new(0, window),
            backend: DeviceBackend {
                driver,
                host_store,
                stats,
                device,
                ctx,
                copy_in,
                copy_out,
                fingerprints,
                frames: Vec::new(),
                unused_ids: Vec::new(),
                slabs: SharedBlocks::default(),
                view: RingView::default(),
                in_place: InPlace::default(),
                leaving: Vec::new(),
                backings: Vec::new(),
                spare_events: HashMap::new(),
                idle: false,
                queued: 0,
                last_stream: None,
                reason: WaitReason::PlanChange,
                failure: None,
                foreign_bytes: None,
                caps: RecentCaps::default(),
                probe: None,
                unprobed: u32::MAX,
                link_bytes_per_s: None,
                stalls: StallProbe::default(),
                timer: OperationTimer::default(),
            },
        })
    }
}

impl DeviceBackend {
    /// Announces a chunk before the streamer maps it.
    pub fn add(&mut self, id: ChunkId, base: DevicePtr, bytes: usize, frames: u32) {
        if self.backings.len() <= id as usize {
            self.backings.resize_with(id as usize + 1, || None);
        }
        self.backings[id as usize] = Some(Backing {
            base,
            bytes,
            frames,
            placed: Vec::new(),
            host: Vec::new(),
            fence: None,
            uses: Vec::new(),
            written_back: None,
            displaced: false,
        });
    }

    /// Forgets a chunk that the streamer freed, and gives its host memory and
    /// events back.
    pub fn remove(&mut self, id: ChunkId) {
        let Some(backing) = self.backings[id as usize].take() else { return };
        for last in backing.uses {
            self.spare(last.user.ctx, last.event);
        }
        if let Some(fence) = backing.fence {
            self.spare(self.ctx, fence.event);
        }
        if let Some(event) = backing.written_back {
            self.spare(self.ctx, event);
        }
        for piece in backing.host {
            self.host_store.free(piece.buffer);
        }
        if self.backings.iter().all(Option::is_none) {
            self.free_leaving(true);
            self.release_events();
        }
    }

    fn backing(&mut self, id: ChunkId) -> &mut Backing {
        self.backings[id as usize].as_mut().expect("a chunk that lives")
    }

    /// Forgets everything without a call: the context is being destroyed.
    pub fn abandon(&mut self) {
        for backing in self.backings.drain(..).flatten() {
            for piece in backing.host {
                self.host_store.free(piece.buffer);
            }
        }
        for leaving in self.leaving.drain(..) {
            self.host_store.free(leaving.buffer);
        }
        for _ in self.frames.iter().filter(|frame| frame.in_host) {
            self.host_store.give_pinned_back(FRAME_BYTES);
            self.stats.in_place_ended(FRAME_BYTES);
        }
    }
}

impl MemoryOps for DeviceBackend {
    fn create_frame(&mut self) -> std::result::Result<FrameId, Refused> {
        self.new_frame()
    }

    fn create_host_frame(&mut self) -> std::result::Result<FrameId, Refused> {
        self.new_host_frame()
    }

    fn release_frame(&mut self, frame: FrameId) {
        self.give_frame_back(frame);
    }

    fn map(&mut self, chunk: ChunkId, frames: &[FrameId]) -> std::result::Result<(), Refused> {
        self.map_frames(chunk, frames)
    }

    fn unmap(&mut self, chunk: ChunkId) {
        self.unmap_frames(chunk);
    }

    fn about_to_evict(&mut self) {
        if !inflight::pressure() {
            log::info!(
                "device {}: the budget is used up; memory is moved to the host and back from here on",
                self.device
            );
        }
        inflight::begin_pressure();
    }

    fn is_dead(&self, chunk: ChunkId) -> bool {
        super::state::hot(chunk).dead.load(std::sync::atomic::Ordering::Acquire)
    }

    fn reserve_host(
        &mut self,
        chunk: ChunkId,
        frames: Range<u32>,
        place: Option<Place>,
    ) -> std::result::Result<(), Refused> {
        self.reserve_pieces(chunk, frames, place)
    }

    fn release_host(&mut self, chunk: ChunkId, frames: Range<u32>) {
        self.release_pieces(chunk, frames);
    }

    fn ring(&mut self, slots: &[FrameId]) {
        if let Some(slot) = self.view.announce(slots) {
            self.cut_view(slot);
        }
    }

    fn write_back(&mut self, chunk: ChunkId, frames: Range<u32>) {
        self.copy_out(chunk, frames);
    }

    fn write_back_run(&mut self, pieces: &Pieces, slot: u32) {
        self.copy_run_out(pieces, slot);
    }

    fn fetch_after_uses(&mut self, chunk: ChunkId) {
        self.await_uses_before_copy_in(chunk);
    }

    fn fetch_after_program(&mut self) {
        self.await_queued_before_copy_in();
    }

    fn fetch(&mut self, chunk: ChunkId, frames: Range<u32>, content: bool, demanded: bool) {
        self.copy_in(chunk, frames, content, demanded);
    }

    fn fetch_run(&mut self, pieces: &Pieces, slot: u32, demanded: bool) {
        self.copy_run_in(pieces, slot, demanded);
    }

    fn retire(&mut self, chunk: ChunkId) {
        self.await_uses_on_host(chunk);
    }
}
