"""What library and launcher say, and the situation that makes them say it.

`…` stands for what differs from run to run. The texts are what a user reads;
test_messages.py produces each of them, and finds those that are missing here.
"""

# {situation: lines}. The situations are functions of test_messages.py.
MESSAGES = {
    # --- the library, when all goes well
    "more than the card holds": [
        "device 0: memory is short: … are managed, the budget is …; what does not fit moves to host "
        "memory (page-locked, up to …) and back; link not measured yet",
        "version …: managed 64.00 MiB at most, budget 38.00 MiB, device frames 38.00 MiB at most",
        "planned … resident and a ring of …, host copies … at most; streamed … in all…, "
        "written back …; link …/s",
        "looked at … for writes instead of copying them back: … had been written",
        "… streamed uses: … present when launched (… %), … fetched on demand; … plans, "
        "… slips off the learned order",
        "launches stalled: …; host waits: … for plan change (… ms), … for allocation (… ms), "
        "… for native (0 ms)…"],
    "all fits": ["everything fitted: nothing was copied or evicted"],
    "all but fills the card": [
        "if the program ran out of memory all the same, it keeps to a share of the card "
        "(torch.cuda.set_per_process_memory_fraction): take that out of it, or set "
        "AUTOOFFLOAD_REPORT=enlarged"],
    "a model, learned": [
        "planned … resident and a ring of …, host copies … at most; streamed … in all, "
        "… an iteration, written back …; link …/s",
        "merged … copies of neighbours into …",
        "launches stalled: … ms, from … samples; host waits: …"],
    "a plan in force": [
        "device 0: … of … stay on the card, … stream per step at …/s: at best … a step, expected …; "
        "1.00 GiB more VRAM would save …"],
    "stacked experts": ["read in place, over the link: … of host memory at most"],

    # --- what is not managed
    "small allocations and the program's own": [
        "warn: this program maps device memory itself (expandable_segments:True, NCCL, or "
        "ComfyUI's dynamic VRAM, which offloads by itself): autooffload leaves that memory alone; "
        "take expandable_segments:True out of PyTorch's settings, or leave it if all fits",
        "not managed, in all: 4.00 KiB in allocations below 1 MiB (1 call); 2.00 MiB mapped by "
        "the program itself (cuMemCreate) (1 call)"],
    "an allocation inside a graph": [
        "not managed, in all: 4.00 MiB allocated inside a graph (1 call)"],
    "a card without virtual memory": [
        "warn: device 0 has no virtual memory of 2 MiB frames (an old card, or a vGPU profile): "
        "not offloading there",
        "not managed, in all: 40.00 MiB on a device without virtual memory of 2 MiB frames "
        "(10 calls)"],
    "no address space": [
        "warn: this driver gives no device address space (CUDA error 2): nothing is managed, and "
        "every call goes to the driver as it is",
        "not managed, in all: 40.00 MiB for want of device address space (10 calls)"],
    "an old driver": [
        "warn: this driver does not say what kernels take (it is older than CUDA 12.4: install "
        "driver 550 or newer): nothing is managed, and every call goes to the driver as it is",
        "not managed, in all: 40.00 MiB because this driver is older than CUDA 12.4 (10 calls)"],
    "no stream": [
        "warn: device 0: the driver gives us no stream (CUDA error 2): not offloading there; see "
        "whether other programs fail as well"],
    "captured graphs": [
        "warn: memory named by captured CUDA graphs stays resident: it is not offloaded; switch "
        "graphs off in the program if the card is too small"],
    "a table of addresses": [
        "info: an allocation stays resident for good: its address was copied to the device in a "
        "table"],
    "memory that would escape": [
        f"error: {what} is not possible for memory that may be offloaded; run this program with "
        "AUTOOFFLOAD=0 if it needs it" for what in (
            "sharing device memory with another process",
            "sharing pool memory with another process",
            "exporting device memory (dma-buf)",
            "binding to a multicast object",
            "binding to a logical endpoint")],

    # --- out of memory
    "a wait that does not end": [
        "error: device 0: an allocation has waited for … s for memory that queued work has yet to "
        "use: if that work waits for what the program does later, neither goes on. Raise "
        "AUTOOFFLOAD_VRAM until all that is queued at once fits"],
    "a launch larger than the budget": [
        "warn: device 0: an operation needs … at once and the budget leaves … for managed memory: "
        "what does not fit stays in host memory, which kernels reach over the link, slowly. Raise "
        "AUTOOFFLOAD_VRAM, or use a smaller batch"],
    "a launch larger than the card": [
        "error: device 0: … needs … at once and the budget leaves … for managed memory: out of "
        "memory (cuBLAS may call it CUBLAS_STATUS_EXECUTION_FAILED). Raise AUTOOFFLOAD_VRAM, or "
        "use a smaller batch; with expandable_segments:True, which PyTorch advises, nothing could "
        "be offloaded"],
    "too little RAM": [
        "error: device 0: an operation must move memory to the host, where … more may be used: out "
        "of memory. Raise AUTOOFFLOAD_RAM, or free host memory"],

    # --- a driver that refuses
    "no page-locking": [
        "warn: page-locking host memory failed (CUDA error 2): copies will be slower; raise the "
        "locked-memory limit, or set AUTOOFFLOAD_PIN=0 to silence this",
        "warn: device 0: the device does not reach host memory: all that kernels receive is copied "
        "back, written or not"],
    "no kernel of ours": [
        "warn: device 0: the driver does not take our kernel (CUDA error …): all that kernels "
        "receive is copied back, written or not"],
    "no memory of the host on the card": [
        "info: device 0: kernels cannot read host memory in place here (CUDA error 800): it is "
        "copied"],
    "no mapping": [
        "warn: mapping device memory failed (CUDA error 2): what needs it may run out of memory"],
    "no access": [
        "warn: granting access to device memory failed (CUDA error 2): what needs it may run out "
        "of memory"],
    "no second mapping": [
        "warn: device 0: no second mapping of the ring (CUDA error 2): small neighbours are copied "
        "one by one"],
    "no access for a peer": [
        "warn: device 1 gets no access to memory of device 0 (CUDA error 2): copies between them "
        "may fail; if they do, run with AUTOOFFLOAD=0"],
    "a copy of ours fails": [
        "warn: the driver answered CUDA error 700 to a call of ours: the program's call fails "
        "with it"],
    "no stream after a reset": [
        "error: device 0: the driver gives us no stream after a reset (CUDA error 2): calls that "
        "name memory of our keeping may fail; start the program again"],
    "parameters not told": [
        "error: the driver does not say what parameters a kernel takes (CUDA error 999); such "
        "launches fail, for their weights might be absent; install driver 550 or newer"],
    "a kernel that is watched": [
        "warn: verify: standin_add_through_u32 touched memory that was not there. Absent, and not "
        "named by it: 0x… (4.00 MiB), …. If the program is right without autooffload, it finds "
        "addresses where autooffload does not look: keep that memory on the card with "
        "autooffload_keep, and report the kernel",
        "verify: … launches were watched"],
    "a driver that shuts nothing": [
        "warn: device 0: this driver does not take access to memory away (CUDA error 2): "
        "AUTOOFFLOAD_VERIFY finds nothing here"],
    "no threads": [
        "warn: no thread to plan in (…): weights come when they are asked for, slower; raise the "
        "limit of threads (ulimit -u)"],

    # --- settings
    "settings that are not understood": [
        "warning: AUTOOFFLOAD=maybe: neither 1 nor 0; using the default, 1",
        "warning: AUTOOFFLOAD_VRAM=lots: not a size such as 8G, 512M or 75%; using the default, auto",
        "warning: AUTOOFFLOAD_HEADROOM=5%: bytes are wanted here, not a percentage; using the "
        "default, auto",
        "warning: AUTOOFFLOAD_WINDOW=0: zero chunks; using the default, auto",
        "warning: AUTOOFFLOAD_RAM=8X: unknown unit \"x\" (use K, M, G, T or %); using the default, "
        "auto",
        "warning: AUTOOFFLOAD_REPORT=all: neither budget nor enlarged; using the default, budget",
        "warning: AUTOOFFLOAD_PLANS=here: neither auto, off nor the full path of a folder; using the "
        "default, off",
        "warning: AUTOOFFLOAD_STATS=/no/such/folder/file: …",
        "warning: AUTOOFFLOAD_TRACE=/no/such/folder/trace: …: no trace is written",
        "warning: AUTOOFFLOAD_METRICS=example:80: neither unix:PATH nor an address of this machine, "
        "as 127.0.0.1:9400; using the default, none",
        "warning: AUTOOFFLOAD_VRMA is not a setting; see `autooffload-launch --help`"],
    "more settings that are not understood": [
        "warning: AUTOOFFLOAD_VRAM=0: zero bytes; using the default, auto",
        "warning: AUTOOFFLOAD_METRICS=0.0.0.0:80: only addresses of this machine are served, as "
        "127.0.0.1:9400; using the default, none",
        "warning: AUTOOFFLOAD_HEADROOM=9999999T: larger than any memory; using the default, auto",
        "warning: AUTOOFFLOAD_WINDOW=5%: not a count of chunks or a size such as 64M; using the "
        "default, auto",
        "warning: AUTOOFFLOAD_RAM=200%: a percentage must be above 0 and at most 100; using the "
        "default, auto",
        "warning: AUTOOFFLOAD_STATS=/dev/null: it is not a plain file",
        "warn: AUTOOFFLOAD_PLANS: …: the order is not kept for the next start; name a folder that "
        "is yours alone"],
    "metrics that cannot be served": [
        "warning: AUTOOFFLOAD_METRICS=unix:/no/such/folder/socket: …: no metrics are served"],
    "a file where metrics should be served": [
        "warning: AUTOOFFLOAD_METRICS=unix:…: something is there that is no socket of this user: no "
        "metrics are served"],
    "settings changed while it runs": [
        "warn: autooffload_set(window, never): not a size such as 8G, 512M or 75%",
        "warn: autooffload_set(pin, 0): AUTOOFFLOAD_PIN is fixed when the program starts",
        "warn: autooffload_set(colour, red): no setting is called COLOUR"],

    # --- the launcher
    "nothing used CUDA": ["no process of this run initialised CUDA, so nothing was offloaded"],
    "PyTorch's settings": [
        "removed expandable_segments:True from PYTORCH_CUDA_ALLOC_CONF: memory of expandable "
        "segments could not be offloaded",
        "removed throw_on_cudamalloc_oom:True from PYTORCH_CUDA_ALLOC_CONF: torch would give up "
        "before autooffload is asked to make room",
        "removed per_process_memory_fraction:0.5 from PYTORCH_CUDA_ALLOC_CONF: torch would give up "
        "at that share instead of offloading; it is the budget now (--vram 50%)",
        "removed PYTORCH_ALLOC_CONF as well: PYTORCH_CUDA_ALLOC_CONF hid it from torch"],
    "PyTorch's settings beside ours": [
        "removed per_process_memory_fraction:0.5 from PYTORCH_ALLOC_CONF: torch would give up at "
        "that share instead of offloading; the budget is --vram 8G",
        "removed backend:cudaMallocAsync from PYTORCH_ALLOC_CONF: --allocator native"],
    "an empty variable, and a whole share": [
        "removed PYTORCH_CUDA_ALLOC_CONF, which was empty: torch refuses to start if a program "
        "appends to it",
        "removed per_process_memory_fraction:1.0 from PYTORCH_ALLOC_CONF: torch would give up at "
        "that share instead of offloading; the budget is the card's"],
    "ComfyUI": [
        "ComfyUI 0.38.1: added --gpu-only, so that models go to the card, stay there, and are "
        "streamed by autooffload; `--comfyui off` leaves the command as it is"],
    "ComfyUI with a wish of the user's": [
        "ComfyUI 0.38.1: --lowvram is yours, so ComfyUI moves its models itself and autooffload "
        "only keeps it within the budget; without it, autooffload streams them"],
    "no program named": [
        "name the program to run, e.g. `autooffload-launch python main.py`"],
    "a dry run": ["would run …/true"],
    "no such library": [
        "AUTOOFFLOAD_LIB names '/nowhere/x.so', which is not a file: set it to the path of "
        "libautooffload.so, or unset it"],
    "a tree that was not built": [
        "libautooffload.so not found (looked in …): build it with scripts/build, or set "
        "AUTOOFFLOAD_LIB to its path"],
    "the program of a tree that was not built": [
        "the program autooffload was not found (looked in …): build it with scripts/build"],
    "no such program": [
        "no-such-program: not found in PATH; check the spelling, or give the path of the program"],
    "no such path": ["./no-such-program: no such file; check the path of the program"],
    "a directory": ["/usr: is a directory; name the program to run"],
    "a script that is not executable": [
        "./main.py: is not executable; run it as `autooffload-launch python ./main.py`"],
    "a program here, not in PATH": [
        "tool: not found in PATH, but there is such a file here; run it as "
        "`autooffload-launch ./tool` after `chmod +x tool`"],
    "an interpreter that is missing": [
        "./script: its interpreter /no/such/shell does not exist; correct its first line or "
        "install the interpreter"],
    "a file of no known kind": [
        "./odd: cannot be executed: it has no `#!` line and is no program of this machine's kind"],
    "a static program": [
        "./static: is statically linked, so nothing can be preloaded into it: use a dynamically "
        "linked build of the program"],
    "a 32-bit program": [
        "./narrow: is a 32-bit program and the library is 64-bit: use a 64-bit build of the "
        "program"],
    "a set-ID program": [
        "./suid: runs with the rights of its owner or group (set-ID bit), and the loader ignores "
        "preloads for such programs: use a copy without that bit"],
}

# Messages that no situation here can bring about, and why.
OUT_OF_REACH = {
    "internal error in …; the call …; please report this (said once)":
        "needs a fault of ours",
    "a plan failed its own check (…): the former one stays; please report this":
        "needs a fault of ours",
    "cuGetProcAddress answers an address that libcuda does not export (…); hooks are chosen by "
    "name from here on": "needs a driver of that kind; tests/hooks.rs has one",
    "warning: AUTOOFFLOAD_TRACE: …: the trace ends here": "needs a disk that gets full",
    "page-locking host memory: … so far, after … s": "needs a terminal, and more than two seconds",
    "looking for a plan for … uses of weights, after … s": "likewise",
    "asked for before the library was ready": "such an allocation cannot succeed before cuInit",
    "asked for without a context": "the driver refuses it, and what is refused is not counted",
    "a kernel that reads through a table of addresses is launched on a stream that waits for the "
    "host: what the table names cannot be made present, so the launch is refused":
        "needs a kernel of that kind on a held-up stream, which raw.py does not have",
    "from pools of host or exportable memory": "the stand-in has no such pools",
    "has file capabilities, and the loader ignores preloads for such programs: use a copy without "
    "them": "is not looked at for root, as whom the tests may run",
}
