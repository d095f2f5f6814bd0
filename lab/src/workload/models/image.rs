//! Image models: transformers with two streams, a UNet, the decoder after them,
//! and the text encoder before.
//!
//! Dimensions are those of the published configurations (diffusers'
//! `transformer/config.json`, `unet/config.json`, and the models' reports).

use super::net::Net;

/// A transformer whose blocks keep image and text apart, followed by blocks
/// that do not.
pub struct Dit {
    pub width: u64,
    /// Of the feed-forward part, as a multiple of `width`.
    pub expansion: u64,
    pub double_blocks: u64,
    pub single_blocks: u64,
    /// In the last double block the text stream ends with its keys and values.
    pub last_text_ends: bool,
    /// Width of the latent patches and of the text encoder's output.
    pub latent: u64,
    pub text_width: u64,
    /// Small networks of two matrices that embed time, guidance, pooled text:
    /// the width of their inputs.
    pub embedders: &'static [u64],
    /// Elements of a stored position table.
    pub positions: u64,
    /// Blocks of the same width that refine the text first.
    pub refiner_blocks: u64,
    /// Tokens of one sample.
    pub image_tokens: u64,
    pub text_tokens: u64,
    pub batch: u64,
}

/// FLUX.1-dev, 1024²: 11.9 B parameters. Guidance is distilled: one pass a step.
pub const FLUX: Dit = Dit {
    width: 3072,
    expansion: 4,
    double_blocks: 19,
    single_blocks: 38,
    last_text_ends: false,
    latent: 64,
    text_width: 4096,
    embedders: &[256, 256, 768],
    positions: 0,
    refiner_blocks: 0,
    image_tokens: 4096,
    text_tokens: 512,
    batch: 1,
};

/// Stable Diffusion 3.5 Large, 1024²: 8.1 B parameters, guidance as a batch of two.
pub const SD35_LARGE: Dit = Dit {
    width: 2432,
    expansion: 4,
    double_blocks: 38,
    single_blocks: 0,
    last_text_ends: true,
    latent: 64,
    text_width: 4096,
    embedders: &[256, 2048],
    positions: 192 * 192 * 2432,
    refiner_blocks: 0,
    image_tokens: 4096,
    text_tokens: 333,
    batch: 2,
};

/// Qwen-Image, 1024²: 20.4 B parameters, guidance as two passes a step.
pub const QWEN_IMAGE: Dit = Dit {
    width: 3072,
    expansion: 4,
    double_blocks: 60,
    single_blocks: 0,
    last_text_ends: false,
    latent: 64,
    text_width: 3584,
    embedders: &[256],
    positions: 0,
    refiner_blocks: 0,
    image_tokens: 4096,
    text_tokens: 128,
    batch: 1,
};

/// HunyuanVideo, 129 frames of 544 × 960: 12.8 B parameters; guidance is
/// distilled. 33 latent frames of 34 × 60 patches.
pub const HUNYUAN_VIDEO: Dit = Dit {
    width: 3072,
    expansion: 4,
    double_blocks: 20,
    single_blocks: 40,
    last_text_ends: false,
    latent: 64,
    text_width: 4096,
    embedders: &[256, 256, 768],
    positions: 0,
    refiner_blocks: 2,
    image_tokens: 33 * 34 * 60,
    text_tokens: 256,
    batch: 1,
};

impl Dit {
    pub fn net(&self) -> Net {
        let mut net = Net::default();
        let (d, batch) = (self.width, self.batch);
        let (image, text) = (batch * self.image_tokens, batch * self.text_tokens);
        if self.positions > 0 {
            net.parameter(self.positions, image, d);
        }
        net.linear(image, self.latent, d, true);
        for inputs in self.embedders {
            net.linear(batch, *inputs, d, true);
            net.linear(batch, d, d, true);
        }
        net.linear(text, self.text_width, d, true);
        for _ in 0..self.refiner_blocks {
            net.linear(batch, d, 2 * d, true);
            self.attend(&mut net, &[text], self.text_tokens);
            self.feed_forward(&mut net, text);
        }
        for block in 0..self.double_blocks {
            net.block();
            let text_ends = self.last_text_ends && block + 1 == self.double_blocks;
            net.linear(batch, d, 6 * d, true);
            net.linear(batch, d, if text_ends { 2 * d } else { 6 * d }, true);
            let tokens = self.image_tokens + self.text_tokens;
            net.elementwise((image + text) * d, 3);
            for rows in [image, text] {
                for _ in 0..3 {
                    net.linear(rows, d, d, true);
                }
            }
            net.elementwise((image + text) * d, 4);
            net.attention(batch, tokens, tokens, d, d);
            net.linear(image, d, d, true);
            if !text_ends {
                net.linear(text, d, d, true);
            }
            self.feed_forward(&mut net, image);
            if !text_ends {
                self.feed_forward(&mut net, text);
            }
        }
        for _ in 0..self.single_blocks {
            net.block();
            let rows = image + text;
            let tokens = self.image_tokens + self.text_tokens;
            net.linear(batch, d, 3 * d, true);
            net.elementwise(rows * d, 2);
            net.linear(rows, d, self.expansion * d, true);
            net.elementwise(rows * self.expansion * d, 1);
            for _ in 0..3 {
                net.linear(rows, d, d, true);
            }
            net.elementwise(rows * d, 4);
            net.attention(batch, tokens, tokens, d, d);
            net.elementwise(rows * (self.expansion + 1) * d, 1);
            net.linear(rows, (self.expansion + 1) * d, d, true);
            net.elementwise(rows * d, 2);
        }
        net.linear(batch, d, 2 * d, true);
        net.elementwise(image * d, 2);
        net.linear(image, d, self.latent, true);
        net
    }

