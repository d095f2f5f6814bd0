//! Traces of published architectures.
//!
//! A model is a table of dimensions, written down as a list of operations
//! (`net`); its tensors are put into device allocations the way PyTorch's
//! caching allocator would (`allocator`); a run is that list again and again,
//! with the marks and host waits that such programs have. The totals are checked
//! against the published sizes of the checkpoints.
//!
//! ```text
//!   allocator  tensors into chunks
//!   net        operations over tensors
//!   image, video, language   the tables
//!   variants   runs with detours: skipped blocks, growing caches, detours
//! ```
//!
//! Not here: how long anything takes (`cards`), recorded traces (`format`).

mod allocator;
mod image;
mod language;
mod net;
mod variants;
mod video;

pub use allocator::Packing;
pub use variants::{VARIANTS, Variant};

use super::{Builder, Event, Trace};
use allocator::Allocator;
use language::{Experts, LLAMA3_8B, LLAMA3_70B, Llama, MIXTRAL};
use net::{Net, Placed};

/// What kind of order a model shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One iteration, over and over.
    Periodic,
    /// Several models in a pipeline, the whole repeated.
    MacroCycle,
    /// Two models of which one runs for a while, then the other.
    Experts,
    /// The order depends on the data.
    Random,
}

/// A model of the catalogue.
pub struct Model {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
    /// Size of the published weights in bf16.
    pub published_bytes: u64,
    /// Usual length: iterations a run (denoising steps, tokens, prompts), and
    /// runs (images, videos).
    pub iterations: u32,
    pub runs: u32,
    build: fn(&Model, &Options) -> Trace,
}

/// How to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Iterations a run and runs; 0 stands for the model's usual number. A
    /// periodic model does `iterations × runs` in a row. For two experts,
    /// `iterations` counts steps, the first half of them with the first expert.
    pub iterations: u32,
    pub runs: u32,
    pub packing: Packing,
    /// For what is drawn at random.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { iterations: 0, runs: 0, packing: Packing::Caching, seed: 1 }
    }
}

impl Model {
    /// Its trace with `iterations` a run (0: the usual number) and all else usual.
    pub fn trace(&self, iterations: u32) -> Trace {
        self.generate(&Options { iterations, ..Options::default() })
    }

    pub fn generate(&self, options: &Options) -> Trace {
        let usual = |given: u32, usual| if given == 0 { usual } else { given };
        let options = Options {
            iterations: usual(options.iterations, self.iterations),
            runs: usual(options.runs, self.runs),
            ..*options
        };
        (self.build)(self, &options)
    }

    fn start(&self, activation_bytes: u64) -> Builder {
        Builder::new(self.name, activation_bytes)
    }
}

/// The model called `name`.
pub fn model(name: &str) -> Option<&'static Model> {
    CATALOGUE.iter().find(|model| model.name == name)
}

pub fn catalogue() -> &'static [Model] {
    CATALOGUE
}

