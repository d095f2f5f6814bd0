//! Checks a plan against its problem, by walking it, without the planner's
//! own bookkeeping.
//!
//! What is shown:
//! 1. *It fits*: own frames and shared frames together are at most the
//!    machine's, and they are all there is, at every point. What lies on the
//!    host lies there whole, behind everything else of its chunk, and only where
//!    the machine has frames for it.
//! 2. *Nothing is missing*: walking each phase from a device that holds
//!    nothing, with every part that is absent brought in before the step that
//!    needs it, and again in the steady state with the planned copies alone,
//!    every chunk that a step touches is wholly there.
//! 3. *What comes in one copy can*: the parts of a run lie side by side in a
//!    slab and on consecutive shared frames.
//! 4. *Nothing waits in a circle*: put copies and steps in one order, each copy
//!    before the step that needs it. A copy waits for the copy before it, for
//!    the step that last used its frames and for the beginning of its planned
//!    step; each is earlier in that order.

use std::collections::BTreeMap;
use std::fmt;

use super::{Copy, Part, Place, Plan, Problem};

/// Why a plan is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The plan is for other chunks or phases.
    Foreign,
    /// Parts that overlap, are out of order, or reach out of the chunk or the
    /// shared frames.
    BadPart {
        chunk: usize,
    },
    /// Parts that no one copy can bring, or that are in another run as well.
    BadRun {
        run: usize,
    },
    /// A pinned chunk shares frames.
    Pinned {
        chunk: usize,
    },
    /// Frames on the host: more than the chunk has, pinned ones, or where
    /// kernels cannot read them.
    OnHost {
        chunk: usize,
    },
    TooLarge {
        frames: u64,
        available: u32,
    },
    /// In this phase, the step finds a part of the chunk absent.
    Absent {
        phase: usize,
        step: usize,
        chunk: usize,
    },
    /// In this phase, the copy is out of order, or waits for a step that does
    /// not come before the one that needs it.
    Circle {
        phase: usize,
        copy: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Foreign => write!(f, "the plan is for other chunks or phases"),
            Fault::BadPart { chunk } => write!(f, "the parts of chunk {chunk} make no sense"),
            Fault::BadRun { run } => write!(f, "no copy can bring run {run}"),
            Fault::Pinned { chunk } => write!(f, "chunk {chunk} is pinned and shares frames"),
            Fault::OnHost { chunk } => {
                write!(f, "chunk {chunk} has frames on the host that cannot be there")
            }
            Fault::TooLarge { frames, available } => {
                write!(f, "{frames} frames are needed and {available} available")
            }
            Fault::Absent { phase, step, chunk } => {
                write!(f, "phase {phase}: step {step} finds chunk {chunk} absent")
            }
            Fault::Circle { phase, copy } => {
                write!(f, "phase {phase}: copy {copy} waits for what waits for it")
            }
        }
    }
}

impl std::error::Error for Fault {}

impl Plan {
    /// Shows that the plan can be carried out; see the module's text.
    pub fn verify(&self, problem: &Problem) -> Result<(), Fault> {
        let same = self.layouts.len() == problem.chunks.len()
            && self.phases.len() == problem.phases.len()
            && self
                .layouts
                .iter()
                .zip(&problem.chunks)
                .all(|(layout, chunk)| (layout.id, layout.frames) == (chunk.id, chunk.frames));
        if !same {
            return Err(Fault::Foreign);
        }
        let mut own = 0u64;
        for (index, (layout, chunk)) in self.layouts.iter().zip(&problem.chunks).enumerate() {
            let remote = layout.host_frames > 0;
            let possible = problem.machine.zero_copy_bytes_per_s.is_some() && !chunk.pinned;
            if layout.host_frames > layout.frames || (remote && !possible) {
                return Err(Fault::OnHost { chunk: index });
            }
            let mut end = 0;
            for part in &layout.parts {
                if !self.sensible(part) || part.first < end {
                    return Err(Fault::BadPart { chunk: index });
                }
                end = part.first + part.frames;
            }
            if end > layout.frames - layout.host_frames {
                return Err(Fault::BadPart { chunk: index });
            }
            if chunk.pinned && !layout.parts.is_empty() {
                return Err(Fault::Pinned { chunk: index });
            }
            own += u64::from(layout.own_frames());
        }
        let frames = own + u64::from(self.shared_frames);
        if frames > u64::from(problem.machine.frames) {
            return Err(Fault::TooLarge { frames, available: problem.machine.frames });
        }
        self.check_runs(problem)?;
        (0..self.phases.len()).try_for_each(|phase| self.walk(problem, phase))
    }

