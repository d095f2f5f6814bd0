"""What is said while a program runs, before anybody asks."""

import functools
import re

from harness import MIB, assert_same, assert_streamed, reference, run

SMALL = 40 * MIB


def test_while_everything_fits_only_the_summary_is_said():
    result = run("forward", "--blocks", 30, "--iterations", 3).ok()
    assert len(result.ours) == 2 and "version" in result.ours[0], result.ours
    assert "everything fitted" in result.ours[1]
    assert result.stats["version"] in result.ours[0]


def test_a_program_that_keeps_to_a_share_of_the_card_is_told_what_to_do():
    """It gives up before the driver is asked, so nothing is offloaded; with a card that seems
    larger its share is larger, too."""
    wanted = reference("fraction")
    result = run("fraction", vram=SMALL, AUTOOFFLOAD_VRAM=str(SMALL)).ok()
    assert result.out["ran_out"] and not wanted.out["ran_out"]
    assert any("set_per_process_memory_fraction" in line and "AUTOOFFLOAD_REPORT=enlarged" in line
               for line in result.ours), result.ours
    result = run("fraction", vram=SMALL, AUTOOFFLOAD_VRAM=str(SMALL),
                 AUTOOFFLOAD_REPORT="enlarged")
    assert_same(result, wanted)
    assert_streamed(result, SMALL, result.out["weight_bytes"])
    assert not any("memory_fraction" in line for line in result.ours)


@functools.cache
def watched():
    """A program whose plan has come into force. No fixture: with the library off the tests
    themselves must fail."""
    result = run("outlook", vram=SMALL, AUTOOFFLOAD_VRAM=str(SMALL))
    assert_same(result, reference("outlook"))
    assert_streamed(result, SMALL, 3 * result.out["weight_bytes"])
    return result


def test_the_first_shortage_is_said_once():
    seen = watched()
    lines = [line for line in seen.ours if "memory is short" in line]
    assert len(lines) == 1, seen.ours
    for part in ("the budget is 40.00 MiB", "host memory", "link"):
        assert part in lines[0]
    assert not any("AUTOOFFLOAD_VRAM=" in line for line in seen.ours)


def test_a_plan_that_stands_is_told():
    seen = watched()
    lines = [line for line in seen.ours if "stay on the card" in line]
    assert len(lines) == 1, seen.ours
    pattern = r"([\d.]+) MiB of ([\d.]+) MiB stay on the card, .*([\d.]+) MiB stream per step at " \
              r"[\d.]+ .iB/s: at best .* a step, expected .*; 1.00 GiB more VRAM would save "
    found = re.search(pattern, lines[0])
    assert found, lines[0]
    assert float(found[1]) <= 40 <= float(found[2])


def test_the_account_has_the_same_figures():
    seen = watched()
    outlook = seen.stats["outlook"]["0"]
    assert outlook["resident_bytes"] + outlook["ring_bytes"] <= SMALL
    assert outlook["planned_bytes"] >= seen.out["weight_bytes"] > SMALL
    assert 0 < outlook["compute_ns"] <= outlook["bound_ns"] <= outlook["expected_ns"]
    assert outlook["streamed_bytes_per_step"] >= outlook["planned_bytes"] - SMALL
    # With so much more, everything fits.
    assert outlook["saved_by_gib_ns"] == outlook["expected_ns"] - outlook["compute_ns"]


def test_who_wants_only_errors_gets_neither():
    result = run("forward", "--blocks", 30, vram=SMALL // 2, AUTOOFFLOAD_LOG="error").ok()
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]
    assert not any("memory is short" in line or "stay on" in line for line in result.ours)
