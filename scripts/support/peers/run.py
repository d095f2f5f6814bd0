"""Runs the cells of scripts/bench peers, two at a time, and works out their figures.

Owns: the processes that run cells (cell.py), the card of each cell, what one
cell's row says. Not here: which cells (grid.py), what they should be (judge.py).
"""

import concurrent.futures
import json
import statistics
import threading

from support import cells

from . import bounds, judge
from .shapes import SHAPES

MIB = 1 << 20
FRAME = 2 * MIB
MEMORY = 40          # GB/s of the card's memory: a tenth of a real one, as models and links are
PRICES = "light:10"  # what calls cost, stretched as much as links are slow
PRELOADED = ("ours", "back")
SECONDS = 150        # a cell that takes longer has hung
# Who meets the end of memory is given other room, and tried again: the libraries a larger
# card (`vram` in their rows), those that are told how much to fill a smaller budget.
MORE_CARD, LESS_BUDGET, TRIES = (4, 4, 8, 8, 16, 32, 64), 4, 8


class Lane(threading.local):
    """The calling thread's two processes: with the library preloaded, and without."""

    def __init__(self, python, root):
        self.python, self.root, self.processes = python, root, {}

    def process(self, preloaded):
        if preloaded not in self.processes:
            self.processes[preloaded] = cells.start(
                self.python, self.root, "support.peers.cell", *([] if preloaded else ["--peers"]),
                preloaded=preloaded)
        return self.processes[preloaded]


class Runner:
    def __init__(self, python, root, work, lanes):
        self.lane, self.work = Lane(python, root), work
        self.lanes, self.counter, self.lock = lanes, 0, threading.Lock()
        self.processes = []
        self.trace = None  # where ours is recorded
        self.iterations = None  # other than the shape's

    def once(self, cell, vram, budget, link):
        """(answer or None, account or None, statistics or None, the last of what it said)."""
        with self.lock:
            self.counter += 1
            folder = self.work / f"{self.counter:04}"
        folder.mkdir(parents=True)
        shape = SHAPES[cell["program"]]
        env = {"STANDIN_VRAM": str(int(vram)), "STANDIN_LINK": repr(link),
               "STANDIN_MEMORY": str(MEMORY), "STANDIN_TFLOPS": str(shape.tflops),
               "STANDIN_PRICES": PRICES, "STANDIN_DUPLEX": "shared" if cell["duplex"] else "full",
               "STANDIN_ACCOUNT": str(folder / "account.json"),
               # Every start is a first one.
               "AUTOOFFLOAD_PLANS": "off"}
        if cell["arm"] == "back":
            env["STANDIN_PTX"] = "off"
        if cell["arm"] in PRELOADED:
            env["AUTOOFFLOAD_STATS"] = str(folder / "stats.json")
            env["AUTOOFFLOAD_TRACE"] = str(self.trace or "")
        order = {"env": env, "program": cell["program"], "arm": cell["arm"],
                 "budget": int(budget), "iterations": self.iterations or shape.iterations, "seconds": SECONDS,
                 "out": str(folder / "out.json"), "log": str(folder / "log")}
        process = self.lane.process(cell["arm"] in PRELOADED)
        with self.lock:
            self.processes.append(process)
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline() or '{"status": 1}')
        out, account, stats = (read(folder / f"{name}.json")
                               for name in ("out", "account", "stats"))
        said = read_text(folder / "log").strip().splitlines()
        if told["status"] == -9:
            said.append(f"no end after {SECONDS} s")
        return (out if told["status"] == 0 else None), account, stats, said

    def all(self, jobs):
        """Calls each of `jobs` in a lane; yields their results as they come."""
        with concurrent.futures.ThreadPoolExecutor(self.lanes) as pool:
            waiting = [pool.submit(job) for job in jobs]
            try:
                for done in concurrent.futures.as_completed(waiting):
                    yield done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True, wait=False)
                self.close()
                raise

    def close(self):
        for process in set(self.processes):
            process.stdin.close()
        for process in set(self.processes):
            process.wait()


def rows(runner, cells):
    """The row of each cell, in their order."""
    names = dict.fromkeys(cell["program"] for cell in cells)
    bases = {base.name: base for base in
             runner.all([lambda name=name: resident(runner, name) for name in names])}
    found = [None] * len(cells)

    def job(k):
        return lambda: (k, measure(runner, bases[cells[k]["program"]], cells[k]))
    done = runner.all([job(k) for k in range(len(cells))])
    for number, (k, row) in enumerate(done, 1):
        found[k] = row
        told = row["failed"][:100] if row["failed"] else \
            f"{row['ms']:.1f} ms, {row['over_bound']:.2f} of the bound"
        print(f"   {number:4}/{len(cells)} {judge.place(row)} {row['arm']}: {told}", flush=True)
    return found


