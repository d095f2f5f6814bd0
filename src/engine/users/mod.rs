//! Who uses memory: streams of contexts, and places in their order.
//!
//! A *user* is a stream of a context; of a per-thread default stream, of one
//! thread. Its work is cut into *stretches*, counted from 1. A *mark* is an
//! event that ends a stretch: what was noted in it, or before, is over when the
//! event is. A *point* is a user and a stretch, and stands for everything that
//! the user had queued when the stretch ended.
//!
//! A use is noted as the point that it lies in, without a call to the driver,
//! *after* the original returned: so a mark made later is behind it. Marks are
//! made when somebody wants to wait, and where only this moment can tell what
//! was before: ahead of a wait for the host or another stream (`blocks`), of a
//! capture, of a stream's end, and behind each use on a per-thread default
//! stream, which no other thread can name.
//!
//! Users that are gone keep their number until all their work is over and no
//! chunk names them any more; then it is given out again.
//!
//! Locks: the list of numbers, the blocks, then a user's marks, then the
//! spare ones; after a device's. Not here: who waits for whom (`device::order`).

mod ends;
mod marks;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use autooffload_core::address_map::ChunkId;
use dashmap::DashMap;

use crate::driver::Driver;
use crate::driver::abi::*;
use crate::engine::chunk_bits::{Hot, STRETCH_BITS};
use crate::engine::state::{engine, lock, space};
use crate::thread::thread;

/// The number of a user; 0 is nobody.
pub type UserId = u16;

/// Users at a time, with those that are gone and not yet over.
const USERS_MAX: usize = 8192;
/// With so many marks, and then with twice as many as were left, one user's are
/// looked through for those that are over.
const MARKS_KEPT: usize = 16;
/// The handles of default streams are not those of streams.
const FIRST_NAMED: usize = 3;

/// Everything that a user had queued when a stretch of its ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub user: UserId,
    pub stretch: u64,
}

/// A stream for certain: the default streams' handles mean another one in each
/// context, the per-thread one's on each thread as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Stream {
    handle: usize,
    ctx: usize,
    thread: u64,
}

/// An event that ends a stretch. When that is over and nobody else holds it, it is
/// kept for another ([`Users::settle`]): to make one costs more than all else here.
pub struct Mark {
    event: Event,
    ctx: usize,
}

#[derive(Clone, Copy)]
struct Event(CUevent);

// SAFETY: an event may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

#[derive(Default)]
struct User {
    /// The present stretch.
    stretch: AtomicU64,
    /// What lies in this stretch and before is known to be over.
    over: AtomicU64,
    marks: Mutex<Marks>,
}

type Spare = Vec<(usize, Vec<Arc<Mark>>)>;

#[derive(Default)]
struct Marks {
    /// `None`: gone, or not in use.
    stream: Option<Stream>,
    /// The last stretch of each, oldest first.
    ended: VecDeque<(u64, Arc<Mark>)>,
    /// How many were left when they were last looked through.
    left: usize,
    /// The user's later work already waits for these.
    awaited: Vec<Point>,
}

/// A wait that may not end by itself.
#[derive(Clone, Copy)]
struct Block {
    /// Behind it.
    point: Point,
    /// The context whose legacy default stream waits for its stream as well.
    legacy_of: Option<usize>,
}

#[derive(Default)]
struct Numbers {
    /// The lowest that was never given out.
    next: UserId,
    unused: Vec<UserId>,
    gone: Vec<UserId>,
}

pub struct Users {
    driver: &'static Driver,
    users: Box<[User]>,
    by_stream: DashMap<Stream, UserId>,
    /// Raised when a handle may mean another user.
    generation: AtomicU32,
    numbers: Mutex<Numbers>,
    /// A default stream's context must be asked for: there are several.
    several_contexts: AtomicBool,
    /// Behind waits for the host, or for a word in memory; and whether there are any.
    blocks: Mutex<Vec<Block>>,
    has_blocks: AtomicBool,
    /// Numbers given to threads.
    threads: AtomicU64,
    /// Marks to be used anew, by context, of which there are few.
    spare: Mutex<Spare>,
    /// Uses that found no room in their chunk.
    more: Mutex<HashMap<ChunkId, Vec<u64>>>,
}

