//! Streams, and the operations on memory that they perform themselves.

use std::ffi::{c_uint, c_void};

use super::touches::{Touches, ordered};
use super::{Call, graphs, retry_when_out_of_memory};
use crate::driver::abi::*;
use crate::engine::{self, Touch};

/// Hook for `cuStreamDestroy(_v2)`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn destroy(_call: Call, forward: impl Fn() -> CuResult, stream: CUstream) -> CuResult {
    engine::stream_destroyed(stream);
    let code = forward();
    if code.is_success() {
        graphs::stream_destroyed(stream);
    }
    code
}

/// A word that streams, hosts or other devices poll must not move: its chunk
/// stays resident.
fn on_words(
    stream: CUstream,
    addresses: impl Iterator<Item = DevicePtr>,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    const WORD_BYTES: usize = 8;
    let mut touches = Touches::new();
    for address in addresses {
        if let Some(chunk) = engine::chunk_of(address) {
            if let Err(code) = engine::pin_for_good(chunk, "stream memory operations") {
                return code;
            }
            touches.add(address, Touch::DeviceWrite { bytes: WORD_BYTES });
        }
    }
    engine::stream_blocks(stream);
    let code = ordered(stream, &touches, forward);
    if code.is_success() {
        engine::stream_blocked(stream);
    }
    code
}

/// Hook for `cuLaunchHostFunc` and `cuStreamAddCallback`: the stream waits for
/// the host.
fn on_host(stream: CUstream, forward: impl Fn() -> CuResult) -> CuResult {
    engine::stream_blocks(stream);
    let code = retry_when_out_of_memory(forward);
    if code.is_success() {
        engine::stream_blocked(stream);
    }
    code
}

macro_rules! host_calls {
    ($( $hook:ident ( $( $arg:ident : $ty:ty ),* ); )*) => { $(
        /// # Safety
        /// As cuda.h asks.
        pub unsafe fn $hook(
            call: Call,
            forward: impl Fn() -> CuResult,
            stream: CUstream,
            $( $arg: $ty ),*
        ) -> CuResult {
            $( let _ = $arg; )*
            on_host(call.stream(stream), forward)
        }
    )* };
}

host_calls! {
    host_func(function: *mut c_void, data: *mut c_void);
    host_func_v2(function: *mut c_void, data: *mut c_void, mode: c_uint);
    add_callback(callback: *mut c_void, data: *mut c_void, flags: c_uint);
}

/// Hook for `cuStreamWaitEvent`: it may join a capture, or wait for a stream
/// that is held up.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn wait_event(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    _event: CUevent,
    _flags: c_uint,
) -> CuResult {
    let code = engine::stream_joins(call.stream(stream), forward);
    if code.is_success() {
        engine::stream_waited(call.stream(stream));
    }
    code
}

/// Hook for `cuStreamWriteValue32_v2` and `cuStreamWaitValue32_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn value32(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    address: DevicePtr,
    _value: c_uint,
    _flags: c_uint,
) -> CuResult {
    on_words(call.stream(stream), std::iter::once(address), forward)
}

/// Hook for `cuStreamWriteValue64_v2` and `cuStreamWaitValue64_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn value64(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    address: DevicePtr,
    _value: u64,
    _flags: c_uint,
) -> CuResult {
    on_words(call.stream(stream), std::iter::once(address), forward)
}

/// Hook for `cuStreamBatchMemOp_v2`.
///
/// # Safety
/// As cuda.h asks.
pub unsafe fn batch_mem_op(
    call: Call,
    forward: impl Fn() -> CuResult,
    stream: CUstream,
    count: c_uint,
    ops: *mut c_void,
    _flags: c_uint,
) -> CuResult {
    // SAFETY: the caller's promise.
    on_words(call.stream(stream), unsafe { words_of_batch(ops, count) }, forward)
}

/// The addresses that a batch of stream memory operations names.
///
/// # Safety
/// `ops` is null or has `count` entries.
pub unsafe fn words_of_batch(ops: *const c_void, count: c_uint) -> impl Iterator<Item = DevicePtr> {
    /// A CUstreamBatchMemOpParams is a union of six 64-bit words; the second
    /// is the address in every operation that has one.
    const WORDS: usize = 6;
    let ops = ops.cast::<[u64; WORDS]>();
    let count = if ops.is_null() { 0 } else { count as usize };
    // SAFETY: the caller's promise.
    (0..count).map(move |i| unsafe { (*ops.add(i))[1] })
}
