"""Large weights, and small tensors joined after each: 1 to 128 of them, of mixed
sizes and strides. The joining kernel's struct has many slots, and what it does
not fill is left over from former launches."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("--weights", type=int, default=4)
parser.add_argument("--width", type=int, default=2304)
parser.add_argument("--iterations", type=int, default=6)
parser.add_argument("--one-by-one", action="store_true", help="copy instead: the same result")
options = parser.parse_args()

COUNTS = [2, 1, 3, 17, 64, 65, 128, 2]


def joined(parts):
    if not options.one_by_one:
        return torch.cat(parts, dim=0)
    out = torch.empty(sum(len(part) for part in parts), *parts[0].shape[1:], device="cuda")
    at = 0
    for part in parts:
        out[at:at + len(part)].copy_(part)
        at += len(part)
    return out


width = options.width
hashes = []
generator = torch.Generator().manual_seed(5)
with torch.no_grad():
    weights = [torch.randn(width, width, generator=generator).div_(width ** 0.5).to("cuda")
               for _ in range(options.weights)]
    rows = torch.randn(160, 48, generator=generator).to("cuda")
    total = sum(w.numel() * w.element_size() for w in weights)
    for iteration in range(options.iterations):
        x = models.make_input(iteration, tokens=1, width=width).to("cuda")
        parts = []
        for number, weight in enumerate(weights):
            x = torch.tanh(x @ weight)
            count = COUNTS[(iteration + number) % len(COUNTS)]
            # Of one row or two, and some of them transposed.
            parts = [rows[i:i + 1 + i % 2] if i % 3 else rows[:, i % 48:i % 48 + 1].T[:, :48]
                     for i in range(count)]
            y = joined(parts)
        hashes.append(models.digest(x) + models.digest(y))
del x, y, weight, weights, rows, parts
models.release()
models.report(hashes=hashes, weight_bytes=total, iterations=options.iterations)
