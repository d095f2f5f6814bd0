"""Runs the cells of scripts/wild and works out their rows.

Owns: the processes that run cells (cell.py), each cell's budget, what a row says.
Not here: the programs (programs.py), the verdict (scripts/wild).

A cell is a program with a budget that holds a share of its weights and what the program
holds beside them, on a card with memory to spare, its queued work in one of the orders
that streams and events allow.
"""

import json
import statistics

from support import cells
from support.peers import bounds

from .shapes import SHAPES

MIB = 1 << 20
FRAME = 2 * MIB
AMPLE = 4 << 30
ROOM = 48 * MIB      # what segments leave unused and the context takes, in programs of this size
SECONDS = 240        # a cell that takes longer has hung
EAGER = "eager"
ORDERS = (EAGER, "late:1", "copies-first")


class Runner:
    """Two processes that have the libraries imported: with ours preloaded, and without."""

    def __init__(self, python, root, work):
        self.python, self.root, self.work = python, root, work
        self.processes, self.counter = {}, 0

    def process(self, preloaded):
        if preloaded not in self.processes:
            self.processes[preloaded] = cells.start(
                self.python, self.root, "support.wild.cell", preloaded=preloaded,
                # torch's cuBLAS workspaces would else be 8 MiB beside the weights
                CUBLAS_WORKSPACE_CONFIG=":16:8", CUBLASLT_WORKSPACE_SIZE="64")
        return self.processes[preloaded]

    def once(self, name, preloaded, uses=False, **env):
        """(answer or None, account or None, the last of what it said, seconds)."""
        self.counter += 1
        folder = self.work / f"{self.counter:04}"
        folder.mkdir(parents=True)
        env |= {"STANDIN_VRAM": str(AMPLE), "STANDIN_ACCOUNT": str(folder / "account.json")}
        cell = {"env": env, "program": name, "uses": uses, "seconds": SECONDS,
                "iterations": SHAPES[name].iterations,
                "out": str(folder / "out.json"), "log": str(folder / "log")}
        process = self.process(preloaded)
        process.stdin.write(json.dumps(cell) + "\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline() or '{"status": 1, "seconds": 0}')
        out, account = read(folder / "out.json"), read(folder / "account.json")
        log = folder / "log"
        said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        if told["status"] == -9:
            said.append(f"no end after {SECONDS} s")
        return out if told["status"] == 0 else None, account, said, told["seconds"]

    def close(self):
        for process in self.processes.values():
            process.stdin.close()
            process.wait()


def read(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def each(account, key):
    """What the device's account says of each step."""
    marks = [mark[key] for mark in account["marks"] if mark["label"] == "start"]
    return [b - a for a, b in zip(marks, marks[1:])]


def settled(account, steady, key):
    """Of a settled step, in the mean."""
    return statistics.fmean(each(account, key)[-steady:])


class Alone:
    """A program with memory enough: its answers, what it needs."""

    def __init__(self, runner, name):
        self.shape = SHAPES[name]
        out, account, said, self.seconds = runner.once(name, False, uses=True)
        self.failed = None if out and account else "; ".join(said[-2:]) or "no reason given"
        if self.failed:
            return
        self.answers, self.uses, self.sizes = out["answers"], out["uses"], out["weights"]
        self.weights = sum(self.sizes)
        self.live_beside = max(0, out["allocated"][-1] - self.weights)
        self.beside = max(0, account["device_peak_bytes"] - self.weights)
        if self.shape.loads_twice:
            self.beside = self.live_beside + ROOM
        self.waits = settled(account, self.shape.steady, "blocking_calls")
        self.copied = settled(account, self.shape.steady, "h2d_bytes")
        self.between = sum(size for size in self.sizes if MIB <= size <= 300 * MIB) / self.weights

    def budget(self, share):
        return int((self.weights * share / 100 + self.beside) // FRAME * FRAME)

    def least(self, budget):
        """Bytes in per settled step that no policy avoids, beside what the program copies."""
        return bounds.least(self.uses, self.sizes, max(0, budget - self.live_beside),
                            self.shape.steady, whole=False)

    def fits(self, budget):
        """Whether what one layer names can be there at once."""
        most = max(sum(self.sizes[item] for item in items) for step in self.uses for items in step)
        return most + self.beside <= budget


def row(runner, name, alone, share, order):
    budget, shape = alone.budget(share), alone.shape
    env = {"AUTOOFFLOAD_VRAM": str(budget)}
    if order != EAGER:
        env["STANDIN_ORDER"] = order
    out, account, said, seconds = runner.once(name, True, **env)
    found = {"program": name, "library": shape.library, "share": share, "order": order,
             "budget_mib": budget / MIB, "weights_mib": alone.weights / MIB,
             "fits": alone.fits(budget), "identical": False, "seconds": seconds, "failed": None}
    if out is None or account is None:
        found["failed"] = "; ".join(said[-2:]) or "no reason given"
        return found
    found["identical"] = out["answers"] == alone.answers
    moved = settled(account, shape.steady, "h2d_bytes") - alone.copied
    least = alone.least(budget)
    found |= {"each_in_mib": [round(count / MIB, 1) for count in each(account, "h2d_bytes")],
              "in_mib": moved / MIB, "least_mib": least / MIB,
              "in_over_least": moved / least if least else None,
              "out_over_in": settled(account, shape.steady, "d2h_bytes") / moved if moved > 0 else 0,
              "waits_per_settled_pass":
              settled(account, shape.steady, "blocking_calls") - alone.waits,
              "peak_over_budget": max(account["device_peak_bytes_by_device"]) / budget,
              "violations": account["violations"]}
    if not found["identical"]:
        found["failed"] = "the answers are not those of the program alone"
    elif account["violations"]:
        found["failed"] = f"{account['violations']} violations"
    elif found["peak_over_budget"] > 1:
        found["failed"] = "more than the budget was used"
    elif not shape.own and not shape.parts and moved < 0.98 * least:
        found["failed"] = "less crossed than must"
    return found
