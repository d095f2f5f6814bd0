//! Kernels: images, parameters, launches, unknown kernels, resolution.

mod common;
use common::elf::elf;
use common::*;
use std::ffi::{CString, c_void};

/// A cubin with one kernel: the least ELF the driver reads.
fn cubin(kernel: &str, parameters: &[(u16, u16, u16)]) -> Vec<u8> {
    let mut info = Vec::new();
    for &(ordinal, offset, size) in parameters.iter().rev() {
        info.extend([4, 0x17, 12, 0, 0, 0, 0, 0]);
        info.extend(ordinal.to_le_bytes());
        info.extend(offset.to_le_bytes());
        info.extend((u32::from(size) << 18).to_le_bytes());
    }
    let mut names = vec![0u8];
    let mut name = |text: &str| {
        let at = names.len() as u32;
        names.extend(text.bytes().chain([0]));
        at
    };
    let own = name(".shstrtab");
    let (text, described) = (name(&format!(".text.{kernel}")), name(&format!(".nv.info.{kernel}")));
    elf(
        1,
        &[
            (0, 0, &[], 0),
            (own, 3, &names, 0),
            (text, 1, &[0; 16], 0),
            (described, 0x7000_0000, &info, 0),
        ],
    )
}

/// A fat binary of one uncompressed cubin behind the registered wrapper.
fn fatbin(sm: u32, cubin: &[u8]) -> (Vec<u8>, [u64; 3]) {
    let mut entry = vec![0u8; 64];
    entry[0] = 2;
    entry[4..8].copy_from_slice(&64u32.to_le_bytes());
    entry[8..16].copy_from_slice(&(cubin.len() as u64).to_le_bytes());
    entry[28..32].copy_from_slice(&sm.to_le_bytes());
    entry.extend(cubin);
    let mut data = 0xBA55_ED50u32.to_le_bytes().to_vec();
    data.extend([1, 0, 16, 0]);
    data.extend((entry.len() as u64).to_le_bytes());
    data.extend(entry);
    let wrapper = [0x1_4662_43b1, data.as_ptr() as u64, 0];
    (data, wrapper)
}

fn load(image: *const u8) -> u64 {
    let mut module = 0u64;
    ok!(cuModuleLoadData(&mut module => &mut u64, image => *const u8));
    module
}

fn params(function: u64) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    loop {
        let (mut offset, mut size) = (0usize, 0usize);
        let code = cu!(cuFuncGetParamInfo(function => u64, found.len() => usize, &mut offset => &mut usize, &mut size => &mut usize));
        match code {
            0 => found.push((offset, size)),
            1 => return found,
            _ => panic!("code {code}"),
        }
    }
}

gpu_test!(parameter_sizes_come_from_the_cubin, [], {
    start();
    let elf = cubin("standin_fill_u32", &[(0, 0, 8), (1, 8, 8), (2, 16, 4)]);
    let layout = vec![(0, 8), (8, 8), (16, 4)];
    let plain = load(elf.as_ptr());
    assert_eq!(params(function(plain, "standin_fill_u32")), layout);
    let (_data, wrapper) = fatbin(80, &elf);
    let fat = load(wrapper.as_ptr().cast());
    let fill = function(fat, "standin_fill_u32");
    assert_eq!(params(fill), layout);
    let (address, count, value) = (alloc(FRAME), 4u64, 6u32);
    let p = |v: &u64| std::ptr::from_ref(v).cast::<c_void>();
    assert_eq!(launch(fill, LEGACY, &[p(&address), p(&count), (&raw const value).cast()]), 0);
    assert_eq!(read(address + 12), 6);
    let name = CString::new("no_such_kernel").unwrap();
    let mut none = 0u64;
    assert_eq!(
        cu!(cuModuleGetFunction(&mut none => &mut u64, fat => u64, name.as_ptr() => *const i8)),
        500
    );
});

gpu_test!(kernels_and_functions_both_launch, [], {
    start();
    let library = module(OWN_KERNELS);
    let name = CString::new("standin_add_u32").unwrap();
    let (mut kernel, mut function) = (0u64, 0u64);
    ok!(cuLibraryGetKernel(&mut kernel => &mut u64, library => u64, name.as_ptr() => *const i8));
    ok!(cuKernelGetFunction(&mut function => &mut u64, kernel => u64));
    assert_ne!(kernel, function);
    let address = alloc(FRAME);
    write(address, 3);
    assert_eq!(launch_add(kernel, LEGACY, address, address, 1), 0);
    assert_eq!(launch_add(function, LEGACY, address, address, 1), 0);
    assert_eq!(read(address), 12);
    let (mut offset, mut size) = (0usize, 0usize);
    ok!(cuKernelGetParamInfo(kernel => u64, 2 => usize, &mut offset => &mut usize, &mut size => &mut usize));
    assert_eq!((offset, size), (16, 8));
    assert_eq!(
        cu!(cuFuncGetParamInfo(kernel => u64, 0 => usize, &mut offset => &mut usize, &mut size => &mut usize)),
        400,
        "a kernel is no function here"
    );
    assert_eq!(
        cu!(cuLaunchKernel(7 => u64, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 0 => u32, 0 => u64, 0 => u64, 0 => u64)),
        400
    );
});

