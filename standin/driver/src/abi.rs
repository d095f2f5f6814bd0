//! The part of the CUDA driver ABI that crosses the stand-in's edge: result
//! codes, enumerators and the C structures it reads or fills.
//!
//! Everything that C calls an `enum` is an integer here: a program may pass any
//! value, and an unknown one is an error to return, not undefined behaviour.

use std::ffi::c_void;

/// A `CUresult`. Open: any integer is a valid value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub i32);

/// What every entry point's body returns; `Ok` is `CUDA_SUCCESS`.
pub type Outcome<T = ()> = Result<T, Code>;

pub const SUCCESS: Code = Code(0);
pub const INVALID_VALUE: Code = Code(1);
pub const OUT_OF_MEMORY: Code = Code(2);
pub const NOT_INITIALIZED: Code = Code(3);
pub const NO_DEVICE: Code = Code(100);
pub const DEINITIALIZED: Code = Code(4);
pub const INVALID_DEVICE: Code = Code(101);
pub const INVALID_IMAGE: Code = Code(200);
pub const INVALID_PTX: Code = Code(218);
pub const JIT_COMPILATION_DISABLED: Code = Code(223);
pub const INVALID_CONTEXT: Code = Code(201);
pub const NO_BINARY_FOR_GPU: Code = Code(209);
pub const FILE_NOT_FOUND: Code = Code(301);
pub const INVALID_HANDLE: Code = Code(400);
pub const NOT_FOUND: Code = Code(500);
pub const NOT_READY: Code = Code(600);
pub const ILLEGAL_ADDRESS: Code = Code(700);
pub const HOST_MEMORY_ALREADY_REGISTERED: Code = Code(712);
pub const HOST_MEMORY_NOT_REGISTERED: Code = Code(713);
pub const LAUNCH_FAILED: Code = Code(719);
pub const NOT_PERMITTED: Code = Code(800);
pub const NOT_SUPPORTED: Code = Code(801);
pub const STREAM_CAPTURE_UNSUPPORTED: Code = Code(900);
pub const STREAM_CAPTURE_INVALIDATED: Code = Code(901);
pub const STREAM_CAPTURE_UNMATCHED: Code = Code(903);
pub const STREAM_CAPTURE_UNJOINED: Code = Code(904);
pub const STREAM_CAPTURE_ISOLATION: Code = Code(905);
pub const STREAM_CAPTURE_IMPLICIT: Code = Code(906);
pub const CAPTURED_EVENT: Code = Code(907);
pub const STREAM_CAPTURE_WRONG_THREAD: Code = Code(908);
pub const GRAPH_EXEC_UPDATE_FAILURE: Code = Code(910);
pub const UNKNOWN: Code = Code(999);

