//! Checks a plan, and times it, by carrying it out: copies and steps in their
//! orders, each as soon as what it waits for is there. Shares nothing with the
//! planner, its clock or its proof.

use autooffload_core::plan::{Copy, Plan, Problem};

/// What was seen of one phase in the steady state.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Per iteration.
    pub period_ns: f64,
    pub streamed_bytes: u64,
    /// Most bytes of copies that were ready and not yet done, the one under
    /// way in full.
    pub backlog_bytes: u64,
    pub largest_copy_bytes: u64,
    /// From the beginning of one step to that of the next, at the longest.
    /// Within it, nothing can become ready.
    pub longest_step_ns: f64,
}

/// All phases; an error says what is wrong.
pub fn check(problem: &Problem, plan: &Plan, iterations: usize) -> Result<Vec<Seen>, String> {
    layouts(problem, plan)?;
    if plan.phases.len() != problem.phases.len() {
        return Err("another number of phases".into());
    }
    (0..plan.phases.len()).map(|phase| carry_out(problem, plan, phase, iterations)).collect()
}

/// What holds whatever the order.
fn layouts(problem: &Problem, plan: &Plan) -> Result<(), String> {
    if plan.layouts.len() != problem.chunks.len() {
        return Err("another number of chunks".into());
    }
    let mut needed = u64::from(plan.shared_frames);
    for (index, (layout, chunk)) in plan.layouts.iter().zip(&problem.chunks).enumerate() {
        if layout.id != chunk.id || layout.frames != chunk.frames {
            return Err(format!("chunk {index} is another"));
        }
        if chunk.pinned && !layout.parts.is_empty() {
            return Err(format!("chunk {index} is pinned and has parts"));
        }
        if layout.host_frames > chunk.frames || (layout.host_frames > 0 && chunk.pinned) {
            return Err(format!("chunk {index}: {} frames on the host", layout.host_frames));
        }
        if layout.host_frames > 0 && problem.machine.zero_copy_bytes_per_s.is_none() {
            return Err(format!("chunk {index} on the host, where kernels cannot read it"));
        }
        // The last frames are of the host, and no part's.
        let mut own = vec![true; (chunk.frames - layout.host_frames) as usize];
        let mut end = 0;
        for part in &layout.parts {
            if part.first < end || part.frames == 0 {
                return Err(format!("chunk {index}: parts out of order: {:?}", layout.parts));
            }
            end = part.first + part.frames;
            if part.wrap > plan.shared_frames || part.at >= part.wrap || part.frames > part.wrap {
                return Err(format!("chunk {index}: {part:?} leaves its frames"));
            }
            for frame in part.first..end {
                match own.get_mut(frame as usize) {
                    Some(own) if *own => *own = false,
                    _ => return Err(format!("chunk {index}: frame {frame}: {part:?}")),
                }
            }
        }
        needed += own.iter().filter(|&&own| own).count() as u64;
    }
    if needed > problem.machine.frames.into() {
        return Err(format!("{needed} frames of {}", problem.machine.frames));
    }
    for run in &plan.runs {
        for pair in run.windows(2) {
            let [(one, part), (other, next)] = [pair[0], pair[1]];
            let at = |chunk: u32| problem.chunks[chunk as usize].place.map(|p| (p.slab, p.at));
            let part = plan.layouts[one as usize].parts[part as usize];
            let next = plan.layouts[other as usize].parts[next as usize];
            let slots = part.at + part.frames == next.at && next.at + next.frames <= next.wrap;
            let (Some((slab, at_one)), Some((other, at_other))) = (at(one), at(other)) else {
                return Err(format!("{run:?}: not in a slab"));
            };
            let host = at_one + part.first + part.frames == at_other + next.first;
            if slab != other || !host || !slots {
                return Err(format!("{run:?}: not side by side"));
            }
        }
    }
    for phase in &problem.phases {
        for (index, step) in phase.steps.iter().enumerate() {
            let mut taken = vec![false; plan.shared_frames as usize];
            for &chunk in phase.touches(step) {
                for part in &plan.layouts[chunk as usize].parts {
                    for frame in 0..part.frames {
                        let slot = ((part.at + frame) % part.wrap) as usize;
                        if std::mem::replace(&mut taken[slot], true) {
                            return Err(format!("step {index}: two need shared frame {slot}"));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// One arrival of a part: serves the uses of steps `from..until`, the last of
/// which is `last`. Steps are counted from the first one carried out.
#[derive(Clone, Copy)]
struct Arrival {
    chunk: u32,
    part: u32,
    from: i64,
    until: i64,
    last: i64,
    at_ns: f64,
}

fn carry_out(
    problem: &Problem,
    plan: &Plan,
    index: usize,
    iterations: usize,
) -> Result<Seen, String> {
    let phase = &problem.phases[index];
    let machine = &problem.machine;
    let copies = &plan.phases[index].copies;
    let steps = phase.steps.len() as i64;
    let bytes_of = |copy: &Copy| {
        let part = &plan.layouts[copy.chunk as usize].parts[copy.part as usize];
        u64::from(part.frames) * machine.frame_bytes
    };

    // Steps that use each chunk.
    let mut uses = vec![Vec::new(); problem.chunks.len()];
    for (at, step) in phase.steps.iter().enumerate() {
        phase.touches(step).iter().for_each(|&chunk| uses[chunk as usize].push(at as i64));
    }
    // Copies of each part, in order, to know what each of them serves.
    let mut of_part: Vec<Vec<Vec<usize>>> =
        plan.layouts.iter().map(|layout| vec![Vec::new(); layout.parts.len()]).collect();
    for (at, copy) in copies.iter().enumerate() {
        let known = of_part.get_mut(copy.chunk as usize);
        match known.and_then(|parts| parts.get_mut(copy.part as usize)) {
            Some(list) => list.push(at),
            None => return Err(format!("copy {at} of nothing: {copy:?}")),
        }
        let group = group(copies, at);
        let needed = |copy: &Copy| uses[copy.chunk as usize].contains(&copy.need.into());
        if !copies[group.clone()].iter().any(needed) {
            return Err(format!("copy {at} for a step that does not need it: {copy:?}"));
        }
        let alike = |copy: &Copy| (copy.need, copy.lead);
        if copies[group].iter().any(|other| alike(other) != alike(copy)) {
            return Err(format!("copy {at} is for another step than what it is joined to"));
        }
    }
    let mut serves = vec![(0, 0, 0); copies.len()];
    for list in of_part.iter().flatten() {
        for (at, &copy) in list.iter().enumerate() {
            let (next, iteration) = match list.get(at + 1) {
                Some(&next) => (next, 0),
                None => (list[0], steps),
            };
            let from = i64::from(copies[copy].need);
            let until = i64::from(copies[next].need) + iteration;
            let used = &uses[copies[copy].chunk as usize];
            let last = [steps, 0]
                .iter()
                .flat_map(|iteration| used.iter().rev().map(move |step| step + iteration))
                .find(|step| (from..until).contains(step));
            match last {
                Some(last) => serves[copy] = (from, until, last),
                None => return Err(format!("copy {copy} is repeated before its use")),
            }
        }
    }

    // Parts that this phase uses and never copies were brought in when it began.
    let mut content: Vec<Option<Arrival>> = vec![None; plan.shared_frames as usize];
    for (chunk, used) in uses.iter().enumerate().filter(|(_, used)| !used.is_empty()) {
        for (part, place) in plan.layouts[chunk].parts.iter().enumerate() {
            if of_part[chunk][part].is_empty() {
                let _ = used;
                let kept = Arrival {
                    chunk: chunk as u32,
                    part: part as u32,
                    from: i64::MIN,
                    until: i64::MAX,
                    last: -1, // whoever displaces it is caught when it is used
                    at_ns: 0.0,
                };
                for frame in 0..place.frames {
                    let slot = ((place.at + frame) % place.wrap) as usize;
                    if content[slot].replace(kept).is_some() {
                        return Err(format!("two are kept on shared frame {slot}"));
                    }
                }
            }
        }
    }

    // Carry out: copies from the iteration before the first step on.
    let total_steps = steps * iterations as i64;
    let mut ends: Vec<f64> = Vec::with_capacity(total_steps as usize);
    let mut history: Vec<(f64, f64, u64)> = Vec::new(); // ready, done, bytes
    let (mut next_copy, mut engine, mut ready) = (0_usize, 0.0_f64, 0.0_f64);
    let total_copies = copies.len() * (iterations + 1);
    while ends.len() < total_steps as usize {
        let before = (next_copy, ends.len());
        'copies: while next_copy < total_copies {
            // What comes in one copy comes when all of it can.
            let at = next_copy % copies.len();
            let joined = &copies[group(copies, at)];
            let iteration = ((next_copy / copies.len()) as i64 - 1) * steps;
            let ended = |step: i64| match step {
                ..0 => Some(0.0),
                _ => ends.get(step as usize).copied(),
            };
            // The compute stream reaches the planned step when the one before ends.
            let gate = ended(i64::from(joined[0].need) + iteration - i64::from(joined[0].lead) - 1);
            let Some(mut free) = gate else { break };
            let bytes: u64 = joined.iter().map(bytes_of).sum();
            let slots_of = |copy: &Copy| {
                let place = plan.layouts[copy.chunk as usize].parts[copy.part as usize];
                (0..place.frames).map(move |frame| ((place.at + frame) % place.wrap) as usize)
            };
            for slot in joined.iter().flat_map(slots_of) {
                if let Some(old) = content[slot] {
                    let Some(end) = ended(old.last) else { break 'copies };
                    let freed = &plan.layouts[old.chunk as usize].parts[old.part as usize];
                    let freed = u64::from(freed.frames) * machine.frame_bytes;
                    // Neighbours leave in one copy as well.
                    let freed = if joined.len() > 1 { bytes } else { freed };
                    let latency = machine.release_ns as f64
                        + freed as f64 * 1e9 / machine.release_bytes_per_s;
                    free = free.max(if old.last < 0 { 0.0 } else { end + latency });
                }
            }
            ready = ready.max(free);
            let cost = machine.copy_ns as f64 + bytes as f64 * 1e9 / machine.link_bytes_per_s;
            engine = engine.max(ready) + cost;
            history.push((ready, engine, bytes));
            for (copy, serves) in joined.iter().zip(&serves[at..]) {
                let (from, until, last) = *serves;
                let arrival = Arrival {
                    chunk: copy.chunk,
                    part: copy.part,
                    from: from + iteration,
                    until: until + iteration,
                    last: last + iteration,
                    at_ns: engine,
                };
                slots_of(copy).for_each(|slot| content[slot] = Some(arrival));
            }
            next_copy += joined.len();
        }
        while ends.len() < total_steps as usize {
            let now = ends.len() as i64;
            let step = &phase.steps[(now % steps) as usize];
            let mut start = ends.last().copied().unwrap_or(0.0);
            let there = phase.touches(step).iter().all(|&chunk| {
                plan.layouts[chunk as usize].parts.iter().enumerate().all(|(part, place)| {
                    (0..place.frames).all(|frame| {
                        let slot = ((place.at + frame) % place.wrap) as usize;
                        content[slot].is_some_and(|held| {
                            start = start.max(held.at_ns);
                            (held.chunk, held.part) == (chunk, part as u32)
                                && (held.from..held.until).contains(&now)
                        })
                    })
                })
            });
            if !there {
                break;
            }
            // What lies on the host is read over the link meanwhile.
            let read: f64 = (phase.touches(step).iter())
                .map(|&chunk| {
                    let layout = &plan.layouts[chunk as usize];
                    let bytes = (u64::from(layout.frames) * machine.frame_bytes) as f64;
                    let share = (step.read_bytes as f64 / bytes).min(1.0);
                    share * (u64::from(layout.host_frames) * machine.frame_bytes) as f64
                })
                .sum();
            let rate = machine.zero_copy_bytes_per_s.unwrap_or(1.0);
            ends.push(start + (step.ns as f64).max(read * 1e9 / rate));
        }
        if before == (next_copy, ends.len()) {
            let copy = copies.get(next_copy % copies.len().max(1));
            return Err(format!(
                "phase {index}: nothing can go on: step {} of {steps}, copy {next_copy}: {copy:?}",
                ends.len()
            ));
        }
    }

    let half = iterations / 2;
    let period_ns = (ends[steps as usize * iterations - 1] - ends[steps as usize * half - 1])
        / (iterations - half) as f64;
    let steady = &history[(history.len() / 2).min(history.len())..];
    let mut backlog_bytes = 0;
    for (at, &(ready, _, own)) in steady.iter().enumerate() {
        let waiting = steady[..at].iter().rev().take_while(|(_, done, _)| *done > ready);
        backlog_bytes = backlog_bytes.max(own + waiting.map(|(_, _, bytes)| bytes).sum::<u64>());
    }
    Ok(Seen {
        period_ns,
        streamed_bytes: copies.iter().map(bytes_of).sum(),
        backlog_bytes,
        longest_step_ns: {
            let steady = &ends[ends.len() / 2..];
            steady.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
        },
        largest_copy_bytes: {
            let copy = |at| copies[group(copies, at)].iter().map(bytes_of).sum();
            (0..copies.len()).map(copy).max().unwrap_or(0)
        },
    })
}

/// The copies that the one at `at` comes with, it included.
fn group(copies: &[Copy], at: usize) -> std::ops::Range<usize> {
    let first = (0..=at).rev().find(|&at| at == 0 || !copies[at].joined).unwrap_or(0);
    let end = (at + 1..copies.len()).find(|&at| !copies[at].joined).unwrap_or(copies.len());
    first..end
}
