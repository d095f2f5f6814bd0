"""What nobody wrote is not copied back, and what somebody wrote is."""

import pytest

from harness import ASYNC, MIB, NATIVE, identical_at, reference, run, assert_same

PROGRAM = ("forward", "--blocks", 40, "--iterations", 12)
VRAM = 40 * MIB
ORDERS = ["eager", "late:1", "copies-first", "kernels-first"]


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_clean_weights_are_copied_out_once(allocator):
    result = identical_at(*PROGRAM, vram=VRAM, allocator=allocator)
    weight_bytes = result.out["weight_bytes"]
    assert result.account["d2h_bytes"] <= 1.3 * weight_bytes
    assert result.account["h2d_bytes"] >= 4 * weight_bytes
    assert result.stats["streaming"]["compared_bytes"] > 2 * weight_bytes


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("update", ["kernel", "copy", "toggle"])
def test_what_was_written_is_saved(update, order):
    result = identical_at(*PROGRAM, "--update", update, "--check", vram=VRAM, STANDIN_ORDER=order)
    assert result.stats["streaming"]["compared_bytes"] > result.out["weight_bytes"]
    assert result.stats["streaming"]["stored_bytes"] > 0


def test_by_the_text_of_the_kernel():
    """The stand-in runs the kernel's own instructions, not their twin."""
    program = ("forward", "--blocks", 14, "--iterations", 8, "--update", "toggle", "--check")
    result = identical_at(*program, vram=18 * MIB, STANDIN_PTX="text")
    assert result.stats["streaming"]["compared_bytes"] > 0
    assert result.stats["streaming"]["stored_bytes"] > 0


def test_without_a_compiler_for_it_everything_is_copied_back():
    result = identical_at(*PROGRAM, "--update", "kernel", "--check", vram=VRAM, STANDIN_PTX="off")
    assert result.account["d2h_bytes"] > 3 * result.out["weight_bytes"]
    said = [line for line in result.ours if "copied back" in line]
    assert len(said) == 1, result.ours


def test_memory_that_is_not_page_locked_is_copied_back():
    wanted = reference(*PROGRAM)
    result = run(*PROGRAM, vram=VRAM, AUTOOFFLOAD_PIN="0")
    assert_same(result, wanted)
    assert result.account["d2h_bytes"] > 3 * result.out["weight_bytes"]


def test_what_is_written_in_each_pass_goes_back_and_is_seldom_looked_at():
    """SGD: every weight is written between its visits to the card."""
    result = identical_at("trained", "--passes", 40, vram=40 * MIB)
    streaming = result.stats["streaming"]
    # Once in each pass, at the most, whether a copy or the kernel brings it.
    weights = 40 * result.out["weight_bytes"]
    written = streaming["written_back_bytes"] + streaming["stored_bytes"]
    assert 0 < written < 1.2 * weights
    assert streaming["streamed_bytes"] < 1.8 * weights
    # How much goes without a look depends on the layout, and so on the times that
    # were measured: half of it, or two thirds. Looked at each time, nearly none would.
    assert streaming["written_back_bytes"] > 0.25 * written, streaming
