"""Everything PyTorch asks of NVIDIA's libraries is there, and says what it is."""

import ctypes
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "standin" / "stubs"))

import elf  # noqa: E402
import generate  # noqa: E402


def torch_objects():
    import torch
    return sorted(Path(torch.__file__).parent.rglob("*.so*"))


def test_every_import_is_there(program):
    """The loader binds every symbol, with its version, of every object of torch."""
    finished = program("""
        import ctypes, torch
        from pathlib import Path
        for path in sorted((Path(torch.__file__).parent / "lib").glob("*.so")):
            ctypes.CDLL(str(path))
        print("bound")
    """, LD_BIND_NOW="1")
    assert (finished.stdout, finished.stderr) == ("bound\n", "")


def test_needed_libraries_are_ours():
    """None of NVIDIA's run-time libraries is mapped."""
    import torch
    torch.cuda.init()
    ours = Path(os.environ["LD_LIBRARY_PATH"].split(":")[0]).resolve()
    needed = {soname for path in torch_objects() for soname in elf.read(path)[0]}
    sonames = {s for s in needed if generate.stem(s) in generate.LIBRARIES} | generate.IMPLEMENTED
    mapped = {line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    for path in map(Path, mapped):
        if path.name in sonames:
            assert path.resolve().parent == ours, path


def test_a_stub_refuses_and_says_its_name_once(capfd):
    stub = ctypes.CDLL("libcusolver.so.12").cusolverDnDestroy
    assert stub(None) == 9 and stub(None) == 9
    said = capfd.readouterr().err
    assert said.count("cusolverDnDestroy") == 1 and "stub of the stand-in" in said


def test_cudnn_fails_cleanly():
    """The program gets an error that says why, and can go on."""
    import torch
    layer, x = torch.nn.Conv2d(3, 8, 3).cuda(), torch.ones(1, 3, 8, 8).cuda()
    with pytest.raises(RuntimeError, match="stub of the stand-in"):
        layer(x)
    assert (x + 1).cpu().eq(2).all()


def test_the_device_says_what_it_is():
    import torch
    properties = torch.cuda.get_device_properties(0)
    assert "stand-in" in properties.name.lower()
    assert (properties.major, properties.minor) == (8, 6)
    assert properties.total_memory == torch.cuda.mem_get_info()[1]
    assert properties.warp_size == 32
    assert properties.multi_processor_count >= 1
    assert properties.max_threads_per_multi_processor >= 1024


@pytest.mark.parametrize("code, name, text", [
    (0, b"cudaSuccess", b"no error"),
    (2, b"cudaErrorMemoryAllocation", b"out of memory"),
    (700, b"cudaErrorIllegalAddress", b"an illegal memory access was encountered"),
    (123456, b"unrecognized error code", b"unrecognized error code"),
])
def test_error_texts(code, name, text):
    runtime = ctypes.CDLL("libcudart.so.13")
    for function, expected in ((runtime.cudaGetErrorName, name), (runtime.cudaGetErrorString, text)):
        function.restype = ctypes.c_char_p
        assert function(code) == expected


def test_last_error_is_kept_until_read():
    import torch
    torch.cuda.init()
    runtime = ctypes.CDLL("libcudart.so.13")
    assert runtime.cudaSetDevice(99) == 101
    assert runtime.cudaPeekAtLastError() == 101
    assert runtime.cudaGetLastError() == 101
    assert runtime.cudaGetLastError() == 0
