"""Runs programs of scripts/wild: one process imports the libraries, and forks for each run.

    python -m support.wild.cell      (in scripts/)

The protocol is that of support/peers/cell.py: a line on stdin is a run as JSON, a line on
stdout says how it ended. The device is first asked for in the child.
"""

import hashlib
import json
import os
import sys
import time

import torch

from support.peers import cell as common


@torch.no_grad()
def run(cell):
    from . import programs
    torch.manual_seed(0)
    program = programs.MAKE[cell["program"]]()
    torch.cuda.init()
    torch.backends.cudnn.enabled = False  # the stand-in has none
    uses = common.Uses(program) if cell["uses"] else None
    program.place()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.profiler.start()  # a mark in the stand-in's account
    answers, allocated = [], []
    for i in range(cell["iterations"]):
        y = program.step(i)
        torch.cuda.profiler.start()
        if y.is_floating_point() and not torch.isfinite(y).all():
            raise AssertionError("not finite")
        answers.append(hashlib.sha256(y.contiguous().numpy().tobytes()).hexdigest()[:16])
        allocated.append(torch.cuda.max_memory_allocated())
        if uses:
            uses.iterations.append([])
    found = {"answers": answers, "allocated": allocated}
    if uses:
        found |= {"weights": uses.sizes, "uses": uses.iterations[:-1]}
    with open(cell["out"], "w") as file:
        json.dump(found, file)


def main():
    torch.set_num_threads(1)
    asked = torch.cuda.is_available, torch.cuda.device_count
    torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0
    import accelerate  # noqa: F401
    import transformers  # noqa: F401
    torch.cuda.is_available, torch.cuda.device_count = asked
    for line in sys.stdin:
        cell, began = json.loads(line), time.monotonic()
        pid = os.fork()
        if pid == 0:
            for name, value in cell["env"].items():
                os.environ[name] = value
            log = os.open(cell["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            run(cell)
            return
        status = common.wait(pid, cell["seconds"])
        print(json.dumps({"status": status, "seconds": round(time.monotonic() - began, 2)}),
              flush=True)


if __name__ == "__main__":
    main()
