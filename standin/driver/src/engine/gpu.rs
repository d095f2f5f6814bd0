//! The one GPU of the process: its state, its lock, and waiting.
//!
//! [`lock`] gives a [`Session`], through which every entry point works. A
//! session is never held across a call into the program (host functions).

use super::account::Account;
use super::capture::Capture;
use super::card::Card;
use super::clock::Clock;
use super::faults::Faults;
use super::graph::{Exec, Graph, Node};
use super::memory::{Allocation, Pool};
use super::module::{Function, Module};
use super::physical::Memory;
use super::scheduler::{OpId, Scheduler};
use super::settings::Settings;
use super::space::Space;
use super::stream::{Context, Event, Front, Stream, StreamKind};
use super::taint::Taint;
use super::uses::Uses;
use crate::abi::{
    Handle, INVALID_CONTEXT, INVALID_HANDLE, NOT_INITIALIZED, Outcome, STREAM_LEGACY,
    STREAM_PER_THREAD,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// What a handle of the stand-in is; part of its value, so that one kind is
/// never taken for another.
#[derive(Clone, Copy)]
pub enum HandleKind {
    Context = 1,
    Stream,
    Event,
    Module,
    Kernel,
    Function,
    Pool,
    Graph,
    Node,
    Exec,
    Capture,
}

/// Handles look like pointers, and are none.
const HANDLE_BASE: u64 = 0x6A00_0000_0000;

pub struct Device {
    pub primary: Option<Handle>,
    pub primary_references: u32,
    pub primary_flags: u32,
    pub default_pool: Handle,
    pub current_pool: Handle,
}

pub struct State {
    pub devices: Vec<Device>,
    pub contexts: HashMap<Handle, Context>,
    pub streams: BTreeMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub modules: HashMap<Handle, Module>,
    pub kernels: HashMap<Handle, Arc<Function>>,
    pub functions: HashMap<Handle, Arc<Function>>,
    pub memory: Memory,
    /// Device allocations that are not the program's own VMM, by address.
    pub allocations: BTreeMap<u64, Allocation>,
    /// What the program knows as one allocation (cuMemAlloc, a block of a
    /// pool), start → bytes: the reach of a launch that names it.
    pub units: BTreeMap<u64, u64>,
    pub pools: HashMap<Handle, Pool>,
    pub graphs: HashMap<Handle, Graph>,
    pub nodes: HashMap<Handle, Node>,
    pub execs: HashMap<Handle, Exec>,
    pub captures: HashMap<Handle, Capture>,
    pub scheduler: Scheduler,
    pub clock: Clock,
    pub account: Account,
    pub faults: Faults,
    pub taint: Taint,
    pub uses: Uses,
    /// Polls in a row that found nothing new; the host gets impatient.
    pub poll_streak: u32,
    pub workers_started: bool,
    /// The process is exiting: workers take nothing any more.
    pub stopping: bool,
    next_handle: u64,
}

pub struct Gpu {
    pub settings: Settings,
    state: Mutex<State>,
    space: RwLock<Space>,
    /// Signalled when work may have become runnable, for the workers.
    pub runnable: Condvar,
    /// The same for host functions, for the callback thread.
    pub host_runnable: Condvar,
    /// Signalled when an operation is done.
    pub done: Condvar,
}

static GPU: OnceLock<Result<Gpu, ()>> = OnceLock::new();

thread_local! {
    /// The calling thread's context stack; the last is current.
    static CONTEXTS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// Makes the GPU, once. False if the host cannot provide it.
pub fn initialize() -> bool {
    GPU.get_or_init(|| {
        let settings = Settings::from_env();
        let space = Space::new().map_err(|why| eprintln!("standin: {why}"))?;
        let card = settings.shared.as_deref().map(Card::open).transpose();
        let card = card.map_err(|why| eprintln!("standin: STANDIN_SHARED: {why}"))?;
        let mut state = State {
            devices: Vec::new(),
            contexts: HashMap::new(),
            streams: BTreeMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            kernels: HashMap::new(),
            functions: HashMap::new(),
            memory: Memory::new(&settings, card),
            allocations: BTreeMap::new(),
            units: BTreeMap::new(),
            pools: HashMap::new(),
            graphs: HashMap::new(),
            nodes: HashMap::new(),
            execs: HashMap::new(),
            captures: HashMap::new(),
            scheduler: Scheduler::new(settings.order),
            clock: Clock::new(&settings),
            account: Account::default(),
            faults: Faults::new(settings.faults.clone()),
            taint: Taint::default(),
            uses: Uses::default(),
            poll_streak: 0,
            workers_started: false,
            stopping: false,
            next_handle: 1,
        };
        for device in 0..settings.devices {
            let pool = state.handle(HandleKind::Pool);
            state.pools.insert(pool, Pool::new(device));
            state.devices.push(Device {
                primary: None,
                primary_references: 0,
                primary_flags: 0,
                default_pool: pool,
                current_pool: pool,
            });
        }
        Ok(Gpu {
            settings,
            state: Mutex::new(state),
            space: RwLock::new(space),
            runnable: Condvar::new(),
            host_runnable: Condvar::new(),
            done: Condvar::new(),
        })
    })
    .is_ok()
}

/// The GPU, once cuInit has succeeded.
pub fn gpu() -> Outcome<&'static Gpu> {
    let made = GPU.get().and_then(|gpu| gpu.as_ref().ok());
    made.filter(|gpu| gpu.settings.devices > 0).ok_or(NOT_INITIALIZED)
}

/// Whether this process sees no device; then cuInit fails.
pub fn has_no_device() -> bool {
    matches!(GPU.get(), Some(Ok(gpu)) if gpu.settings.devices == 0)
}

pub fn lock() -> Outcome<Session> {
    Ok(gpu()?.lock())
}

impl Gpu {
    pub fn lock(&'static self) -> Session {
        Session { gpu: self, state: self.state() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means an entry point panicked and was answered with
        // UNKNOWN; the state is kept usable for the account.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn space(&self) -> RwLockReadGuard<'_, Space> {
        self.space.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for running operations, then excludes new ones.
    pub fn space_mut(&self) -> RwLockWriteGuard<'_, Space> {
        self.space.write().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    pub fn handle(&mut self, kind: HandleKind) -> Handle {
        self.next_handle += 1;
        HANDLE_BASE + ((kind as u64) << 36) + self.next_handle * 16
    }

    pub fn stream(&self, handle: Handle) -> Outcome<&Stream> {
        self.streams.get(&handle).ok_or(INVALID_HANDLE)
    }

    pub fn stream_mut(&mut self, handle: Handle) -> Outcome<&mut Stream> {
        self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)
    }

    pub fn context(&self, handle: Handle) -> Outcome<&Context> {
        self.contexts.get(&handle).ok_or(INVALID_CONTEXT)
    }

    /// Like [`State::context`], but answers the context's sticky error.
    pub fn live_context(&self, handle: Handle) -> Outcome<&Context> {
        let context = self.context(handle)?;
        context.error.map_or(Ok(context), Err)
    }

    pub fn new_context(&mut self, device: usize, primary: bool, flags: u32) -> Handle {
        let handle = self.handle(HandleKind::Context);
        let legacy = self.handle(HandleKind::Stream);
        let limits = super::stream::DEFAULT_LIMITS;
        let mut context =
            Context { device, primary, flags, error: None, legacy, limits, streams_made: 0 };
        self.streams.insert(legacy, context.stream(handle, StreamKind::Legacy, 0, 0));
        self.contexts.insert(handle, context);
        handle
    }

    /// Makes a stream of a context.
    pub fn add_stream(
        &mut self,
        context: Handle,
        kind: StreamKind,
        flags: u32,
        priority: i32,
    ) -> Outcome<Handle> {
        let handle = self.handle(HandleKind::Stream);
        let owner = self.contexts.get_mut(&context).ok_or(INVALID_CONTEXT)?;
        let stream = owner.stream(context, kind, flags, priority);
        self.streams.insert(handle, stream);
        Ok(handle)
    }

    /// What `stream`'s next operation must wait for.
    pub fn front(&mut self, handle: Handle) -> Outcome<Front> {
        let scheduler = &self.scheduler;
        let stream = self.streams.get_mut(&handle).ok_or(INVALID_HANDLE)?;
        stream.prune(scheduler);
        let mut front = Front { stream_number: Some(stream.number), ..Front::default() };
        front.join(stream);
        let (context, kind, blocking) = (stream.context, stream.kind, stream.is_blocking());
        if kind == StreamKind::Legacy {
            for other in self.streams.values_mut() {
                if other.context == context && other.is_blocking() && other.kind != kind {
                    other.prune(scheduler);
                    front.join(other);
                }
            }
        } else if blocking {
            let legacy = self.contexts.get(&context).ok_or(INVALID_CONTEXT)?.legacy;
            if let Some(legacy) = self.streams.get_mut(&legacy) {
                legacy.prune(scheduler);
                front.join(legacy);
            }
        }
        Ok(front)
    }
}

/// The current context of the calling thread, if any.
pub fn current_context() -> Option<Handle> {
    CONTEXTS.with_borrow(|stack| stack.last().copied()).filter(|&c| c != 0)
}

pub fn push_context(context: Handle) {
    CONTEXTS.with_borrow_mut(|stack| stack.push(context));
}

pub fn pop_context() -> Option<Handle> {
    CONTEXTS.with_borrow_mut(|stack| stack.pop()).filter(|&c| c != 0)
}

pub fn set_context(context: Handle) {
    CONTEXTS.with_borrow_mut(|stack| {
        stack.pop();
        if context != 0 {
            stack.push(context);
        }
    });
}

/// Which stream an entry point means by 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultStream {
    Legacy,
    PerThread,
}

/// The GPU, locked, for one entry point.
pub struct Session {
    pub gpu: &'static Gpu,
    state: MutexGuard<'static, State>,
}

impl Deref for Session {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Session {
    /// The current context's handle; fails if there is none or it is broken.
    pub fn current(&self) -> Outcome<Handle> {
        let handle = current_context().ok_or(INVALID_CONTEXT)?;
        self.live_context(handle)?;
        Ok(handle)
    }

    /// The current context's device.
    pub fn current_device(&self) -> Outcome<usize> {
        Ok(self.context(self.current()?)?.device)
    }

    /// The stream an argument names.
    pub fn resolve(&mut self, stream: Handle, default: DefaultStream) -> Outcome<Handle> {
        let per_thread = match stream {
            0 => default == DefaultStream::PerThread,
            STREAM_LEGACY => false,
            STREAM_PER_THREAD => true,
            _ => {
                let context = self.stream(stream)?.context;
                self.live_context(context)?;
                return Ok(stream);
            }
        };
        let context = self.current()?;
        if !per_thread {
            return Ok(self.context(context)?.legacy);
        }
        let kind = StreamKind::PerThread(std::thread::current().id());
        let known = self.streams.iter().find(|(_, s)| s.context == context && s.kind == kind);
        if let Some((&known, _)) = known {
            return Ok(known);
        }
        self.add_stream(context, kind, 0, 0)
    }

    /// Blocks the caller until `ops` are done, and its clock until `ns`.
    pub fn wait(self, ops: &[OpId], ns: u64) -> Session {
        let Session { gpu, mut state } = self;
        state.scheduler.want(ops);
        if ops.iter().any(|&op| state.scheduler.is_live(op)) {
            gpu.runnable.notify_all();
        }
        while ops.iter().any(|&op| state.scheduler.is_live(op)) && !state.stopping {
            state = gpu.done.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.clock.host_waited(ns);
        Session { gpu, state }
    }

    /// As [`Session::wait`], counted as a call that blocks the host.
    pub fn block(mut self, ops: &[OpId], ns: u64) -> Session {
        self.account.blocking_calls += 1;
        self.poll_streak = 0;
        self.wait(ops, ns)
    }

    /// What must be done, and until when, for a context to be idle.
    fn all_of(&self, context: Handle) -> (Vec<OpId>, u64) {
        // What a stream was made to wait for last may be another context's.
        let tails = self.streams.values().filter(|s| s.context == context).flat_map(|s| &s.tail);
        let tails: HashSet<OpId> = tails.copied().collect();
        let ops: Vec<OpId> = self
            .scheduler
            .live()
            .filter(|&(id, op)| op.context == context || tails.contains(id))
            .map(|(&id, _)| id)
            .collect();
        let ns = self
            .streams
            .values()
            .filter(|s| s.context == context)
            .map(|s| s.work_end_ns.max(s.wait_end_ns))
            .max()
            .unwrap_or(0);
        (ops, ns)
    }

    /// Blocks until everything submitted to a context is done, and answers
    /// the error that left behind.
    pub fn block_on_context(self, context: Handle) -> Outcome<Session> {
        let (ops, ns) = self.all_of(context);
        let session = self.block(&ops, ns);
        session.live_context(context)?;
        Ok(session)
    }

    /// For a call that may wait for everything its context has queued: with
    /// `STANDIN_IMPLIED_WAITS` it does, and is counted if there was anything.
    pub fn implied_wait(mut self) -> Session {
        let Some(context) = current_context().filter(|_| self.gpu.settings.implied_waits) else {
            return self;
        };
        let (ops, ns) = self.all_of(context);
        if ops.is_empty() && ns <= self.clock.host_ns {
            return self;
        }
        self.account.implied_waits += 1;
        self.wait(&ops, ns)
    }

    /// Whether work that ends at `ns` is done, as a poll sees it: by the model
    /// clock, unless the host itself is what it waits for. Each fruitless
    /// poll moves the host's clock on, further and further.
    pub fn poll(mut self, ops: &[OpId], ns: u64) -> (Session, bool) {
        self.account.query_polls += 1;
        self.clock.host_ns += super::clock::HOST_CALL_NS << self.poll_streak.min(9);
        if self.scheduler.is_held(ops) || ns > self.clock.host_ns {
            self.poll_streak += 1;
            // The program may be waiting for memory to change; let work go on.
            self.scheduler.want(ops);
            self.gpu.runnable.notify_all();
            return (self, false);
        }
        self.poll_streak = 0;
        (self.wait(ops, 0), true)
    }
}
