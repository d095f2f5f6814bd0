//! Events. The creation and record flags have the same values in both APIs.

use crate::abi::Handle;
use crate::{api, context};

api! {
    fn cudaEventCreate(event: *mut Handle) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuEventCreate(event, 0) }
    }

    fn cudaEventCreateWithFlags(event: *mut Handle, flags: u32) {
        // SAFETY: the caller's pointer.
        unsafe { context::bind()?.cuEventCreate(event, flags) }
    }

    fn cudaEventDestroy(event: Handle) {
        // SAFETY: the caller's event, not used afterwards.
        unsafe { context::bind()?.cuEventDestroy(event) }
    }

    fn cudaEventRecord(event: Handle, stream: Handle) {
        // SAFETY: the caller's event and stream.
        unsafe { context::bind()?.cuEventRecord(event, stream) }
    }

    fn cudaEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        // SAFETY: the caller's event and stream.
        unsafe { context::bind()?.cuEventRecordWithFlags(event, stream, flags) }
    }

    /// "Not ready" is an error code here, and so becomes the last error.
    fn cudaEventQuery(event: Handle) {
        // SAFETY: the caller's event.
        unsafe { context::bind()?.cuEventQuery(event) }
    }

    fn cudaEventSynchronize(event: Handle) {
        // SAFETY: the caller's event.
        unsafe { context::bind()?.cuEventSynchronize(event) }
    }

    fn cudaEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) {
        // SAFETY: the caller's events and pointer.
        unsafe { context::bind()?.cuEventElapsedTime(milliseconds, start, end) }
    }
}
