//! Language models.

use super::net::Net;

/// A decoder with grouped queries and a gated feed-forward part.
pub struct Llama {
    pub layers: u64,
    pub width: u64,
    pub key_width: u64,
    pub feed_forward: u64,
    pub vocabulary: u64,
    /// Mixture: experts a layer, and how many of them a token uses. One of
    /// one: a plain feed-forward part.
    pub experts: u64,
    pub used: u64,
}

/// Llama 3 8B: 8.03 B parameters.
pub const LLAMA3_8B: Llama = Llama {
    layers: 32,
    width: 4096,
    key_width: 1024,
    feed_forward: 14_336,
    vocabulary: 128_256,
    experts: 1,
    used: 1,
};

/// Llama 3 70B: 70.6 B parameters.
pub const LLAMA3_70B: Llama = Llama {
    layers: 80,
    width: 8192,
    key_width: 1024,
    feed_forward: 28_672,
    vocabulary: 128_256,
    experts: 1,
    used: 1,
};

/// Mixtral 8x7B: 46.7 B parameters, two of eight experts a token.
pub const MIXTRAL: Llama = Llama {
    layers: 32,
    width: 4096,
    key_width: 1024,
    feed_forward: 14_336,
    vocabulary: 32_000,
    experts: 8,
    used: 2,
};

/// How the experts of a layer lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experts {
    /// Each matrix a tensor of its own: each expert is a block.
    Apart,
    /// All experts of a layer in two tensors, read by grouped products.
    Stacked,
}

impl Llama {
    /// One pass over `rows` new tokens after `past` old ones.
    ///
    /// With [`Experts::Apart`] the blocks are, layer by layer, the attention
    /// with the router and then each expert (`1 + experts` blocks a layer), and
    /// at the end the head; otherwise a layer is a block.
    pub fn net(&self, rows: u64, past: u64, experts: Experts) -> Net {
        let (d, ff) = (self.width, self.feed_forward);
        let mut net = Net::default();
        net.embedding(rows, self.vocabulary, d);
        for _ in 0..self.layers {
            net.block();
            net.norm(rows, d, false);
            net.linear(rows, d, d, false);
            net.linear(rows, d, self.key_width, false);
            net.linear(rows, d, self.key_width, false);
            net.elementwise(rows * d, 4);
            net.attention(1, rows, past + rows, d, self.key_width);
            net.linear(rows, d, d, false);
            net.elementwise(rows * d, 1);
            net.norm(rows, d, false);
            if self.experts == 1 {
                gated(&mut net, rows, d, ff);
            } else {
                net.linear(rows, d, self.experts, false);
                net.elementwise(rows * self.experts, 4);
                let routed = rows * self.used;
                match experts {
                    Experts::Apart => {
                        for _ in 0..self.experts {
                            net.block();
                            gated(&mut net, routed.div_ceil(self.used), d, ff);
                        }
                    }
                    Experts::Stacked => {
                        net.stacked(routed, d, 2 * ff, self.experts, self.used);
                        net.elementwise(routed * ff, 2);
                        net.stacked(routed, ff, d, self.experts, self.used);
                        net.elementwise(routed * d, 1);
                    }
                }
            }
        }
        if experts == Experts::Apart {
            net.block();
        }
        net.norm(rows, d, false);
        // Only the last token's logits are wanted.
        net.linear(1, d, self.vocabulary, false);
        net.elementwise(self.vocabulary, 2);
        net
    }

    /// The cache of keys and values of `tokens`, four buffers of the widest
    /// intermediate for `rows` tokens, the logits in single precision, and half
    /// a gigabyte for the context and workspaces.
    pub fn activation_bytes(&self, rows: u64, tokens: u64) -> u64 {
        let cache = 2 * self.layers * self.key_width * tokens * 2;
        (512 << 20) + cache + 4 * rows * self.feed_forward * 2 + self.vocabulary * 4
    }
}

fn gated(net: &mut Net, rows: u64, d: u64, ff: u64) {
    net.linear(rows, d, ff, false);
    net.linear(rows, d, ff, false);
    net.elementwise(rows * ff, 2);
    net.linear(rows, ff, d, false);
    net.elementwise(rows * d, 1);
}

/// Sixteen layers of 500 matrices of 512 × 512 (adapters, hash grids, many
/// small heads): 4.2 GB in tensors of half a MiB, over 4096 rows.
pub fn tiny_tensors() -> Net {
    let mut net = Net::default();
    for _ in 0..16 {
        net.block();
        for _ in 0..500 {
            net.linear(4096, 512, 512, false);
        }
    }
    net
}
