//! The thread that plans: it knows nothing but the problem, and touches nothing
//! else. The program's thread never plans, it only poses the problem and
//! carries the answer out.
//!
//! One search at a time for each device. Not here: when a plan is due, which
//! answer is carried out and when (the core's `agent`), and what that means
//! (`memory`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Instant;

use autooffload_core::agent::{Agent, Answer, Job, NoPlan, Search};
use autooffload_core::memory::{Shortage, Streamer};
use autooffload_core::plan::{Plan, Problem};

use super::account::Progress;
use super::account::told::{self, InForce};
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
    pub fn poll(
        &mut self,
        streamer: &mut Streamer,
        backend: &mut DeviceBackend,
    ) -> Result<bool, Shortage> {
        if self.agent.is_due(streamer) { self.step(streamer, backend) } else { Ok(false) }
    }

    #[cold]
    fn step(
        &mut self,
        streamer: &mut Streamer,
        backend: &mut DeviceBackend,
    ) -> Result<bool, Shortage> {
        if streamer.plan_due() {
            streamer.set_machine(backend.machine());
        }
        self.agent.step(streamer, &mut self.search, backend)
    }

    /// The plan that was just carried out, with the problem that it solves.
    pub fn in_force(&self, streamer: &Streamer) -> Option<InForce> {
        let (problem, plan) = (self.search.posed.clone()?, streamer.plan()?.clone());
        Some(InForce { problem, plan, measured: !streamer.plans_by_guesses() })
    }
}

impl SearchThread {
    #[cold]
    fn say_if_long(&self) {
        let (Some(began), Some(problem)) = (self.began, &self.posed) else { return };
        if let Some((_, took)) = self.progress.step(began, 0) {
            let uses: usize = problem.phases.iter().map(|phase| phase.uses.len()).sum();
            told::planning(uses as u64, took);
        }
    }
}

/// The thread started last.
#[derive(Default)]
struct SearchThread {
    answers: Option<Receiver<Plan>>,
    /// What it was asked, and when.
    posed: Option<Arc<Problem>>,
    began: Option<Instant>,
    progress: Progress,
}

impl Search for SearchThread {
    fn begin(&mut self, job: Job) -> bool {
        let (sender, receiver) = channel();
        self.posed = Some(Arc::new(job.problem().clone()));
        self.began = Some(Instant::now());
        self.progress = Progress::default();
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
        self.answers = started.ok().map(|_| receiver);
        self.answers.is_some()
    }

    fn poll(&mut self) -> Answer {
        let Some(receiver) = &self.answers else { return Answer::Over };
        match receiver.try_recv() {
            Ok(plan) => Answer::Found(plan),
            Err(TryRecvError::Empty) => {
                self.say_if_long();
                Answer::Pending
            }
            Err(TryRecvError::Disconnected) => Answer::Over,
        }
    }
}
