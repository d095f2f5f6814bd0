//! The driver's C types, as this library uses them.
//!
//! Struct layouts and opaque handle types are cudarc's; result codes and every
//! enum that *arrives* from outside are open integers here, because a value
//! that a newer driver or program may invent must never be read as a Rust enum.
//! Not here: the functions (see `original`) and what we do with them.

use std::ffi::c_int;

pub use cudarc::driver::sys::{
    CUDA_LAUNCH_PARAMS, CUDA_MEMCPY2D, CUDA_MEMCPY3D, CUDA_MEMCPY3D_PEER, CUcontext, CUevent,
    CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUkernel, CUlaunchConfig, CUlibrary,
    CUmemAccessDesc, CUmemAllocationProp, CUmemoryPool, CUmodule, CUstream,
};

/// A device ordinal (`CUdevice`).
pub type Device = c_int;
/// A device address (`CUdeviceptr`).
pub type DevicePtr = u64;
/// A physical allocation (`CUmemGenericAllocationHandle`).
pub type MemHandle = u64;

/// A `CUresult`. Open: codes we have no name for pass through unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
#[must_use]
pub struct CuResult(pub c_int);

impl CuResult {
    pub const SUCCESS: Self = Self(0);
    pub const INVALID_VALUE: Self = Self(1);
    pub const NOT_FOUND: Self = Self(500);
    pub const OUT_OF_MEMORY: Self = Self(2);
    pub const NOT_INITIALIZED: Self = Self(3);
    /// The driver is shutting down: stop silently.
    pub const DEINITIALIZED: Self = Self(4);
    pub const NO_DEVICE: Self = Self(100);
    pub const NOT_READY: Self = Self(600);
    pub const INVALID_CONTEXT: Self = Self(201);
    pub const ILLEGAL_ADDRESS: Self = Self(700);
    pub const NOT_SUPPORTED: Self = Self(801);
    pub const UNKNOWN: Self = Self(999);
    pub const STREAM_CAPTURE_UNSUPPORTED: Self = Self(900);

    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// `Ok(())` on success, the code itself otherwise, for `?`.
    pub const fn ok(self) -> Result<()> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Debug for CuResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CUDA error {}", self.0)
    }
}

impl std::fmt::Display for CuResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What most calls of [`super::Driver`] answer.
pub type Result<T> = std::result::Result<T, CuResult>;

/// The stream handles with a fixed meaning.
pub const STREAM_LEGACY: CUstream = 1 as CUstream;
pub const STREAM_PER_THREAD: CUstream = 2 as CUstream;

/// `stream` as a per-thread-default-stream caller means it: 0 there is the
/// thread's own stream, which everybody else calls 2.
pub fn effective_stream(stream: CUstream, per_thread: bool) -> CUstream {
    if per_thread && stream.is_null() { STREAM_PER_THREAD } else { stream }
}

/// `CUstreamCaptureMode`.
pub const CAPTURE_MODE_RELAXED: c_int = 2;
