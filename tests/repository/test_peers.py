"""scripts/bench peers: what it says must hold, on figures made up for the purpose.

Not here: the run itself (scripts/bench peers; --quick is a part of it).
"""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support.peers import bounds, forecasts, grid, judge, shapes  # noqa: E402


def row(arm, ms, **other):
    return {"program": "dit", "share": 50, "card": None, "ratio": 1, "duplex": False, "arm": arm,
            "ms": ms, "first": [ms, ms, ms], "waits": 0, "over_segments": None, "failed": None,
            "vram_mib": 100, "card_mib": 100, "bound_ms": 1.0, "segments_ms": None, "compute_ms": 1.0, "in_mib": 0,
            "out_mib": 0} | other


def verdicts(*rows):
    return {target["name"]: target["holds"] for target in judge.targets(list(rows))}


def test_what_is_best_holds_every_target():
    rows = [row("ours", 7.9), row("spread", 8.0), row("leaf", 10.0), row("map", 12.0)]
    assert set(verdicts(*rows).values()) == {True}


@pytest.mark.parametrize("name,ours,others", [
    ("over the hand-written spread engine, median", row("ours", 8.1), [row("spread", 8.0)]),
    ("over the hand-written spread engine, worst", row("ours", 8.5), [row("spread", 8.0)]),
    ("over the best library, median", row("ours", 9.0), [row("leaf", 10.0)]),
    ("over the best library, worst", row("ours", 9.0), [row("leaf", 10.0), row("map", 8.0)]),
    ("first step over leaf's", row("ours", 5.0, first=[13, 5, 5]), [row("leaf", 10.0)]),
    ("third step over our settled one", row("ours", 5.0, first=[5, 5, 6]), []),
    ("host waits in a settled step", row("ours", 5.0, waits=0.25), []),
    ("bytes out over bytes in, in a settled step", row("ours", 5.0, in_mib=100, out_mib=0.6), []),
    ("over the same with everything copied back, where the link binds",
     row("ours", 8.1, duplex=True, segments_ms=2.0), [row("back", 10.0, duplex=True)]),
    ("cells that fail where another arm runs", row("ours", 5.0, failed="out of memory"),
     [row("leaf", 10.0)]),
])
def test_each_target_can_fail(name, ours, others):
    assert verdicts(ours, *others)[name] is False


def test_whole_segments_excuse_only_who_is_near_them():
    spread = row("spread", 8.0)
    name = "over the hand-written spread engine, worst"
    assert verdicts(row("ours", 12.0, over_segments=1.09), spread)[name]
    assert not verdicts(row("ours", 12.0, over_segments=1.11), spread)[name]


def test_a_failure_that_everybody_shares_is_no_fault():
    judged = verdicts(row("ours", 5.0, failed="out of memory"), row("leaf", 9, failed="the same"))
    assert judged["cells that fail where another arm runs"]


def test_bound_of_a_cycle_is_what_does_not_fit():
    uses = [[[0], [1], [2], [3]]] * 6
    assert bounds.least(uses, [10] * 4, 25, 3, whole=False) == 15
    # Of whole items two fit, one of which is always the one in use: of three others one is kept.
    assert bounds.least(uses, [10] * 4, 25, 3, whole=True) == pytest.approx(40 * 2 / 3)
    assert bounds.least(uses, [10] * 4, 40, 3, whole=True) == 0


def test_bound_says_when_one_use_does_not_fit():
    assert bounds.least([[[0, 1]]] * 2, [10, 10], 15, 1, whole=True) is None


def test_grid_holds_every_program_card_and_way():
    cells = grid.cells(quick=False)
    assert {cell["program"] for cell in cells} == set(shapes.SHAPES) and len(shapes.SHAPES) >= 13
    for name, shape in shapes.SHAPES.items():
        arms = set(shape.arms or grid.ARMS)
        for share in grid.SHARES:
            assert {cell["arm"] for cell in cells
                    if (cell["program"], cell["share"], cell["duplex"]) == (name, share, False)
                    } == arms
        both_ways = {cell["arm"] for cell in cells if cell["program"] == name and cell["duplex"]}
        assert both_ways == set(grid.DUPLEX_ARMS) & set(shape.arms or grid.DUPLEX_ARMS)
    quick = grid.cells(quick=True)
    assert quick and all(cell in cells for cell in quick)


def foretold(recorded, card, error, steady=True):
    return {"program": "dit", "recorded": recorded, "card": card, "error": error, "steady": steady}


@pytest.mark.parametrize("rows, holds", [
    ([foretold(30, 30, 0.01), foretold(30, 50, -0.02)], True),
    ([foretold(30, 30, 0.06)], False),
    ([foretold(30, 30, 0.01), foretold(30, 50, -0.06)], False),
    # Runs that differ are listed; alone they prove nothing.
    ([foretold(30, 30, 0.01), foretold(30, 50, 0.4, steady=False)], True),
    ([foretold(30, 30, 0.01, steady=False)], False),
])
def test_a_forecast_that_is_far_off_fails_the_bench(rows, holds):
    sentence, near = forecasts.verdict(rows)
    assert near is holds
    assert ("whose own runs differ (dit)" in sentence) is not all(row["steady"] for row in rows)
