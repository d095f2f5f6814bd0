"""Everything PyTorch asks of NVIDIA's libraries is there, and says what it is."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = Path(os.environ["LD_LIBRARY_PATH"].split(":")[0]).resolve()
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
    needed = {soname for path in torch_objects() for soname in elf.read(path)[0]}
    sonames = {s for s in needed if generate.stem(s) in generate.LIBRARIES} | {"libcuda.so.1"}
    mapped = {line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    for path in map(Path, mapped):
        if path.name in sonames:
            assert path.resolve().parent == OURS, path


def test_a_stub_refuses_and_says_its_name_once(capfd):
    soname = next(OURS.glob("libcusolver.so.*")).name
    stub = ctypes.CDLL(soname).cusolverDnDestroy
    assert stub(None) == 9 and stub(None) == 9
    said = capfd.readouterr().err
    assert said.count("cusolverDnDestroy") == 1 and "stub of the stand-in" in said


def test_what_is_not_implemented_is_a_stub_too(tmp_path):
    """A function that a future PyTorch might import from a library that is implemented."""
    site = tmp_path / "site"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "lib.c").write_text("int cudaNewest(void); int cudaFree(void *);"
                                          "int both(void) { return cudaFree(0) ? -1 : cudaNewest(); }")
    out = tmp_path / "out"
    out.mkdir()
    for library in generate.IMPLEMENTED.values():
        (out / library).symlink_to(OURS / library)
    runtime = next(OURS.glob("libcudart.so.*")).name
    (tmp_path / "runtime.c").write_text("int cudaNewest(void) { return 0; } int cudaFree(void *p) { return 0; }")
    (tmp_path / "map").write_text(f"{runtime} {{ global: *; }};")
    for command in (["-o", tmp_path / runtime, tmp_path / "runtime.c", f"-Wl,-soname,{runtime}",
                     f"-Wl,--version-script={tmp_path / 'map'}"],
                    ["-o", site / "torch" / "lib.so", site / "torch" / "lib.c", tmp_path / runtime]):
        subprocess.run(["cc", "-shared", "-fPIC", *command], check=True)
    subprocess.run([sys.executable, generate.__file__, site, out], check=True)
    assert [path.name for path in out.glob("libcudart*")] == [runtime]
    done = subprocess.run([sys.executable, "-c", "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).both())",
                           site / "torch" / "lib.so"], text=True, capture_output=True,
                          env={**os.environ, "LD_LIBRARY_PATH": f"{out}:{OURS}"})
    assert done.stdout == "801\n", done.stderr
    assert "cudaNewest" in done.stderr and "stub of the stand-in" in done.stderr


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
    runtime = ctypes.CDLL("libstandin_cudart.so")
    for function, expected in ((runtime.cudaGetErrorName, name), (runtime.cudaGetErrorString, text)):
        function.restype = ctypes.c_char_p
        assert function(code) == expected


def test_last_error_is_kept_until_read():
    import torch
    torch.cuda.init()
    runtime = ctypes.CDLL("libstandin_cudart.so")
    assert runtime.cudaSetDevice(99) == 101
    assert runtime.cudaPeekAtLastError() == 101
    assert runtime.cudaGetLastError() == 101
    assert runtime.cudaGetLastError() == 0


def test_a_machine_without_a_device(program):
    """What a program sees that goes on without one."""
    finished = program("""
        import torch
        print(torch.cuda.is_available(), torch.cuda.device_count())
        try:
            torch.zeros(1, device="cuda")
        except RuntimeError as error:
            print(error)
    """, CUDA_VISIBLE_DEVICES="")
    first, *error = finished.stdout.splitlines()
    assert first == "False 0"
    assert "No CUDA GPUs are available" in "".join(error)
