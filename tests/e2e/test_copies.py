"""Copies to and from weights that are not on the device, streams, threads, devices."""

import pytest

from harness import ASYNC, NATIVE, assert_same, assert_streamed, identical_at, reference, run


@pytest.mark.parametrize("order", [None, "late:4", "random:5", "copies-first", "kernels-first"])
@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_copies(allocator, order):
    weights = reference("copies", allocator=allocator).out["weight_bytes"]
    identical_at("copies", vram=weights // 4, allocator=allocator, STANDIN_ORDER=order)


@pytest.mark.parametrize("order", [None, "late:6", "random:7", "kernels-first"])
@pytest.mark.parametrize("arguments", [(), ("--update",), ("--threads",)])
def test_streams(arguments, order):
    weights = reference("streams", *arguments).out["weight_bytes"]
    identical_at("streams", *arguments, vram=weights // 3, STANDIN_ORDER=order)


def test_two_devices():
    wanted = run("devices", preload=False, STANDIN_DEVICES="2").ok()
    vram = wanted.out["weight_bytes"] // 2 // 3
    result = run("devices", vram=vram, STANDIN_DEVICES="2")
    assert_same(result, wanted)
    rounds = wanted.out["iterations"] - 1
    assert_streamed(result, vram, wanted.account["h2d_bytes"]
                    + rounds * (wanted.out["weight_bytes"] - 2 * vram))
