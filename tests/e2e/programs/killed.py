"""Streams, and ends by a signal once what it leaves tells of that: its statistics file
and, if it has one, its trace."""

import argparse
import json
import os
import signal
import time

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("signal")
parser.add_argument("--blocks", type=int, default=30)
options = parser.parse_args()


def left(name):
    """What the file that the setting `name` asks for holds by now."""
    try:
        with open(os.environ[name]) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def told():
    statistics = left("AUTOOFFLOAD_STATS")
    if not statistics or not statistics["streaming"]["streamed_bytes"]:
        return False
    if "AUTOOFFLOAD_TRACE" not in os.environ:
        return True
    trace = left("AUTOOFFLOAD_TRACE")
    return trace and any("bytes" in event.get("args", ()) for event in trace["traceEvents"]
                         if event["ph"] == "X" and event["tid"] == 0)


with torch.no_grad():
    model = models.stack(options.blocks)
    hashes = []
    for seed in range(3):
        x = models.make_input(seed).to("cuda")
        for block in model:
            x = block(x)
        hashes.append(models.digest(x))
print(json.dumps(dict(hashes=hashes)), flush=True)
deadline = time.monotonic() + 300
while not told() and time.monotonic() < deadline:
    time.sleep(0.05)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.kill(os.getpid(), getattr(signal, options.signal))
time.sleep(300)
