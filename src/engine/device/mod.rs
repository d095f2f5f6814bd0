//! One device's backend: carries out what its [`Streamer`] decides.
//!
//! Two internal streams, because the link carries both directions at once;
//! copies of one direction stay in order. Who waits for whom is in `order`.
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
mod recorder;
mod ring_view;
mod search;
mod shut;
mod stall;
mod timed_events;
mod timing;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::{
    FrameId, MemoryOps, Pending, RecentCaps, Refused, Streamer, Window,
};
use autooffload_core::plan::Place;
use smallvec::SmallVec;

use super::account::told::memory_is_short;
use super::account::{Memory, Stats};
use super::guards::ContextGuard;
use super::host::{HostStore, Record, SharedBlocks, Span};
use super::planning::Planner;
use super::users::Users;
use super::{FRAME_BYTES, FRAME_SHIFT, inflight};
use crate::driver::Driver;
use crate::driver::abi::Device as DeviceNumber;
use crate::driver::abi::*;
use copies::Pieces;
use fingerprints::Fingerprints;
use frames::Frame;
use host_pieces::{HostPiece, Leaving};
use in_place::InPlace;
use order::{By, Order};
use ring_view::RingView;
use search::Search;
pub use search::{Found, Spans};

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
    /// We keep that context from ending.
    pub holds_context: bool,
    pub order: Order,
    /// What is to go is waited for at once, under the lock, but no longer than
    /// this.
    pub waits_until: Option<Instant>,
    /// What was launched before memory moved is over, or noted.
    launches_seen: bool,
    /// `None`: what leaves is copied out, whether it was written or not.
    fingerprints: Option<Fingerprints>,
    search: Search,
    /// By id; ids of released frames are reused.
    frames: Vec<Frame>,
    unused_ids: Vec<FrameId>,
    slabs: SharedBlocks,
    view: RingView,
    in_place: InPlace,
    leaving: Vec<Leaving>,
    /// What the device may not touch for now; see `shut`.
    shut: Vec<ChunkId>,
    /// Indexed by chunk id.
    backings: Vec<Option<Backing>>,
    /// What names this card in every process; 0: the driver does not say.
    pub card: u64,
    /// When the card was last read: its bytes; of those that were neither free nor
    /// frames of ours, this process's, and others'.
    pub card_seen: (u64, u64, u64),
    /// For which weights it was asked whether their order is known.
    pub asked_for: Option<u64>,
    /// The order that was kept last: its version, and when.
    pub kept: Option<(u64, std::time::Instant)>,
    /// What there was room for of late.
    pub caps: RecentCaps,
    /// Timed copy whose rate is read at the next wait: events and bytes.
    probe: Option<(CUevent, CUevent, usize)>,
    /// Copies since the last one that was timed.
    unprobed: u32,
    /// The chunk that was saved last, if it is written so often that nobody looks.
    rewritten: Option<ChunkId>,
    link_bytes_per_s: Option<f64>,
}

// SAFETY: driver handles may be used from any thread; the pointers to host
// memory are ours alone.
unsafe impl Send for DeviceBackend {}

impl Device {
    /// Sets up `device`, whose context `ctx` is current.
    #[allow(clippy::too_many_arguments, reason = "what is made once, from what others own")]
    pub fn new(
        driver: &'static Driver,
        host_store: &'static HostStore,
        stats: &'static Stats,
        users: &'static Users,
        device: DeviceNumber,
        ctx: CUcontext,
        holds_context: bool,
        window: Window,
    ) -> Result<Self> {
        let order = Order::new(driver, stats, users, device, ctx)?;
        let fingerprints = Fingerprints::set_up(driver, host_store, order.copy_out())
            .inspect_err(|why| {
                log::warn!(
                    "device {device}: {why}: all that kernels receive is copied back, written or not"
                );
            })
            .ok();
        let search = Search::set_up(driver, host_store, order.look());
        Ok(Self {
            planner: Planner::default(),
            streamer: Streamer::new(0, window),
            backend: DeviceBackend {
                driver,
                host_store,
                stats,
                device,
                ctx,
                holds_context,
                order,
                waits_until: None,
                launches_seen: false,
                fingerprints,
                search,
                frames: Vec::new(),
                unused_ids: Vec::new(),
                slabs: SharedBlocks::default(),
                view: RingView::default(),
                in_place: InPlace::default(),
                leaving: Vec::new(),
                shut: Vec::new(),
                backings: Vec::new(),
                card: driver.card(device),
                card_seen: (0, 0, 0),
                asked_for: None,
                kept: None,
                caps: RecentCaps::default(),
                probe: None,
                unprobed: u32::MAX,
                rewritten: None,
                link_bytes_per_s: None,
            },
        })
    }
}

