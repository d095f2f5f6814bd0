//! Initialization, version, errors, profiler control.

use crate::abi::{Code, INVALID_VALUE, NO_DEVICE, Outcome, RESULTS, UNKNOWN};
use crate::edge::Out;
use crate::engine::{account, gpu, workers};
use crate::process;
use std::ffi::c_char;

/// What the stand-in implements: CUDA 13.0.
pub const DRIVER_VERSION: i32 = 13_000;

pub fn init(flags: u32) -> Outcome {
    if flags != 0 {
        return Err(INVALID_VALUE);
    }
    if let Some(path) = process::foreign_runtime() {
        eprintln!(
            "standin: this is a CPU stand-in for the CUDA driver and runs only with its own \
             runtime, but {path} is loaded; remove it from the library path"
        );
        return Err(UNKNOWN);
    }
    if !gpu::initialize() {
        return Err(UNKNOWN);
    }
    if gpu::has_no_device() {
        return Err(NO_DEVICE);
    }
    process::register(|| {
        if let Ok(gpu) = gpu::gpu() {
            workers::stop(gpu);
            account::write(gpu, &gpu.state());
        }
    });
    Ok(())
}

pub fn driver_version(version: Out<i32>) -> Outcome {
    version.set(DRIVER_VERSION)
}

fn result_entry(code: i32) -> Option<&'static (i32, &'static str, &'static str)> {
    RESULTS.iter().find(|(c, _, _)| *c == code)
}

pub fn error_name(code: i32, text: Out<*const c_char>) -> Outcome {
    let entry = result_entry(code);
    text.set(entry.map_or(std::ptr::null(), |e| e.1.as_ptr().cast()))?;
    entry.map(|_| ()).ok_or(INVALID_VALUE)
}

pub fn error_string(code: i32, text: Out<*const c_char>) -> Outcome {
    let entry = result_entry(code);
    text.set(entry.map_or(std::ptr::null(), |e| e.2.as_ptr().cast()))?;
    entry.map(|_| ()).ok_or(INVALID_VALUE)
}

/// Export tables are a private interface of the vendor's libraries; the
/// stand-in has none.
pub fn export_table(table: Out<*const u8>, _id: *const u8) -> Outcome {
    table.set(std::ptr::null())?;
    Err(crate::abi::NOT_FOUND)
}

pub fn profiler_start() -> Outcome {
    mark("start")
}

pub fn profiler_stop() -> Outcome {
    mark("stop")
}

fn mark(label: &str) -> Result<(), Code> {
    let mut session = gpu::lock()?;
    account::mark(session.gpu, &mut session, label);
    Ok(())
}
