//! The GEMM kernel: loaded once, launched per product.

use std::ffi::CString;
use std::sync::OnceLock;

use standin_abi::{GEMM_KERNEL, Gemm, IMAGE_MAGIC};

use crate::driver::{self, Driver};
use crate::types::{Handle, Status};

/// Rows and columns of the result that one block of the launch stands for. The
/// stand-in runs a grid as a whole; the shape is what a card's GEMM would have.
const TILE: u32 = 128;

/// Launches `gemm` on `stream`. An empty product is no launch.
#[allow(clippy::not_unsafe_ptr_arg_deref, reason = "a stream handle is opaque to us")]
pub fn launch(gemm: &Gemm, stream: Handle) -> Result<(), Status> {
    if gemm.m == 0 || gemm.n == 0 || gemm.batch == 0 {
        return Ok(());
    }
    let extent = |n: i64| u32::try_from(n).map_err(|_| Status::INVALID_VALUE);
    let (rows, columns) = (extent(gemm.m)?, extent(gemm.n)?);
    let batch = u32::try_from(gemm.batch).map_err(|_| Status::INVALID_VALUE)?;
    let driver = driver::get().ok_or(Status::NOT_INITIALIZED)?;
    let kernel = kernel(driver)?;
    let mut gemm = *gemm;
    let mut parameters = [(&raw mut gemm).cast()];
    // SAFETY: one pointer for the kernel's one parameter, read before the call
    // returns; the kernel handle is the driver's.
    let code = unsafe {
        (driver.cuLaunchKernel)(
            kernel,
            rows.div_ceil(TILE),
            columns.div_ceil(TILE),
            batch,
            256,
            1,
            1,
            0,
            stream,
            parameters.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    };
    if code == 0 { Ok(()) } else { Err(Status::EXECUTION_FAILED) }
}

/// The kernel's handle. A library belongs to no context, so one does for all devices.
fn kernel(driver: &Driver) -> Result<Handle, Status> {
    static KERNEL: OnceLock<usize> = OnceLock::new();
    if let Some(kernel) = KERNEL.get() {
        return Ok(*kernel as Handle);
    }
    let loaded = load(driver)?;
    // Two threads that race load the same image; either handle serves.
    Ok(*KERNEL.get_or_init(|| loaded as usize) as Handle)
}

fn load(driver: &Driver) -> Result<Handle, Status> {
    let image = format!("{IMAGE_MAGIC}kernel {GEMM_KERNEL} {}\n", size_of::<Gemm>());
    let image = CString::new(image).map_err(|_| Status::INTERNAL_ERROR)?;
    let name = CString::new(GEMM_KERNEL).map_err(|_| Status::INTERNAL_ERROR)?;
    let null = std::ptr::null_mut::<std::ffi::c_void>();
    let (mut library, mut kernel): (Handle, Handle) = (null, null);
    // SAFETY: image and name are NUL-terminated and outlive the calls, which
    // copy them; no options are given; the results are live locals.
    let code = unsafe {
        let code = (driver.cuLibraryLoadData)(
            &mut library,
            image.as_ptr().cast(),
            null.cast(),
            null.cast(),
            0,
            null.cast(),
            null.cast(),
            0,
        );
        if code == 0 {
            (driver.cuLibraryGetKernel)(&mut kernel, library, name.as_ptr())
        } else {
            code
        }
    };
    if code == 0 { Ok(kernel) } else { Err(Status::NOT_INITIALIZED) }
}
