"""What `autooffload forecast` says of a recorded program, beside what the model clock says of
the same program on that card: the bench of the forecast.

Each program is recorded on cards of several sizes. From each recording the time of a step is
forecast for its own card, and for the others. What repeats may be two of a program's steps (what
lies where alternates): the recording says how long it took, so that is known.
"""

import json
import statistics
import subprocess

from . import run

# Steps of theirs are iterations of one phase, as a forecast's are.
PROGRAMS = ("dit", "unet", "decoder", "mlp", "decoder-wide", "long-layers", "sharded")
SHARES = (30, 50, 70)
# The link is such that on the card of this share kernels and copies take as long.
LINK_OF = 50
# The last of them are settled on every card.
ITERATIONS = 24
# What two runs of the same differ by, no forecast can know.
RUNS = 2
# Of the time: a forecast that is further off is wrong.
ALLOWED = 0.05


def rows(runner, binary, work, names=PROGRAMS, shares=SHARES):
    """[{program, recorded, card, expected_ms, took_ms, error}] as they come."""
    runner.iterations = ITERATIONS
    for name in names:
        base = run.resident(runner, name)
        cards = {share: Card(runner, base, share, work) for share in shares}
        for source in cards.values():
            for card in cards.values():
                found = forecast(binary, source.trace, card.budget, card.link)
                steps = round((found["recorded_step_ns"] or 0) / 1e6 / source.took[0]) or 1
                ms = found["cycle_ns"] / 1e6 / steps
                low, high = min(card.took), max(card.took)
                steady = max(source.spread(), card.spread()) <= ALLOWED
                yield {"program": name, "recorded": source.share, "card": card.share,
                       "expected_ms": ms, "took_ms": card.took, "steps": steps,
                       "error": ms / min(max(ms, low), high) - 1, "steady": steady,
                       "measured": found["measured"]}


class Card:
    """A program on a card of so many percent of its weights: recorded once, run again. The
    links of all its cards are the same."""

    def __init__(self, runner, base, share, work):
        self.share, self.trace = share, work / f"{base.name}-{share}.json"
        must = [base.least_weights(base.card({"card": None, "share": each}))
                for each in (share, LINK_OF)]
        cell = {"program": base.name, "share": share, "card": None, "ratio": must[0] / must[1],
                "duplex": False, "arm": "ours"}
        self.took = []
        for trace in (self.trace, *[None] * (RUNS - 1)):
            runner.trace = trace
            row = run.measure(runner, base, cell)
            runner.trace = None
            if row["failed"]:
                raise RuntimeError(f"{base.name} at {share} %: {row['failed']}")
            # The mean of the settled steps would count what a new plan moves in one of them.
            self.took.append(statistics.median(row["all_ms"][-base.shape.steady:]))
            self.link = row["link"]
            self.budget = row["streaming"]["device"]["budget_bytes"]

    def spread(self):
        """By how much its own runs differ."""
        return max(self.took) / min(self.took) - 1


def forecast(binary, trace, vram, link):
    done = subprocess.run([binary, "forecast", trace, "--vram", str(vram), "--link", repr(link),
                           "--json"], text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def line(row):
    took = " and ".join(f"{ms:.1f}" for ms in row["took_ms"])
    return (f"   {row['program']:<14} recorded with {row['recorded']} % of its weights, forecast for "
            f"{row['card']} %: {row['expected_ms']:8.1f} ms, it took {took} ms: "
            f"{100 * row['error']:+5.1f} %{'' if row['steady'] else ', not judged: runs differ'}")


def verdict(found):
    """Sentences, and whether all forecasts are near enough.

    Judged are cards on which a program's own runs are alike. Where one run takes a tenth longer
    than the next, a recording is of the one, and says nothing of the other.
    """
    def of(rows, where):
        errors = [abs(row["error"]) for row in rows]
        if not errors:
            return f"no forecast {where}", True
        wrong = sum(error > ALLOWED for error in errors)
        return (f"{len(errors)} forecasts {where}: off by {100 * statistics.median(errors):.1f} % in "
                f"the median, {100 * max(errors):.1f} % at most; {wrong} by more than "
                f"{100 * ALLOWED:.0f} %"), not wrong
    steady = [row for row in found if row["steady"]]
    own = [row for row in steady if row["recorded"] == row["card"]]
    told = [of(own, "for the card they were recorded on")]
    if any(row["recorded"] != row["card"] for row in found):
        told.append(of([row for row in steady if row not in own], "for another card"))
    if len(steady) < len(found):
        others = [row for row in found if not row["steady"]]
        programs = ", ".join(dict.fromkeys(row["program"] for row in others))
        sentence, _ = of(others, f"not judged, of programs whose own runs differ ({programs})")
        told.append((sentence, True))
    # Nothing that could be judged is no proof of anything.
    return "; ".join(sentence for sentence, _ in told), bool(own) and all(near for _, near in told)