    /// Attention among the `tokens` of each sample, projections included.
    fn attend(&self, net: &mut Net, streams: &[u64], tokens: u64) {
        let d = self.width;
        for rows in streams {
            net.elementwise(rows * d, 3);
            for _ in 0..3 {
                net.linear(*rows, d, d, true);
            }
        }
        net.attention(self.batch, tokens, tokens, d, d);
        for rows in streams {
            net.linear(*rows, d, d, true);
        }
    }

    fn feed_forward(&self, net: &mut Net, rows: u64) {
        let d = self.width;
        net.elementwise(rows * d, 4);
        net.linear(rows, d, self.expansion * d, true);
        net.elementwise(rows * self.expansion * d, 1);
        net.linear(rows, self.expansion * d, d, true);
        net.elementwise(rows * d, 2);
    }

    /// What lies beside the weights at the peak, by count of buffers: eight of
    /// the width of the tokens and two of the feed-forward part, plus half a
    /// gigabyte for the context, workspaces and latents.
    pub fn activation_bytes(&self) -> u64 {
        let rows = self.batch * (self.image_tokens + self.text_tokens);
        (512 << 20) + rows * self.width * (8 + 2 * self.expansion) * 2
    }
}

/// The SDXL UNet at 1024² (latents of 128²), guidance as a batch of two:
/// 2.57 B parameters. Channels 320, 640, 1280; transformers of 0, 2 and 10
/// layers on the three levels; text of 77 tokens, 2048 wide.
pub mod sdxl {
    use super::Net;

    const BATCH: u64 = 2;
    const CHANNELS: [u64; 3] = [320, 640, 1280];
    const LAYERS: [u64; 3] = [0, 2, 10];
    const SIDE: [u64; 3] = [128, 64, 32];
    const TIME: u64 = 1280;
    const TEXT: u64 = 77;
    const TEXT_WIDTH: u64 = 2048;

    pub const ACTIVATION_BYTES: u64 = 1 << 30;

    pub fn net() -> Net {
        let mut net = Net::default();
        net.linear(BATCH, 320, TIME, true);
        net.linear(BATCH, TIME, TIME, true);
        net.linear(BATCH, 2816, TIME, true);
        net.linear(BATCH, TIME, TIME, true);
        net.conv(pixels(0), 4, CHANNELS[0], 3);
        // What the way down leaves for the way up.
        let mut skips = vec![CHANNELS[0]];
        let mut inputs = CHANNELS[0];
        for (level, channels) in CHANNELS.into_iter().enumerate() {
            for _ in 0..2 {
                net.block();
                residual(&mut net, level, inputs);
                transformer(&mut net, level);
                inputs = channels;
                skips.push(inputs);
            }
            if level < 2 {
                net.conv(pixels(level + 1), inputs, inputs, 3);
                skips.push(inputs);
            }
        }
        // The middle is registered last.
        net.section(2);
        net.block();
        residual(&mut net, 2, inputs);
        transformer(&mut net, 2);
        residual(&mut net, 2, inputs);
        net.section(1);
        for level in (0..3).rev() {
            for _ in 0..3 {
                net.block();
                let skip = skips.pop().expect("as many ways up as down");
                residual(&mut net, level, inputs + skip);
                transformer(&mut net, level);
                inputs = CHANNELS[level];
            }
            if level > 0 {
                net.conv(pixels(level - 1), inputs, inputs, 3);
            }
        }
        net.section(3);
        net.norm(pixels(0), inputs, true);
        net.conv(pixels(0), inputs, 4, 3);
        net
    }

    fn pixels(level: usize) -> u64 {
        BATCH * SIDE[level] * SIDE[level]
    }

