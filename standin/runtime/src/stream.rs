//! Streams, host callbacks in them, and capture.

use std::ffi::c_void;

use crate::abi::{Handle, Status};
use crate::{api, context};

api! {
    fn cudaStreamCreate(stream: *mut Handle) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuStreamCreate(stream, 0) }
    }

    fn cudaStreamCreateWithFlags(stream: *mut Handle, flags: u32) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuStreamCreate(stream, flags) }
    }

    fn cudaStreamCreateWithPriority(stream: *mut Handle, flags: u32, priority: i32) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuStreamCreateWithPriority(stream, flags, priority) }
    }

    fn cudaStreamDestroy(stream: Handle) {
        // SAFETY: the caller's stream, not used afterwards.
        unsafe { context::bind()?.cuStreamDestroy(stream) }
    }

    fn cudaStreamGetPriority(stream: Handle, priority: *mut i32) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuStreamGetPriority(stream, priority) }
    }

    /// "Not ready" is an error code here, and so becomes the last error.
    fn cudaStreamQuery(stream: Handle) {
        // SAFETY: the caller's stream.
        unsafe { context::bind()?.cuStreamQuery(stream) }
    }

    fn cudaStreamSynchronize(stream: Handle) {
        // SAFETY: the caller's stream.
        unsafe { context::bind()?.cuStreamSynchronize(stream) }
    }

    fn cudaStreamWaitEvent(stream: Handle, event: Handle, flags: u32) {
        // SAFETY: the caller's stream and event.
        unsafe { context::bind()?.cuStreamWaitEvent(stream, event, flags) }
    }

    /// The callback's arguments have the same layout in both APIs.
    fn cudaStreamAddCallback(stream: Handle, callback: *mut c_void, data: *mut c_void, flags: u32) {
        if callback.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller's callback and data.
        unsafe { context::bind()?.cuStreamAddCallback(stream, callback, data, flags) }
    }

    fn cudaLaunchHostFunc(stream: Handle, function: *mut c_void, data: *mut c_void) {
        if function.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller's function and data.
        unsafe { context::bind()?.cuLaunchHostFunc(stream, function, data) }
    }

    fn cudaStreamBeginCapture(stream: Handle, mode: i32) {
        // SAFETY: the caller's stream.
        unsafe { context::bind()?.cuStreamBeginCapture(stream, mode) }
    }

    fn cudaStreamEndCapture(stream: Handle, graph: *mut Handle) {
        // SAFETY: the caller's stream and pointer.
        unsafe { context::bind()?.cuStreamEndCapture(stream, graph) }
    }

    fn cudaStreamIsCapturing(stream: Handle, status: *mut i32) {
        // SAFETY: the caller's stream and pointer.
        unsafe { context::bind()?.cuStreamIsCapturing(stream, status) }
    }

    /// The form of CUDA 13, with edge data.
    fn cudaStreamGetCaptureInfo(
        stream: Handle,
        status: *mut i32,
        id: *mut u64,
        graph: *mut Handle,
        dependencies: *mut *const Handle,
        edges: *mut *const c_void,
        count: *mut usize,
    ) {
        let driver = context::bind()?;
        // SAFETY: the caller's stream; each pointer is the caller's or null.
        unsafe { driver.cuStreamGetCaptureInfo(stream, status, id, graph, dependencies, edges, count) }
    }

    fn cudaThreadExchangeStreamCaptureMode(mode: *mut i32) {
        // SAFETY: the caller's pointer.
        unsafe { context::init()?.cuThreadExchangeStreamCaptureMode(mode) }
    }
}