static CATALOGUE: &[Model] = &[
    Model {
        name: "flux1-dev",
        title: "FLUX.1-dev, 1024²",
        kind: Kind::Periodic,
        published_bytes: 23_800_000_000,
        iterations: 28,
        runs: 1,
        build: |model, options| dit(model, options, &image::FLUX, 1, false),
    },
    Model {
        name: "sdxl-unet",
        title: "SDXL UNet, 1024², guidance as a batch of two",
        kind: Kind::Periodic,
        published_bytes: 5_135_000_000,
        iterations: 30,
        runs: 1,
        build: |model, options| {
            let builder = model.start(image::sdxl::ACTIVATION_BYTES);
            periodic(builder, options, image::sdxl::net(), 1, |_| ())
        },
    },
    Model {
        name: "sd35-large",
        title: "Stable Diffusion 3.5 Large, 1024², guidance as a batch of two",
        kind: Kind::Periodic,
        published_bytes: 16_460_000_000,
        iterations: 28,
        runs: 1,
        build: |model, options| dit(model, options, &image::SD35_LARGE, 1, true),
    },
    Model {
        name: "qwen-image",
        title: "Qwen-Image, 1024², guidance as two passes",
        kind: Kind::Periodic,
        published_bytes: 40_900_000_000,
        iterations: 50,
        runs: 1,
        build: |model, options| dit(model, options, &image::QWEN_IMAGE, 2, true),
    },
    Model {
        name: "wan22-a14b",
        title: "Wan 2.2 A14B, two experts, 81 frames of 480 × 832, guidance as two passes",
        kind: Kind::Experts,
        published_bytes: 57_200_000_000,
        iterations: 40,
        runs: 2,
        build: wan22,
    },
    Model {
        name: "hunyuan-video",
        title: "HunyuanVideo, 129 frames of 544 × 960",
        kind: Kind::Periodic,
        published_bytes: 25_600_000_000,
        iterations: 50,
        runs: 1,
        build: |model, options| dit(model, options, &image::HUNYUAN_VIDEO, 1, true),
    },
    Model {
        name: "ltx-2",
        title: "LTX-2, 121 frames of 768 × 1216 with sound",
        kind: Kind::Periodic,
        published_bytes: 38_000_000_000,
        iterations: 40,
        runs: 1,
        build: |model, options| {
            let builder = model.start(video::ltx2::ACTIVATION_BYTES);
            periodic(builder, options, video::ltx2::net(), 1, |_| ())
        },
    },
    Model {
        name: "t5-flux-vae",
        title: "T5-XXL, then FLUX.1-dev × 28, then the decoder, image after image",
        kind: Kind::MacroCycle,
        published_bytes: 23_800_000_000 + 9_520_000_000 + 99_000_000,
        iterations: 28,
        runs: 6,
        build: t5_flux_vae,
    },
    Model {
        name: "llama3-8b-decode",
        title: "Llama 3 8B, a token at a time after 2048",
        kind: Kind::Periodic,
        published_bytes: 16_060_000_000,
        iterations: 64,
        runs: 1,
        build: |model, options| llama(model, options, &LLAMA3_8B, 1),
    },
    Model {
        name: "llama3-70b-decode",
        title: "Llama 3 70B, a token at a time after 2048",
        kind: Kind::Periodic,
        published_bytes: 141_100_000_000,
        iterations: 64,
        runs: 1,
        build: |model, options| llama(model, options, &LLAMA3_70B, 1),
    },
    Model {
        name: "llama3-8b-prefill",
        title: "Llama 3 8B, prompts of 2048 tokens",
        kind: Kind::Periodic,
        published_bytes: 16_060_000_000,
        iterations: 16,
        runs: 1,
        build: |model, options| llama(model, options, &LLAMA3_8B, 2048),
    },
    Model {
        name: "llama3-70b-prefill",
        title: "Llama 3 70B, prompts of 2048 tokens",
        kind: Kind::Periodic,
        published_bytes: 141_100_000_000,
        iterations: 16,
        runs: 1,
        build: |model, options| llama(model, options, &LLAMA3_70B, 2048),
    },
    Model {
        name: "mixtral-decode",
        title: "Mixtral 8x7B, a token at a time, each expert by itself",
        kind: Kind::Random,
        published_bytes: 93_400_000_000,
        iterations: 64,
        runs: 1,
        build: mixtral_apart,
    },
    Model {
        name: "mixtral-stacked-decode",
        title: "Mixtral 8x7B, a token at a time, the experts of a layer in one tensor",
        kind: Kind::Random,
        published_bytes: 93_400_000_000,
        iterations: 64,
        runs: 1,
        build: |model, options| {
            let builder = model.start(MIXTRAL.activation_bytes(1, CONTEXT));
            let net = MIXTRAL.net(1, CONTEXT, Experts::Stacked);
            periodic(builder, options, net, 1, token_end)
        },
    },
    Model {
        name: "tiny-tensors",
        title: "16 layers of 500 tensors of half a MiB",
        kind: Kind::Periodic,
        published_bytes: 16 * 500 * (512 << 10),
        iterations: 16,
        runs: 1,
        build: |model, options| {
            let builder = model.start(1 << 30);
            periodic(builder, options, language::tiny_tensors(), 1, |_| ())
        },
    },
];

/// Tokens that a language model has seen when the trace begins.
const CONTEXT: u64 = 2048;

/// `passes` over `net` in each iteration, then what `end` adds.
fn periodic(
    mut builder: Builder,
    options: &Options,
    net: Net,
    passes: u32,
    end: impl Fn(&mut Builder),
) -> Trace {
    let placed = net.place(&mut builder, &mut Allocator::new(options.packing));
    for _ in 0..options.iterations * options.runs {
        for _ in 0..passes {
            placed.run(&mut builder, 0);
        }
        end(&mut builder);
    }
    builder.finish()
}

