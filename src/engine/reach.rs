//! What a launch reaches beyond what its parameters name: through tables of
//! addresses in device memory (batched and grouped products).
//!
//! Only the device knows what lies in such a table when the launch reads it. So
//! before a launch that names small ranges of memory, once all that its stream
//! has queued is over, these are searched for addresses; what they name is
//! touched by the launch as if it had named it itself, and so is what a table
//! names that a table names. That way it makes no difference who wrote the
//! table, when, and what else lay there before.
//!
//! Whether a kernel reads through memory is a matter of its code, and shows at
//! its first launches: each of one that does finds an address. A kernel for
//! which several looks found nothing is not looked into any more, as long as it
//! names as many addresses as then. One that found a table where the launch
//! names it is, for good, and each look is waited for. An address further on may
//! be a number that looks like one: it takes more looks in vain to say so.
//!
//! ```text
//!   launch names ranges -> search -> addresses -> touched by the launch
//!                            ^           |
//!                            +- small ----+   twice at the most; then kept
//! ```
//!
//! A range may hold what is left of older tables, which nobody will read; that
//! cannot be told. Where there is not room for all that is found, only those
//! tables count that begin where the launch names them.
//!
//! Only while memory moves, and never in a capture (`captures`). Tables lie in
//! allocations of up to one frame, which is where PyTorch puts what is small,
//! and within [`WINDOW`] of an address that is named. What cannot be looked
//! into, because its stream waits for the host, is launched if its kernel was
//! never seen to read through memory, and refused otherwise.
//! Not here: the search itself (`device::search`).

use std::ops::Range;
use std::sync::atomic::Ordering;

use autooffload_core::address_map::ChunkId;
use autooffload_core::memory::Effect;
use autooffload_core::params::Span;
use smallvec::SmallVec;

use super::account::WaitReason;
use super::device::{Device as DeviceState, Found, Spans};
use super::guards::ContextGuard;
use super::state::{Engine, Failure, hot, lock};
use super::users::UserId;
use super::{FRAME_BYTES, Touched, captures, chunk_of, small, stream_ordered};
use crate::driver::abi::*;

/// How far a table reaches behind the address that is named.
const WINDOW: u64 = 64 << 10;
/// Between the addresses of one table, and before its first.
const GAP: u64 = 256;
/// Looks in vain after which a kernel is taken for one that reads no tables.
const IN_VAIN: u8 = 4;
/// The same, if others found an address, though not where the launch names a table.
const IN_VAIN_IN_DOUBT: u8 = 24;
/// Tables, and tables that these name.
const LEVELS: usize = 2;

/// What a launch is, as far as it matters here.
pub struct Launched {
    /// A number for its kernel, which no other has.
    kernel: u64,
    /// Its name as the compiler has it, where launches are watched.
    pub name: Option<String>,
    /// What it names within [`small::small_span`].
    pub small: SmallVec<[DevicePtr; 4]>,
}

impl Launched {
    pub fn of(kernel: u64) -> Self {
        Self { kernel, name: None, small: SmallVec::new() }
    }
}

/// A kernel, and how many addresses it names: an optional table is one more.
pub(super) type Reader = (u64, usize);

/// What looks before its launches have shown.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    in_vain: u8,
    /// So many found a table where the launch names it.
    near: u8,
    /// One found the address of something that lives.
    found: bool,
}

impl Seen {
    /// Once may be chance, too.
    fn reads_tables(self) -> bool {
        self.near > 1
    }

    fn reads_none(self) -> bool {
        let most = if self.found { IN_VAIN_IN_DOUBT } else { IN_VAIN };
        !self.reads_tables() && self.in_vain >= most
    }
}

/// What a launch reaches.
pub(super) type Reached = SmallVec<[Beyond; 4]>;

/// An address that a launch reaches, and the chunk it is in.
#[derive(Clone, Copy)]
pub(super) struct Beyond {
    pub chunk: ChunkId,
    pub address: DevicePtr,
    /// It lies in what begins where the launch names it. Others lie further on,
    /// where there may be a table of another launch, or what is left of one.
    pub near: bool,
}

/// Who launches.
pub(super) struct Caller {
    pub user: Option<UserId>,
    pub ctx: CUcontext,
}