    /// Shows that each run can come in one copy, and each joined copy is of a run.
    pub(super) fn check_runs(&self, problem: &Problem) -> Result<(), Fault> {
        let mut next_of: BTreeMap<(u32, u32), Option<(u32, u32)>> = BTreeMap::new();
        let place = |(chunk, part): (u32, u32)| {
            let part = self.layouts.get(chunk as usize)?.parts.get(part as usize)?;
            let place = problem.chunks.get(chunk as usize)?.place?;
            Some((*part, Place { at: place.at + part.first, ..place }))
        };
        for (run, members) in self.runs.iter().enumerate() {
            let lies = |&member: &(u32, u32)| place(member).ok_or(Fault::BadRun { run });
            for (index, member) in members.iter().enumerate() {
                let (part, host) = lies(member)?;
                if part.frames > part.wrap - part.at {
                    return Err(Fault::BadRun { run });
                }
                let beside = match members.get(index + 1).map(lies).transpose()? {
                    Some((next, other)) => {
                        next.at == part.at + part.frames && other.follows(host, part.frames)
                    }
                    None => true,
                };
                let next = members.get(index + 1).copied();
                if !beside || next_of.insert(*member, next).is_some() {
                    return Err(Fault::BadRun { run });
                }
            }
        }
        for (phase, plan) in self.phases.iter().enumerate() {
            let mut before: Option<&Copy> = None;
            for (copy, now) in plan.copies.iter().enumerate() {
                let joins = before.is_some_and(|before| {
                    next_of.get(&(before.chunk, before.part)) == Some(&Some((now.chunk, now.part)))
                        && (before.need, before.lead) == (now.need, now.lead)
                });
                if now.joined && !joins {
                    return Err(Fault::Circle { phase, copy });
                }
                before = Some(now);
            }
        }
        Ok(())
    }

    fn sensible(&self, part: &Part) -> bool {
        let end = u64::from(part.first) + u64::from(part.frames);
        part.frames > 0
            && part.wrap <= self.shared_frames
            && part.at < part.wrap
            && part.frames <= part.wrap
            && end <= u64::from(u32::MAX)
    }

    /// Two iterations of `phase`: the first brings in whatever is absent, the
    /// second only what is planned.
    fn walk(&self, problem: &Problem, phase: usize) -> Result<(), Fault> {
        let steps = &problem.phases[phase].steps;
        let plan = &self.phases[phase];
        // Which part of which chunk is in each shared frame, and the last step
        // that used it, counted over both iterations.
        let mut owners: Vec<Option<(u32, u32)>> = vec![None; self.shared_frames as usize];
        let mut used: Vec<Option<usize>> = vec![None; self.shared_frames as usize];
        for round in 0..2 {
            let mut copies = plan.copies.iter().enumerate().peekable();
            for (index, step) in steps.iter().enumerate() {
                let now = round * steps.len() + index;
                let bring = |chunk: u32,
                             part: u32,
                             owners: &mut [Option<(u32, u32)>],
                             used: &[Option<usize>]| {
                    let place = self.layouts[chunk as usize].parts[part as usize];
                    for slot in (0..place.frames).map(|frame| place.slot(frame) as usize) {
                        // In use by this very step: it cannot be released before it.
                        if used[slot] == Some(now) {
                            return false;
                        }
                        owners[slot] = Some((chunk, part));
                    }
                    true
                };
                while let Some((at, copy)) = copies.next_if(|(_, copy)| copy.need as usize <= index)
                {
                    let known = self
                        .layouts
                        .get(copy.chunk as usize)
                        .is_some_and(|layout| (copy.part as usize) < layout.parts.len());
                    let late = copy.need as usize != index || !known;
                    if late || !bring(copy.chunk, copy.part, &mut owners, &used) {
                        return Err(Fault::Circle { phase, copy: at });
                    }
                    // The planned start is the beginning of a step no later
                    // than its own, by type: `lead` is not negative.
                }
                let touched = problem.phases[phase].touches(step);
                let absent = |chunk: u32, part: usize, owners: &[Option<(u32, u32)>]| {
                    let place = self.layouts[chunk as usize].parts[part];
                    (0..place.frames).any(|frame| {
                        owners[place.slot(frame) as usize] != Some((chunk, part as u32))
                    })
                };
                for &chunk in touched {
                    for part in 0..self.layouts[chunk as usize].parts.len() {
                        if absent(chunk, part, &owners) {
                            let brought =
                                round == 0 && bring(chunk, part as u32, &mut owners, &used);
                            if !brought {
                                let chunk = chunk as usize;
                                return Err(Fault::Absent { phase, step: index, chunk });
                            }
                        }
                        let place = self.layouts[chunk as usize].parts[part];
                        for frame in 0..place.frames {
                            used[place.slot(frame) as usize] = Some(now);
                        }
                    }
                }
                // What came for one chunk must not have pushed out another.
                for &chunk in touched {
                    for part in 0..self.layouts[chunk as usize].parts.len() {
                        if absent(chunk, part, &owners) {
                            let chunk = chunk as usize;
                            return Err(Fault::Absent { phase, step: index, chunk });
                        }
                    }
                }
            }
            if copies.next().is_some() {
                return Err(Fault::Circle { phase, copy: plan.copies.len() - 1 });
            }
        }
        Ok(())
    }
}
