"""A model that streams; then one activation of so many MiB, and the model again."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("mib", type=int)
parser.add_argument("--blocks", type=int, default=30)
options = parser.parse_args()

with torch.no_grad():
    model = models.stack(options.blocks)

    def forward(seed):
        x = models.make_input(seed).to("cuda")
        for block in model:
            x = block(x)
        return models.digest(x)

    hashes = [forward(seed) for seed in range(3)]
    try:
        large = torch.empty(options.mib << 20, dtype=torch.uint8, device="cuda")
        large.fill_(7)
        hashes.append(models.digest(large[-4096:]))
        del large
        fitted = True
    except torch.OutOfMemoryError:
        fitted = False
    models.release()
    hashes += [forward(seed) for seed in range(3)]
weight_bytes = sum(p.numel() * p.element_size() for block in model for p in block.parameters())
models.report(hashes=hashes, weight_bytes=weight_bytes, iterations=6, fitted=fitted)
