"""scripts/bench plan --quick: it runs, says everything it promises, and its targets hold.

Not here: the whole grid (scripts/bench plan), nor time by the clock on the wall.
"""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support import bench_tables  # noqa: E402

KEYS = ["cells", "over_b2", "over_b1", "over_resident_where_free", "speedup_over_prefix_at_half",
        "ours_fastest_cells", "steady_by_third", "phase_recovery_iterations",
        "random_over_best_simple", "plan_ms_10k_chunks", "search_ms_10k_chunks",
        "plan_ms_by_size"]
EXCEPTION = {"trace", "card", "link", "share", "ratio", "why"}


@pytest.fixture(scope="module")
def bench():
    """The quick run: (its result, plan.json's contents)."""
    done = subprocess.run([ROOT / "scripts" / "bench", "plan", "--quick", "--no-plots"],
                          text=True, capture_output=True, timeout=300)
    source = ROOT / "target" / "bench" / "quick.json"
    assert source.exists(), done.stdout + done.stderr
    return done, json.loads(source.read_text())


def test_every_promised_key_is_there(bench):
    _, found = bench
    assert [key for key in KEYS if key not in found] == []
    assert {"median", "p90", "worst", "exceptions"} <= set(found["over_b2"])
    assert {"median", "p90", "worst"} <= set(found["over_b1"])
    assert {"median", "cells"} <= set(found["speedup_over_prefix_at_half"])
    assert all(EXCEPTION <= set(each) for each in found["over_b2"]["exceptions"])
    assert found["cells"] == len(found["details"]) > 20


def test_the_targets_of_the_quick_part_hold(bench):
    done, found = bench
    failed = {target["name"] for target in found["targets"] if not target["holds"]}
    assert failed == set()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_no_cell_is_below_its_bound(bench):
    """What beat a bound would be a wrong bound, or a simulator that gives time away."""
    _, found = bench
    assert [cell for cell in found["details"]
            if cell["over_b2"] is not None and cell["over_b2"] < 0.9999] == []


def test_the_spread_in_the_tables_is_the_one_in_the_figures(bench):
    _, found = bench
    cells = sorted(cell["over_b2"] for cell in found["details"]
                   if cell["kind"] == "periodic" and cell["over_b2"] is not None)
    for key, share in (("median", 0.5), ("p90", 0.9), ("worst", 1)):
        assert bench_tables.quantile(cells, share) == found["over_b2"][key]
    assert f"{found['over_b2']['median']:.3f}" in bench[0].stdout
