//! The threads that carry work out: workers for device work, one more for
//! host functions (the program's code must not hold up the device).
//!
//! They start with the first context and live as long as the process. While
//! an operation runs its worker holds the address space for reading and no
//! other lock.

use super::gpu::{Gpu, State};
use super::scheduler::OpId;
use super::work::{self, Failure};
use crate::abi::{Code, ILLEGAL_ADDRESS, LAUNCH_FAILED};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;

/// Starts the threads, once.
pub fn start(gpu: &'static Gpu, state: &mut State) {
    if state.workers_started {
        return;
    }
    state.workers_started = true;
    let spawn = |name: &str, body: fn(&'static Gpu)| {
        let thread = std::thread::Builder::new().name(name.into());
        if let Err(error) = thread.spawn(move || body(gpu)) {
            eprintln!("standin: no thread for {name}: {error}");
        }
    };
    for _ in 0..gpu.settings.workers {
        spawn("standin-worker", device_loop);
    }
    spawn("standin-host", callback_loop);
}

fn device_loop(gpu: &'static Gpu) {
    let mut state = gpu.state();
    loop {
        pass_value_waits(gpu, &mut state);
        state = match state.scheduler.pick() {
            Some(id) if !state.stopping => run_one(gpu, state, id),
            _ => rest(gpu, state),
        };
    }
}

fn rest<'a>(gpu: &'a Gpu, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    match state.scheduler.recheck().filter(|_| !state.stopping) {
        Some(time) => {
            gpu.runnable.wait_timeout(state, time).map_or_else(|e| e.into_inner().0, |(s, _)| s)
        }
        None => gpu.runnable.wait(state).unwrap_or_else(|e| e.into_inner()),
    }
}

fn run_one<'a>(gpu: &'a Gpu, state: MutexGuard<'a, State>, id: OpId) -> MutexGuard<'a, State> {
    let Some(op) = state.scheduler.op(id) else { return state };
    let (work, device, context) = (op.work.clone(), op.device, op.context);
    if gpu.settings.queues > 0 && work.is_kernel() {
        // It has left its queue, and may have let others in.
        gpu.runnable.notify_all();
        gpu.host_runnable.notify_all();
    }
    let broken = state.contexts.get(&context).is_none_or(|c| c.error.is_some());
    drop(state);
    let mut failed = None;
    if !broken {
        let space = gpu.space();
        failed = match catch_unwind(AssertUnwindSafe(|| work.run(&space, device))) {
            Ok(Ok(())) => None,
            Ok(Err(Failure::IllegalAddress(sentence))) => Some((ILLEGAL_ADDRESS, sentence)),
            Ok(Err(Failure::Unsupported(sentence))) => Some((LAUNCH_FAILED, sentence)),
            Err(_) => Some((LAUNCH_FAILED, "an implementation panicked".to_string())),
        };
    }
    let mut state = gpu.state();
    if let Some((code, sentence)) = failed {
        fail(&mut state, context, code, &sentence);
    }
    finish(gpu, &mut state, id);
    state
}

/// A failed operation breaks its context for good.
fn fail(state: &mut State, context: u64, code: Code, sentence: &str) {
    eprintln!("standin: {sentence}");
    if let Some(context) = state.contexts.get_mut(&context) {
        context.error.get_or_insert(code);
    }
}

fn finish(gpu: &Gpu, state: &mut State, id: OpId) {
    if state.scheduler.complete(id) {
        gpu.runnable.notify_all();
        gpu.host_runnable.notify_all();
    }
    gpu.done.notify_all();
}

fn pass_value_waits(gpu: &Gpu, state: &mut State) {
    if state.scheduler.value_waits.is_empty() {
        return;
    }
    let passed: Vec<OpId> = {
        let space = gpu.space();
        let scheduler = &state.scheduler;
        let ready =
            |id: &OpId| scheduler.op(*id).is_none_or(|op| op.work.value_ready(&space, op.device));
        scheduler.value_waits.iter().copied().filter(ready).collect()
    };
    for id in passed {
        if !state.scheduler.end_poll(id) {
            finish(gpu, state, id);
        }
    }
}

fn callback_loop(gpu: &'static Gpu) {
    let mut state = gpu.state();
    loop {
        let Some(id) = state.scheduler.pick_callback().filter(|_| !state.stopping) else {
            state = gpu.host_runnable.wait(state).unwrap_or_else(|e| e.into_inner());
            continue;
        };
        let Some(op) = state.scheduler.op(id) else { continue };
        let (call, context) = (op.work.clone(), op.context);
        let error = state.contexts.get(&context).and_then(|c| c.error);
        drop(state);
        // A host function is not called once its context is broken; a stream
        // callback is, with the error.
        if error.is_none() || matches!(call, work::Work::Callback { .. }) {
            // SAFETY: the work is as the program queued it; no lock is held.
            unsafe { work::call_host(&call, error.map_or(0, |code| code.0)) };
        }
        state = gpu.state();
        finish(gpu, &mut state, id);
    }
}

/// At exit: lets running operations end and starts no more.
pub fn stop(gpu: &'static Gpu) {
    gpu.state().stopping = true;
    drop(gpu.space_mut());
    gpu.runnable.notify_all();
    gpu.done.notify_all();
}
