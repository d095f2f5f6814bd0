//! The edge: `extern "C"`, one file per group of the driver API.
//!
//! A hook converts the program's arguments once, asks the engine, and calls
//! the original at the place the engine says, or not at all. What the engine
//! does not claim goes to the original unchanged.
//!
//! The three routes to a hook: the exported names (`table`), `dlsym`
//! (`dlsym`), `cuGetProcAddress` (`proc_address`). All three come from the one
//! list in `table`.
//!
//! Threads: any, at any time, also inside ELF constructors and after `exit`
//! has begun. No lock of this room is held while the original or the engine
//! runs. A panic is caught in [`run`], said once, and the call passed on.
//! Not here: what is resident, what is copied, when (see `engine`).

mod copy;
mod dlsym;
mod escape;
mod graphs;
mod init;
mod launch;
mod layouts;
mod memory;
mod memset;
mod modules;
mod pools;
mod proc_address;
pub mod registry;
mod streams;
pub mod table;
mod tables;
mod touches;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::driver::abi::*;
use crate::engine;
use crate::lifecycle;
use crate::thread::thread;
use table::Hook;

/// How a hook was reached.
#[derive(Clone, Copy)]
pub struct Call {
    /// Through a `_ptds` / `_ptsz` variant: stream 0 is the thread's own.
    pub per_thread: bool,
}

impl Call {
    /// The stream of an operation that names `stream`.
    pub fn stream(self, stream: CUstream) -> CUstream {
        effective_stream(stream, self.per_thread)
    }

    /// The stream of an operation that names none.
    pub fn default_stream(self) -> CUstream {
        self.stream(std::ptr::null_mut())
    }
}

/// A condition worth saying, once per place and process.
macro_rules! say_once {
    ($level:ident, $($text:tt)*) => {{
        static SAID: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        if !SAID.swap(true, std::sync::atomic::Ordering::Relaxed) {
            log::$level!($($text)*);
        }
    }};
}
use say_once;

/// The frame around every hook: counts, decides whether the hook is in force,
/// catches panics. `forwarded`: how often `forward` has called the original.
#[inline(always)]
fn run(
    hook: Hook,
    forwarded: &Cell<u64>,
    forward: &impl Fn() -> CuResult,
    body: impl FnOnce() -> CuResult,
) -> CuResult {
    // Before `cuInit` only the two doors are ours.
    let in_force = match hook {
        Hook::cuInit | Hook::cuGetProcAddress | Hook::cuGetProcAddress_v2 => lifecycle::may_start(),
        _ => lifecycle::is_active(),
    };
    // Whether a hook's body is on this thread's stack: what that calls is not
    // the program. (Some drivers look their own functions up through `dlsym`.)
    let inside = &thread().inside;
    if !in_force || inside.get() {
        return forward();
    }
    inside.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    hook.count(forwarded.get());
    // A closure would be made ready at every call.
    let code = match outcome {
        Ok(code) => code,
        Err(_) => after_panic(hook, forwarded.get(), forward),
    };
    inside.set(false);
    if engine::memory_moves() {
        clear_stack();
    }
    code
}

/// Overwrites the stack that calls made here have used. Addresses lay there, and
/// PyTorch makes structs of parameters of which it sets a part: in the others they
/// would look like what the next kernel reads, and be fetched for it.
#[inline(never)]
fn clear_stack() {
    /// Of ours. The driver's may reach further down.
    const BYTES: usize = 8 << 10;
    let mut room = std::mem::MaybeUninit::<[u8; BYTES]>::uninit();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: this processor has it; writes the bytes of `room`, 512 at a time.
        unsafe {
            std::arch::asm!(
                "vpxor xmm0, xmm0, xmm0",
                "2:",
                ".irp word, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60",
                "vmovups ymmword ptr [{at} + 8 * \\word], ymm0",
                ".endr",
                "add {at}, 512",
                "cmp {at}, {end}",
                "jne 2b",
                "vzeroupper",
                at = inout(reg) room.as_mut_ptr() => _,
                end = in(reg) room.as_mut_ptr().add(1),
                out("xmm0") _,
                options(nostack),
            );
        }
        return;
    }
    std::hint::black_box(room.write([0; BYTES]));
}

/// A body panicked. The call is passed on only if it was not yet, and if every
/// byte is certain to be where the program expects it.
#[cold]
fn after_panic(hook: Hook, forwarded: u64, forward: &dyn Fn() -> CuResult) -> CuResult {
    let safe = forwarded == 0 && !engine::memory_moves();
    let broken = engine::panicked();
    say_once!(
        error,
        "internal error in {:?}; the call {}{}; please report this (said once)",
        hook.name(),
        if safe { "was passed on to the driver" } else { "fails" },
        if broken { "; later ones that name memory of our keeping fail" } else { "" }
    );
    if safe { forward() } else { CuResult::UNKNOWN }
}

/// A call that we have no part in, but that may take device memory.
fn passed_on(forward: impl Fn() -> CuResult) -> CuResult {
    engine::watch_card(engine::UNKNOWN_BYTES, || retry_when_out_of_memory(&forward))
}

/// The original; when it says out-of-memory and the engine can give memory
/// back to the driver, the original once more.
#[inline]
fn retry_when_out_of_memory(forward: impl Fn() -> CuResult) -> CuResult {
    let code = forward();
    if code == CuResult::OUT_OF_MEMORY { once_more(&forward) } else { code }
}

#[cold]
fn once_more(forward: &dyn Fn() -> CuResult) -> CuResult {
    if engine::release_for_retry() { forward() } else { CuResult::OUT_OF_MEMORY }
}
