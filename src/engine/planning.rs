//! Plans, without holding the program up: what takes milliseconds is planned
//! at once, under the device's lock; what takes longer is searched for by a
//! thread of its own, which knows nothing but the problem, and carried out when
//! it is found. Until then the program streams by a quick plan, or by the one
//! before.
//!
//! One search at a time for each device. Not here: when a plan is due, and what
//! carrying it out means (the streamer's).

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use autooffload_core::memory::Streamer;
use autooffload_core::plan::{self, Effort, Plan, Problem};

use super::device::DeviceBackend;

/// Uses in all phases for which the search takes some tens of milliseconds: no
/// more than what the host may be ahead of the device.
const USES_AT_ONCE: usize = 1024;
/// Uses for which it takes so long that a quick plan is worth moving twice.
const USES_QUICKLY: usize = 5000;
/// Operations for which a plan waits for a moment when no launch is under way.
const PATIENCE: u32 = 4096;

#[derive(Default)]
pub enum Planner {
    #[default]
    Idle,
    Searching(Receiver<Option<Plan>>),
    Found(Plan, u32),
}

impl Planner {
    /// Called before every operation, while nothing captures. `true`: a plan
    /// was carried out.
    #[inline]
    pub fn poll(&mut self, streamer: &mut Streamer, backend: &mut DeviceBackend) -> bool {
        match self {
            Planner::Idle if !streamer.plan_due() => false,
            Planner::Idle => self.begin(streamer, backend),
            _ => self.proceed(streamer, backend),
        }
    }

    #[cold]
    fn begin(&mut self, streamer: &mut Streamer, backend: &mut DeviceBackend) -> bool {
        streamer.set_machine(backend.machine());
        let Some(problem) = streamer.problem() else { return false };
        *self = Planner::Idle;
        streamer.restore_layouts(backend);
        let uses: usize = problem.phases.iter().map(|phase| phase.uses.len()).sum();
        if uses <= USES_AT_ONCE {
            let found = find(&problem, streamer.plan(), Effort::Searched);
            *self = found.map_or(Planner::Idle, |plan| Planner::Found(plan, 0));
            return self.proceed(streamer, backend);
        }
        let previous = streamer.plan().cloned();
        let quick = (previous.is_none() && uses > USES_QUICKLY)
            .then(|| find(&problem, None, Effort::Quick))
            .flatten();
        let adopted = quick.is_some_and(|plan| streamer.adopt(&plan, backend));
        let (sender, receiver) = channel();
        let search = move || {
            // Nobody listens any more when the device is gone.
            let _ = sender.send(find(&problem, previous.as_ref(), Effort::Searched));
        };
        match std::thread::Builder::new().name("autooffload-plan".into()).spawn(search) {
            Ok(_) => *self = Planner::Searching(receiver),
            Err(error) => log::warn!("no thread to plan in ({error}): planning quickly only"),
        }
        adopted
    }

    fn proceed(&mut self, streamer: &mut Streamer, backend: &mut DeviceBackend) -> bool {
        if let Planner::Searching(receiver) = self {
            match receiver.try_recv() {
                Err(TryRecvError::Empty) => return false,
                Ok(Some(plan)) => *self = Planner::Found(plan, 0),
                Ok(None) | Err(TryRecvError::Disconnected) => *self = Planner::Idle,
            }
        }
        let Planner::Found(plan, tried) = self else { return false };
        if streamer.adopts_later(plan) {
            // Unless something is known by now that it was not made for.
            return streamer.plan_due() && self.begin(streamer, backend);
        }
        let adopted = streamer.adopt(plan, backend);
        *tried += 1;
        if adopted || *tried > PATIENCE || !streamer.applies(plan) {
            *self = Planner::Idle;
        }
        adopted
    }
}

/// The plan for `problem`, checked.
fn find(problem: &Problem, previous: Option<&Plan>, effort: Effort) -> Option<Plan> {
    match plan::plan(problem, previous, effort) {
        Ok(plan) => match plan.verify(problem) {
            Ok(()) => return Some(plan),
            Err(fault) => log::warn!("a plan was refused: {fault}"),
        },
        Err(unfit) => log::debug!("{unfit}"),
    }
    None
}
