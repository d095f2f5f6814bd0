//! Kernel launches, in the forms the compiler and programs use.
//!
//! As NVIDIA's runtime from 13.0 on, the `CUkernel` that the driver gave for a
//! kernel is passed to `cuLaunchKernel` in place of a `CUfunction`.

use std::cell::RefCell;
use std::ffi::{c_uint, c_void};

use crate::abi::{Dim3, DriverLaunchConfig, Handle, RuntimeLaunchConfig, Status};
use crate::{api, context, registry};

/// What stands between `<<<` and `>>>`.
#[derive(Clone, Copy)]
struct CallConfiguration {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: Handle,
}

thread_local! {
    /// Pushed before a host stub is called, popped by the stub. A stack: the
    /// evaluation of a stub's arguments may launch, too.
    static CALLS: RefCell<Vec<CallConfiguration>> = const { RefCell::new(Vec::new()) };
}

/// Returns 0, which tells the caller to go on and call the host stub.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaPushCallConfiguration(
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: Handle,
) -> c_uint {
    CALLS.with_borrow_mut(|calls| {
        calls.push(CallConfiguration { grid, block, shared_bytes, stream })
    });
    0
}

fn launch(
    kernel: Handle,
    grid: Dim3,
    block: Dim3,
    parameters: *mut *mut c_void,
    shared_bytes: usize,
    stream: Handle,
) -> Result<(), Status> {
    let driver = context::bind()?;
    let shared_bytes = u32::try_from(shared_bytes).map_err(|_| Status::INVALID_VALUE)?;
    // SAFETY: one pointer per parameter of the kernel, as its host stub built them.
    unsafe {
        driver.cuLaunchKernel(
            kernel,
            grid.x,
            grid.y,
            grid.z,
            block.x,
            block.y,
            block.z,
            shared_bytes,
            stream,
            parameters,
            std::ptr::null_mut(),
        )
    }
}

api! {
    fn __cudaPopCallConfiguration(grid: *mut Dim3, block: *mut Dim3, shared_bytes: *mut usize, stream: *mut Handle) {
        let call = CALLS.with_borrow_mut(Vec::pop).ok_or(Status::MISSING_CONFIGURATION)?;
        // SAFETY: the host stub passes its own locals.
        unsafe {
            *grid = call.grid;
            *block = call.block;
            *shared_bytes = call.shared_bytes;
            *stream = call.stream;
        }
        Ok(())
    }

    fn cudaLaunchKernel(host: *const c_void, grid: Dim3, block: Dim3, parameters: *mut *mut c_void, shared_bytes: usize, stream: Handle) {
        let kernel = registry::kernel(context::bind()?, host)?;
        launch(kernel, grid, block, parameters, shared_bytes, stream)
    }

    /// The form newer host stubs use: the kernel was looked up beforehand.
    fn __cudaLaunchKernel(kernel: Handle, grid: Dim3, block: Dim3, parameters: *mut *mut c_void, shared_bytes: usize, stream: Handle) {
        launch(kernel, grid, block, parameters, shared_bytes, stream)
    }

    fn cudaLaunchKernelExC(config: *const RuntimeLaunchConfig, host: *const c_void, parameters: *mut *mut c_void) {
        let driver = context::bind()?;
        let kernel = registry::kernel(driver, host)?;
        // SAFETY: the caller's configuration, or null.
        let config = unsafe { config.as_ref() }.ok_or(Status::INVALID_VALUE)?;
        let translated = DriverLaunchConfig {
            grid: config.grid,
            block: config.block,
            shared_bytes: u32::try_from(config.shared_bytes).map_err(|_| Status::INVALID_VALUE)?,
            stream: config.stream,
            attributes: config.attributes,
            attribute_count: config.attribute_count,
        };
        // SAFETY: the configuration is a live local; the parameters are the caller's.
        unsafe { driver.cuLaunchKernelEx(&translated, kernel, parameters, std::ptr::null_mut()) }
    }

    fn cudaLaunchCooperativeKernel(host: *const c_void, grid: Dim3, block: Dim3, parameters: *mut *mut c_void, shared_bytes: usize, stream: Handle) {
        let driver = context::bind()?;
        let kernel = registry::kernel(driver, host)?;
        let shared_bytes = u32::try_from(shared_bytes).map_err(|_| Status::INVALID_VALUE)?;
        // SAFETY: the parameters are the caller's.
        unsafe {
            driver.cuLaunchCooperativeKernel(
                kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, stream, parameters,
            )
        }
    }
}
