"""Forward passes over a stack, shuffled or in order; prints a hash per iteration."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("--blocks", type=int, default=115)
parser.add_argument("--width", type=int, default=models.WIDTH)
parser.add_argument("--iterations", type=int, default=20)
parser.add_argument("--attention", action="store_true")
parser.add_argument("--bare", action="store_true",
                    help="blocks of one matrix, executed in the order of creation")
parser.add_argument("--dtype", default="float32")
parser.add_argument("--update", choices=["copy", "kernel", "toggle"],
                    help="write to weights between iterations")
parser.add_argument("--check", action="store_true",
                    help="in the end read all weights back, as saving a state does")
options = parser.parse_args()
dtype = getattr(torch, options.dtype)


def make():
    if options.attention:
        return models.AttentionBlock(options.width, heads=4, dtype=dtype)
    make_block = models.BareBlock if options.bare else models.Block
    return make_block(options.width, dtype)


def update(model, iteration):
    """Changes two weights, so that a stale copy of either shows."""
    first = model[iteration % len(model)]
    second = model[(7 * iteration + 3) % len(model)]
    if options.update == "toggle":
        # Away and back, bit by bit; far apart, since some may be resident.
        first = second = model[iteration // 2 * 11 % len(model)]
    for block in (first, second):
        weight = next(p for p in block.parameters() if p.dim() == 2)
        if options.update == "toggle":
            weight.neg_()
            break
        if options.update == "copy":
            weight.copy_(torch.full(weight.shape, 0.001 * iteration, dtype=dtype))
        else:
            weight.mul_(0.5).add_(0.001 * iteration)


with torch.no_grad():
    model = models.stack(options.blocks, make=make)
    hashes = []
    finite = True
    order = range(options.blocks) if options.bare else models.shuffled(options.blocks)
    for iteration in range(options.iterations):
        x = models.make_input(iteration, width=options.width, dtype=dtype).to("cuda")
        for index in order:
            x = model[index](x)
        output = x.cpu()
        finite &= bool(torch.isfinite(output.float()).all())
        hashes.append(models.digest(output))
        if options.update:
            update(model, iteration)
    if options.check:
        hashes += [models.digest(p) for block in model for p in block.parameters()]
    models.report(hashes=hashes, finite=finite, iterations=options.iterations,
                  weight_bytes=models.weight_bytes(model))
