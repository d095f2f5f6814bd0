//! Stream capture: streams whose work becomes nodes of a graph.

use super::gpu::Session;
use super::submit::Submitted;
use super::work::Work;
use crate::abi::{Handle, Outcome, STREAM_CAPTURE_UNSUPPORTED};

impl Session {
    /// Queues work on a stream or, if that captures, adds it to the graph.
    pub fn enqueue(&mut self, stream: Handle, work: Work) -> Outcome<Option<Submitted>> {
        self.submit(stream, work).map(Some)
    }

    pub fn is_capturing(&self, stream: Handle) -> Outcome<bool> {
        Ok(self.stream(stream)?.capture.is_some())
    }

    pub fn forbid_on_capturing(&self, stream: Handle) -> Outcome {
        if self.is_capturing(stream)? { Err(STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    pub fn forbid_while_capturing(&self, _context: Handle) -> Outcome {
        Ok(())
    }

    pub fn forbid_unsafe_call(&self) -> Outcome {
        Ok(())
    }

    pub fn invalidate_capture(&mut self, _capture: Handle) {}

    pub fn capture_wait(&mut self, _stream: Handle, _event: Handle) -> Outcome<bool> {
        Ok(false)
    }

    pub fn capture_record(&mut self, _stream: Handle, _event: Handle, _external: bool) -> Outcome<bool> {
        Ok(false)
    }

    pub fn capture_alloc(&mut self, _stream: Handle, _pool: Handle, _bytes: u64) -> Outcome<Option<u64>> {
        Ok(None)
    }

    pub fn capture_free(&mut self, _stream: Handle, _address: u64) -> Outcome<bool> {
        Ok(false)
    }
}

thread_local! {
    /// `CUstreamCaptureMode` of the calling thread: 0 global, 1 thread-local, 2 relaxed.
    static THREAD_MODE: std::cell::Cell<i32> = const { std::cell::Cell::new(0) };
}

/// Sets the calling thread's mode and returns the one before.
pub fn exchange_thread_mode(mode: i32) -> Outcome<i32> {
    if !(0..=2).contains(&mode) {
        return Err(crate::abi::INVALID_VALUE);
    }
    Ok(THREAD_MODE.replace(mode))
}
