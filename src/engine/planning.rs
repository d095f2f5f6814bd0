//! The thread that plans: it knows nothing but the problem, and touches nothing
//! else. The program's thread never plans, it only poses the problem and
//! carries the answer out.
//!
//! One search at a time for each device. Not here: when a plan is due, which
//! answer is carried out and when (the core's `agent`), and what that means
//! (`memory`).

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use autooffload_core::agent::{Agent, Answer, Job, NoPlan, Search};
use autooffload_core::memory::Streamer;
use autooffload_core::plan::Plan;

use super::device::DeviceBackend;
use super::state::warn_once;
use super::threads;

#[derive(Default)]
pub struct Planner {
    agent: Agent,
    search: SearchThread,
}

impl Planner {
    /// Called before every operation, while nothing captures. `true`: a plan
    /// was carried out.
    #[inline]
    pub fn poll(&mut self, streamer: &mut Streamer, backend: &mut DeviceBackend) -> bool {
        self.agent.is_due(streamer) && self.step(streamer, backend)
    }

    #[cold]
    fn step(&mut self, streamer: &mut Streamer, backend: &mut DeviceBackend) -> bool {
        if streamer.plan_due() {
            streamer.set_machine(backend.machine());
        }
        self.agent.step(streamer, &mut self.search, backend)
    }
}

/// The answers of the thread started last.
#[derive(Default)]
struct SearchThread(Option<Receiver<Plan>>);

impl Search for SearchThread {
    fn begin(&mut self, job: Job) -> bool {
        let (sender, receiver) = channel();
        let search = move || {
            job.run(|effort, found| match found {
                // Nobody listens any more when the device is gone.
                Ok(plan) => sender.send(plan).is_ok(),
                Err(NoPlan::Unfit(unfit)) => {
                    log::debug!("{effort:?}: {unfit}");
                    true
                }
                Err(NoPlan::Fault(fault)) => {
                    log::warn!("a plan failed its own check ({fault}): the former one stays; please report this");
                    true
                }
            });
        };
        let started = threads::spawn("autooffload-plan", search);
        if let Err(error) = &started {
            warn_once(format!(
                "no thread to plan in ({error}): weights come when they are asked for, slower; raise \
                 the limit of threads (ulimit -u)"
            ));
        }
        self.0 = started.ok().map(|_| receiver);
        self.0.is_some()
    }

    fn poll(&mut self) -> Answer {
        let Some(receiver) = &self.0 else { return Answer::Over };
        match receiver.try_recv() {
            Ok(plan) => Answer::Found(plan),
            Err(TryRecvError::Empty) => Answer::Pending,
            Err(TryRecvError::Disconnected) => Answer::Over,
        }
    }
}