fn dit(model: &Model, options: &Options, table: &image::Dit, passes: u32, copies: bool) -> Trace {
    let builder = model.start(table.activation_bytes());
    periodic(builder, options, table.net(), passes, |builder| {
        if copies {
            step_copy(builder);
        }
    })
}

/// A scheduler that keeps its tables on the host sends a timestep along.
fn step_copy(builder: &mut Builder) {
    builder.event(Event::Copy { bytes: 4096, to_device: true });
}

/// The host reads the token and decides whether to go on. Assumption: 30 µs.
fn token_end(builder: &mut Builder) {
    builder.event(Event::Copy { bytes: 8, to_device: false });
    builder.event(Event::HostSync { host_ns: 30_000 });
}

/// The host takes the result and turns it into a file. Assumption: 20 ms.
fn image_end(builder: &mut Builder) {
    builder.event(Event::Copy { bytes: 3 * 1024 * 1024, to_device: false });
    builder.event(Event::HostSync { host_ns: 20_000_000 });
}

fn llama(model: &Model, options: &Options, table: &Llama, rows: u64) -> Trace {
    let builder = model.start(table.activation_bytes(rows, CONTEXT + 2048));
    let past = if rows == 1 { CONTEXT } else { 0 };
    periodic(builder, options, table.net(rows, past, Experts::Apart), 1, token_end)
}

fn wan22(model: &Model, options: &Options) -> Trace {
    let mut builder = model.start(video::wan::ACTIVATION_BYTES);
    let mut allocator = Allocator::new(options.packing);
    let experts: [Placed; 2] =
        std::array::from_fn(|_| video::wan::expert().place(&mut builder, &mut allocator));
    for _ in 0..options.runs {
        for step in 0..options.iterations {
            let expert = usize::from(step >= options.iterations.div_ceil(2));
            for _ in 0..2 {
                experts[expert].run(&mut builder, expert as u16);
            }
            step_copy(&mut builder);
        }
    }
    builder.finish()
}

fn t5_flux_vae(model: &Model, options: &Options) -> Trace {
    let activations = image::FLUX.activation_bytes().max(image::VAE_ACTIVATION_BYTES);
    let mut builder = model.start(activations);
    let mut allocator = Allocator::new(options.packing);
    let mut place = |net: Net| net.place(&mut builder, &mut allocator);
    let (text, flux, decoder) =
        (place(image::t5_xxl()), place(image::FLUX.net()), place(image::vae_decoder(128)));
    for _ in 0..options.runs {
        text.run(&mut builder, 0);
        for _ in 0..options.iterations {
            flux.run(&mut builder, 1);
        }
        decoder.run(&mut builder, 2);
        image_end(&mut builder);
    }
    builder.finish()
}

/// Experts are drawn for each token and layer: two of eight, and with a chance
/// of a quarter each the ones of the token before (text shows such runs).
fn mixtral_apart(model: &Model, options: &Options) -> Trace {
    let table = &MIXTRAL;
    let mut builder = model.start(table.activation_bytes(1, CONTEXT));
    let placed = table
        .net(1, CONTEXT, Experts::Apart)
        .place(&mut builder, &mut Allocator::new(options.packing));
    let (layers, experts) = (table.layers as usize, table.experts as usize);
    let mut random = Random::new(options.seed);
    let mut chosen = vec![[0, 1]; layers];
    for _ in 0..options.iterations * options.runs {
        for pair in &mut chosen {
            for place in pair.iter_mut() {
                if random.below(4) > 0 {
                    *place = random.below(experts as u64) as usize;
                }
            }
            while pair[0] == pair[1] {
                pair[1] = random.below(experts as u64) as usize;
            }
        }
        placed.run_blocks(&mut builder, 0, |block| {
            let (layer, within) = (block / (1 + experts), block % (1 + experts));
            // Past the last layer stands the head.
            let runs = within == 0 || chosen[layer].contains(&(within - 1));
            usize::from(runs)
        });
        token_end(&mut builder);
    }
    builder.finish()
}

