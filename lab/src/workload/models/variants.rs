//! Runs with detours, for the tests of learning: a small transformer with
//! true proportions whose order changes on purpose. Seeded where something is
//! drawn; the same arguments give the same trace.

use super::allocator::{Allocator, Packing};
use super::image::{Dit, vae_decoder};
use super::language::{Experts, Llama};
use super::net::{Net, Placed};
use super::{Random, token_end};
use crate::workload::{Builder, Event, Launch, Trace, Use};

/// One of them.
pub struct Variant {
    pub name: &'static str,
    pub title: &'static str,
    build: fn(&mut Builder, u32, &mut Random),
}

impl Variant {
    /// A run of about `iterations`.
    pub fn trace(&self, iterations: u32, seed: u64) -> Trace {
        let mut builder = Builder::new(self.name, 1 << 30);
        (self.build)(&mut builder, iterations, &mut Random::new(seed));
        builder.finish()
    }
}

pub static VARIANTS: &[Variant] = &[
    Variant {
        name: "skipped-blocks",
        title: "a step cache: in some steps only the first two and the last block run",
        build: |builder, iterations, random| {
            let net = small(builder);
            let last = net.block_count() - 1;
            for step in 0..iterations {
                let skips = step >= 4 && random.below(3) == 0;
                net.run_blocks(builder, u16::from(skips), |block| {
                    usize::from(!skips || block < 2 || block == last)
                });
            }
        },
    },
    Variant {
        name: "every-other-skipped",
        title: "a step cache with a fixed rhythm: a full step, then one without the middle",
        build: |builder, iterations, _| {
            let net = small(builder);
            let last = net.block_count() - 1;
            for step in 0..iterations {
                let skips = step % 2 == 1;
                net.run_blocks(builder, u16::from(skips), |block| {
                    usize::from(!skips || block < 2 || block == last)
                });
            }
        },
    },
    Variant {
        name: "encoder-and-cache",
        title: "the same, sixteen steps to an image, and a text encoder before each",
        build: |builder, iterations, _| {
            let mut allocator = Allocator::new(Packing::Caching);
            let encoder = LANGUAGE.net(1, 512, Experts::Stacked).place(builder, &mut allocator);
            let net = SMALL.net().place(builder, &mut allocator);
            let last = net.block_count() - 1;
            for step in 0..iterations {
                if step % 16 == 0 {
                    encoder.run(builder, 2);
                }
                let skips = step % 2 == 1;
                net.run_blocks(builder, u16::from(skips), |block| {
                    usize::from(!skips || block < 2 || block == last)
                });
            }
        },
    },
    Variant {
        name: "repeated-blocks",
        title: "blocks 3 and 5 run twice and three times in each step (shared weights)",
        build: |builder, iterations, _| {
            let net = small(builder);
            for _ in 0..iterations {
                net.run_blocks(builder, 0, |block| match block {
                    3 => 2,
                    5 => 3,
                    _ => 1,
                });
            }
        },
    },
    Variant {
        name: "growing-cache",
        title: "a language model whose cache of keys and values grows by a chunk now and then",
        build: growing_cache,
    },
    Variant {
        name: "detours",
        title: "now and then blocks in an order that never repeats, between two steps or within one",
        build: |builder, iterations, random| {
            let net = small(builder);
            for step in 0..iterations {
                let detour = step >= 4 && random.below(4) == 0;
                let at = random.below(net.block_count() as u64) as usize;
                builder.event(Event::Iteration { phase: 0 });
                for block in 0..net.block_count() {
                    if detour && block == at {
                        for _ in 0..2 + random.below(6) {
                            net.run_block(builder, random.below(net.block_count() as u64) as usize);
                        }
                    }
                    net.run_block(builder, block);
                }
            }
        },
    },
    Variant {
        name: "guidance-ends",
        title: "two passes a step up to the middle, one from there on",
        build: |builder, iterations, _| {
            let net = small(builder);
            for step in 0..iterations {
                for _ in 0..if step < iterations / 2 { 2 } else { 1 } {
                    net.run(builder, 0);
                }
                builder.event(Event::Copy { bytes: 4096, to_device: true });
            }
        },
    },
    Variant {
        name: "guidance-adapter",
        title: "two passes a step, the second with an adapter after every other block",
        build: |builder, iterations, _| {
            let net = small(builder);
            let mut adapters = Net::default();
            for _ in 0..net.block_count() {
                adapters.block();
                adapters.linear(1024, 1536, 1536, true);
            }
            let mut allocator = Allocator::new(Packing::Caching);
            let adapters = adapters.place(builder, &mut allocator);
            for _ in 0..iterations {
                net.run(builder, 0);
                builder.event(Event::Iteration { phase: 1 });
                for block in 0..net.block_count() {
                    net.run_block(builder, block);
                    if block % 2 == 0 {
                        adapters.run_block(builder, block);
                    }
                }
            }
        },
    },
    Variant {
        name: "tiled-decoder",
        title: "eight steps, then the decoder over nine tiles, image after image",
        build: |builder, iterations, _| {
            let mut allocator = Allocator::new(Packing::Caching);
            let net = SMALL.net().place(builder, &mut allocator);
            let decoder = vae_decoder(64).place(builder, &mut allocator);
            for _ in 0..iterations.div_ceil(8) {
                for _ in 0..8 {
                    net.run(builder, 0);
                }
                for _ in 0..9 {
                    decoder.run(builder, 1);
                }
                builder.event(Event::HostSync { host_ns: 5_000_000 });
            }
        },
    },
];

/// Twelve blocks, 0.9 GB.
const SMALL: Dit = Dit {
    width: 1536,
    expansion: 4,
    double_blocks: 4,
    single_blocks: 8,
    last_text_ends: false,
    latent: 64,
    text_width: 2048,
    embedders: &[256],
    positions: 0,
    refiner_blocks: 0,
    image_tokens: 1024,
    text_tokens: 128,
    batch: 1,
};

/// Six layers, 0.8 GB with their embedding.
const LANGUAGE: Llama = Llama {
    layers: 6,
    width: 2048,
    key_width: 512,
    feed_forward: 5632,
    vocabulary: 32_000,
    experts: 1,
    used: 1,
};

fn small(builder: &mut Builder) -> Placed {
    SMALL.net().place(builder, &mut Allocator::new(Packing::Caching))
}

/// Every sixteen tokens each layer gets another chunk for its cache; attention
/// reads all of the layer's chunks and writes the last.
fn growing_cache(builder: &mut Builder, iterations: u32, _: &mut Random) {
    let mut allocator = Allocator::new(Packing::Caching);
    let placed = LANGUAGE.net(1, 512, Experts::Stacked).place(builder, &mut allocator);
    let mut caches: Vec<Vec<u32>> = vec![Vec::new(); placed.block_count()];
    for token in 0..iterations {
        builder.event(Event::Iteration { phase: 0 });
        for (block, cache) in caches.iter_mut().enumerate() {
            if token % 16 == 0 {
                let chunk = builder.chunk(2 << 20);
                builder.event(Event::Allocate { chunk });
                cache.push(chunk);
            }
            let last = *cache.last().expect("the first token allocates");
            for (work, uses) in placed.block_launches(block) {
                let is_attention = uses.is_empty() && work.flops > 0;
                if is_attention {
                    let cached: Vec<Use> = cache
                        .iter()
                        .map(|chunk| Use { chunk: *chunk, permille: 1000, writes: *chunk == last })
                        .collect();
                    builder.launch(Launch { ..*work }, &cached);
                } else {
                    builder.launch(*work, uses);
                }
            }
        }
        token_end(builder);
    }
}
