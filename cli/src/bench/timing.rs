//! How long planning takes, on one thread and by its own clock: what else the
//! machine does is not in it.

use super::judge::Planning;
use autooffload_core::plan::{self, Chunk, Effort, Machine, Phase, Problem};

/// Launches per chunk.
const LAUNCHES: usize = 10;

/// The least of so many runs of each: what else the machine does only adds.
const RUNS: usize = 3;

pub fn planning(sizes: &[usize]) -> Result<Vec<Planning>, String> {
    let measure = |problem: &Problem, effort| -> Result<f64, String> {
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            let began = thread_ms();
            let made = plan::plan(problem, None, effort);
            least = least.min(thread_ms() - began);
            std::hint::black_box(made.map_err(|unfit| unfit.to_string())?);
        }
        Ok(least)
    };
    let row = |&chunks: &usize| {
        let problem = synthetic(chunks);
        Ok(Planning {
            chunks,
            launches: problem.phases[0].steps.len(),
            plan_ms: measure(&problem, Effort::Quick)?,
            search_ms: measure(&problem, Effort::Searched)?,
        })
    };
    sizes.iter().map(row).collect()
}

/// Processor time of this thread.
fn thread_ms() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to `time` alone.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(outcome, 0, "every Linux has this clock");
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// One cycle over `chunks` chunks of 2 to 64 MiB, each followed by launches
/// that touch nothing, one chunk in fifty in use all through its block, half
/// of the bytes in memory, link and kernels about equally busy: where there is
/// most to decide.
fn synthetic(chunks: usize) -> Problem {
    let mut random = 0x5eed;
    let mut phase = Phase { repeats: 1, ..Phase::default() };
    let mut made = Vec::with_capacity(chunks);
    for index in 0..chunks as u32 {
        let frames = 1 + draw(&mut random) % 32;
        made.push(Chunk { id: index, frames, ..Chunk::default() });
        let block = index - index % 50;
        for launch in 0..LAUNCHES {
            let ns = 5_000 + u64::from(draw(&mut random) % 270_000);
            match launch {
                0 => phase.push(ns, &[index]),
                3 if block != index => phase.push(ns, &[block]),
                _ => phase.push(ns, &[]),
            }
        }
    }
    let machine = Machine {
        frames: made.iter().map(|chunk| chunk.frames).sum::<u32>() / 2,
        ..Machine::default()
    };
    Problem { chunks: made, phases: vec![phase], machine, window_frames: None }
}

/// SplitMix64, upper half.
fn draw(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((word ^ (word >> 31)) >> 32) as u32
}
