"""Experts stacked in one tensor: kernels read the part they need where it lies
in host memory, so the whole stack is neither on the card nor copied in."""

import pytest

from harness import MIB, identical_at, reference, run


# Which expert a token takes is drawn, so the order is found late.
LONG = ("--iterations", 40)


def budget(*arguments, share=0.55):
    return int(reference("stacked", *arguments).out["weight_bytes"] * share)


def in_place(result):
    """Most bytes that lay in the host for kernels, as the device and the library tell it."""
    by_device = result.account["host_located_peak_bytes"]
    assert result.stats["host"]["in_place_peak_bytes"] <= by_device
    return by_device


def assert_in_place(result):
    assert in_place(result) >= 16 * MIB
    assert result.account["in_place_bytes"] > 0
    assert any("in place" in line for line in result.ours), result.ours


def steady_bytes(result):
    """Bytes copied in during the last iteration."""
    before, last, _ = result.account.marks()[-3:]
    return last["h2d_bytes"] - before["h2d_bytes"]


def test_stacked_experts():
    vram = budget()
    result = identical_at("stacked", *LONG, vram=vram, least_bytes=0)
    assert_in_place(result)
    streamed = identical_at("stacked", *LONG, vram=vram, STANDIN_HOST_LOCATED="no")
    assert in_place(streamed) == 0
    assert steady_bytes(result) < steady_bytes(streamed) / 4


@pytest.mark.parametrize("order", ["late:1", "random:2", "copies-first", "kernels-first"])
def test_whatever_order_the_device_chooses(order):
    arguments = ("--train-one",)
    result = identical_at("stacked", *arguments, vram=budget(*arguments), least_bytes=0,
                          STANDIN_ORDER=order)
    assert_in_place(result)


def test_nothing_is_kept():
    """Frames in the host go with the tensor they were for."""
    result = identical_at("stacked", *LONG, vram=budget(), least_bytes=0)
    assert_in_place(result)
    assert result.account.last()["host_located_bytes"] == 0
    assert result.stats["host"]["in_place_bytes"] == 0
    assert result.stats["host"]["bytes"] == 0


def test_refused_host_frames():
    """A driver that offers frames in the host and then gives none: streamed as ever."""
    result = identical_at("stacked", vram=budget(), STANDIN_HOST_LOCATED="refused")
    assert in_place(result) == 0
