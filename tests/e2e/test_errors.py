"""What cannot be served fails with the driver's own error, once clearly said,
and leaves everything else as it was."""

import pytest

from harness import ASYNC, MIB, NATIVE, assert_same, reference, run


def assert_said_once(result, *words):
    lines = [line for line in result.ours if all(word in line.lower() for word in words)]
    assert len(lines) == 1, result.ours


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_launch_larger_than_the_device(allocator):
    """Where kernels cannot read host memory in place, it is refused."""
    wanted = reference("oom", "launch", allocator=allocator)
    assert not wanted.out["caught"]
    result = run("oom", "launch", vram=40 * MIB, allocator=allocator, STANDIN_HOST_LOCATED="no")
    assert_same(result, wanted)
    assert len(result.out["caught"]) == 1
    assert_said_once(result, "out of memory")
    assert not result.account["violations"]
    assert result.account["device_peak_bytes"] <= 40 * MIB


@pytest.mark.parametrize("order", ["eager", "late:1", "random:1"])
@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_launch_larger_than_the_device_reads_in_place(allocator, order):
    """What does not fit lies in the host for as long, and no byte differs."""
    wanted = reference("oom", "launch", allocator=allocator)
    result = run("oom", "launch", vram=40 * MIB, allocator=allocator, STANDIN_ORDER=order)
    assert_same(result, wanted)
    assert result.out["whole"] == wanted.out["whole"] and len(wanted.out["whole"]) == 2
    assert_said_once(result, "reach over the link, slowly")
    assert not result.account["violations"]
    assert result.account["device_peak_bytes"] <= 40 * MIB
    assert result.account["host_located_peak_bytes"] >= 6 * MIB


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_a_smaller_batch_after_out_of_memory(allocator):
    """What no card of this size could hold is refused where the program allocates it,
    as PyTorch's own error; what it can, though not at once, runs."""
    arguments = ("retry", "--blocks", 20)
    wanted = reference("oom", *arguments, allocator=allocator)
    assert not wanted.out["caught"]
    result = run("oom", *arguments, vram=20 * MIB, allocator=allocator)
    assert_same(result, wanted)
    assert result.out["caught"] == ["OutOfMemoryError"]
    assert result.out["whole"] == wanted.out["whole"]
    assert result.account["device_peak_bytes"] <= 20 * MIB
    assert result.account["host_located_peak_bytes"] > 0
    assert result.account["h2d_bytes"] > 2 * wanted.account["h2d_bytes"]
    assert not result.account["violations"]


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_host_memory_too_small(allocator):
    result = run("oom", "host", vram=30 * MIB, allocator=allocator, AUTOOFFLOAD_RAM="24M").ok()
    assert len(result.out["caught"]) == 1
    assert 15 <= result.out["built"] < 60
    assert result.out["hashes"] == ["intact True"] + ["close True"] * 3
    assert_said_once(result, "out of memory", "autooffload_ram")
    assert not result.account["violations"]


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
@pytest.mark.parametrize("first", [3, 9, 12])
def test_allocations_that_fail_in_the_middle(allocator, first):
    """The device refuses 12 allocations in a row, from the given one on."""
    wanted = reference("oom", "fault", allocator=allocator)
    faults = ",".join(f"alloc:{number}:2" for number in range(first, first + 12))
    result = run("oom", "fault", vram=32 * MIB, allocator=allocator, STANDIN_FAULT=faults)
    assert_same(result, wanted)
    assert result.account["h2d_bytes"] > 2 * wanted.account["h2d_bytes"]
    assert not result.account["violations"]


@pytest.mark.parametrize("fault", ["hostregister:2:2", "hostalloc:2:2", "hostregister:1:2"])
def test_page_locking_that_fails(fault):
    """Without pinned memory copies are slower, the bytes are the same."""
    arguments = ("--blocks", 60, "--iterations", 5)
    wanted = reference("forward", *arguments)
    result = run("forward", *arguments, vram=wanted.out["weight_bytes"] // 4,
                 STANDIN_FAULT=fault)
    assert_same(result, wanted)
    assert result.account["h2d_bytes"] > 2 * wanted.account["h2d_bytes"]
