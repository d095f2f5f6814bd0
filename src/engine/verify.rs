//! `AUTOOFFLOAD_VERIFY`: while a launch runs, memory that is absent cannot be
//! touched, and every launch is waited for. One that reaches memory through
//! addresses that nobody saw then fails where it would have read wrong bytes,
//! and is named.
//!
//! Not here: which memory that is and how it is shut (`device::shut`).

use autooffload_core::units::format_bytes;

use super::any_capture;
use super::guards::ContextGuard;
use super::reach::Launched;
use super::state::{Engine, lock};
use crate::driver::abi::*;

/// A launch that is watched.
pub(super) struct Watched {
    kernel: Option<String>,
}

/// Shuts what is absent. `None`: this launch cannot be waited for, because
/// something captures or a stream waits for the program itself.
pub(super) fn watch(engine: &Engine, launched: Option<&Launched>) -> Result<Option<Watched>> {
    if any_capture() || engine.users.any_held_up() {
        return Ok(None);
    }
    for slot in &engine.devices[..engine.device_count] {
        if let Some(state) = lock(&slot.state).as_mut() {
            let _context = ContextGuard::enter(engine.driver, state.backend.ctx);
            state.backend.shut_absent(&state.streamer)?;
        }
    }
    Ok(Some(Watched { kernel: launched.and_then(|launched| launched.name.clone()) }))
}

impl Watched {
    /// Waits for the launch. If it met memory that was shut, that is said: its
    /// context is lost, as CUDA has it.
    pub(super) fn check(self, engine: &Engine) {
        const LISTED: usize = 8;
        engine.stats.verified();
        if engine.driver.ctx_synchronize() != Err(CuResult::ILLEGAL_ADDRESS) {
            return;
        }
        let mut shut: Vec<(DevicePtr, usize)> = Vec::new();
        for slot in &engine.devices[..engine.device_count] {
            if let Some(state) = lock(&slot.state).as_ref() {
                shut.extend(state.backend.what_is_shut());
            }
        }
        shut.sort_unstable();
        let listed = shut.iter().take(LISTED);
        let mut list: Vec<String> = listed
            .map(|&(base, bytes)| format!("{base:#x} ({})", format_bytes(bytes as u64)))
            .collect();
        if shut.len() > LISTED {
            list.push(format!("{} more", shut.len() - LISTED));
        }
        let kernel = self.kernel.as_deref().unwrap_or("a graph, or a kernel without a name,");
        engine.passed.warn_once(if shut.is_empty() {
            format!("verify: {kernel} touched memory that is not there; nothing of ours was absent")
        } else {
            format!(
                "verify: {kernel} touched memory that was not there. Absent, and not named by it: {}. \
                 If the program is right without autooffload, it finds addresses where autooffload \
                 does not look: keep that memory on the card with autooffload_keep, and report the kernel",
                list.join(", ")
            )
        });
    }
}
