"""Calls the driver directly, without PyTorch, and comes into the situation that it is asked for.

Not here: what is said then (messages.py).
"""

import ctypes
import os
import sys
import tempfile
import threading
import time

MIB = 1 << 20
FRAME = 2 * MIB
cuda = ctypes.CDLL("libcuda.so.1")
process = ctypes.CDLL(None)
u64, size = ctypes.c_uint64, ctypes.c_size_t


def ok(code):
    assert code == 0, f"CUDA error {code}"


def start(device=0):
    context = ctypes.c_void_p()
    ok(cuda.cuInit(0))
    ok(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    ok(cuda.cuCtxSetCurrent(context))
    return context


def allocate(count=size(4 * MIB)):
    address = u64()
    code = cuda.cuMemAlloc_v2(ctypes.byref(address), count)
    return address if code == 0 else None


source = (ctypes.c_char * (4 * MIB))()


def fill(address, count=4 * MIB):
    return cuda.cuMemcpyHtoD_v2(address, source, size(count))


def evict(chunks=16, rounds=4):
    """More than the card holds, in turns; a call that fails is the situation asked for."""
    addresses = [address for address in (allocate() for _ in range(chunks)) if address]
    for _ in range(rounds):
        for address in addresses:
            if fill(address) != 0:
                return addresses
    return addresses


def small_tensors():
    """Neighbours that are copied together."""
    addresses = [allocate(size(FRAME)) for _ in range(24)]
    for _ in range(12):
        for address in addresses:
            fill(address, FRAME)


def refused():
    """Everything that would let an address escape."""
    address, out = allocate(), (ctypes.c_char * 64)()
    for name, *arguments in (
            ("cuIpcGetMemHandle", out, address),
            ("cuMemPoolExportPointer", out, address),
            ("cuMemGetHandleForAddressRange", out, address, size(FRAME), 1, u64(0)),
            ("cuMulticastBindAddr", u64(1), size(0), address, size(FRAME), u64(0)),
            ("cuLogicalEndpointBindAddr", 1, 0, u64(0), address, u64(FRAME), u64(0))):
        assert getattr(cuda, name)(*arguments) == 801, name


def pinned():
    """A table of addresses keeps what it names."""
    named, table = allocate(), allocate()
    words = (u64 * 8)(named.value)
    ok(cuda.cuMemcpyHtoD_v2(table, words, size(ctypes.sizeof(words))))


def peers():
    """Another device may reach ours: before there is memory, and after."""
    first, second = start(0), start(1)
    allocate()
    ok(cuda.cuCtxSetCurrent(first))
    allocate()
    ok(cuda.cuCtxSetCurrent(second))
    cuda.cuCtxEnablePeerAccess(first, 0)


def reset():
    """The primary context is reset while another has memory of ours."""
    start()
    other = ctypes.c_void_p()
    ok(cuda.cuCtxCreate_v2(ctypes.byref(other), 0, 0))
    allocate()
    cuda.cuDevicePrimaryCtxReset_v2(0)


def settings():
    allocate()
    for key, value in ((b"window", b"never"), (b"pin", b"0"), (b"colour", b"red")):
        process.autooffload_set(key, value)


def passed_on():
    """Memory that is not managed, for one reason after the other."""
    allocate(size(4096))
    location = (ctypes.c_uint32 * 8)(1, 0, 1, 0)  # CUmemAllocationProp: pinned, on a device
    handle = u64()
    cuda.cuMemCreate(ctypes.byref(handle), size(FRAME), location, u64(0))


def capture():
    """An allocation inside a graph."""
    stream, graph, address = u64(), u64(), u64()
    ok(cuda.cuStreamCreate(ctypes.byref(stream), 1))
    ok(cuda.cuStreamBeginCapture_v2(stream, 0))
    cuda.cuMemAllocAsync(ctypes.byref(address), size(4 * MIB), stream)
    cuda.cuStreamEndCapture(stream, ctypes.byref(graph))


def unseen():
    """A kernel reads through a table that is too large to be searched."""
    image = (b"standin-module v1\nkernel standin_table_u64 8,8,8,8\n"
             b"kernel standin_add_through_u32 8,8,8,8\n")
    module, sums, table = u64(), allocate(size(FRAME)), allocate()
    ok(cuda.cuModuleLoadData(ctypes.byref(module), image))
    weights = evict(rounds=1)

    def launch(name, *arguments):
        kernel = u64()
        ok(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, name))
        pointers = [ctypes.cast(ctypes.byref(argument), ctypes.c_void_p) for argument in arguments]
        cuda.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None,
                            (ctypes.c_void_p * len(arguments))(*pointers), None)

    launch(b"standin_table_u64", table, weights[0], u64(0), u64(1))
    for address in weights[1:]:
        fill(address)
    launch(b"standin_add_through_u32", sums, table, u64(0), u64(16))


def stalled():
    """A stream that waits for the host has yet to use all that fits, and more is asked for. It
    goes on when that was said."""
    addresses = [allocate() for _ in range(8)]
    stream, host, word = u64(), ctypes.POINTER(ctypes.c_uint32)(), u64()
    ok(cuda.cuStreamCreate(ctypes.byref(stream), 1))
    ok(cuda.cuMemHostAlloc(ctypes.byref(host), size(4096), 0))
    host[0] = 0
    ok(cuda.cuMemHostGetDevicePointer_v2(ctypes.byref(word), host, 0))
    ok(cuda.cuStreamWaitValue32_v2(stream, word, 1, 1))
    for address in addresses:
        ok(cuda.cuMemsetD32Async(address, 1, size(MIB), stream))
    with tempfile.TemporaryFile() as heard:
        stderr = os.dup(2)
        os.dup2(heard.fileno(), 2)

        served = threading.Event()

        def go_on():
            while not served.is_set() and b"has waited for" not in os.pread(
                    heard.fileno(), 1 << 16, 0):
                time.sleep(0.1)
            host[0] = 1

        listener = threading.Thread(target=go_on)
        listener.start()
        allocate(size(16 * MIB))
        served.set()
        listener.join()
        os.dup2(stderr, 2)
        os.write(2, os.pread(heard.fileno(), 1 << 16, 0))


CASES = {case.__name__: case for case in (
    evict, small_tensors, refused, pinned, peers, reset, settings, passed_on, capture,
    unseen, stalled)}

if __name__ == "__main__":
    case = CASES[sys.argv[1]]
    if case not in (peers, reset):
        start()
    case()
