"""Streams, and ends by a signal once its statistics file tells of that."""

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


def told():
    try:
        with open(os.environ["AUTOOFFLOAD_STATS"]) as file:
            return json.load(file)["streaming"]["streamed_bytes"] > 0
    except FileNotFoundError:
        return False


with torch.no_grad():
    model = models.stack(options.blocks)
    hashes = []
    for seed in range(3):
        x = models.make_input(seed).to("cuda")
        for block in model:
            x = block(x)
        hashes.append(models.digest(x))
print(json.dumps(dict(hashes=hashes)), flush=True)
deadline = time.monotonic() + 120
while not told() and time.monotonic() < deadline:
    time.sleep(0.05)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.kill(os.getpid(), getattr(signal, options.signal))
time.sleep(60)