    fn residual(net: &mut Net, level: usize, inputs: u64) {
        let (outputs, pixels) = (CHANNELS[level], pixels(level));
        net.norm(pixels, inputs, true);
        net.elementwise(pixels * inputs, 2);
        net.conv(pixels, inputs, outputs, 3);
        net.linear(BATCH, TIME, outputs, true);
        net.norm(pixels, outputs, true);
        net.elementwise(pixels * outputs, 3);
        net.conv(pixels, outputs, outputs, 3);
        if inputs != outputs {
            net.conv(pixels, inputs, outputs, 1);
        }
        net.elementwise(pixels * outputs, 1);
    }

    fn transformer(net: &mut Net, level: usize) {
        let (d, rows) = (CHANNELS[level], pixels(level));
        let tokens = rows / BATCH;
        if LAYERS[level] == 0 {
            return;
        }
        net.norm(rows, d, true);
        net.linear(rows, d, d, true);
        for _ in 0..LAYERS[level] {
            net.norm(rows, d, true);
            for _ in 0..3 {
                net.linear(rows, d, d, false);
            }
            net.attention(BATCH, tokens, tokens, d, d);
            net.linear(rows, d, d, true);
            net.norm(rows, d, true);
            net.linear(rows, d, d, false);
            net.linear(BATCH * TEXT, TEXT_WIDTH, d, false);
            net.linear(BATCH * TEXT, TEXT_WIDTH, d, false);
            net.attention(BATCH, tokens, TEXT, d, d);
            net.linear(rows, d, d, true);
            net.norm(rows, d, true);
            net.linear(rows, d, 8 * d, true);
            net.elementwise(rows * 4 * d, 2);
            net.linear(rows, 4 * d, d, true);
            net.elementwise(rows * d, 3);
        }
        net.linear(rows, d, d, true);
        net.elementwise(rows * d, 2);
    }
}

/// T5-XXL's encoder over 512 tokens: 4.76 B parameters. 24 layers, width 4096,
/// 64 heads of 64, gated feed-forward of 10240, vocabulary of 32128.
pub fn t5_xxl() -> Net {
    let (d, ff, rows) = (4096, 10_240, 512);
    let mut net = Net::default();
    net.embedding(rows, 32_128, d);
    for _ in 0..24 {
        net.block();
        net.norm(rows, d, false);
        for _ in 0..3 {
            net.linear(rows, d, d, false);
        }
        net.attention(1, rows, rows, d, d);
        net.linear(rows, d, d, false);
        net.norm(rows, d, false);
        net.linear(rows, d, ff, false);
        net.linear(rows, d, ff, false);
        net.elementwise(rows * ff, 2);
        net.linear(rows, ff, d, false);
        net.elementwise(rows * d, 2);
    }
    net.norm(rows, d, false);
    net
}

/// The decoder of FLUX's autoencoder for latents of `side`²: 49.5 M parameters.
/// Channels 512, 512, 256, 128, three residual pairs a level.
pub fn vae_decoder(side: u64) -> Net {
    const CHANNELS: [u64; 4] = [512, 512, 256, 128];
    let mut net = Net::default();
    let mut pixels = side * side;
    let mut inputs = CHANNELS[0];
    fn residual(net: &mut Net, pixels: u64, inputs: u64, outputs: u64) {
        net.norm(pixels, inputs, true);
        net.elementwise(pixels * inputs, 1);
        net.conv(pixels, inputs, outputs, 3);
        net.norm(pixels, outputs, true);
        net.elementwise(pixels * outputs, 1);
        net.conv(pixels, outputs, outputs, 3);
        if inputs != outputs {
            net.conv(pixels, inputs, outputs, 1);
        }
        net.elementwise(pixels * outputs, 1);
    }
    net.conv(pixels, 16, inputs, 3);
    residual(&mut net, pixels, inputs, inputs);
    net.norm(pixels, inputs, true);
    for _ in 0..3 {
        net.linear(pixels, inputs, inputs, true);
    }
    net.attention(1, pixels, pixels, inputs, inputs);
    net.linear(pixels, inputs, inputs, true);
    residual(&mut net, pixels, inputs, inputs);
    for (level, outputs) in CHANNELS.into_iter().enumerate() {
        net.block();
        for _ in 0..3 {
            residual(&mut net, pixels, inputs, outputs);
            inputs = outputs;
        }
        if level < 3 {
            pixels *= 4;
            net.elementwise(pixels * inputs, 1);
            net.conv(pixels, inputs, inputs, 3);
        }
    }
    net.norm(pixels, inputs, true);
    net.conv(pixels, inputs, 3, 3);
    net
}

/// Peak of the decoder at 1024²: three buffers of 256 channels at full size,
/// plus half a gigabyte for the context and workspaces.
pub const VAE_ACTIVATION_BYTES: u64 = (512 << 20) + 3 * 256 * 1024 * 1024 * 2;
