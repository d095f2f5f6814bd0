"""Same bytes out, on less memory than the weights need."""

import pytest

from harness import ASYNC, MIB, NATIVE, identical_at, reference, run

ALLOCATORS = [NATIVE, ASYNC]


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("percent", [90, 50, 25, 10])
def test_capacity(allocator, percent):
    weights = reference("forward", allocator=allocator).out["weight_bytes"]
    assert 200 * MIB <= weights <= 256 * MIB
    vram = weights * percent // 100
    identical_at("forward", vram=vram, allocator=allocator)
    disabled = run("forward", vram=vram, allocator=allocator, AUTOOFFLOAD="0")
    assert disabled.out_of_memory


def test_large_weights():
    """Weights with an allocation each: 16 MiB, in 12 blocks of two."""
    arguments = ("--blocks", 6, "--width", 2048, "--iterations", 8)
    weights = reference("forward", *arguments).out["weight_bytes"]
    identical_at("forward", *arguments, vram=weights // 2)


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention(allocator, dtype):
    arguments = ("--attention", "--width", 256, "--blocks", 48, "--dtype", dtype,
                 "--iterations", 6)
    weights = reference("forward", *arguments, allocator=allocator).out["weight_bytes"]
    identical_at("forward", *arguments, vram=weights // 2, allocator=allocator)


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("writer", ["copy", "kernel"])
def test_written_weights(allocator, writer):
    """Weights changed between iterations, by a copy or by a kernel, are not lost."""
    arguments = ("--update", writer, "--blocks", 60, "--iterations", 12, "--check")
    weights = reference("forward", *arguments, allocator=allocator).out["weight_bytes"]
    identical_at("forward", *arguments, vram=weights // 4, allocator=allocator)


@pytest.mark.parametrize("writer", [None, "kernel"])
@pytest.mark.parametrize("order", ["late:1", "random:2", "random:3", "copies-first",
                                   "kernels-first"])
def test_order_of_execution(order, writer):
    """Whatever order the device chooses among those that streams and events allow."""
    arguments = ("--blocks", 60, "--iterations", 8) + (("--update", writer) if writer else ())
    weights = reference("forward", *arguments).out["weight_bytes"]
    identical_at("forward", *arguments, vram=weights // 4, STANDIN_ORDER=order)


@pytest.mark.parametrize("order", ["eager", "late:1", "random:2", "random:3", "copies-first",
                                   "kernels-first"])
def test_neighbours(order):
    """Small allocations that are used one after the other are copied several at once, with an
    allocation of its own for each matrix, just under 2 MiB; some are written to."""
    arguments = ("--bare", "--width", 724, "--blocks", 120, "--iterations", 10,
                 "--update", "kernel", "--check")
    weights = reference("forward", *arguments, allocator=ASYNC).out["weight_bytes"]
    result = identical_at("forward", *arguments, vram=weights // 2, allocator=ASYNC,
                          STANDIN_ORDER=order)
    streaming = result.stats["streaming"]
    assert streaming["merged_chunks"] >= 2 * streaming["merged_copies"] > 0
    # No matrix is larger than that.
    assert streaming["fetches"] * 2 * MIB < streaming["streamed_bytes"]
    assert any("copies of neighbours" in line for line in result.ours), result.ours


def test_window_of_one_and_pageable_memory():
    """Settings change the speed, never the bytes."""
    arguments = ("--blocks", 60, "--iterations", 6)
    weights = reference("forward", *arguments).out["weight_bytes"]
    identical_at("forward", *arguments, vram=weights // 4, AUTOOFFLOAD_WINDOW="1")
    identical_at("forward", *arguments, vram=weights // 4, AUTOOFFLOAD_PIN="0")


@pytest.mark.parametrize("writer", [None, "kernel"])
def test_watched(writer):
    """While nobody can touch what is absent, the program finds all that it needs."""
    arguments = ("--blocks", 60, "--iterations", 6) + (("--update", writer) if writer else ())
    weights = reference("forward", *arguments).out["weight_bytes"]
    result = identical_at("forward", *arguments, vram=weights // 2, AUTOOFFLOAD_VERIFY="1")
    assert result.stats["verified_launches"] > 100
