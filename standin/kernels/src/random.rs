//! Random numbers: `distribution_elementwise_grid_stride_kernel<A, 4, Dist, L>
//! (int64_t N, PhiloxCudaState, Dist, L lambda)`.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random
//! numbers: as easy as 1, 2, 3", SC 2011), numbered as cuRAND does: thread =
//! subsequence, one counter step per call, four results per step. So a seed
//! gives the same integers and uniform numbers as on a GPU with the same launch.
//!
//! The lambda holds `char* out; int stride; F` (its number is 1: one dimension)
//! or `OffsetCalculator<1>; char* out; F` (2), and `F` what it captured.

use crate::name::{Callable, Name, callable};
use crate::offsets::Offsets;
use crate::params::{Cursor, Layout, unsupported};
use crate::value::{DType, Lane, store_lanes};
use crate::{Cost, Fault, Kernel, Launch, Memory};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Distribution {
    /// Captured: range, from, to.
    Uniform,
    /// Captured: mean, standard deviation.
    Normal,
    /// Captured: probability.
    Bernoulli,
    /// Captured: range, base.
    Integers,
}

struct Random {
    distribution: Distribution,
    element: DType,
    state: Layout,
    strided: bool,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let [accumulator, results, _, lambda] = name.args.as_slice() else {
        return None;
    };
    if name.base != "distribution_elementwise_grid_stride_kernel" || results != "4" {
        return None;
    }
    let Callable::Lambda(outer) = callable(lambda)? else {
        return None;
    };
    if outer.function.base != "distribution_nullary_kernel" {
        return None;
    }
    let element = DType::from_cpp(outer.function.args.first()?)?;
    let Callable::Lambda(transform) = callable(outer.function.args.last()?)? else {
        return None;
    };
    let (distribution, state) = match (transform.function.base.as_str(), accumulator.as_str()) {
        ("uniform_kernel", "float") => (Distribution::Uniform, vec![DType::F32, element, element]),
        ("normal_kernel", "float") => (Distribution::Normal, vec![DType::F32; 2]),
        ("bernoulli_kernel", "float") => (Distribution::Bernoulli, vec![DType::F64]),
        ("random_from_to_kernel", "unsigned int") => (Distribution::Integers, vec![DType::I64; 2]),
        _ => return None,
    };
    let strided = match outer.path.last()? {
        1 => false,
        2 => true,
        _ => return None,
    };
    Some(Box::new(Random { distribution, element, state: Layout::of(&state), strided }))
}

/// A launch's parameters, decoded.
struct Decoded<'a> {
    count: u64,
    seed: u64,
    offset: u64,
    state: &'a [u8],
    out: u64,
    offsets: Offsets,
}

impl Random {
    fn decode<'a>(
        &self,
        launch: &Launch<'a>,
        memory: Option<&dyn Memory>,
    ) -> Result<Decoded<'a>, Fault> {
        let count = Cursor::parameter(launch, 0)?.i64()?.max(0) as u64;
        let (seed, offset) = philox_state(Cursor::parameter(launch, 1)?, memory)?;
        let mut lambda = Cursor::parameter(launch, 3)?;
        let (out, offsets) = if self.strided {
            let offsets = Offsets::read(&mut lambda, 1)?;
            (lambda.u64()?, offsets)
        } else {
            let (out, stride) = (lambda.u64()?, lambda.i32()?);
            (out, Offsets::new(vec![count.max(1)], vec![vec![stride as i64]]))
        };
        lambda.align(self.state.alignment());
        let state = lambda.take(self.state.size())?;
        if lambda.position().next_multiple_of(8) != lambda.size() {
            return Err(unsupported(
                launch,
                &format!("a lambda of {} bytes, expected {}", lambda.size(), lambda.position()),
            ));
        }
        Ok(Decoded { count, seed, offset, state, out, offsets })
    }
}

/// Seed and offset out of a `PhiloxCudaState`; without memory to look into, 0
/// where they lie there.
pub fn philox_state(mut state: Cursor, memory: Option<&dyn Memory>) -> Result<(u64, u64), Fault> {
    let (seed, offset) = (state.u64()?, state.u64()?);
    // Up to PyTorch 2.9 this is an unsigned int.
    let within = if state.size() == 24 { u64::from(state.u32()?) } else { state.u64()? };
    if state.u8()? == 0 {
        return Ok((seed, offset));
    }
    // In a captured graph, both are pointers to device memory.
    let Some(memory) = memory else { return Ok((0, 0)) };
    Ok((read_u64(memory, seed)?, read_u64(memory, offset)?.wrapping_add(within)))
}

fn read_u64(memory: &dyn Memory, address: u64) -> Result<u64, Fault> {
    // SAFETY: the eight bytes were just checked for reading.
    Ok(unsafe { memory.read(address, 8)?.cast::<u64>().read_unaligned() })
}

