"""What `autooffload forecast` says of a recorded program, beside what the model clock says of
the same program on that card: the bench of the forecast.

Each program is recorded on cards of several sizes. From each recording the time of a step is
forecast for its own card, and for the others.
"""

import json
import statistics
import subprocess

from . import run

# A step of theirs is one iteration of one phase, as a forecast's is.
PROGRAMS = ("dit", "unet", "decoder", "mlp", "decoder-wide", "long-layers", "sharded")
SHARES = (30, 50, 70)
# Of the time: a forecast that is further off is wrong.
ALLOWED = 0.05


def rows(runner, binary, work, names=PROGRAMS, shares=SHARES):
    """[{program, recorded, card, expected_ms, ms, error}] as they come."""
    for name in names:
        base = run.resident(runner, name)
        recorded = {}
        for share in shares:
            cell = {"program": name, "share": share, "card": None, "ratio": 1, "duplex": False,
                    "arm": "ours"}
            trace = work / f"{name}-{share}.json"
            runner.trace = trace
            row = run.measure(runner, base, cell)
            runner.trace = None
            if row["failed"]:
                raise RuntimeError(f"{name} at {share} %: {row['failed']}")
            recorded[share] = (trace, row)
        for source, (trace, _) in recorded.items():
            for share, (_, row) in recorded.items():
                budget = row["streaming"]["device"]["budget_bytes"]
                found = forecast(binary, trace, budget, row["link"])
                ms = found["cycle_ns"] / 1e6
                yield {"program": name, "recorded": source, "card": share, "expected_ms": ms,
                       "ms": row["ms"], "error": ms / row["ms"] - 1,
                       "measured": found["measured"]}


def forecast(binary, trace, vram, link):
    done = subprocess.run([binary, "forecast", trace, "--vram", str(vram), "--link", repr(link),
                           "--json"], text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def line(row):
    return (f"   {row['program']:<14} recorded with {row['recorded']} % of its weights, forecast for "
            f"{row['card']} %: {row['expected_ms']:8.1f} ms, it took {row['ms']:8.1f} ms: "
            f"{100 * row['error']:+5.1f} %")


def verdict(found):
    """A sentence, and whether all of them are near enough."""
    errors = [abs(row["error"]) for row in found]
    wrong = sum(error > ALLOWED for error in errors)
    return (f"{len(errors)} forecasts: off by {100 * statistics.median(errors):.1f} % in the median, "
            f"{100 * max(errors):.1f} % at most; {wrong} by more than {100 * ALLOWED:.0f} %",
            not wrong)