/// What the launch that names `touched` reaches beyond them, now.
///
/// Errors: it may read absent memory, or there is no room to look.
pub(super) fn beyond(
    engine: &'static Engine,
    caller: &Caller,
    launched: &Launched,
    touched: &[Touched],
) -> Result<Reached> {
    // The most common case by far.
    if launched.small.is_empty() && touched.iter().all(|touched| is_large(touched.chunk)) {
        return Ok(Reached::new());
    }
    let reader = (launched.kernel, touched.len() + launched.small.len());
    let seen = engine.readers.get(&reader).map(|seen| *seen).unwrap_or_default();
    if seen.reads_none() {
        return Ok(Reached::new());
    }
    let listed = engine.small.list();
    let window = |address| window_at(engine, &listed, caller, address);
    let addresses = touched.iter().map(|touched| &touched.address);
    let named = addresses.chain(&launched.small);
    let mut starts: Vec<DevicePtr> = named.clone().copied().collect();
    let mut fresh: Vec<Window> = named.filter_map(|&address| window(address)).collect();
    if fresh.is_empty() {
        return Ok(Reached::new());
    }
    let mut looked: Vec<Window> = Vec::new();
    let mut reached = Reached::new();
    let mut nothing = true;
    for level in 0..=LEVELS {
        without(&mut fresh, &looked);
        if fresh.is_empty() {
            break;
        }
        let Some(words) = look(engine, caller, &fresh)? else {
            return missed(engine, seen);
        };
        looked.append(&mut fresh);
        let tables = tables(words, &starts);
        starts.clear();
        for (word, near) in tables {
            // Where the launch names a table, what is gone may be something else next time.
            let lives = chunk_of(word).is_some() || listed.extent(word, caller.ctx).is_some();
            nothing &= !near && !lives;
            fresh.extend(window(word));
            if near {
                starts.push(word);
            }
            let Some(chunk) = chunk_of(word) else { continue };
            if let Some(known) = reached.iter_mut().find(|known| known.address == word) {
                known.near |= near;
                continue;
            }
            if level == LEVELS && near {
                captures::pin_for_good(chunk, "a table names it that a table of tables names")?;
            }
            reached.push(Beyond { chunk, address: word, near });
        }
    }
    drop(listed);
    let found = !reached.is_empty();
    engine.stats.looked(found);
    if reached.iter().any(|beyond| !beyond.near) && !fits(engine, touched, &reached) {
        reached.retain(|beyond| beyond.near);
    }
    let mut seen = engine.readers.entry(reader).or_default();
    seen.found |= found;
    seen.near = seen.near.saturating_add(reached.iter().any(|beyond| beyond.near).into());
    // More in vain than not: one that reads a table now and then is looked into.
    seen.in_vain = seen.in_vain.saturating_sub(found.into()).saturating_add(nothing.into());
    Ok(reached)
}

/// Whether it is one allocation that is too large for a table, without a look at what
/// is known of it.
fn is_large(chunk: ChunkId) -> bool {
    let hot = hot(chunk);
    !hot.pooled.load(Ordering::Relaxed) && hot.bytes.load(Ordering::Relaxed) > FRAME_BYTES as u64
}

/// Whether there is room for all of it at once.
fn fits(engine: &Engine, touched: &[Touched], reached: &Reached) -> bool {
    let named = touched.iter().map(|touched| touched.chunk);
    let mut all: Vec<ChunkId> = named.chain(reached.iter().map(|beyond| beyond.chunk)).collect();
    all.sort_unstable_by_key(|&id| (hot(id).device(), id));
    all.dedup();
    all.chunk_by(|&a, &b| hot(a).device() == hot(b).device()).all(|chunks| {
        let state = lock(&engine.devices[hot(chunks[0]).device()].state);
        state.as_ref().is_none_or(|state| {
            let alive = chunks.iter().filter(|&&id| state.streamer.contains(id));
            let wanted: Vec<_> = alive.map(|&id| (id, Effect::Write)).collect();
            state.streamer.could_fit(&wanted)
        })
    })
}

/// The addresses of `words`, and whether each lies in a table that begins at one
/// of `starts`, or a little behind it, and has no long gaps.
fn tables(mut words: Vec<Found>, starts: &[DevicePtr]) -> Vec<(DevicePtr, bool)> {
    words.sort_unstable();
    let mut table = 0;
    let mut last = 0;
    let near = |&(at, word): &Found| {
        if at - last > GAP || last == 0 {
            table = at;
        }
        last = at;
        let begins = |&start: &DevicePtr| start & !7 <= at && table <= start + GAP;
        (word, starts.iter().any(begins))
    };
    words.iter().map(near).collect()
}

/// A launch could not be looked into.
#[cold]
fn missed(engine: &Engine, seen: Seen) -> Result<Reached> {
    engine.stats.look_missed();
    if !seen.found {
        return Ok(Reached::new());
    }
    log::error!(
        "a kernel that reads through a table of addresses is launched on a stream that waits for \
         the host: what the table names cannot be made present, so the launch is refused"
    );
    Err(CuResult::NOT_SUPPORTED)
}

