//! Submission: everything that is decided about work when it is queued.
//!
//! In this order: may it be read at all (taint), what may it touch (ranges),
//! when does it run on the model clock, what does the account say, and what
//! must it wait for. All of it depends on submission order alone.

use super::clock::{EngineKind, HOST_FUNCTION_NS};
use super::gpu::Session;
use super::scheduler::{OpId, Queue};
use super::space::Space;
use super::stream::Front;
use super::taint::extents;
use super::uses::STREAMED_BYTES;
use super::work::{Copy, KernelLaunch, Side, Work};
use crate::abi::{Handle, NOT_SUPPORTED, Outcome};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
pub struct Submitted {
    pub op: OpId,
    pub end_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
    HostToHost,
}

impl Session {
    /// Queues work on a stream that is not capturing.
    pub fn submit(&mut self, stream: Handle, work: Work) -> Outcome<Submitted> {
        let front = self.front(stream)?;
        let context = self.stream(stream)?.context;
        self.clock.host_call();
        self.poll_streak = 0;
        let submitted = self.place(context, work, front)?;
        let stream = self.stream_mut(stream)?;
        stream.tail = vec![submitted.op];
        stream.work_end_ns = submitted.end_ns;
        Ok(submitted)
    }

    /// Where streams share hardware queues, event waits and recordings take
    /// their place in them, too: queues an operation that does nothing but be
    /// done when all before it on `stream` is.
    pub fn hold_queue(&mut self, stream: Handle) -> Outcome<Option<OpId>> {
        if self.gpu.settings.queues == 0 {
            return Ok(None);
        }
        let front = self.front(stream)?;
        let context = self.stream(stream)?.context;
        Ok(Some(self.place(context, Work::Marker, front)?.op))
    }

    /// Queues work behind `front`, whatever stream that came from.
    pub fn place(&mut self, context: Handle, work: Work, front: Front) -> Outcome<Submitted> {
        let device = self.live_context(context)?.device;
        let gpu = self.gpu;
        let space = gpu.space();
        self.check_taint(&space, &work)?;
        let ranges = ranges_of(&space, &self.units, &work);
        let queues = gpu.settings.queues;
        let queue = front.stream_number.filter(|_| queues > 0).map(|number| Queue {
            context,
            copies: matches!(&work, Work::Copy(copy) if over_link(&space, copy)),
            number: number % queues,
        });
        let could_start = front.work_end_ns.max(self.clock.host_ns);
        let ready = front.ready_ns.max(could_start);
        let end_ns = self.book(&space, device, &work, &ranges, could_start, ready);
        if work.is_kernel() {
            let account = &mut self.account;
            *(if front.in_graph { &mut account.graph_kernels } else { &mut account.launches }) += 1;
        }
        drop(space);
        let signal = if work.is_host() { &gpu.host_runnable } else { &gpu.runnable };
        let op = self.scheduler.submit(context, device, work, ranges, queue, front.ops);
        signal.notify_one();
        Ok(Submitted { op, end_ns })
    }

    /// Books time and tells the account; returns the virtual end.
    fn book(
        &mut self,
        space: &Space,
        device: usize,
        work: &Work,
        ranges: &[(u64, u64)],
        could_start: u64,
        ready: u64,
    ) -> u64 {
        match work {
            Work::Copy(copy) => self.book_copy(space, device, copy, ready),
            Work::Fill(fill) => {
                let bytes = fill.width * fill.height * u64::from(fill.element);
                let ns = self.clock.compute_ns(bytes as f64, 0.0);
                self.clock.book(device, EngineKind::Compute, ready, ns).1
            }
            Work::Kernel(launch) => {
                let cost = launch.function.kernel.as_ref().map(|k| k.cost(&launch.view()));
                let cost = cost.unwrap_or_default();
                let any = self.memory.host_used > 0;
                let in_place = if any { in_place_bytes(space, ranges, cost.bytes) } else { 0.0 };
                let link_ns = self.clock.in_place_ns(in_place);
                let ns = self.clock.compute_ns(cost.bytes, cost.flops).max(link_ns);
                let launches = self.account.kernels();
                for &range in ranges {
                    self.uses.launched(extents(space, range), launches, could_start);
                }
                self.account.stall_ns += ready - could_start;
                self.propagate_taint(space, launch, ranges);
                let (start, end) = self.clock.book(device, EngineKind::Compute, ready, ns);
                if link_ns > 0 {
                    // Copies that come later find the link taken.
                    self.account.in_place_bytes += in_place as u64;
                    self.clock.book(device, EngineKind::HostToDevice, start, link_ns);
                }
                end
            }
            Work::Host { .. } | Work::Callback { .. } => ready + HOST_FUNCTION_NS,
            _ => ready,
        }
    }