gpu_test!(packed_parameters, [], {
    start();
    let add = function(module(OWN_KERNELS), "standin_add_u32");
    let address = alloc(FRAME);
    write(address, 5);
    let buffer = [address, address, 1];
    let bytes = 24usize;
    let extra: [*const c_void; 5] = [
        std::ptr::without_provenance(1), // CU_LAUNCH_PARAM_BUFFER_POINTER
        buffer.as_ptr().cast(),
        2 as *const c_void,
        (&raw const bytes).cast(),
        std::ptr::null(),
    ];
    let launch = || {
        cu!(cuLaunchKernel(add => u64, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 1 => u32, 0 => u32,
            0 => u64, std::ptr::null() => *const c_void, extra.as_ptr() => *const *const c_void))
    };
    assert_eq!(launch(), 0);
    assert_eq!(read(address), 10);
});

fn launch_unknown(module: u64, to: u64, from: u64) -> i32 {
    let p = |v: &u64| std::ptr::from_ref(v).cast::<c_void>();
    launch(function(module, "nobody_knows"), LEGACY, &[p(&to), p(&from)])
}

gpu_test!(an_unknown_kernel_fails_the_launch, [], {
    start();
    let address = alloc(FRAME);
    assert_eq!(launch_unknown(module(OWN_KERNELS), address, address), 500);
    assert_eq!(account()["unknown_kernels"]["nobody_knows"], 1);
    assert_eq!(figure("launches"), 0);
    assert_eq!(read(address), u32::MAX, "and nothing else is wrong");
});

gpu_test!(what_an_unknown_kernel_may_have_written_is_not_read, ["STANDIN_UNKNOWN" = "touch"], {
    start();
    let own = module(OWN_KERNELS);
    let (touched, next, copied, clean) = (alloc(FRAME), alloc(FRAME), alloc(FRAME), alloc(FRAME));
    write(touched, 1);
    assert_eq!(launch_unknown(own, touched, touched), 0);
    let refused = |address: u64| {
        let mut word = 0u32;
        cu!(cuMemcpyDtoH_v2(&mut word => &mut u32, address => u64, 4 => usize)) == 801
    };
    assert!(refused(touched));
    assert!(!refused(next));
    assert_eq!(launch_add(function(own, "standin_add_u32"), LEGACY, next, touched, 1), 0);
    assert!(refused(next), "through a later kernel");
    ok!(cuMemcpyDtoD_v2(copied => u64, next => u64, 64 => usize));
    assert!(refused(copied), "through a copy");
    assert!(!refused(copied + 64), "of exactly those bytes");
    assert!(!refused(clean));
    write(copied, 1);
    assert!(!refused(copied), "until they are written");
});

gpu_test!(unknown_kernels_can_be_only_counted, ["STANDIN_UNKNOWN" = "count"], {
    start();
    let address = alloc(FRAME);
    assert_eq!(launch_unknown(module(OWN_KERNELS), address, address), 0);
    assert_eq!(account()["unknown_kernels"]["nobody_knows"], 1);
    assert_eq!(read(address), u32::MAX);
});

gpu_test!(get_proc_address_answers_the_exported_symbols, [], {
    ok!(cuInit(0 => u32));
    let lookup = |name: &str, version: i32, flags: u64| {
        let text = CString::new(name).unwrap();
        let (mut pointer, mut status) = (std::ptr::without_provenance_mut::<c_void>(1), 9i32);
        let code = cu!(cuGetProcAddress_v2(text.as_ptr() => *const i8, &mut pointer => &mut *mut c_void,
            version => i32, flags => u64, &mut status => &mut i32));
        (code, pointer, status)
    };
    assert_eq!(lookup("cuMemAlloc", 13000, 0), (0, symbol("cuMemAlloc_v2"), 0));
    assert_eq!(lookup("cuMemcpyAsync", 13000, 2), (0, symbol("cuMemcpyAsync_ptsz"), 0));
    assert_eq!(lookup("cuMemcpyAsync", 13000, 1), (0, symbol("cuMemcpyAsync"), 0));
    assert_eq!(lookup("cuGraphAddKernelNode", 11080, 0).1, symbol("cuGraphAddKernelNode"));
    assert_eq!(lookup("cuGraphAddKernelNode", 12000, 0).1, symbol("cuGraphAddKernelNode_v2"));
    assert_eq!(lookup("cuNoSuchThing", 13000, 0), (0, std::ptr::null_mut(), 1));
    assert_eq!(lookup("cuMemCreate", 9000, 0), (0, std::ptr::null_mut(), 2));
    assert_eq!(lookup("cuMemAlloc_v2", 13000, 0).2, 1);
    let (name, mut pointer) = (CString::new("cuNoSuchThing").unwrap(), 5 as *mut c_void);
    let code = cu!(cuGetProcAddress(name.as_ptr() => *const i8, &mut pointer => &mut *mut c_void, 13000 => i32, 0 => u64));
    assert_eq!((code, pointer), (500, 5 as *mut c_void), "v1 leaves the pointer alone");
});

gpu_test!(nothing_works_before_init_or_in_a_forked_child, [], {
    let mut address = 0u64;
    assert_eq!(cu!(cuMemAlloc_v2(&mut address => &mut u64, 4 => usize)), 3);
    start();
    // SAFETY: the child only makes one call and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = cu!(cuMemAlloc_v2(&mut address => &mut u64, 4 => usize));
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(libc::WEXITSTATUS(status), 3);
    alloc(4);
});

gpu_test!(globals_are_zeroed_memory, [], {
    start();
    let own = module(OWN_KERNELS);
    let name = CString::new("nothing").unwrap();
    let (mut address, mut bytes) = (0u64, 0usize);
    let code = cu!(cuModuleGetGlobal_v2(&mut address => &mut u64, &mut bytes => &mut usize, own => u64, name.as_ptr() => *const i8));
    assert_eq!(code, 500);
});
