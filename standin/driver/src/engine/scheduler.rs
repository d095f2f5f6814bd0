//! The order of execution: operations, their dependencies, and which runnable
//! one is run next.
//!
//! An operation is runnable when everything it depends on is done and, where
//! streams share hardware queues, it is the first of its queue: one that
//! cannot start holds up all behind it, whatever their streams. Among runnable
//! ones the policy ([`Order`]) chooses; it may also hold an operation
//! back until the host waits for it ("wanted"), which is as late as legal.
//! Pure bookkeeping: no threads here, see `workers`.
//! Invariant: an id that is not in `ops` is done.

use super::settings::Order;
use super::work::Work;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

pub type OpId = u64;

/// With a lazy policy, the longest the queue may grow before the oldest
/// runnable operation is run unasked.
const LAZY_BACKLOG: usize = 2_000;
/// With a lazy policy, how long nothing may happen before one is run unasked:
/// a program may poll memory, which nobody sees.
const LAZY_PATIENCE: Duration = Duration::from_millis(20);

/// A hardware queue: a context's, for copies or for the rest, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    pub context: u64,
    pub copies: bool,
    pub number: u32,
}

pub struct Op {
    pub context: u64,
    pub device: usize,
    pub work: Work,
    /// Device ranges it may touch, (start, end).
    pub ranges: Vec<(u64, u64)>,
    /// It, or something it waits for, depends on the host (a host function, a
    /// value wait): when it ends is not for us to say.
    pub external: bool,
    /// The queue it has not left yet.
    queue: Option<Queue>,
    dependencies: Vec<OpId>,
    waiting: usize,
    dependents: Vec<OpId>,
    wanted: bool,
    pub running: bool,
}

pub struct Scheduler {
    ops: BTreeMap<OpId, Op>,
    next: OpId,
    order: Order,
    random: u64,
    ready: BTreeSet<OpId>,
    /// What has not left its queue, in order.
    queues: HashMap<Queue, VecDeque<OpId>>,
    /// Kernels that poll memory and leave no room for others, by device.
    full: Vec<(usize, OpId)>,
    /// Runnable host functions, in order; one thread runs them.
    pub callbacks: VecDeque<OpId>,
    /// Runnable value waits and polling kernels.
    pub value_waits: Vec<OpId>,
    last_change: Instant,
}

impl Scheduler {
    pub fn new(order: Order) -> Scheduler {
        let seed = match order {
            Order::Random(seed) | Order::Late(seed) => seed,
            _ => 0,
        };
        Scheduler {
            ops: BTreeMap::new(),
            next: 1,
            order,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            ready: BTreeSet::new(),
            queues: HashMap::new(),
            full: Vec::new(),
            callbacks: VecDeque::new(),
            value_waits: Vec::new(),
            last_change: Instant::now(),
        }
    }

    pub fn submit(
        &mut self,
        context: u64,
        device: usize,
        work: Work,
        ranges: Vec<(u64, u64)>,
        queue: Option<Queue>,
        mut dependencies: Vec<OpId>,
    ) -> OpId {
        let id = self.next;
        self.next += 1;
        dependencies.sort_unstable();
        dependencies.dedup();
        dependencies.retain(|d| self.ops.contains_key(d));
        let mut external = work.is_host() || work.polls();
        for dependency in &dependencies {
            if let Some(op) = self.ops.get_mut(dependency) {
                op.dependents.push(id);
                external |= op.external;
            }
        }
        if let Some(queue) = queue {
            let queued = self.queues.entry(queue).or_default();
            // What is ahead in the queue is waited for like a dependency.
            external |= queued.back().is_some_and(|last| self.ops[last].external);
            queued.push_back(id);
        }
        let op = Op {
            context,
            device,
            work,
            ranges,
            external,
            queue,
            waiting: dependencies.len(),
            dependencies,
            dependents: Vec::new(),
            wanted: false,
            running: false,
        };
        self.ops.insert(id, op);
        self.make_ready(id);
        self.last_change = Instant::now();
        id
    }