/// A range to be looked at, of whole words.
#[derive(Clone)]
struct Window {
    device: usize,
    /// `None`: it is the driver's.
    chunk: Option<ChunkId>,
    range: Range<DevicePtr>,
}

/// What may be a table behind `address`; `None`: nothing is known there, or what
/// is there is too large for one.
fn window_at(
    engine: &Engine,
    listed: &small::Listed,
    caller: &Caller,
    address: DevicePtr,
) -> Option<Window> {
    let chunk = chunk_of(address);
    let (device, extent) = match chunk {
        None => {
            let extent = listed.extent(address, caller.ctx)?;
            (super::operation::current_device(engine)?, extent)
        }
        Some(id) => {
            let allocation = *engine.allocations.get(&id)?;
            let slot = stream_ordered::slot_at(id, &allocation, address);
            let (base, bytes) = slot.unwrap_or((allocation.base, allocation.bytes as u64));
            (allocation.device as usize, base..base + bytes)
        }
    };
    if extent.end - extent.start > FRAME_BYTES as u64 {
        return None;
    }
    // Where one word ends, the next begins: in all of them at multiples of 8.
    let range = (address & !7)..(address + WINDOW).min(extent.end) & !7;
    (range.start < range.end).then_some(Window { device, chunk, range })
}

/// Joins the windows that overlap, and takes away what is looked at already.
fn without(windows: &mut Vec<Window>, looked: &[Window]) {
    windows.sort_by_key(|window| window.range.start);
    windows.dedup_by(|next, last| {
        let joins = next.chunk == last.chunk && next.range.start <= last.range.end;
        if joins {
            last.range.end = last.range.end.max(next.range.end);
        }
        joins
    });
    windows.retain(|window| {
        let covers = |known: &Window| {
            known.range.start <= window.range.start && window.range.end <= known.range.end
        };
        !looked.iter().any(covers)
    });
}

/// The addresses that `windows` hold when all that is queued on the caller's
/// stream is over. `None`: that cannot be waited for.
fn look(
    engine: &'static Engine,
    caller: &Caller,
    windows: &[Window],
) -> Result<Option<Vec<Found>>> {
    // What is held up waits for the program, which waits for us.
    let Some(user) = caller.user.filter(|_| !engine.users.any_held_up()) else { return Ok(None) };
    let (low, high) = super::arena();
    let spans: Spans = [Span { base: low, bytes: high - low }, engine.small.span()];
    let mut found = Vec::new();
    let mut devices: SmallVec<[usize; 2]> = windows.iter().map(|window| window.device).collect();
    devices.dedup();
    for device in devices {
        let here = || windows.iter().filter(|window| window.device == device);
        let mut words = None;
        let outcome = engine.with_device(device, WaitReason::PlanChange, |state| {
            let DeviceState { streamer, backend, .. } = state;
            // The driver's memory is of a context, which the kernel must be in.
            let reachable = |window: &&Window| match window.chunk {
                Some(id) => streamer.contains(id),
                None => caller.ctx == backend.ctx,
            };
            let windows: SmallVec<[&Window; 8]> = here().filter(reachable).collect();
            let mut chunks: SmallVec<[(ChunkId, Effect); 8]> =
                windows.iter().filter_map(|w| Some((w.chunk?, Effect::Read))).collect();
            chunks.sort_unstable_by_key(|&(id, _)| id);
            chunks.dedup();
            backend.order.asks(Some(user));
            streamer.bring(&chunks, backend)?;
            let mut after: SmallVec<[_; 8]> =
                chunks.iter().filter_map(|&(id, _)| backend.order.content(id)).collect();
            chunks.iter().for_each(|&(id, _)| backend.order.looks_at(id));
            words = {
                let foreign = caller.ctx != backend.ctx && !caller.ctx.is_null();
                let context = foreign.then(|| ContextGuard::enter(engine.driver, caller.ctx));
                let mark = engine.users.mark(user);
                drop(context);
                mark.ok().and_then(|point| {
                    after.push(point);
                    let ranges: Vec<Range<DevicePtr>> =
                        windows.iter().map(|window| window.range.clone()).collect();
                    backend.find_addresses(&ranges, &spans, &after)
                })
            };
            streamer.release(&chunks);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(Failure::Driver(code)) => return Err(code),
            Err(Failure::Shortage(shortage)) => {
                engine.explain(device, "a look at small buffers", shortage);
                return Err(CuResult::OUT_OF_MEMORY);
            }
        }
        match words {
            Some(words) => found.extend(words),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}
