//! What the calling thread keeps for itself, found in two instructions.
//!
//! `thread_local!` in a shared library asks the loader each time
//! (`__tls_get_addr`, about fifteen instructions, at several places of every
//! launch). This library is loaded before the program starts, so its part of a
//! thread's memory lies at a fixed distance from the thread's pointer, which is
//! asked of the linker once (the initial-exec model; the compiler offers it for
//! all of a crate only, and not yet). Few bytes, for small stacks hold them.
//!
//! Everything begins as zeros and has no destructor: what is pointed to is
//! owned by who set the pointer, and taken away before it ends.
//! Not here: what the rooms do with it.

use std::cell::Cell;
use std::ptr;

/// All of it; zeros are a valid value.
#[repr(C)]
pub struct Thread {
    /// A hook's body is on this thread's stack (`hooks`).
    pub inside: Cell<bool>,
    /// The thread's cache of kernels' parameters (`hooks::layouts`).
    pub layouts: Cell<*const ()>,
    /// What says which chunks a launch on the fast path holds (`engine::inflight`).
    pub launch: Cell<*const ()>,
    /// The stream that the thread used last (`engine::users`).
    pub stream: LastStream,
}

/// Launches come in long runs on one stream.
#[repr(C)]
pub struct LastStream {
    pub handle: Cell<usize>,
    /// What the handle means is known for this generation; 0 is none.
    pub generation: Cell<u32>,
    pub user: Cell<u16>,
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .tbss.autooffload_thread,\"awT\",@nobits",
    ".p2align 4",
    ".hidden autooffload_thread",
    ".globl autooffload_thread",
    ".type autooffload_thread,@object",
    ".size autooffload_thread,{bytes}",
    "autooffload_thread:",
    ".zero {bytes}",
    ".popsection",
    bytes = const size_of::<Thread>(),
);

/// The calling thread's. Not to be kept beyond the call of a hook: it goes with
/// the thread.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn thread() -> &'static Thread {
    let at: *const Thread;
    // SAFETY: reads the thread's pointer and the linker's constant distance; the
    // bytes there are the calling thread's own `Thread`, zeros at its start, and
    // live as long as it runs.
    unsafe {
        std::arch::asm!(
            "mov {at}, qword ptr [rip + autooffload_thread@GOTTPOFF]",
            "add {at}, qword ptr fs:[0]",
            at = out(reg) at,
            options(pure, nomem, nostack),
        );
        &*at
    }
}

/// As above, for processors without the few lines of assembly.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn thread() -> &'static Thread {
    thread_local! {
        static THREAD: Thread = const {
            Thread {
                inside: Cell::new(false),
                layouts: Cell::new(ptr::null()),
                launch: Cell::new(ptr::null()),
                stream: LastStream {
                    handle: Cell::new(0),
                    generation: Cell::new(0),
                    user: Cell::new(0),
                },
            }
        };
    }
    // SAFETY: without a destructor it lives as long as the thread.
    unsafe { &*THREAD.with(ptr::from_ref) }
}

/// A pointer taken out of `cell` for a scope, in which it is null to whoever
/// comes back here; put back at the end, but not after a panic.
pub struct TakenOut<'a, T>(&'a Cell<*const T>, *const T);

impl<'a, T> TakenOut<'a, T> {
    #[inline(always)]
    pub fn of(cell: &'a Cell<*const T>) -> Self {
        TakenOut(cell, cell.replace(ptr::null()))
    }

    #[inline(always)]
    pub fn pointer(&self) -> *const T {
        self.1
    }

    #[inline(always)]
    pub fn put_back(self) {
        self.0.set(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own_and_it_begins_as_zeros() {
        let fresh = || {
            let thread = thread();
            !thread.inside.get() && thread.layouts.get().is_null() && thread.launch.get().is_null()
        };
        thread().inside.set(true);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let began = fresh();
                    thread().inside.set(true);
                    (began, ptr::from_ref(thread()) as usize)
                })
            })
            .collect();
        for other in threads {
            let (began, at) = other.join().expect("no panic");
            assert!(began);
            assert_ne!(at, ptr::from_ref(thread()) as usize);
        }
        assert!(thread().inside.replace(false));
    }
}