    /// Makes an operation runnable if nothing holds it back; whether it is now.
    fn make_ready(&mut self, id: OpId) -> bool {
        let Some(op) = self.ops.get(&id) else { return false };
        let first = op.queue.is_none_or(|queue| self.queues[&queue].front() == Some(&id));
        if op.waiting > 0 || !first {
            return false;
        }
        match &op.work {
            work if work.is_host() => self.callbacks.push_back(id),
            work if work.polls() => {
                let polls_as_kernel = work.is_kernel();
                if work.fills_the_device() {
                    self.full.push((op.device, id));
                }
                self.value_waits.push(id);
                if polls_as_kernel {
                    self.leave_queue(id); // it runs
                }
            }
            _ => {
                self.ready.insert(id);
            }
        }
        true
    }

    /// Takes an operation out of its queue; true if that made another runnable.
    /// A kernel leaves its queue when it starts, others when they are done.
    fn leave_queue(&mut self, id: OpId) -> bool {
        let Some(queue) = self.ops.get_mut(&id).and_then(|op| op.queue.take()) else {
            return false;
        };
        let Some(queued) = self.queues.get_mut(&queue) else { return false };
        queued.pop_front();
        queued.front().copied().is_some_and(|next| self.make_ready(next))
    }

    pub fn is_live(&self, id: OpId) -> bool {
        self.ops.contains_key(&id)
    }

    /// Whether any of these waits for the host, so that its end is unknown.
    pub fn is_held(&self, ids: &[OpId]) -> bool {
        ids.iter().any(|id| self.ops.get(id).is_some_and(|op| op.external))
            || (!self.full.is_empty() && self.waits_for_room(ids))
    }

    /// Whether any of these, or what it waits for, is a kernel without room.
    fn waits_for_room(&self, ids: &[OpId]) -> bool {
        let (mut seen, mut todo) = (BTreeSet::new(), ids.to_vec());
        while let Some(id) = todo.pop() {
            if let Some(op) = self.ops.get(&id).filter(|_| seen.insert(id)) {
                if !op.running && self.has_no_room(id) {
                    return true;
                }
                todo.extend_from_slice(&op.dependencies);
            }
        }
        false
    }

    pub fn op(&self, id: OpId) -> Option<&Op> {
        self.ops.get(&id)
    }

    pub fn live(&self) -> impl Iterator<Item = (&OpId, &Op)> {
        self.ops.iter()
    }

    /// The host waits for these: they and all they depend on must run.
    pub fn want(&mut self, ids: &[OpId]) {
        if self.order == Order::Eager {
            return;
        }
        let mut todo: Vec<OpId> = ids.to_vec();
        while let Some(id) = todo.pop() {
            if let Some(op) = self.ops.get_mut(&id)
                && !op.wanted
            {
                op.wanted = true;
                todo.extend_from_slice(&op.dependencies);
                if let Some(queue) = op.queue {
                    todo.extend(self.queues[&queue].iter().take_while(|&&ahead| ahead != id));
                }
            }
        }
    }

    /// Whether the policy runs this class of work without being asked.
    fn is_prompt(&self, work: &Work) -> bool {
        match self.order {
            Order::Eager | Order::Random(_) => true,
            Order::Late(_) => false,
            Order::CopiesFirst => matches!(work, Work::Copy(_)),
            Order::KernelsFirst => work.is_kernel(),
        }
    }

    /// Whether a polling kernel leaves it no room on its device.
    fn has_no_room(&self, id: OpId) -> bool {
        let op = &self.ops[&id];
        let full = |&(device, by): &(usize, OpId)| device == op.device && by != id;
        op.work.is_kernel() && self.full.iter().any(full)
    }

