"""Runs cells of scripts/bench peers: one process imports PyTorch, and forks for each of them.

    python -m support.peers.cell      (in scripts/)

A line on stdin is a cell as JSON: its environment, program, arm, budget, file
of the answer, seconds it may take. A line on stdout says how it ended. The
device is first asked for in the child, so each cell has a device of its own.

Not here: which cells there are (grid.py), what their figures mean (judge.py).
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time

import torch


def import_peers():
    """The peers' libraries ask for a device when they are imported; the parent has none."""
    asked = torch.cuda.is_available, torch.cuda.device_count
    torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0
    import accelerate  # noqa: F401
    import diffusers.hooks  # noqa: F401
    torch.cuda.is_available, torch.cuda.device_count = asked


@torch.no_grad()
def run(cell):
    from . import arms, programs
    torch.manual_seed(0)
    program = programs.MAKE[cell["program"]]()
    for part in program.parts:
        part.eval()
    torch.cuda.init()
    uses = Uses(program) if cell["arm"] == "resident" else None
    arms.place(cell["arm"], program, cell["budget"])
    segments = uses.segments() if uses else None
    torch.cuda.synchronize()
    torch.cuda.profiler.start()  # a mark in the stand-in's account
    answers, allocated = [], []
    for i in range(cell["iterations"]):
        y = program.step(i)
        torch.cuda.profiler.start()
        if not torch.isfinite(y).all():
            raise AssertionError("not finite")
        answers.append(hashlib.sha256(y.contiguous().numpy().tobytes()).hexdigest()[:16])
        allocated.append(torch.cuda.max_memory_allocated())
        if uses:
            uses.iterations.append([])
    found = {"answers": answers, "allocated": allocated}
    if uses:
        found |= {"weights": uses.sizes, "segments": segments, "uses": uses.iterations[:-1]}
    with open(cell["out"], "w") as file:
        json.dump(found, file)


class Uses:
    """Which weights each step names, in order, by what PyTorch's own hooks see."""

    def __init__(self, program):
        self.program, self.iterations = program, [[]]
        self.numbers, self.sizes = {}, []
        for part in program.parts:
            for module in part.modules():
                mine = list(module.parameters(recurse=False))
                if mine:
                    module.register_forward_pre_hook(
                        lambda _, __, names=[self.number(p) for p in mine]:
                        self.iterations[-1].append(names))

    def number(self, p):
        if id(p) not in self.numbers:
            self.numbers[id(p)] = len(self.sizes)
            self.sizes.append(p.numel() * p.element_size())
        return self.numbers[id(p)]

    def segments(self):
        """(bytes, numbers of the weights in it) of each segment of the allocator that holds any."""
        shown = torch.cuda.memory_snapshot()
        found = {part["address"]: [part["total_size"], set()] for part in shown}
        for part in self.program.parts:
            for p in part.parameters():
                home = max(a for a in found if a <= p.data_ptr())
                found[home][1].add(self.numbers[id(p)])
        return [[size, sorted(held)] for size, held in found.values() if held]


def child(cell):
    for name, value in cell["env"].items():
        os.environ[name] = value
    log = os.open(cell["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    run(cell)


def wait(pid, seconds):
    """The exit status; who takes too long is ended."""
    ended = threading.Event()

    def watch():
        if not ended.wait(seconds):
            os.kill(pid, signal.SIGKILL)
    watcher = threading.Thread(target=watch)
    watcher.start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ended.set()
    watcher.join()
    return status


def main():
    torch.set_num_threads(1)
    if "--peers" in sys.argv:
        import_peers()
    from . import arms, programs  # noqa: F401
    for line in sys.stdin:
        cell, began = json.loads(line), time.monotonic()
        pid = os.fork()
        if pid == 0:
            child(cell)
            return
        status = wait(pid, cell["seconds"])
        print(json.dumps({"status": status, "seconds": round(time.monotonic() - began, 2)}),
              flush=True)


if __name__ == "__main__":
    main()
