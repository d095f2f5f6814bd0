//! Devices and their properties: a mid-size consumer card, compute capability
//! 8.6 unless `STANDIN_SM` says otherwise.

use crate::abi::{Code, INVALID_DEVICE, INVALID_VALUE, Outcome};
use crate::edge::{Out, Text};
use crate::engine::gpu::{self, Gpu};
use crate::engine::settings::HostLocated;
use std::ffi::c_char;

const MULTIPROCESSORS: i32 = 28;
/// Width of the memory bus.
const BUS_BITS: i32 = 256;
pub const THREADS_PER_MULTIPROCESSOR: i32 = 1536;
pub const SHARED_PER_MULTIPROCESSOR: i32 = 100 << 10;
const SHARED_PER_BLOCK: i32 = 48 << 10;
const SHARED_PER_BLOCK_OPTIN: i32 = 99 << 10;

/// Checks an ordinal.
pub fn device(gpu: &Gpu, ordinal: i32) -> Outcome<usize> {
    let index = usize::try_from(ordinal).map_err(|_| INVALID_DEVICE)?;
    if index < gpu.settings.devices { Ok(index) } else { Err(INVALID_DEVICE) }
}

pub fn get(out: Out<i32>, ordinal: i32) -> Outcome {
    device(gpu::gpu()?, ordinal)?;
    out.set(ordinal)
}

pub fn count(out: Out<i32>) -> Outcome {
    out.set(gpu::gpu()?.settings.devices as i32)
}

pub fn name(out: Out<c_char>, room: i32, ordinal: i32) -> Outcome {
    device(gpu::gpu()?, ordinal)?;
    out.set_text("CPU stand-in (no GPU)", usize::try_from(room).map_err(|_| INVALID_VALUE)?)
}

pub fn total_mem(out: Out<usize>, ordinal: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    device(gpu, ordinal)?;
    out.set(gpu.settings.vram_bytes as usize)
}

pub fn uuid(out: Out<[u8; 16]>, ordinal: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    let mut uuid = *b"standin-gpu-0000";
    uuid[15] += gpu.settings.machine_numbers[device(gpu, ordinal)?] as u8;
    out.set(uuid)
}

/// Of a device by its number on the machine.
fn bus_id(number: usize) -> String {
    format!("0000:{:02X}:00.0", number + 1)
}

pub fn pci_bus_id(out: Out<c_char>, room: i32, ordinal: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    let number = gpu.settings.machine_numbers[device(gpu, ordinal)?];
    out.set_text(&bus_id(number), usize::try_from(room).map_err(|_| INVALID_VALUE)?)
}

pub fn by_pci_bus_id(out: Out<i32>, text: Text) -> Outcome {
    let text = text.get()?.to_ascii_uppercase();
    let numbers = &gpu::gpu()?.settings.machine_numbers;
    let found = numbers.iter().position(|&number| bus_id(number).ends_with(&text));
    out.set(found.ok_or(INVALID_VALUE)? as i32)
}

pub fn compute_capability(major: Out<i32>, minor: Out<i32>, ordinal: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    device(gpu, ordinal)?;
    major.set(gpu.settings.capability.0)?;
    minor.set(gpu.settings.capability.1)
}

pub fn attribute(out: Out<i32>, attribute: i32, ordinal: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    device(gpu, ordinal)?;
    out.set(value(gpu, attribute, ordinal).ok_or(INVALID_VALUE)?)
}