/// (code, enumerator, description) of every result the stand-in returns, and
/// of those a caller is likely to ask about.
pub const RESULTS: &[(i32, &str, &str)] = &[
    (0, "CUDA_SUCCESS\0", "no error\0"),
    (1, "CUDA_ERROR_INVALID_VALUE\0", "invalid argument\0"),
    (2, "CUDA_ERROR_OUT_OF_MEMORY\0", "out of memory\0"),
    (3, "CUDA_ERROR_NOT_INITIALIZED\0", "initialization error\0"),
    (4, "CUDA_ERROR_DEINITIALIZED\0", "driver shutting down\0"),
    (34, "CUDA_ERROR_STUB_LIBRARY\0", "CUDA driver is a stub library\0"),
    (98, "CUDA_ERROR_INVALID_DEVICE_FUNCTION\0", "invalid device function\0"),
    (100, "CUDA_ERROR_NO_DEVICE\0", "no CUDA-capable device is detected\0"),
    (101, "CUDA_ERROR_INVALID_DEVICE\0", "invalid device ordinal\0"),
    (200, "CUDA_ERROR_INVALID_IMAGE\0", "device kernel image is invalid\0"),
    (201, "CUDA_ERROR_INVALID_CONTEXT\0", "invalid device context\0"),
    (
        209,
        "CUDA_ERROR_NO_BINARY_FOR_GPU\0",
        "no kernel image is available for execution on the device\0",
    ),
    (218, "CUDA_ERROR_INVALID_PTX\0", "a PTX JIT compilation failed\0"),
    (223, "CUDA_ERROR_JIT_COMPILATION_DISABLED\0", "PTX JIT compilation was disabled\0"),
    (301, "CUDA_ERROR_FILE_NOT_FOUND\0", "file not found\0"),
    (400, "CUDA_ERROR_INVALID_HANDLE\0", "invalid resource handle\0"),
    (500, "CUDA_ERROR_NOT_FOUND\0", "named symbol not found\0"),
    (600, "CUDA_ERROR_NOT_READY\0", "device not ready\0"),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS\0", "an illegal memory access was encountered\0"),
    (701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES\0", "too many resources requested for launch\0"),
    (704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED\0", "peer access is already enabled\0"),
    (705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED\0", "peer access has not been enabled\0"),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED\0", "context is destroyed\0"),
    (
        712,
        "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED\0",
        "part or all of the requested memory range is already mapped\0",
    ),
    (
        713,
        "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED\0",
        "pointer does not correspond to a registered memory region\0",
    ),
    (719, "CUDA_ERROR_LAUNCH_FAILED\0", "unspecified launch failure\0"),
    (800, "CUDA_ERROR_NOT_PERMITTED\0", "operation not permitted\0"),
    (801, "CUDA_ERROR_NOT_SUPPORTED\0", "operation not supported\0"),
    (
        900,
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\0",
        "operation not permitted when stream is capturing\0",
    ),
    (
        901,
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED\0",
        "operation failed due to a previous error during capture\0",
    ),
    (
        902,
        "CUDA_ERROR_STREAM_CAPTURE_MERGE\0",
        "operation would result in a merge of separate capture sequences\0",
    ),
    (
        903,
        "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED\0",
        "capture was not ended in the same stream as it began\0",
    ),
    (904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED\0", "capturing stream has unjoined work\0"),
    (
        905,
        "CUDA_ERROR_STREAM_CAPTURE_ISOLATION\0",
        "dependency created on uncaptured work in another stream\0",
    ),
    (
        906,
        "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT\0",
        "operation would make the legacy stream depend on a capturing blocking stream\0",
    ),
    (
        907,
        "CUDA_ERROR_CAPTURED_EVENT\0",
        "operation not permitted on an event last recorded in a capturing stream\0",
    ),
    (
        908,
        "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD\0",
        "attempt to terminate a thread-local capture sequence from another thread\0",
    ),
    (
        910,
        "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE\0",
        "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update\0",
    ),
    (999, "CUDA_ERROR_UNKNOWN\0", "unknown error\0"),
];

/// Opaque handles, as numbers. A number the stand-in did not issue is refused.
pub type Handle = u64;
pub type DevicePtr = u64;
pub type HostFn = unsafe extern "C" fn(*mut c_void);
pub type StreamCallback = unsafe extern "C" fn(Handle, i32, *mut c_void);

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`; 0 is whichever of them the
/// entry point means.
pub const STREAM_LEGACY: Handle = 1;
pub const STREAM_PER_THREAD: Handle = 2;
pub const STREAM_NON_BLOCKING: u32 = 1;

pub const MEMORYTYPE_HOST: u32 = 1;
pub const MEMORYTYPE_DEVICE: u32 = 2;
pub const MEMORYTYPE_UNIFIED: u32 = 4;

pub const LOCATION_DEVICE: i32 = 1;
pub const LOCATION_HOST_NUMA: i32 = 3;
pub const LOCATION_HOST_NUMA_CURRENT: i32 = 4;
pub const ACCESS_READ: u8 = 1;
pub const ACCESS_READWRITE: u8 = 3;

/// Markers of the `extra` form of kernel parameters.
pub const LAUNCH_PARAM_END: usize = 0;
pub const LAUNCH_PARAM_BUFFER_POINTER: usize = 1;
pub const LAUNCH_PARAM_BUFFER_SIZE: usize = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Location {
    pub kind: i32,
    pub id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct AccessDesc {
    pub location: Location,
    pub flags: i32,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocationProp {
    pub kind: i32,
    pub handle_types: i32,
    pub location: Location,
    pub win32: *mut c_void,
    pub flags: [u8; 8],
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolProps {
    pub kind: i32,
    pub handle_types: i32,
    pub location: Location,
    pub win32: *mut c_void,
    pub max_size: usize,
    pub reserved: [u8; 56],
}

/// `CUlaunchConfig`; the attributes are accepted and have no effect here.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: Handle,
    pub attrs: *mut c_void,
    pub attr_count: u32,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memcpy2D {
    pub src_x: usize,
    pub src_y: usize,
    pub src_type: u32,
    pub src_host: u64,
    pub src_device: DevicePtr,
    pub src_array: u64,
    pub src_pitch: usize,
    pub dst_x: usize,
    pub dst_y: usize,
    pub dst_type: u32,
    pub dst_host: u64,
    pub dst_device: DevicePtr,
    pub dst_array: u64,
    pub dst_pitch: usize,
    pub width: usize,
    pub height: usize,
}

/// `CUDA_MEMCPY3D`, and `CUDA_MEMCPY3D_PEER` (whose contexts lie where the
/// reserved pointers are).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memcpy3D {
    pub src_x: usize,
    pub src_y: usize,
    pub src_z: usize,
    pub src_lod: usize,
    pub src_type: u32,
    pub src_host: u64,
    pub src_device: DevicePtr,
    pub src_array: u64,
    pub reserved0: u64,
    pub src_pitch: usize,
    pub src_height: usize,
    pub dst_x: usize,
    pub dst_y: usize,
    pub dst_z: usize,
    pub dst_lod: usize,
    pub dst_type: u32,
    pub dst_host: u64,
    pub dst_device: DevicePtr,
    pub dst_array: u64,
    pub reserved1: u64,
    pub dst_pitch: usize,
    pub dst_height: usize,
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}
