//! Stream capture: beginning, ending, and asking about it.

use crate::abi::{Handle, Outcome};
use crate::edge::Out;
use crate::engine::gpu::{self, DefaultStream};

pub fn is_capturing(default: DefaultStream, stream: Handle, out: Out<i32>) -> Outcome {
    let mut session = gpu::lock()?;
    let stream = session.resolve(stream, default)?;
    out.set(i32::from(session.is_capturing(stream)?))
}

/// Exchanges the calling thread's mode with `mode`.
pub fn exchange_mode(mode: Out<i32>) -> Outcome {
    gpu::gpu()?;
    mode.set(crate::engine::capture::exchange_thread_mode(mode.get()?)?)
}
