//! When to plan: one state machine, for the library and for the laboratory.
//!
//! ```text
//!   at rest --plan due--> searching --found--> waiting --may move--> adopted, at rest
//!      ^                      |                   |
//!      |                      | nothing found     | due again (something is known
//!      +----------------------+                   | that it was not made for)
//!                             ^-------------------+
//! ```
//!
//! The program's thread poses the problem and carries the answer out; the
//! search is beside it, whatever that is here ([`Search`]): a thread in the
//! library, virtual time in the laboratory. Where a search takes so long that
//! it is worth moving twice, a quick plan comes first.
//!
//! Here: whether to search, what is asked, what is done with the answer. Not
//! here: when a plan is due and what carrying it out means (`memory`), nor how
//! one is found (`plan`).

use crate::memory::{MemoryOps, Shortage, Streamer};
use crate::plan::{self, Effort, Fault, Plan, Problem, Unfit};

/// Uses in all phases for which the search takes so long that a quick plan is
/// worth moving twice: a quarter of a second.
const QUICK_FIRST_USES: usize = 5000;
/// Operations for which a plan waits for a moment when no launch is under way.
const ATTEMPTS: u32 = 4096;

/// What is to be found.
pub struct Job {
    problem: Problem,
    previous: Option<Plan>,
}

impl Job {
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Whether a quick plan comes before the searched one.
    pub fn quick_first(&self) -> bool {
        self.previous.is_none() && self.uses() > QUICK_FIRST_USES
    }

    pub fn uses(&self) -> usize {
        self.problem.phases.iter().map(|phase| phase.uses.len()).sum()
    }

    /// Finds the plans, one after the other, each checked, until `deliver`
    /// answers that nobody wants another.
    pub fn run(mut self, mut deliver: impl FnMut(Effort, Result<Plan, NoPlan>) -> bool) {
        if self.quick_first() {
            let quick = self.find(Effort::Quick);
            self.previous = quick.as_ref().ok().cloned();
            if !deliver(Effort::Quick, quick) {
                return;
            }
        }
        deliver(Effort::Searched, self.find(Effort::Searched));
    }

    /// One plan, checked.
    pub fn find(&self, effort: Effort) -> Result<Plan, NoPlan> {
        let plan = plan::plan(&self.problem, self.previous.as_ref(), effort);
        let plan = plan.map_err(NoPlan::Unfit)?;
        plan.verify(&self.problem).map_err(NoPlan::Fault)?;
        Ok(plan)
    }
}

/// Why there is none.
#[derive(Debug)]
pub enum NoPlan {
    Unfit(Unfit),
    /// The planner is wrong: its own check refused what it found.
    Fault(Fault),
}

/// Whoever searches, beside the program.
pub trait Search {
    /// Begins; what was begun before is not wanted any more. `false`: it cannot.
    fn begin(&mut self, job: Job) -> bool;
    /// What was found since it was asked last.
    fn poll(&mut self) -> Answer;
}

pub enum Answer {
    Pending,
    Found(Plan),
    Over,
}

/// Decides when one device's memory is planned anew.
#[derive(Default)]
pub struct Agent {
    searching: bool,
    /// Found, and not carried out yet; how often that was tried.
    found: Option<(Plan, u32)>,
    /// Posed, and not searched for yet.
    posed: Option<Problem>,
    /// The search has found something.
    fruitful: bool,
}

impl Agent {
    /// Whether [`Self::step`] has anything to do. Asked before every operation.
    #[inline]
    pub fn is_due(&self, streamer: &Streamer) -> bool {
        self.searching || self.found.is_some() || self.posed.is_some() || streamer.plan_due()
    }

    /// To be called before an operation, while nothing captures. `true`: a plan
    /// was carried out. Error: what is to be moved is used, still; ask again.
    pub fn step(
        &mut self,
        streamer: &mut Streamer,
        search: &mut impl Search,
        ops: &mut impl MemoryOps,
    ) -> Result<bool, Shortage> {
        self.begin(streamer, search, ops)?;
        self.poll(streamer, search);
        if self.adopt(streamer, ops)? {
            return Ok(true);
        }
        if self.searching || !streamer.plan_due() {
            return Ok(false);
        }
        self.posed = streamer.problem();
        self.begin(streamer, search, ops)?;
        self.poll(streamer, search);
        self.adopt(streamer, ops)
    }

    fn poll(&mut self, streamer: &mut Streamer, search: &mut impl Search) {
        if self.searching {
            match search.poll() {
                Answer::Pending => {}
                Answer::Found(plan) => {
                    self.found = Some((plan, 0));
                    self.fruitful = true;
                }
                Answer::Over => {
                    self.searching = false;
                    if !self.fruitful {
                        streamer.found_no_plan();
                    }
                }
            }
        }
    }

    fn adopt(
        &mut self,
        streamer: &mut Streamer,
        ops: &mut impl MemoryOps,
    ) -> Result<bool, Shortage> {
        let Some((plan, attempts)) = &mut self.found else { return Ok(false) };
        if streamer.adopts_later(plan) {
            return Ok(false);
        }
        let adopted = streamer.adopt(plan, ops)?;
        *attempts += 1;
        if adopted || *attempts > ATTEMPTS || !streamer.applies(plan) {
            self.found = None;
        }
        Ok(adopted)
    }

    /// Has what was posed searched for.
    fn begin(
        &mut self,
        streamer: &mut Streamer,
        search: &mut impl Search,
        ops: &mut impl MemoryOps,
    ) -> Result<(), Shortage> {
        if self.posed.is_some() {
            self.found = None;
            streamer.restore_layouts(ops)?;
        }
        if let Some(problem) = self.posed.take() {
            self.fruitful = false;
            self.searching = search.begin(Job { problem, previous: streamer.plan().cloned() });
        }
        Ok(())
    }
}