/// A small generator of our own: a counter, mixed (SplitMix64's constants, by
/// Steele, Lea and Flood).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0. (The bias of the remainder is far below
    /// what a simulation can show.)
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// In 0 ≤ x < 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::cards::card;

    /// Kernel time of one iteration of `phase`, the second where there is one.
    fn iteration_ns(trace: &Trace, name: &str, phase: u16) -> u64 {
        let card = card(name).unwrap();
        let mut iterations: Vec<u64> = Vec::new();
        let mut counts = false;
        for event in &trace.events {
            match event {
                Event::Iteration { phase: marked } => {
                    counts = *marked == phase;
                    if counts {
                        iterations.push(0);
                    }
                }
                Event::Launch(launch) if counts => {
                    *iterations.last_mut().unwrap() += card.kernel_time(launch);
                }
                _ => {}
            }
        }
        iterations[1.min(iterations.len() - 1)]
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn weights_come_out_as_published() {
        // Segments of 20 MiB are not filled to the last, and many tensors of
        // SDXL are of 3 MiB: what that wastes is bounded here as well.
        for (packing, most) in
            [(Packing::Exact, 1.03), (Packing::Caching, 1.06), (Packing::PerTensor, 1.16)]
        {
            for model in catalogue() {
                let options = Options { iterations: 2, runs: 1, packing, ..Options::default() };
                let trace = model.generate(&options);
                let bytes: u64 = trace.chunks.iter().sum();
                let ratio = bytes as f64 / model.published_bytes as f64;
                assert!((0.97..most).contains(&ratio), "{}: {ratio}", model.name);
                assert_eq!(trace.check(), Ok(()), "{}", model.name);
                assert_eq!(trace.weight_bytes(), bytes);
                assert_eq!(trace.normalized(), trace, "{}", model.name);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn flux_takes_as_long_as_published() {
        let trace = model("flux1-dev").unwrap().trace(2);
        for (name, seconds) in [("rtx-4090", 0.59), ("h100", 0.23), ("l40s", 0.49)] {
            let ratio = iteration_ns(&trace, name, 0) as f64 / 1e9 / seconds;
            assert!((0.93..1.07).contains(&ratio), "{name}: {ratio}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn a_step_of_wan_takes_as_long_on_either_expert() {
        let trace = model("wan22-a14b").unwrap().trace(4);
        assert_eq!(iteration_ns(&trace, "h200", 0), iteration_ns(&trace, "h200", 1));
    }

    /// Batch 1 decoding reads all weights for each token and does little else.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn decoding_is_bound_by_memory() {
        let trace = model("llama3-70b-decode").unwrap().trace(2);
        let entry = card("h200").unwrap();
        let read = 141.1e9 / (entry.memory_bytes_per_s * entry.memory_share);
        let ratio = iteration_ns(&trace, "h200", 0) as f64 / 1e9 / read;
        assert!((1.0..1.3).contains(&ratio), "{ratio}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn the_same_arguments_give_the_same_trace() {
        let model = model("mixtral-decode").unwrap();
        let generate =
            |seed| model.generate(&Options { iterations: 5, seed, ..Options::default() });
        assert_eq!(generate(3), generate(3));
        assert_ne!(generate(3), generate(4));
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn a_token_of_mixtral_touches_two_experts_a_layer() {
        let trace = model("mixtral-decode").unwrap().generate(&Options {
            iterations: 1,
            packing: Packing::PerTensor,
            ..Options::default()
        });
        let matrix = (4096u64 * 14_336 * 2).next_multiple_of(2 << 20);
        let touched = trace.uses.iter().filter(|u| trace.chunks[u.chunk as usize] == matrix);
        assert_eq!(touched.count(), 32 * 2 * 3);
        assert_eq!(trace.chunks.iter().filter(|bytes| **bytes == matrix).count(), 32 * 8 * 3);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn variants_are_well_formed_and_deviate() {
        for variant in VARIANTS {
            let trace = variant.trace(40, 7);
            assert_eq!(trace.check(), Ok(()), "{}", variant.name);
            assert_eq!(trace, variant.trace(40, 7), "{}", variant.name);
            let mut iterations: Vec<Vec<&Event>> = Vec::new();
            for event in &trace.events {
                match event {
                    Event::Iteration { .. } => iterations.push(Vec::new()),
                    other => {
                        if let Some(last) = iterations.last_mut() {
                            last.push(other);
                        }
                    }
                }
            }
            assert!(iterations.len() >= 40);
            let same = iterations.windows(2).all(|pair| pair[0] == pair[1]);
            assert!(!same || variant.name == "repeated-blocks", "{}", variant.name);
        }
    }
}
