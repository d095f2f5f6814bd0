"""Layers of a dense weight and of experts stacked in one tensor, of which each
token takes one: a launch names the whole stack and reads a part of it."""

import argparse
import random

import torch
from torch.nn import functional as F

import models

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=2)
parser.add_argument("--experts", type=int, default=8)
parser.add_argument("--width", type=int, default=2048)
parser.add_argument("--iterations", type=int, default=12)
parser.add_argument("--train-one", action="store_true",
                    help="a kernel changes some of the last expert used, after each iteration")
options = parser.parse_args()


def weights(number, *shape):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(*shape, generator=generator).div_(shape[-1] ** 0.5).to("cuda")


width = options.width
hashes = []
choose = random.Random(3)
with torch.no_grad():
    dense = [weights(2 * n, width, width) for n in range(options.layers)]
    stacks = [weights(2 * n + 1, options.experts, width, width) for n in range(options.layers)]
    total = sum(w.numel() * w.element_size() for w in dense + stacks)
    for iteration in range(options.iterations):
        x = models.make_input(iteration, tokens=2, width=width).to("cuda")
        for layer, experts in zip(dense, stacks):
            expert = experts[choose.randrange(options.experts)]
            x = x + F.gelu(F.linear(F.linear(x, layer), expert))
        if options.train_one:
            expert[:64].mul_(0.999)
        hashes.append(models.digest(x))
        models.mark()
del x, layer, expert, experts, dense, stacks
models.release()
models.mark()
models.report(hashes=hashes, weight_bytes=total, iterations=options.iterations)