impl Device {
    /// For the trace, if there is one: what memory is used for now.
    pub fn record_memory(&mut self) {
        if !self.backend.order.is_traced() {
            return;
        }
        let bytes = |frames: u32| u64::from(frames) << FRAME_SHIFT;
        let streamer = &self.streamer;
        let (live, resident) = (streamer.live_frames(), streamer.resident_frames());
        self.backend.order.record_memory(Memory {
            resident: bytes(resident),
            ring: bytes(streamer.ring_frames()),
            unused: bytes(live - resident - streamer.ring_frames()),
            in_place: bytes(streamer.host_frames()),
            host: self.backend.host_store.usage().0,
        });
    }
}

impl DeviceBackend {
    /// Announces a chunk before the streamer maps it.
    pub fn add(&mut self, id: ChunkId, base: DevicePtr, bytes: usize, frames: u32) {
        if self.backings.len() <= id as usize {
            self.backings.resize_with(id as usize + 1, || None);
        }
        self.backings[id as usize] =
            Some(Backing { base, bytes, frames, placed: Vec::new(), host: Vec::new() });
    }

    /// Forgets a chunk that the streamer freed, and gives its host memory and
    /// events back.
    pub fn remove(&mut self, id: ChunkId) {
        let Some(backing) = self.backings[id as usize].take() else { return };
        self.order.forget(id);
        for piece in backing.host {
            self.host_store.free(piece.buffer);
        }
        self.free_leaving();
        self.free_unneeded();
        if self.is_empty() {
            self.order.release_events();
        }
    }

    /// No chunk lives.
    pub fn is_empty(&self) -> bool {
        self.backings.iter().all(Option::is_none)
    }

    /// Gives back what only serves while something is on the host, if nothing is.
    pub fn free_unneeded(&mut self) {
        if self.search.holds_memory() && !self.holds_host_copies() {
            self.search.release(self.host_store);
        }
    }

    fn holds_host_copies(&self) -> bool {
        !self.leaving.is_empty()
            || self.backings.iter().flatten().any(|backing| !backing.host.is_empty())
    }

    fn backing(&mut self, id: ChunkId) -> &mut Backing {
        self.backings[id as usize].as_mut().expect("a chunk that lives")
    }

    /// The context and our streams in it are gone; the frames are not.
    pub fn renew(&mut self, users: &'static Users) -> Result<()> {
        self.ctx = self.driver.primary_ctx_retain(self.device)?;
        self.holds_context = true;
        let _context = ContextGuard::enter(self.driver, self.ctx);
        self.order = Order::new(self.driver, self.stats, users, self.device, self.ctx)?;
        self.probe = None;
        // Our kernel went, too, and with the context what it reached of the host:
        // where there are host copies, what leaves is copied from now on.
        self.fingerprints = if self.holds_host_copies() {
            None
        } else {
            Fingerprints::set_up(self.driver, self.host_store, self.order.copy_out()).ok()
        };
        self.search.forget(self.host_store);
        self.search = Search::set_up(self.driver, self.host_store, self.order.look());
        Ok(())
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
        let begins = inflight::begin_pressure();
        if begins {
            let host = (self.host_store.available(), self.host_store.pins());
            memory_is_short(self.device, self.stats, host, self.link_bytes_per_s);
        }
        if let Some(engine) = super::state::engine() {
            engine.publisher.begin(engine);
        }
        if !self.launches_seen && !inflight::holds_everything() {
            self.launches_seen = true;
            self.order.anything_uses(
                self.backings
                    .iter()
                    .zip(0..)
                    .filter_map(|(backing, id)| backing.is_some().then_some(id)),
            );
        }
    }

    fn is_in_flight(&self, chunk: ChunkId) -> bool {
        !self.launches_seen || inflight::holds(chunk)
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
        self.order.await_uses(chunk, By::CopyIn);
    }

    fn fetch_after_program(&mut self) {
        self.order.copies_follow_last();
    }

    fn fetch(&mut self, chunk: ChunkId, frames: Range<u32>, content: bool, demanded: bool) {
        self.copy_in(chunk, frames, content, demanded);
    }

    fn fetch_run(&mut self, pieces: &Pieces, slot: u32, demanded: bool) {
        self.copy_run_in(pieces, slot, demanded);
    }

    fn is_rewritten(&self, chunk: ChunkId) -> bool {
        self.rewritten == Some(chunk)
    }

    fn pending(&mut self, chunk: ChunkId) -> Pending {
        self.order.pending(chunk)
    }

    fn any_held_up(&mut self) -> bool {
        self.order.any_held_up()
    }

    fn retire(&mut self, chunk: ChunkId) -> bool {
        let over = self.order.are_uses_over(chunk, self.waits_until);
        if over {
            self.read_probe();
        }
        over
    }
}
