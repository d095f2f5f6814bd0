//! The current device of a thread, and the primary context that goes with it.
//!
//! As in CUDA: a device's primary context is retained at the first call that
//! needs one, kept until the process ends, and made current on each thread
//! when that thread first needs it. A context that the program itself made
//! current through the driver API is respected.

use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::abi::{Handle, Status};
use crate::driver::{self, Driver};

thread_local! {
    static DEVICE: Cell<i32> = const { Cell::new(0) };
}

/// The primary contexts retained so far, by device; a context as an integer,
/// because that is all it is to us.
static PRIMARY: Mutex<Vec<Option<usize>>> = Mutex::new(Vec::new());

/// The driver, initialised: enough for calls about devices.
pub fn init() -> Result<&'static Driver, Status> {
    static INITIALISED: OnceLock<()> = OnceLock::new();
    let driver = driver::get()?;
    if INITIALISED.get().is_none() {
        // SAFETY: takes no pointers; may be called any number of times.
        unsafe { driver.cuInit(0)? };
        // Remembered only once it succeeds: a failed start may be tried again.
        let _ = INITIALISED.set(());
    }
    Ok(driver)
}

/// The driver, with a context current on this thread.
pub fn bind() -> Result<&'static Driver, Status> {
    let driver = init()?;
    let mut current: Handle = std::ptr::null_mut();
    // SAFETY: the result is a live local.
    unsafe { driver.cuCtxGetCurrent(&mut current)? };
    if current.is_null() {
        let context = primary(driver, DEVICE.get())?;
        // SAFETY: `context` is a primary context we hold.
        unsafe { driver.cuCtxSetCurrent(context)? };
    }
    Ok(driver)
}

/// The current device of this thread.
pub fn device() -> i32 {
    DEVICE.get()
}

/// Makes `device` current on this thread, its primary context with it.
pub fn set_device(device: i32) -> Result<(), Status> {
    let driver = init()?;
    let context = primary(driver, device)?;
    // SAFETY: `context` is a primary context we hold.
    unsafe { driver.cuCtxSetCurrent(context)? };
    DEVICE.set(device);
    Ok(())
}

/// The primary context of `device`, retained at the first request.
pub fn primary(driver: &Driver, device: i32) -> Result<Handle, Status> {
    let slot = usize::try_from(device).map_err(|_| Status::INVALID_DEVICE)?;
    // A panic while this is held leaves at worst a missing entry.
    let known = |slot: usize| {
        PRIMARY.lock().unwrap_or_else(PoisonError::into_inner).get(slot).copied().flatten()
    };
    if let Some(context) = known(slot) {
        return Ok(context as Handle);
    }
    let mut handle = 0;
    let mut context: Handle = std::ptr::null_mut();
    // SAFETY: the results are live locals. Not under the lock, since the
    // driver may take its time; two threads that race retain the same context.
    unsafe {
        driver.cuDeviceGet(&mut handle, device)?;
        driver.cuDevicePrimaryCtxRetain(&mut context, handle)?;
    }
    let mut contexts = PRIMARY.lock().unwrap_or_else(PoisonError::into_inner);
    if contexts.len() <= slot {
        contexts.resize(slot + 1, None);
    }
    contexts[slot] = Some(context as usize);
    Ok(context)
}
