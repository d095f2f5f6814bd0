//! Video transformers whose text enters by cross-attention. (HunyuanVideo has
//! the shape of the image models and stands with them.)

use super::net::Net;

/// One expert of Wan 2.2 A14B (text to video), 81 frames of 480 × 832: 14.3 B
/// parameters each. 40 layers, width 5120, feed-forward 13824, text of 512
/// tokens, 4096 wide. 21 latent frames of 30 × 52 patches.
pub mod wan {
    use super::Net;

    const WIDTH: u64 = 5120;
    const FEED_FORWARD: u64 = 13_824;
    const LAYERS: u64 = 40;
    const TEXT: u64 = 512;
    const ROWS: u64 = 21 * 30 * 52;

    /// Ten buffers of the tokens' width and two of the feed-forward part, plus
    /// a gigabyte for the context, workspaces and latents.
    pub const ACTIVATION_BYTES: u64 = (1 << 30) + ROWS * (10 * WIDTH + 2 * FEED_FORWARD) * 2;

    pub fn expert() -> Net {
        let d = WIDTH;
        let mut net = Net::default();
        // Patches of 1 × 2 × 2 over 16 latent channels.
        net.linear(ROWS, 64, d, true);
        net.linear(TEXT, 4096, d, true);
        net.linear(TEXT, d, d, true);
        net.linear(1, 256, d, true);
        net.linear(1, d, d, true);
        net.linear(1, d, 6 * d, true);
        for _ in 0..LAYERS {
            net.block();
            net.parameter(6 * d, 6, d);
            net.elementwise(ROWS * d, 2);
            for _ in 0..3 {
                net.linear(ROWS, d, d, true);
            }
            net.norm(ROWS, d, false);
            net.norm(ROWS, d, false);
            net.elementwise(ROWS * d, 2);
            net.attention(1, ROWS, ROWS, d, d);
            net.linear(ROWS, d, d, true);
            net.elementwise(ROWS * d, 1);
            net.norm(ROWS, d, true);
            net.linear(ROWS, d, d, true);
            net.linear(TEXT, d, d, true);
            net.linear(TEXT, d, d, true);
            net.norm(ROWS, d, false);
            net.norm(TEXT, d, false);
            net.attention(1, ROWS, TEXT, d, d);
            net.linear(ROWS, d, d, true);
            net.elementwise(ROWS * d, 3);
            net.linear(ROWS, d, FEED_FORWARD, true);
            net.elementwise(ROWS * FEED_FORWARD, 1);
            net.linear(ROWS, FEED_FORWARD, d, true);
            net.elementwise(ROWS * d, 1);
        }
        net.elementwise(ROWS * d, 2);
        net.linear(ROWS, d, 64, true);
        net
    }
}

/// LTX-2, 121 frames of 768 × 1216 with five seconds of sound: 19 B parameters
/// in two streams of very unequal size. 48 layers; video 4096 wide over
/// 16 × 24 × 38 tokens, audio 2048 wide over 126; each layer attends within,
/// to the text, and to the other stream (2048 wide), and feeds forward.
pub mod ltx2 {
    use super::Net;

    const LAYERS: u64 = 48;
    const VIDEO: u64 = 4096;
    const AUDIO: u64 = 2048;
    const TEXT_WIDTH: u64 = 3840;
    const VIDEO_ROWS: u64 = 16 * 24 * 38;
    const AUDIO_ROWS: u64 = 126;
    const TEXT: u64 = 1024;

    /// Ten buffers of the video stream's width and two of its feed-forward
    /// part, plus a gigabyte for the context, workspaces and latents.
    pub const ACTIVATION_BYTES: u64 = (1 << 30) + VIDEO_ROWS * VIDEO * 18 * 2;

    pub fn net() -> Net {
        let mut net = Net::default();
        for (rows, d) in [(VIDEO_ROWS, VIDEO), (AUDIO_ROWS, AUDIO)] {
            net.linear(rows, 128, d, true);
            net.linear(TEXT, TEXT_WIDTH, d, true);
            net.linear(TEXT, d, d, true);
            net.linear(1, 256, d, true);
            net.linear(1, d, d, true);
            net.linear(1, d, 6 * d, true);
        }
        for _ in 0..LAYERS {
            net.block();
            for (rows, d) in [(VIDEO_ROWS, VIDEO), (AUDIO_ROWS, AUDIO)] {
                net.parameter(6 * d, 6, d);
                attend(&mut net, (rows, d), (rows, d), d);
            }
            for (rows, d) in [(VIDEO_ROWS, VIDEO), (AUDIO_ROWS, AUDIO)] {
                attend(&mut net, (rows, d), (TEXT, d), d);
            }
            attend(&mut net, (VIDEO_ROWS, VIDEO), (AUDIO_ROWS, AUDIO), AUDIO);
            attend(&mut net, (AUDIO_ROWS, AUDIO), (VIDEO_ROWS, VIDEO), AUDIO);
            for (rows, d) in [(VIDEO_ROWS, VIDEO), (AUDIO_ROWS, AUDIO)] {
                net.elementwise(rows * d, 2);
                net.linear(rows, d, 4 * d, true);
                net.elementwise(rows * 4 * d, 1);
                net.linear(rows, 4 * d, d, true);
                net.elementwise(rows * d, 1);
            }
        }
        for (rows, d) in [(VIDEO_ROWS, VIDEO), (AUDIO_ROWS, AUDIO)] {
            net.elementwise(rows * d, 2);
            net.linear(rows, d, 128, true);
        }
        net
    }

    /// Queries of one stream to the keys of another (rows, width), the heads
    /// together `inner` wide.
    fn attend(net: &mut Net, queries: (u64, u64), keys: (u64, u64), inner: u64) {
        net.elementwise(queries.0 * queries.1, 2);
        net.linear(queries.0, queries.1, inner, true);
        net.linear(keys.0, keys.1, inner, true);
        net.linear(keys.0, keys.1, inner, true);
        net.norm(queries.0, inner, false);
        net.norm(keys.0, inner, false);
        net.attention(1, queries.0, keys.0, inner, inner);
        net.linear(queries.0, inner, queries.1, true);
        net.elementwise(queries.0 * queries.1, 1);
    }
}
