//! What a program registered at start-up: its fat binaries, and which host
//! address stands for which kernel or variable in them.
//!
//! Registration only notes addresses: PyTorch registers hundreds of fat
//! binaries with tens of thousands of kernels before `main`. A fat binary is
//! given to the driver when a kernel of it is first used.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::abi::{Dim3, Handle, Status};
use crate::driver::Driver;
use crate::{api, context};

/// One registered fat binary. Its address is the handle the program holds.
pub struct FatBinary {
    /// The wrapper the compiler emitted, in the program's own data, as integer.
    wrapper: usize,
    /// The driver's library, once loaded. As integer: a handle is only a number.
    library: OnceLock<usize>,
}

impl FatBinary {
    fn library(&self, driver: &Driver) -> Result<Handle, Status> {
        if let Some(library) = self.library.get() {
            return Ok(*library as Handle);
        }
        let null = std::ptr::null_mut();
        let mut library: Handle = null;
        // SAFETY: the wrapper is static data of a loaded object; no options are given.
        unsafe {
            driver.cuLibraryLoadData(
                &mut library,
                self.wrapper as *const c_void,
                null.cast(),
                null.cast(),
                0,
                null.cast(),
                null.cast(),
                0,
            )?;
        }
        if self.library.set(library as usize).is_err() {
            // Another thread loaded it meanwhile; its library stays, ours goes.
            // SAFETY: nobody else has seen this library.
            unsafe { driver.cuLibraryUnload(library)? };
        }
        Ok(*self.library.get().expect("set above") as Handle)
    }
}

/// A kernel or variable as registered, and the driver's answer for it.
struct Symbol<T> {
    binary: &'static FatBinary,
    /// The mangled name: a string constant of the registering object, as integer.
    name: usize,
    resolved: OnceLock<T>,
}

impl<T> Symbol<T> {
    fn name(&self) -> *const c_char {
        self.name as *const c_char
    }
}

#[derive(Default)]
struct Registry {
    kernels: HashMap<usize, &'static Symbol<usize>>,
    variables: HashMap<usize, &'static Symbol<(u64, usize)>>,
}

static REGISTRY: OnceLock<RwLock<Registry>> = OnceLock::new();

fn registry() -> &'static RwLock<Registry> {
    REGISTRY.get_or_init(RwLock::default)
}

/// The driver's kernel handle for the host address of a kernel.
pub fn kernel(driver: &Driver, host: *const c_void) -> Result<Handle, Status> {
    // A kernel handle obtained earlier (cudaGetKernel) is also accepted by the
    // real runtime; PyTorch passes host addresses only.
    let symbol = registry()
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .kernels
        .get(&(host as usize))
        .copied()
        .ok_or(Status::INVALID_DEVICE_FUNCTION)?;
    if let Some(kernel) = symbol.resolved.get() {
        return Ok(*kernel as Handle);
    }
    let mut kernel: Handle = std::ptr::null_mut();
    // SAFETY: the name is a string constant of a loaded object; no lock of ours
    // is held while the driver works.
    unsafe {
        driver.cuLibraryGetKernel(&mut kernel, symbol.binary.library(driver)?, symbol.name())?
    };
    Ok(*symbol.resolved.get_or_init(|| kernel as usize) as Handle)
}

/// Device address and size of the variable with this host address.
pub fn variable(driver: &Driver, host: *const c_void) -> Result<(u64, usize), Status> {
    let symbol = registry()
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .variables
        .get(&(host as usize))
        .copied()
        .ok_or(Status::INVALID_SYMBOL)?;
    if let Some(found) = symbol.resolved.get() {
        return Ok(*found);
    }
    let (mut address, mut bytes) = (0, 0);
    // SAFETY: as in `kernel`.
    unsafe {
        driver.cuLibraryGetGlobal(
            &mut address,
            &mut bytes,
            symbol.binary.library(driver)?,
            symbol.name(),
        )?
    };
    Ok(*symbol.resolved.get_or_init(|| (address, bytes)))
}

/// Called by a static constructor of every object with device code.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFatBinary(wrapper: *const c_void) -> *mut *mut c_void {
    // Lives as long as the process: kernels of it may be launched until the very end.
    let binary =
        Box::leak(Box::new(FatBinary { wrapper: wrapper as usize, library: OnceLock::new() }));
    std::ptr::from_mut(binary).cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFatBinaryEnd(_binary: *mut *mut c_void) {}

/// Nothing is unloaded at exit: the driver goes with the process, and other
/// objects' destructors may still launch.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaUnregisterFatBinary(_binary: *mut *mut c_void) {}

/// Modules load lazily here, so there is nothing to initialise.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaInitModule(_binary: *mut *mut c_void) -> c_char {
    1
}

/// # Safety
/// `binary` came from [`__cudaRegisterFatBinary`]; `device_name` is a string
/// that outlives the process's use of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterFunction(
    binary: *mut *mut c_void,
    host: *const c_char,
    _device_function: *mut c_char,
    device_name: *const c_char,
    _thread_limit: c_int,
    _thread: *mut Dim3,
    _block: *mut Dim3,
    _block_dim: *mut Dim3,
    _grid_dim: *mut Dim3,
    _warp_size: *mut c_int,
) {
    // SAFETY: the handle is a leaked FatBinary (see above).
    let binary: &'static FatBinary = unsafe { &*binary.cast::<FatBinary>() };
    let symbol = Box::leak(Box::new(Symbol {
        binary,
        name: device_name as usize,
        resolved: OnceLock::new(),
    }));
    let mut registry = registry().write().unwrap_or_else(PoisonError::into_inner);
    registry.kernels.insert(host as usize, symbol);
}

/// # Safety
/// As [`__cudaRegisterFunction`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterVar(
    binary: *mut *mut c_void,
    host: *const c_char,
    _device_address: *mut c_char,
    device_name: *const c_char,
    _external: c_int,
    _bytes: usize,
    _constant: c_int,
    _global: c_int,
) {
    // SAFETY: the handle is a leaked FatBinary (see above).
    let binary: &'static FatBinary = unsafe { &*binary.cast::<FatBinary>() };
    let symbol = Box::leak(Box::new(Symbol {
        binary,
        name: device_name as usize,
        resolved: OnceLock::new(),
    }));
    let mut registry = registry().write().unwrap_or_else(PoisonError::into_inner);
    registry.variables.insert(host as usize, symbol);
}

api! {
    fn cudaGetSymbolAddress(address: *mut u64, symbol: *const c_void) {
        let driver = context::bind()?;
        if address.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let (found, _) = variable(driver, symbol)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *address = found };
        Ok(())
    }

    fn __cudaGetKernel(kernel_out: *mut Handle, host: *const c_void) {
        let driver = context::bind()?;
        if kernel_out.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let found = kernel(driver, host)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { *kernel_out = found };
        Ok(())
    }
}
