"""A mixture of experts whose products go through tables of addresses that a
kernel writes on the card (`torch._grouped_mm`, the default of such models on
sm_90 and sm_100): the product names the tables, and no weight.

The tokens come sorted by expert; how many each expert gets changes with every
layer and iteration. The block of memory that holds the tables is used again and
again, for another layer's."""

import argparse
import random

import torch
from torch.nn import functional as F

import models

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=10)
parser.add_argument("--experts", type=int, default=8)
parser.add_argument("--width", type=int, default=640)
parser.add_argument("--hidden", type=int, default=1024)
parser.add_argument("--tokens", type=int, default=32)
parser.add_argument("--iterations", type=int, default=4)
options = parser.parse_args()


def weights(number, *shape):
    generator = torch.Generator().manual_seed(number)
    values = torch.randn(*shape, generator=generator).div_(shape[-2] ** 0.5)
    return values.to(torch.bfloat16).to("cuda")


def ends(choose):
    cuts = sorted(choose.randrange(options.tokens + 1) for _ in range(options.experts - 1))
    return torch.tensor(cuts + [options.tokens], dtype=torch.int32).to("cuda")


hashes = []
choose = random.Random(5)
with torch.no_grad():
    experts, width, hidden = options.experts, options.width, options.hidden
    dense = [weights(3 * n, width, width) for n in range(options.layers)]
    up = [weights(3 * n + 1, experts, width, hidden) for n in range(options.layers)]
    down = [weights(3 * n + 2, experts, hidden, width) for n in range(options.layers)]
    total = sum(w.numel() * w.element_size() for w in dense + up + down)
    for iteration in range(options.iterations):
        x = models.make_input(iteration, tokens=options.tokens, width=width)
        x = x.to(torch.bfloat16).to("cuda")
        for n in range(options.layers):
            x = x + F.linear(x, dense[n])
            offsets = ends(choose)
            y = F.gelu(torch._grouped_mm(x, up[n], offs=offsets))
            x = x + torch._grouped_mm(y, down[n], offs=offsets)
        hashes.append(models.digest(x.float()))
        models.mark()
models.report(hashes=hashes, weight_bytes=total, iterations=options.iterations,
              finite=bool(torch.isfinite(x.float().cpu()).all()))
