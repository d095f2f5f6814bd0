"""The budget holds for everything the program takes, managed or not, and what
fits it fits."""

import shutil
import signal

import pytest

from harness import ASYNC, MIB, NATIVE, STANDIN_LIBRARIES, assert_same, assert_streamed, reference, run

CAP = 40 * MIB


@pytest.mark.parametrize("kind", ["handles", "small", "mixed"])
def test_memory_that_is_not_ours_counts(kind):
    """The program's own handles and small allocations get what the budget has,
    weights make room for them, and then the answer is out-of-memory, as on a
    device of that size."""
    wanted = reference("unmanaged", kind)
    result = run("unmanaged", kind, AUTOOFFLOAD_VRAM=str(CAP))
    assert_same(result, wanted)
    assert_streamed(result, CAP, wanted.account["h2d_bytes"] + wanted.out["weight_bytes"])
    # All but what stays in use: the library's own budget in frames of 2 MiB.
    assert CAP // (2 * MIB) - 2 <= result.out["refused"] <= CAP // (2 * MIB)
    assert sum(row["calls"] for row in result.stats["not_managed"].values()) \
        >= result.out["refused"]
    assert any("not managed" in line for line in result.ours), result.ours


@pytest.mark.parametrize("room", [0, 2])
def test_an_allocation_of_the_whole_budget(room):
    """An activation as large as the budget succeeds while weights can make room."""
    wanted = reference("large", CAP // MIB - room)
    result = run("large", CAP // MIB - room, AUTOOFFLOAD_VRAM=str(CAP))
    assert_same(result, wanted)
    assert result.out["fitted"]
    assert_streamed(result, CAP, wanted.account["h2d_bytes"] + wanted.out["weight_bytes"])


def test_what_is_too_large_is_told_whole():
    """The sentence names all that the operation needs at once."""
    result = run("large", CAP // MIB + 2, AUTOOFFLOAD_VRAM=str(CAP)).ok()
    assert not result.out["fitted"]
    sentence = next(line for line in result.ours if "out of memory" in line)
    assert f"needs {CAP // MIB + 2}.00 MiB at once" in sentence
    assert f"leaves {CAP // MIB}.00 MiB" in sentence


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGABRT", "SIGKILL"])
def test_statistics_survive_a_signal(name):
    """Neither summary nor statistics need the program to end by itself."""
    result = run("killed", name, AUTOOFFLOAD_VRAM=str(CAP))
    assert result.returncode == -getattr(signal, name)
    assert result.stats["streaming"]["streamed_bytes"] > 0
    assert result.stats_mode == 0o600
    assert any("streamed uses" in line for line in result.ours), result.ours


def test_a_driver_that_does_not_tell_parameters(tmp_path):
    """Before CUDA 12.4: one sentence, and every call goes to the driver as it is."""
    old = tmp_path / "lib"
    shutil.copytree(STANDIN_LIBRARIES, old)
    libcuda = old / "libcuda.so.1"
    code = libcuda.read_bytes()
    for name in (b"cuFuncGetParamInfo", b"cuKernelGetParamInfo"):
        assert name in code
        code = code.replace(name, name[:-1] + b"X")
    libcuda.unlink()
    libcuda.write_bytes(code)
    arguments = ("large", CAP // MIB)
    wanted = reference(*arguments)
    result = run(*arguments, AUTOOFFLOAD_VRAM=str(CAP), STANDIN_LIB_DIR=old)
    assert_same(result, wanted)
    said = [line for line in result.ours if "does not say what kernels take" in line]
    assert len(said) == 1, result.ours
    assert not any("everything fitted" in line for line in result.ours)
    assert result.account["h2d_bytes"] == wanted.account["h2d_bytes"]
    assert result.stats["not_managed"]["no_parameters"]["bytes"] >= result.out["weight_bytes"]


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_a_deleted_model_keeps_nothing(allocator):
    """What is free once a model is gone is what was free before: not its ring."""
    cap = 64 * MIB
    wanted = reference("swapped", allocator=allocator)
    result = run("swapped", AUTOOFFLOAD_VRAM=str(cap), allocator=allocator)
    assert_same(result, wanted)
    assert_streamed(result, cap, wanted.account["h2d_bytes"] + 3 * MIB)
    assert min(result.out["free"]) >= cap - 4 * MIB, result.out["free"]


def test_dead_memory_is_never_copied():
    """Freed in stream order before memory got short: it goes without a copy."""
    wanted = reference("dead", allocator=ASYNC)
    result = run("dead", AUTOOFFLOAD_VRAM=str(CAP), allocator=ASYNC)
    assert_same(result, wanted)
    assert result.account["d2h_bytes"] == wanted.account["d2h_bytes"]
    assert result.stats["plan"]["demotions"] > 0, "nothing had to go: this proves nothing"
