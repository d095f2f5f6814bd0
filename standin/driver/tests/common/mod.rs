//! A test's own view of the stand-in driver: the built library, opened like
//! any program would, and one process per test, since settings and faults
//! belong to a process.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod elf;

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const MIB: usize = 1 << 20;
pub const FRAME: usize = 2 * MIB;
pub const LEGACY: u64 = 0;
pub const NON_BLOCKING: u32 = 1;

const CHILD: &str = "STANDIN_TEST_CHILD";
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Runs `body` in a process of its own with `settings` in its environment.
/// `name` is the test's full name.
pub fn isolated(name: &str, settings: &[(&str, &str)], body: fn()) {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    for (key, _) in std::env::vars().filter(|(k, _)| k.starts_with("STANDIN_")) {
        if key != "STANDIN_LIBCUDA" {
            command.env_remove(key);
        }
    }
    command.env(CHILD, name).envs(settings.iter().copied()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{name}: {status}");
            return;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{name}: no end after {TIME_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Declares an isolated test: name, settings, body.
#[macro_export]
macro_rules! gpu_test {
    ($name:ident, [$($key:literal = $value:literal),*], $body:block) => {
        #[test]
        fn $name() {
            fn body() $body
            $crate::common::isolated(stringify!($name), &[$(($key, $value)),*], body);
        }
    };
}

fn library() -> *mut c_void {
    static HANDLE: OnceLock<usize> = OnceLock::new();
    *HANDLE.get_or_init(|| {
        let path = std::env::var_os("STANDIN_LIBCUDA").map_or_else(built_library, PathBuf::from);
        let text = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: loads our own library by a NUL-terminated path.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "cannot load {}", path.display());
        handle as usize
    }) as *mut c_void
}

/// cargo puts the library beside the test, or one folder up.
fn built_library() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join("libcuda.so"));
    found.into_iter().find(|p| p.exists()).expect("libcuda.so is not built; set STANDIN_LIBCUDA")
}

pub fn symbol(name: &str) -> *mut c_void {
    let text = CString::new(name).unwrap();
    // SAFETY: a live handle and a NUL-terminated name.
    unsafe { libc::dlsym(library(), text.as_ptr()) }
}

/// Calls a driver entry point with arguments of exactly these types.
#[macro_export]
macro_rules! cu {
    ($name:ident($($value:expr => $ty:ty),* $(,)?)) => {{
        let symbol = $crate::common::symbol(stringify!($name));
        assert!(!symbol.is_null(), concat!(stringify!($name), " is not exported"));
        // SAFETY: the types are those of the entry point, as each test states
        // them; pointers are to locals of the test.
        let function: extern "C" fn($($ty),*) -> i32 = unsafe { std::mem::transmute(symbol) };
        function($($value),*)
    }};
}

/// As `cu!`, and the call must succeed.
#[macro_export]
macro_rules! ok {
    ($name:ident($($argument:tt)*)) => {
        assert_eq!($crate::cu!($name($($argument)*)), 0, stringify!($name))
    };
}

/// cuInit, and the primary context of device 0 made current.
pub fn start() -> u64 {
    ok!(cuInit(0 => u32));
    let mut context = 0u64;
    ok!(cuDevicePrimaryCtxRetain(&mut context => &mut u64, 0 => i32));
    ok!(cuCtxSetCurrent(context => u64));
    context
}

pub fn alloc(bytes: usize) -> u64 {
    let mut address = 0u64;
    ok!(cuMemAlloc_v2(&mut address => &mut u64, bytes => usize));
    address
}

pub fn stream() -> u64 {
    let mut stream = 0u64;
    ok!(cuStreamCreate(&mut stream => &mut u64, NON_BLOCKING => u32));
    stream
}

pub fn event() -> u64 {
    let mut event = 0u64;
    ok!(cuEventCreate(&mut event => &mut u64, 0 => u32));
    event
}

pub fn record(event: u64, stream: u64) {
    ok!(cuEventRecord(event => u64, stream => u64));
}

pub fn wait(stream: u64, event: u64) {
    ok!(cuStreamWaitEvent(stream => u64, event => u64, 0 => u32));
}

pub fn sync(stream: u64) {
    ok!(cuStreamSynchronize(stream => u64));
}

/// `words` of pinned host memory.
pub fn pinned(words: usize) -> &'static mut [u32] {
    let mut memory = std::ptr::null_mut::<u32>();
    ok!(cuMemHostAlloc(&mut memory => &mut *mut u32, words * 4 => usize, 0 => u32));
    // SAFETY: the driver has just allocated that much, zeroed.
    unsafe { std::slice::from_raw_parts_mut(memory, words) }
}

/// Sets `words` words of device memory, in stream order.
pub fn fill(address: u64, value: u32, words: usize, stream: u64) {
    ok!(cuMemsetD32Async(address => u64, value => u32, words => usize, stream => u64));
}

