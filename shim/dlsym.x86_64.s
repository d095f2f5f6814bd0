// The exported `dlsym`: what Rust cannot express, a jump that leaves the
// caller's return address in place.
//
// Asks the filter ({filter}: Verdict filter(handle, name), two words in rax and
// rdx, SysV ABI). An answer is returned; without one the real `dlsym` (rdx) is
// jumped to with the caller's own arguments and return address, so that
// RTLD_NEXT still sees who asked.
//
// On entry rsp is 8 below a 16-byte boundary; two pushes and 8 bytes align the
// call. Only rdi and rsi carry arguments of dlsym.
    push rdi
    push rsi
    sub rsp, 8
    call {filter}
    add rsp, 8
    pop rsi
    pop rdi
    test rax, rax
    jnz 2f
    jmp rdx
2:
    ret
