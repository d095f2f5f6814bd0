"""Nothing is kept, the cap holds, and the program is told sensible numbers."""

import pytest

from harness import ASYNC, MIB, NATIVE, assert_same, assert_streamed, identical_at, \
    reference, run


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_fifty_rounds_leave_what_the_third_left(allocator):
    wanted = reference("rounds", allocator=allocator)
    vram = wanted.out["weight_bytes"] // 4
    result = run("rounds", vram=vram, allocator=allocator)
    assert_same(result, wanted)
    assert_streamed(result, vram, wanted.account["h2d_bytes"]
                    + wanted.out["iterations"] * wanted.out["weight_bytes"] // 2)
    marks = result.account.marks("start")
    assert len(marks) == 50
    for key in ("device_bytes", "pinned_bytes"):
        assert marks[-1][key] == marks[2][key], (key, [mark[key] for mark in marks])
    resident = result.out["resident_bytes"]
    assert abs(resident[-1] - resident[2]) <= 32 * MIB, resident


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_models_that_come_and_go(allocator):
    wanted = reference("lifetimes", allocator=allocator)
    result = run("lifetimes", vram=20 * MIB, allocator=allocator)
    assert_same(result, wanted)
    assert_streamed(result, 20 * MIB, 2 * wanted.account["h2d_bytes"])


def test_what_fits_is_not_moved():
    """With room for everything the device copies exactly what it copies without us."""
    wanted = reference("forward", "--blocks", 30, "--iterations", 5)
    result = run("forward", "--blocks", 30, "--iterations", 5)
    assert_same(result, wanted)
    for key in ("h2d_bytes", "d2h_bytes"):
        assert result.account[key] == wanted.account[key]
    assert result.ours, "the library said nothing: was it there?"


def test_memory_the_program_is_told_of():
    """Total is the budget; weights weigh nothing in what is free."""
    vram = 40 * MIB
    result = run("memory_info", vram=vram).ok()
    plain = run("memory_info", preload=False).ok()
    assert result.out["hashes"] == plain.out["hashes"]
    for total, free in (result.out["before"], result.out["with_model"]):
        assert total <= vram and 0 <= free <= total
    assert result.out["with_model"][1] > 0
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]


def test_budget_setting_is_a_cap():
    """AUTOOFFLOAD_VRAM below the device's memory holds just as the device's wall does."""
    arguments = ("--blocks", 60, "--iterations", 8)
    budget = reference("forward", *arguments).out["weight_bytes"] // 3
    wanted = reference("forward", *arguments)
    result = run("forward", *arguments, AUTOOFFLOAD_VRAM=str(budget))
    assert_same(result, wanted)
    rounds = wanted.out["iterations"] - 1
    assert_streamed(result, budget, rounds * (wanted.out["weight_bytes"] - budget))


def test_host_memory_is_capped_and_given_back():
    """Pinned memory covers the overflow, not more than the model, and all is returned."""
    result = identical_at("rounds", "--rounds", 4, vram=12 * MIB)
    peak = max(mark["pinned_bytes"] for mark in result.account.marks())
    assert peak <= result.out["weight_bytes"] + 8 * MIB
