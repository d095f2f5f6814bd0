"""A plain PyTorch program whose weights may not fit the device.

Residual blocks run in an order other than that of their creation, one of them
twice, on a new input every iteration. It knows nothing of autooffload.

    python examples/bigger_than_vram.py --device cuda --iterations 10

`torch.cuda.profiler.start/stop` brackets the steady iterations, and once more
the state after everything was deleted, for whoever watches the device.
"""

import argparse
import gc
import hashlib
import json
import random
import sys
import time

import torch
from torch import nn


class Block(nn.Module):
    """x + MLP(norm(x)), the hidden layer four times as wide as x."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def execution_order(blocks):
    """A fixed shuffle of the blocks in which the first one returns in the middle."""
    order = list(range(blocks))
    random.Random(2).shuffle(order)
    order.insert(blocks // 2, order[0])
    return order


def input_of(iteration, tokens, width):
    generator = torch.Generator().manual_seed(1000 + iteration)
    return torch.randn(tokens, width, generator=generator)


def profiler_bracket(cuda, begin):
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.profiler.start() if begin else torch.cuda.profiler.stop()


@torch.no_grad()
def run(options):
    cuda = options.device != "cpu"
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False

    began = time.monotonic()
    model = [Block(options.width).to(options.device) for _ in range(options.blocks)]
    weight_bytes = sum(p.numel() * p.element_size() for block in model for p in block.parameters())
    largest = max(p.numel() * p.element_size() for block in model for p in block.parameters())
    order = execution_order(options.blocks)
    print(f"{options.blocks} blocks, {weight_bytes / 2**20:.0f} MiB of weights, built in "
          f"{time.monotonic() - began:.1f} s", flush=True)

    hashes, seconds = [], []
    for iteration in range(1, options.iterations + 1):
        if iteration == options.warmup + 1:
            profiler_bracket(cuda, begin=True)
        began = time.monotonic()
        x = input_of(iteration, options.tokens, options.width).to(options.device)
        for index in order:
            x = model[index](x)
        output = x.cpu()
        seconds.append(time.monotonic() - began)
        data = output.numpy().tobytes()
        hashes.append(hashlib.sha256(data).hexdigest())
        print(f"iteration {iteration}/{options.iterations}  sha256 {hashes[-1][:16]}  "
              f"{seconds[-1]:.2f} s", flush=True)
        if iteration == 1 and options.save_first:
            with open(options.save_first, "wb") as file:
                file.write(data)
    if options.iterations > options.warmup:
        profiler_bracket(cuda, begin=False)

    del model, x
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        profiler_bracket(cuda, begin=True)
        profiler_bracket(cuda, begin=False)
    return {"weight_bytes": weight_bytes, "largest_tensor_bytes": largest,
            "iterations": options.iterations,
            "steady_iterations": max(0, options.iterations - options.warmup),
            "hashes": hashes, "seconds": seconds,
            "device_name": torch.cuda.get_device_name() if cuda else "cpu"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--blocks", type=int, default=22)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=4,
                        help="iterations before the bracketed, steady ones")
    parser.add_argument("--out", help="write results as JSON to this file")
    parser.add_argument("--save-first", metavar="FILE",
                        help="write the output of iteration 1 as raw float32")
    options = parser.parse_args()
    results = run(options)
    if options.out:
        with open(options.out, "w") as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