def read(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def read_text(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# --- figures ----------------------------------------------------------------------

class Steps:
    """What the device's account says of each step."""

    def __init__(self, account, steady):
        self.marks = [mark for mark in account["marks"] if mark["label"] == "start"]
        self.steady = steady

    def each(self, *keys):
        def value(mark):
            return sum(mark[key] if key in mark else mark["engines"][0][key] for key in keys)
        return [value(b) - value(a) for a, b in zip(self.marks, self.marks[1:])]

    def settled(self, *keys):
        return statistics.fmean(self.each(*keys)[-self.steady:])


class Resident:
    """A program with everything on the card: what it needs, and what its answers are."""

    def __init__(self, name, shape, out, account):
        self.name, self.shape, self.answers = name, shape, out["answers"]
        steps = Steps(account, shape.steady)
        self.weights = sum(out["weights"])
        peak = steps.marks[shape.loaded]["device_peak_bytes"]
        self.beside = peak - self.weights  # segments' slack included
        self.live_beside = out["allocated"][shape.loaded - 1] - self.weights
        self.compute_ms = steps.settled("compute_ns") / 1e6
        self.ms = steps.settled("host_ns") / 1e6
        self.waits = steps.settled("blocking_calls")
        self.out, self.outside = out, peak - sum(size for size, _ in out["segments"])

    def card(self, cell):
        wanted = cell["card"] * MIB if cell["card"] else \
            self.weights * cell["share"] / 100 + self.beside
        return int(wanted // FRAME * FRAME)

    def least_weights(self, card):
        """Bytes in per step that no policy avoids on that card."""
        return bounds.least(self.out["uses"], self.out["weights"],
                            max(0, card - self.live_beside), self.shape.steady, whole=False)

    def least_segments(self, card):
        sizes = [size for size, _ in self.out["segments"]]
        home = {weight: k for k, (_, held) in enumerate(self.out["segments"]) for weight in held}
        uses = [[sorted({home[weight] for weight in items}) for items in step]
                for step in self.out["uses"]]
        return bounds.least(uses, sizes, card - self.outside, self.shape.steady, whole=True)


def resident(runner, name):
    shape = SHAPES[name]
    cell = {"program": name, "arm": "resident", "duplex": False}
    out, account, _, said = runner.once(cell, 4 << 30, 0, 2.5)
    if out is None:
        raise RuntimeError(f"{name} does not run with everything on the card: {said[-3:]}")
    return Resident(name, shape, out, account)


def measure(runner, base, cell):
    """The row of one cell."""
    card, arm = base.card(cell), cell["arm"]
    # Where nothing has to cross, any link would do: one for a frame.
    must = max(base.least_weights(card), FRAME)
    link = must / (cell["ratio"] * base.compute_ms / 1e3) / 1e9  # GB/s
    segments = base.least_segments(card)
    row = {**cell, "link": link, "card_mib": card / MIB, "resident_ms": base.ms,
           "compute_ms": base.compute_ms, "bound_ms": base.compute_ms * max(1, cell["ratio"]),
           "segments_ms": None if segments is None else
           max(base.compute_ms, segments / link / 1e6),
           "bound_in_mib": must / MIB, "failed": None}
    if segments is not None:
        row["segments_in_mib"] = segments / MIB
    vram = card
    budget = card - (base.beside if arm == "map" else base.live_beside + FRAME)
    for attempt in range(TRIES):
        out, account, stats, said = runner.once(cell, vram, budget, link)
        if out is not None or arm in PRELOADED or not any("out of memory" in line for line in said):
            break
        if arm in ("leaf", "block"):
            vram += MORE_CARD[min(attempt, len(MORE_CARD) - 1)] * MIB
        else:
            budget -= LESS_BUDGET * MIB
    row["vram_mib"] = vram / MIB
    if out is None or account is None:
        row["failed"] = "; ".join(said[-2:]) or "no reason given"
        return row
    row |= figures(Steps(account, base.shape.steady), base, account, row)
    if arm in PRELOADED:
        row["streaming"] = stats
        if out["answers"] != base.answers:
            row["failed"] = "the answers are not those of the program alone"
        elif account["violations"]:
            row["failed"] = f"{account['violations']} violations"
    return row


def figures(steps, base, account, row):
    ms = [ns / 1e6 for ns in steps.each("host_ns")]
    settled = steps.settled("host_ns") / 1e6
    return {
        "ms": settled, "first": ms[:3], "all_ms": ms,
        "over_bound": settled / row["bound_ms"], "over_resident": settled / base.ms,
        "over_segments": row["segments_ms"] and settled / row["segments_ms"],
        "in_mib": steps.settled("h2d_bytes") / MIB, "out_mib": steps.settled("d2h_bytes") / MIB,
        "waits": steps.settled("blocking_calls") - base.waits,
        "in_place_mib": steps.settled("in_place_bytes") / MIB,
        "peak_mib": account["device_peak_bytes"] / MIB,
        "pinned_mib": account["pinned_peak_bytes"] / MIB,
    }