/// A thread's number, which no other ever has; its end is the end of its
/// per-thread default streams as users.
struct ThreadNumber(u64);

impl Drop for ThreadNumber {
    fn drop(&mut self) {
        if let Some(engine) = engine() {
            engine.users.thread_ends(self.0);
        }
    }
}

thread_local! {
    static THREAD: ThreadNumber = {
        let next = engine().map_or(0, |engine| engine.users.threads.fetch_add(1, Ordering::Relaxed));
        ThreadNumber(next + 1)
    };
}

fn thread_number() -> u64 {
    // A thread that is being torn down is nobody.
    THREAD.try_with(|number| number.0).unwrap_or(u64::MAX)
}

impl Users {
    pub fn new(driver: &'static Driver, several_contexts: bool) -> Self {
        Self {
            driver,
            users: (0..USERS_MAX).map(|_| User::default()).collect(),
            by_stream: DashMap::new(),
            generation: AtomicU32::new(1),
            numbers: Mutex::new(Numbers { next: 1, ..Numbers::default() }),
            several_contexts: AtomicBool::new(several_contexts),
            blocks: Mutex::default(),
            has_blocks: AtomicBool::new(false),
            threads: AtomicU64::new(0),
            spare: Mutex::default(),
            more: Mutex::default(),
        }
    }