/// `CUdevice_attribute` by enumerator; features the stand-in lacks are 0.
fn value(gpu: &Gpu, attribute: i32, ordinal: i32) -> Option<i32> {
    const TEXTURE_1D: i32 = 131_072;
    const TEXTURE_2D: i32 = 65_536;
    const TEXTURE_3D: i32 = 16_384;
    let host_located = gpu.settings.host_located != HostLocated::No;
    Some(match attribute {
        1 => 1024,             // threads per block
        2 | 3 => 1024,         // block dimensions x, y
        4 => 64,               // block dimension z
        5 => i32::MAX,         // grid dimension x
        6 | 7 => 65_535,       // grid dimensions y, z
        8 => SHARED_PER_BLOCK, //
        9 => 64 << 10,         // constant memory
        10 => 32,              // warp size
        11 => i32::MAX,        // pitch
        12 => 65_536,          // registers per block
        13 => 1_700_000,       // clock, kHz
        14 => 512,             // texture alignment
        15 => 1,               // copy and compute overlap
        16 => MULTIPROCESSORS, //
        17 | 18 => 0,          // kernel timeout; integrated
        19 => 1,               // can map host memory
        20 => 0,               // compute mode: default
        21 | 27 | 42 | 69 | 77 => TEXTURE_1D,
        22 | 23 | 28 | 29 | 70 | 71 | 72 => TEXTURE_2D,
        24..=26 | 47..=49 => TEXTURE_3D,
        30 => 512,         // surface alignment
        31 => 1,           // concurrent kernels
        32 => 0,           // ECC
        33 => ordinal + 1, // PCI bus
        34 | 35 => 0,      // PCI device; TCC
        36 => memory_clock_khz(gpu.settings.memory_rate),
        37 => BUS_BITS, // bus width
        38 => 4 << 20,  // L2 bytes
        39 => THREADS_PER_MULTIPROCESSOR,
        40 => 2, // copy engines
        41 => 1, // unified addressing
        43..=46 | 52..=68 | 73 | 74 => TEXTURE_3D,
        50 => 0,  // PCI domain
        51 => 32, // texture pitch alignment
        75 => gpu.settings.capability.0,
        76 => gpu.settings.capability.1,
        78 => 1,      // stream priorities
        79 | 80 => 1, // L1 caches
        81 => SHARED_PER_MULTIPROCESSOR,
        82 => 65_536,             // registers per multiprocessor
        83 => 0,                  // managed memory
        84 | 85 => 0,             // multi-GPU board
        86 => 0,                  // native host atomics
        87 => 32,                 // single to double ratio
        88 | 89 => 0,             // pageable access; concurrent managed
        90 => 0,                  // compute preemption
        91 => 1,                  // host pointer of registered memory usable
        92..=94 | 122 | 123 => 1, // stream memory operations
        95 => 1,                  // cooperative launch
        96 => 0,                  // …over several devices
        97 => SHARED_PER_BLOCK_OPTIN,
        98 => 0,        // flush remote writes
        99 => 1,        // host registration
        100 | 101 => 0, // host page tables; direct managed access
        102 => i32::from(gpu.settings.vmm),
        103..=105 => 0, // shareable handle types
        106 => 16,      // blocks per multiprocessor
        107 => 0,       // generic compression
        108 => 0,       // persisting L2
        109 => 0,       // access policy window
        110 => 0,       // RDMA with VMM
        111 => 1 << 10, // reserved shared memory per block
        112..=114 => 0, // sparse arrays; read-only registration; timeline interop
        115 => 1,       // memory pools
        116..=121 => 0, // RDMA; pool handle types; clusters; deferred mapping
        124 | 125 => 0, // dma-buf; IPC events
        126 => 1,       // memory sync domains
        127..=129 => 0, // tensor maps; fabric; unified function pointers
        130 => 0,       // NUMA configuration
        131 => -1,      // NUMA id of the device
        134 => {
            if host_located {
                0
            } else {
                -1
            }
        } // of the nearest host node
        132 | 133 => 0, // multicast; MPS
        141 => i32::from(host_located),
        135..=148 => 0,
        _ => return None,
    })
}

/// The clock at which memory of two transfers a cycle has this rate.
fn memory_clock_khz(bytes_per_s: f64) -> i32 {
    (bytes_per_s * 8.0 / f64::from(BUS_BITS) / 2.0 / 1e3).ceil() as i32
}

/// The legacy `CUdevprop`, ten integers.
pub fn properties(out: Out<[i32; 10 + 2]>, ordinal: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    device(gpu, ordinal)?;
    let v = |a| value(gpu, a, ordinal).unwrap_or(0);
    let fields = [v(1), v(2), v(3), v(4), v(5), v(6), v(7), v(8), v(9), v(10), v(11), v(12)];
    out.set(fields)
}

pub fn can_access_peer(out: Out<i32>, ordinal: i32, peer: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    let (a, b) = (device(gpu, ordinal)?, device(gpu, peer)?);
    out.set(i32::from(a != b))
}

/// `CUdevice_P2PAttribute`: rank, access, native atomics, array access.
pub fn p2p_attribute(out: Out<i32>, attribute: i32, a: i32, b: i32) -> Outcome {
    let gpu = gpu::gpu()?;
    if device(gpu, a)? == device(gpu, b)? {
        return Err(INVALID_DEVICE);
    }
    out.set(match attribute {
        2 => 1,
        1 | 3 | 4 => 0,
        _ => return Err(INVALID_VALUE),
    })
}

pub fn exec_affinity_support(out: Out<i32>, _kind: i32, ordinal: i32) -> Outcome {
    device(gpu::gpu()?, ordinal)?;
    out.set(0)
}

/// Textures: none.
pub fn texture_linear_width(
    _out: Out<usize>,
    _format: i32,
    _channels: u32,
    ordinal: i32,
) -> Outcome {
    device(gpu::gpu()?, ordinal)?;
    Err(Code(801))
}