    fn book_copy(&mut self, space: &Space, device: usize, copy: &Copy, ready: u64) -> u64 {
        let bytes = copy.bytes();
        let (kind, ns) = match direction(space, copy) {
            Direction::HostToDevice => {
                self.account.h2d_bytes += bytes;
                (EngineKind::HostToDevice, self.clock.link_ns(bytes as f64))
            }
            Direction::DeviceToHost => {
                self.account.d2h_bytes += bytes;
                (EngineKind::DeviceToHost, self.clock.link_ns(bytes as f64))
            }
            Direction::DeviceToDevice => {
                self.account.d2d_bytes += bytes;
                (EngineKind::Compute, self.clock.compute_ns(2.0 * bytes as f64, 0.0))
            }
            Direction::HostToHost => return ready,
        };
        let end_ns = self.clock.book(device, kind, ready, ns).1;
        if let (Side::Address(dst), Side::Address(src)) = (&copy.dst, &copy.src)
            && kind == EngineKind::HostToDevice
            && bytes >= STREAMED_BYTES
            && space.pinned_at(*src).is_some()
        {
            let launches = self.account.kernels();
            let written = extents(space, (*dst, dst + copy.dst_extent()));
            self.uses.copied(*dst, written, launches, end_ns);
        }
        self.copy_taint(space, copy);
        end_ns
    }

    /// Refuses to hand tainted bytes to the host.
    fn check_taint(&self, space: &Space, work: &Work) -> Outcome {
        if let Work::Copy(copy) = work
            && let Side::Address(src) = copy.src
            && direction(space, copy) == Direction::DeviceToHost
            && self.taint.meets(space, (src, src + copy.src_extent()))
        {
            eprintln!(
                "standin: the host reads {} bytes at {src:#x}, which a kernel that is not \
                 implemented here may have written; refused",
                copy.bytes()
            );
            return Err(NOT_SUPPORTED);
        }
        Ok(())
    }

    fn copy_taint(&mut self, space: &Space, copy: &Copy) {
        let Side::Address(dst) = copy.dst else { return };
        if !space.is_device(dst) {
            return;
        }
        let tainted = match copy.src {
            Side::Address(src) if space.is_device(src) => {
                self.taint.meets(space, (src, src + copy.src_extent()))
            }
            _ => false,
        };
        let range = (dst, dst + copy.dst_extent());
        if tainted {
            self.taint.set(space, range);
        } else if copy.dst_extent() == copy.bytes() {
            self.taint.clear(space, range);
        }
    }

    fn propagate_taint(&mut self, space: &Space, launch: &KernelLaunch, ranges: &[(u64, u64)]) {
        let unknown = launch.function.kernel.is_none()
            && self.gpu.settings.unknown == super::settings::Unknown::Touch;
        if unknown || ranges.iter().any(|&range| self.taint.meets(space, range)) {
            ranges.iter().for_each(|&range| self.taint.set(space, range));
        }
    }
}

/// Whether it is the copy engines' and not the compute queue's.
fn over_link(space: &Space, copy: &Copy) -> bool {
    matches!(direction(space, copy), Direction::HostToDevice | Direction::DeviceToHost)
}

fn direction(space: &Space, copy: &Copy) -> Direction {
    let device = |side: &Side| matches!(side, Side::Address(a) if space.is_device(*a));
    match (device(&copy.src), device(&copy.dst)) {
        (true, true) => Direction::DeviceToDevice,
        (true, false) => Direction::DeviceToHost,
        (false, true) => Direction::HostToDevice,
        (false, false) => Direction::HostToHost,
    }
}

/// Bytes that a kernel is taken to move over the link, of the `bytes` it moves
/// in all: what it may reach in the host counts as much as what it may reach on
/// the device. (What it really reads is not known when it is queued.)
fn in_place_bytes(space: &Space, ranges: &[(u64, u64)], bytes: f64) -> f64 {
    let host: u64 = ranges.iter().map(|&(start, end)| space.in_host(start, end)).sum();
    let all: u64 = ranges.iter().map(|&(start, end)| end - start).sum();
    if host == 0 { 0.0 } else { (bytes * host as f64 / all as f64).min(host as f64) }
}

/// The device ranges work may touch: exact for copies and fills; for a kernel
/// every allocation a word of its parameters points into.
fn ranges_of(space: &Space, units: &BTreeMap<u64, u64>, work: &Work) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut add = |start: u64, bytes: u64| {
        if bytes > 0 && space.is_device(start) {
            ranges.push((start, start.saturating_add(bytes)));
        }
    };
    match work {
        Work::Copy(copy) => {
            if let Side::Address(dst) = copy.dst {
                add(dst, copy.dst_extent());
            }
            if let Side::Address(src) = copy.src {
                add(src, copy.src_extent());
            }
        }
        Work::Fill(fill) => add(fill.dst, fill.extent()),
        Work::WaitValue { address, wide, .. } | Work::WriteValue { address, wide, .. } => {
            add(*address, if *wide { 8 } else { 4 });
        }
        Work::Kernel(launch) => {
            for word in launch.words() {
                if let Some(range) = space.reach(units, word)
                    && !ranges.contains(&range)
                {
                    ranges.push(range);
                }
            }
        }
        _ => {}
    }
    ranges
}