    /// The program makes a context of its own.
    pub fn context_made(&self) {
        self.several_contexts.store(true, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The user that `stream` (an effective handle) means to the calling
    /// thread. `None`: there are too many.
    #[inline(always)]
    pub fn of(&self, stream: CUstream) -> Option<UserId> {
        // 0 and 1 are the same stream.
        let handle = (stream as usize).max(STREAM_LEGACY as usize);
        let generation = self.generation.load(Ordering::Acquire);
        let last = &thread().stream;
        let known = last.handle.get() == handle && last.generation.get() == generation;
        if known && !self.asks(handle) {
            Some(last.user.get())
        } else {
            self.find(handle, generation)
        }
    }

    /// Whether `handle` means another stream in each context.
    #[inline(always)]
    fn asks(&self, handle: usize) -> bool {
        handle < FIRST_NAMED && self.several_contexts.load(Ordering::Relaxed)
    }

    #[inline(never)]
    fn find(&self, handle: usize, generation: u32) -> Option<UserId> {
        let user = self.look_up(handle)?;
        if !self.asks(handle) {
            let last = &thread().stream;
            last.handle.set(handle);
            last.generation.set(generation);
            last.user.set(user);
        }
        Some(user)
    }

    fn look_up(&self, handle: usize) -> Option<UserId> {
        let thread = if handle == STREAM_PER_THREAD as usize { thread_number() } else { 0 };
        // A named stream's handle is its own; which context it is of is asked once.
        let ctx = if handle < FIRST_NAMED { self.driver.ctx_get_current().ok()? } else { 0 as _ };
        let key = Stream { handle, ctx: ctx as usize, thread };
        if let Some(user) = self.by_stream.get(&key) {
            return Some(*user);
        }
        let ctx = if handle < FIRST_NAMED {
            ctx
        } else {
            let of = self.driver.stream_get_ctx(handle as CUstream);
            of.or_else(|_| self.driver.ctx_get_current()).ok()?
        };
        self.add(key, ctx)
    }

    /// An internal stream of ours, of the context `ctx`.
    pub fn add_own(&self, stream: CUstream, ctx: CUcontext) -> Option<UserId> {
        self.add(Stream { handle: stream as usize, ctx: 0, thread: 0 }, ctx)
    }

    fn add(&self, key: Stream, ctx: CUcontext) -> Option<UserId> {
        let mut numbers = lock(&self.numbers);
        // Two threads may have missed it at once.
        if let Some(user) = self.by_stream.get(&key) {
            return Some(*user);
        }
        let user = match numbers.unused.pop() {
            Some(user) => user,
            None if usize::from(numbers.next) < USERS_MAX => {
                numbers.next += 1;
                numbers.next - 1
            }
            None => {
                self.recycle(&mut numbers);
                numbers.unused.pop()?
            }
        };
        let slot = self.slot(user);
        // A number's stretches go on rising: what others know of them stays true.
        let former = slot.stretch.fetch_add(1, Ordering::AcqRel);
        slot.over.store(former, Ordering::Release);
        *lock(&slot.marks) =
            Marks { stream: Some(Stream { ctx: ctx as usize, ..key }), ..Marks::default() };
        self.by_stream.insert(key, user);
        Some(user)
    }

    /// Numbers of users that are gone, and whose work is over, may be used again.
    fn recycle(&self, numbers: &mut Numbers) {
        let Some(space) = space() else { return };
        let (over, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut numbers.gone)
            .into_iter()
            .partition(|&user| self.is_over(Point { user, stretch: self.stretch(user) }));
        numbers.gone = gone;
        for hot in &space.hot {
            hot.forget(|user| over.contains(&user));
        }
        for noted in lock(&self.more).values_mut() {
            noted.retain(|&place| !over.contains(&point(place).user));
        }
        numbers.unused.extend(over);
    }

    #[inline]
    fn slot(&self, user: UserId) -> &User {
        &self.users[usize::from(user)]
    }

    #[inline]
    pub fn stretch(&self, user: UserId) -> u64 {
        self.slot(user).stretch.load(Ordering::Acquire)
    }

    // --- uses ----------------------------------------------------------------

    /// `user` has queued a use of `chunk` just now.
    #[inline]
    pub fn note(&self, chunk: ChunkId, hot: &Hot, user: UserId) {
        self.note_place(chunk, hot, self.place_now(user));
    }

    /// Where what `user` has queued until now lies at the latest, as [`Hot`] holds it.
    #[inline(always)]
    pub fn place_now(&self, user: UserId) -> u64 {
        place(Point { user, stretch: self.stretch(user) })
    }

    /// A use of `chunk` that was queued before `place` was asked for.
    #[inline(always)]
    pub fn note_place(&self, chunk: ChunkId, hot: &Hot, place: u64) {
        if !hot.note(place, |held| self.known_over(point(held))) {
            self.note_more(chunk, hot, place);
        }
    }

    /// A use of `chunk` that is over when `point` is.
    pub fn note_point(&self, chunk: ChunkId, hot: &Hot, point: Point) {
        self.note_place(chunk, hot, place(point));
    }

    #[cold]
    fn note_more(&self, chunk: ChunkId, hot: &Hot, place: u64) {
        let mut more = lock(&self.more);
        let noted = more.entry(chunk).or_default();
        // A later one may have come in between.
        let same = |&&mut other: &&mut u64| point(other).user == point(place).user;
        match noted.iter_mut().find(same) {
            Some(other) => *other = place.max(*other),
            None => noted.push(place),
        }
        hot.set_more(true);
    }

    /// The last uses of `chunk` that are not known to be over.
    pub fn uses(&self, chunk: ChunkId, hot: &Hot) -> smallvec::SmallVec<[Point; 4]> {
        let mut points = smallvec::SmallVec::<[Point; 4]>::new();
        let mut add = |place| {
            let point = point(place);
            if !self.known_over(point) {
                points.push(point);
            }
        };
        hot.places().for_each(&mut add);
        if hot.has_more() {
            let more = lock(&self.more);
            more.get(&chunk).into_iter().flatten().for_each(|&place| add(place));
        }
        points
    }

    /// All uses of `chunk` are over, or it is gone.
    pub fn forget_uses(&self, chunk: ChunkId, hot: &Hot) {
        if hot.has_more() {
            lock(&self.more).remove(&chunk);
            hot.set_more(false);
        }
        hot.forget(|_| true);
    }

    // --- what is over ---------------------------------------------------------

    /// Whether the point is known to be over, without asking.
    #[inline]
    pub fn known_over(&self, point: Point) -> bool {
        self.slot(point.user).over.load(Ordering::Acquire) >= point.stretch
    }

    /// The point is over.
    pub fn set_over(&self, point: Point) {
        self.slot(point.user).over.fetch_max(point.stretch, Ordering::AcqRel);
    }
}

impl Mark {
    pub fn event(&self) -> CUevent {
        self.event.0
    }
}

/// A point as [`Hot`] holds it.
fn place(point: Point) -> u64 {
    u64::from(point.user) << STRETCH_BITS | point.stretch
}

fn point(place: u64) -> Point {
    let stretch = place & ((1 << STRETCH_BITS) - 1);
    Point { user: (place >> STRETCH_BITS) as UserId, stretch }
}