impl Kernel for Random {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let decoded = self.decode(launch, Some(memory))?;
        match self.distribution {
            Distribution::Integers => {
                let state: Vec<i64> = self.state.read(decoded.state)?;
                let (range, base) = (state[0] as u64, state[1]);
                self.fill(launch, &decoded, memory, |words| {
                    words.map(|word| (word as u64).checked_rem(range).unwrap_or(0) as i64 + base)
                })
            }
            Distribution::Uniform => {
                let state: Vec<f32> = self.state.read(decoded.state)?;
                let [range, from, to] = [state[0], state[1], state[2]];
                let element = self.element;
                self.fill(launch, &decoded, memory, |words| {
                    words.map(|word| {
                        // The device's (0, 1] becomes [0, 1), after rounding to the element type.
                        let mut value = [uniform(word) * range + from];
                        crate::value::round_lanes(element, &mut value);
                        if value[0] == to { from } else { value[0] }
                    })
                })
            }
            Distribution::Normal => {
                let state: Vec<f32> = self.state.read(decoded.state)?;
                let [mean, deviation] = [state[0], state[1]];
                self.fill(launch, &decoded, memory, |words| {
                    let (a, b) = normal_pair(words[0], words[1]);
                    let (c, d) = normal_pair(words[2], words[3]);
                    [a, b, c, d].map(|value| value * deviation + mean)
                })
            }
            Distribution::Bernoulli => {
                let state: Vec<f64> = self.state.read(decoded.state)?;
                let probability = state[0];
                self.fill(launch, &decoded, memory, |words| {
                    words.map(|word| ((uniform(word) as f64) < probability) as u8 as f32)
                })
            }
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        let count = self.decode(launch, None).map_or(0, |decoded| decoded.count) as f64;
        Cost { bytes: count * self.element.size() as f64, flops: 20.0 * count }
    }
}

impl Random {
    fn fill<L: Lane>(
        &self,
        launch: &Launch,
        decoded: &Decoded,
        memory: &dyn Memory,
        transform: impl Fn([u32; 4]) -> [L; 4],
    ) -> Result<(), Fault> {
        if decoded.count == 0 {
            return Ok(());
        }
        let (low, high) = decoded.offsets.bounds(0);
        let base = memory
            .write(
                decoded.out.wrapping_add_signed(low),
                (high - low) as u64 + self.element.size() as u64,
            )?
            .wrapping_offset(-low as isize);
        // Thread t's step s gives elements t + threads · (4 s + 0, 1, 2, 3).
        const BLOCK: usize = 256;
        let threads = launch.grid[0] as u64 * launch.block[0] as u64;
        if threads == 0 {
            return Err(unsupported(launch, "a launch without threads"));
        }
        let mut lanes = [[L::default(); BLOCK]; 4];
        for step in 0..decoded.count.div_ceil(threads * 4) {
            let counter = (decoded.offset / 4).wrapping_add(step);
            let mut thread = 0;
            while thread < threads {
                let first = thread + threads * 4 * step;
                if first >= decoded.count {
                    break;
                }
                let count = BLOCK.min((threads - thread) as usize);
                for i in 0..count {
                    let results = transform(philox(decoded.seed, thread + i as u64, counter));
                    for (lanes, result) in lanes.iter_mut().zip(results) {
                        lanes[i] = result;
                    }
                }
                for (part, lanes) in lanes.iter().enumerate() {
                    let start = first + threads * part as u64;
                    let count = count.min(decoded.count.saturating_sub(start) as usize);
                    if count == 0 {
                        break;
                    }
                    decoded.offsets.runs(0, start, count, |offset, stride, range| {
                        // SAFETY: `base` was checked for every offset of the calculator.
                        unsafe {
                            store_lanes(
                                self.element,
                                base.wrapping_offset(offset as isize),
                                stride as isize,
                                &lanes[range],
                            )
                        };
                    });
                }
                thread += count as u64;
            }
        }
        Ok(())
    }
}

/// Ten rounds of Philox4x32. The counter's low half counts steps, its high
/// half is the subsequence.
fn philox(seed: u64, subsequence: u64, counter: u64) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut key = [seed as u32, (seed >> 32) as u32];
    let mut state =
        [counter as u32, (counter >> 32) as u32, subsequence as u32, (subsequence >> 32) as u32];
    for _ in 0..10 {
        let first = MULTIPLIERS[0] as u64 * state[0] as u64;
        let second = MULTIPLIERS[1] as u64 * state[2] as u64;
        state = [
            (second >> 32) as u32 ^ state[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ state[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    state
}

const TWO_TO_MINUS_32: f32 = 1.0 / 4_294_967_296.0;

/// In (0, 1].
fn uniform(word: u32) -> f32 {
    word as f32 * TWO_TO_MINUS_32 + TWO_TO_MINUS_32 / 2.0
}

/// Box and Muller's transform, in cuRAND's order: sine first.
fn normal_pair(a: u32, b: u32) -> (f32, f32) {
    const TAU_STEP: f32 = TWO_TO_MINUS_32 * std::f32::consts::TAU;
    let radius = (-2.0 * uniform(a).ln()).sqrt();
    let (sine, cosine) = (b as f32 * TAU_STEP + TAU_STEP / 2.0).sin_cos();
    (sine * radius, cosine * radius)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the paper's reference implementation (Random123, kat_vectors).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox(u64::MAX, u64::MAX, u64::MAX),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn normal_numbers_have_the_moments() {
        let values: Vec<f64> = (0..20_000)
            .flat_map(|i| {
                let words = philox(42, i, 0);
                let (a, b) = normal_pair(words[0], words[1]);
                [a as f64, b as f64]
            })
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance =
            values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