/// Reads a word, waiting for the legacy stream.
pub fn read(address: u64) -> u32 {
    let mut word = 0u32;
    ok!(cuMemcpyDtoH_v2(&mut word => &mut u32, address => u64, 4 => usize));
    word
}

pub fn write(address: u64, word: u32) {
    ok!(cuMemcpyHtoD_v2(address => u64, &word => &u32, 4 => usize));
}

/// The account, as JSON.
pub fn account() -> serde_json::Value {
    type Json = unsafe extern "C" fn(*mut u8, usize) -> usize;
    // SAFETY: the exported symbol has this type.
    let json: Json = unsafe { std::mem::transmute(symbol("standin_account_json")) };
    // SAFETY: asks for the length, then passes a buffer of it (and of what the
    // account may have grown by).
    let mut buffer = vec![0u8; unsafe { json(std::ptr::null_mut(), 0) } + 4096];
    // SAFETY: as above.
    let len = unsafe { json(buffer.as_mut_ptr(), buffer.len()) };
    serde_json::from_slice(&buffer[..len - 1]).unwrap()
}

pub fn figure(key: &str) -> u64 {
    account()[key].as_u64().unwrap_or_else(|| panic!("no figure {key}"))
}

/// A gate on a stream: work behind it waits until [`open`].
pub fn gate(stream: u64) -> &'static mut u32 {
    let word = &mut pinned(1)[0];
    const EQUAL: u32 = 1;
    ok!(cuStreamWaitValue32_v2(stream => u64, word as *mut u32 => *mut u32, 1 => u32, EQUAL => u32));
    word
}

pub fn open(gate: &mut u32) {
    // SAFETY: a live, aligned word that the driver polls.
    unsafe { std::ptr::write_volatile(gate, 1) };
}

/// A module of the stand-in's own kernels: `lines` after the magic.
pub fn module(lines: &str) -> u64 {
    let image = CString::new(format!("{}{lines}", standin_abi::IMAGE_MAGIC)).unwrap();
    let mut module = 0u64;
    ok!(cuModuleLoadData(&mut module => &mut u64, image.as_ptr() => *const i8));
    module
}

pub fn function(module: u64, name: &str) -> u64 {
    let text = CString::new(name).unwrap();
    let mut function = 0u64;
    ok!(cuModuleGetFunction(&mut function => &mut u64, module => u64, text.as_ptr() => *const i8));
    function
}

pub const OWN_KERNELS: &str =
    "kernel standin_fill_u32 8,8,4\nkernel standin_add_u32 8,8,8\nkernel nobody_knows 8,8\n";

/// Launches with one block of one thread; arguments are pointers to values.
pub fn launch(function: u64, stream: u64, arguments: &[*const c_void]) -> i32 {
    cu!(cuLaunchKernel(
        function => u64, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 0 => u32,
        stream => u64, arguments.as_ptr() => *const *const c_void,
        std::ptr::null() => *const c_void
    ))
}

/// `standin_add_u32(to, from, count)`.
pub fn launch_add(function: u64, stream: u64, to: u64, from: u64, count: u64) -> i32 {
    let p = |v: &u64| std::ptr::from_ref(v).cast::<c_void>();
    launch(function, stream, &[p(&to), p(&from), p(&count)])
}

#[repr(C)]
pub struct AllocationProp {
    pub kind: i32,
    pub handle_types: i32,
    pub location: [i32; 2],
    pub win32: u64,
    pub flags: u64,
}

pub fn device_memory(device: i32) -> AllocationProp {
    AllocationProp { kind: 1, handle_types: 0, location: [1, device], win32: 0, flags: 0 }
}

/// Memory of a NUMA node of the host.
pub fn host_memory(node: i32) -> AllocationProp {
    AllocationProp { location: [3, node], ..device_memory(0) }
}

/// A physical handle on device 0.
pub fn create(bytes: usize) -> u64 {
    let mut handle = 0u64;
    let prop = device_memory(0);
    ok!(cuMemCreate(&mut handle => &mut u64, bytes => usize, &prop => &AllocationProp, 0 => u64));
    handle
}

pub fn reserve(bytes: usize) -> u64 {
    let mut address = 0u64;
    ok!(cuMemAddressReserve(&mut address => &mut u64, bytes => usize, 0 => usize, 0 => u64, 0 => u64));
    address
}

pub fn map(address: u64, bytes: usize, handle: u64) -> i32 {
    cu!(cuMemMap(address => u64, bytes => usize, 0 => usize, handle => u64, 0 => u64))
}

/// Grants device 0 access: 1 read, 3 read and write.
pub fn access(address: u64, bytes: usize, flags: i32) -> i32 {
    let desc = [1i32, 0, flags];
    cu!(cuMemSetAccess(address => u64, bytes => usize, &desc => &[i32; 3], 1 => usize))
}
