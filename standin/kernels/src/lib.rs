//! CPU implementations of the CUDA kernels the stand-in knows, found by name.
//!
//! Pure computation over a [`Memory`]: no streams, no allocation, no driver.
//! The driver (`standin/driver`) resolves a launch to a [`Kernel`] with
//! [`find`], checks nothing of the arguments itself, and runs it on a worker.
//!
//! The way of a name: `name` takes it apart; each family (`elementwise`,
//! `norm`, …) decides whether it is one of its own; `functor` and `ops` say
//! what an elementwise functor computes. The way of a launch: `params` reads
//! its C++ objects, `offsets` and `block` reach the memory, `value` converts.
//! A case nobody covers is a fault with a sentence, never a guess.

mod accumulate;
mod addresses;
mod arithmetic;
mod attention;
mod block;
mod cat;
mod elementwise;
mod fingerprint;
mod functor;
mod gemm;
mod grouped;
mod image;
mod index;
mod index_add;
mod name;
mod nonzero;
mod norm;
mod offsets;
mod ops;
mod own;
mod params;
mod poll;
pub mod ptx;
mod random;
mod range;
mod rearrange;
mod reduce;
mod scan;
mod softmax;
mod sorting;
mod tables;
mod tensor;
mod triangle;
mod value;

/// Why a kernel could not run to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A range that is not mapped, or not mapped for this access.
    IllegalAddress { address: u64, bytes: u64, write: bool },
    /// The implementation does not cover this case of the kernel.
    Unsupported(String),
}

/// The device memory as a kernel sees it. Addresses are device addresses.
///
/// Reads and writes may overlap (in-place kernels), hence raw pointers: a
/// caller must not form a `&mut` over bytes it also reads.
pub trait Memory {
    /// Pointer through which `bytes` bytes from `address` may be read.
    fn read(&self, address: u64, bytes: u64) -> Result<*const u8, Fault>;
    /// Pointer through which `bytes` bytes from `address` may be written (and read).
    fn write(&self, address: u64, bytes: u64) -> Result<*mut u8, Fault>;
}

/// One kernel launch, as the driver queued it.
pub struct Launch<'a> {
    /// Mangled name, as registered by the program.
    pub name: &'a str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// The whole parameter buffer, laid out as on the device.
    pub params: &'a [u8],
    /// (offset, size) in bytes of each parameter in `params`.
    pub layout: &'a [(u32, u32)],
}

/// What the model clock charges for a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Device memory read and written, bytes.
    pub bytes: f64,
    /// Arithmetic, floating-point operations.
    pub flops: f64,
}

/// A CPU implementation of one kernel (or family of kernels).
pub trait Kernel: Send + Sync {
    /// Runs the whole grid. Deterministic: the same bytes in give the same bytes out.
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault>;
    /// Bytes of the parameters in which this launch finds no address, whatever
    /// lies there: numbers, and slots of a struct that it did not fill.
    fn without_addresses(&self, _launch: &Launch) -> std::ops::Range<usize> {
        0..0
    }
    /// Charged by the model clock at submission; must not read device memory.
    fn cost(&self, launch: &Launch) -> Cost;
    /// Whether it reads memory again and again until that has changed. The
    /// driver then asks [`Kernel::ready`], and runs it when that says yes.
    fn polls(&self) -> bool {
        false
    }
    /// For a kernel that polls: whether it may end now.
    fn ready(&self, _launch: &Launch, _memory: &dyn Memory) -> bool {
        true
    }
}

/// The implementation for a mangled kernel name, or `None` if there is none.
/// Called once per kernel when it is first looked up, never per launch.
pub fn find(mangled: &str) -> Option<Box<dyn Kernel>> {
    let name = name::parse(mangled)?;
    FAMILIES.iter().find_map(|family| family(&name))
}

/// A kernel family: the implementation for a name, if the name is one of its own.
type Family = fn(&name::Name) -> Option<Box<dyn Kernel>>;

const FAMILIES: &[Family] = &[
    elementwise::find,
    gemm::find,
    grouped::find,
    norm::find,
    attention::find,
    image::find,
    scan::find,
    sorting::find,
    softmax::find,
    reduce::find,
    index::find,
    index_add::find,
    rearrange::find,
    nonzero::find,
    cat::find,
    triangle::find,
    range::find,
    random::find,
    own::find,
    fingerprint::find,
    addresses::find,
    poll::find,
    tables::find,
];