    /// The operation to run now, marked as running.
    pub fn pick(&mut self) -> Option<OpId> {
        let oldest = self.ready.iter().copied().find(|&id| !self.has_no_room(id))?;
        let id = if self.order == Order::Eager {
            oldest
        } else {
            let candidates: Vec<OpId> = self
                .ready
                .iter()
                .copied()
                .filter(|id| {
                    let op = &self.ops[id];
                    (op.wanted || self.is_prompt(&op.work)) && !self.has_no_room(*id)
                })
                .collect();
            if candidates.is_empty() {
                let overdue =
                    self.ops.len() > LAZY_BACKLOG || self.last_change.elapsed() > LAZY_PATIENCE;
                if !overdue {
                    return None;
                }
                oldest
            } else {
                candidates[self.draw(candidates.len())]
            }
        };
        self.ready.remove(&id);
        if let Some(op) = self.ops.get_mut(&id) {
            op.running = true;
            if op.work.is_kernel() {
                self.leave_queue(id);
            }
        }
        Some(id)
    }

    /// The next host function to call.
    pub fn pick_callback(&mut self) -> Option<OpId> {
        let id = self.callbacks.pop_front()?;
        if let Some(op) = self.ops.get_mut(&id) {
            op.running = true;
        }
        Some(id)
    }

    /// Time after which [`Scheduler::pick`] may answer differently by itself.
    pub fn recheck(&self) -> Option<Duration> {
        if !self.value_waits.is_empty() {
            Some(Duration::from_micros(500))
        } else if !self.ready.is_empty() {
            Some(LAZY_PATIENCE)
        } else {
            None
        }
    }

    /// A poll has seen what it waits for: a kernel may now run to its end. False
    /// for a value wait, which has no more to do.
    pub fn end_poll(&mut self, id: OpId) -> bool {
        self.value_waits.retain(|&waiting| waiting != id);
        let kernel = self.ops.get(&id).is_some_and(|op| op.work.is_kernel());
        if kernel {
            self.ready.insert(id);
        }
        kernel
    }

    /// Takes a done operation out; true if it made others runnable.
    pub fn complete(&mut self, id: OpId) -> bool {
        let mut freed = self.leave_queue(id);
        let Some(op) = self.ops.remove(&id) else { return false };
        self.full.retain(|&(_, full)| full != id);
        for dependent in op.dependents {
            if let Some(next) = self.ops.get_mut(&dependent) {
                next.waiting -= 1;
                freed |= self.make_ready(dependent);
            }
        }
        self.last_change = Instant::now();
        freed
    }

    /// xorshift64*: small, seeded, the same everywhere.
    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(s: &mut Scheduler, deps: Vec<OpId>) -> OpId {
        s.submit(1, 0, Work::Marker, Vec::new(), None, deps)
    }

    #[test]
    fn dependents_run_after_what_they_wait_for() {
        let mut s = Scheduler::new(Order::Eager);
        let a = marker(&mut s, vec![]);
        let b = marker(&mut s, vec![a]);
        assert_eq!(s.pick(), Some(a));
        assert_eq!(s.pick(), None);
        assert!(s.complete(a));
        assert_eq!(s.pick(), Some(b));
    }

    #[test]
    fn late_runs_only_what_is_wanted() {
        let mut s = Scheduler::new(Order::Late(1));
        let a = marker(&mut s, vec![]);
        let b = marker(&mut s, vec![a]);
        let c = marker(&mut s, vec![]);
        assert_eq!(s.pick(), None);
        s.want(&[b]);
        assert_eq!(s.pick(), Some(a));
        s.complete(a);
        assert_eq!(s.pick(), Some(b));
        s.complete(b);
        assert_eq!(s.pick(), None);
        assert!(s.is_live(c));
    }

    #[test]
    fn random_orders_depend_on_the_seed_alone() {
        let order = |seed| {
            let mut s = Scheduler::new(Order::Random(seed));
            (0..16).for_each(|_| assert_ne!(marker(&mut s, vec![]), 0));
            std::iter::from_fn(|| s.pick()).collect::<Vec<_>>()
        };
        assert_eq!(order(3), order(3));
        assert_ne!(order(3), order(4));
    }
}
