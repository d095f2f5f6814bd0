"""Streams until its standard input ends, or for some iterations. In between it may fork a child
that ends at once."""

import argparse
import ctypes
import json
import os
import select
import sys

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("--blocks", type=int, default=30)
parser.add_argument("--fork", action="store_true")
parser.add_argument("--iterations", type=int)
parser.add_argument("--backwards", action="store_true")
options = parser.parse_args()



def streamed():
    """What the preloaded library says it has copied in; below 0: there is none."""
    try:
        tell = ctypes.CDLL(None).autooffload_stats_json
    except AttributeError:
        return -1
    text = ctypes.create_string_buffer(1 << 20)
    return json.loads(text.value)["streaming"]["streamed_bytes"] if tell(text, len(text)) else -1


order = models.shuffled(options.blocks)
if options.backwards:
    order.reverse()
hashes = []
with torch.no_grad():
    model = models.stack(options.blocks)
    if options.fork:
        x = models.make_input(0).to("cuda")
        for block in model:
            x = block(x)
        models.digest(x)
        child = os.fork()
        if child == 0:
            sys.exit(0)  # with its exit handlers
        os.waitpid(child, 0)
    while True:
        x = models.make_input(len(hashes) % 4).to("cuda")
        for index in order:
            x = model[index](x)
        hashes.append(models.digest(x))
        if len(hashes) == options.iterations:
            break
        if options.iterations:
            continue
        if len(hashes) == 8:
            print(streamed(), flush=True)
        if len(hashes) >= 8 and select.select([sys.stdin], [], [], 0)[0]:
            break
models.report(hashes=hashes[:4], weight_bytes=models.weight_bytes(model))
