//! Modules that come as PTX: the library's own kernel, run as it ships.

mod common;
use common::*;
use std::ffi::{CString, c_void};

fn text() -> CString {
    CString::new(include_str!("../../../shim/fingerprint.ptx")).unwrap()
}

fn load(module: &mut u64) -> i32 {
    cu!(cuModuleLoadData(module => &mut u64, text().as_ptr().cast() => *const c_void))
}

/// Page-locked host memory, by the address that host and device share.
fn host(bytes: usize) -> *mut u8 {
    let mut at: *mut u8 = std::ptr::null_mut();
    ok!(cuMemHostAlloc(&mut at => &mut *mut u8, bytes => usize, 2 => u32));
    at
}

const PIECE: usize = 1 << 16;

/// Fingerprints of a range, then a changed byte in its second piece, which alone must reach the host.
fn changed_bytes_reach_the_host() {
    start();
    let (mut module, mut function) = (0u64, 0u64);
    assert_eq!(load(&mut module), 0);
    let name = c"fingerprint_pieces";
    ok!(cuModuleGetFunction(&mut function => &mut u64, module => u64, name.as_ptr() => *const i8));
    let bytes = 2 * PIECE + 100;
    let base = alloc(bytes);
    ok!(cuMemsetD8_v2(base => u64, 5 => u8, bytes => usize));
    let (table, copy, saved) = (host(3 * 8), host(bytes), host(3 * 4));
    let launch = |to: u64| {
        let values = [base, bytes as u64, table as u64, to, saved as u64];
        let mut pointers = values.each_ref().map(|value| value as *const u64 as *mut c_void);
        ok!(cuLaunchKernel(function => u64, 1 => u32, 1 => u32, 1 => u32, 128 => u32, 1 => u32,
            1 => u32, 0 => u32, 0 => u64, pointers.as_mut_ptr() => *mut *mut c_void,
            std::ptr::null_mut() => *mut *mut c_void));
        ok!(cuCtxSynchronize());
    };
    launch(0);
    launch(copy as u64);
    // SAFETY: pinned memory of these sizes, and the device is idle.
    let read = |at: *mut u8, length| unsafe { std::slice::from_raw_parts(at, length) };
    assert!(read(copy, bytes).iter().all(|&byte| byte == 0));
    ok!(cuMemsetD8_v2(base + PIECE as u64 + 7 => u64, 6 => u8, 1 => usize));
    launch(copy as u64);
    let stored = read(copy, bytes);
    assert!(stored[..PIECE].iter().chain(&stored[2 * PIECE..]).all(|&byte| byte == 0));
    assert!((PIECE..2 * PIECE).all(|at| stored[at] == if at == PIECE + 7 { 6 } else { 5 }));
    assert_eq!(read(saved, 12), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
}

gpu_test!(by_the_twin, [], { changed_bytes_reach_the_host() });
gpu_test!(by_the_text, ["STANDIN_PTX" = "text"], { changed_bytes_reach_the_host() });
gpu_test!(refused_where_it_is_switched_off, ["STANDIN_PTX" = "off"], {
    start();
    assert_eq!(load(&mut 0), 223);
});
