"""Trains a stack of matrices by SGD: all of them are written in every pass."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("--blocks", type=int, default=24)
parser.add_argument("--passes", type=int, default=12)
parser.add_argument("--momentum", type=float, default=0.0)
options = parser.parse_args()

torch.manual_seed(0)
matrices = [torch.nn.Parameter((0.01 * torch.randn(models.WIDTH, models.WIDTH)).to("cuda"))
            for _ in range(options.blocks)]
optimiser = torch.optim.SGD(matrices, lr=0.05, momentum=options.momentum, foreach=False)
hashes = []
for iteration in range(options.passes):
    models.mark()
    x = models.make_input(iteration).to("cuda")
    for matrix in matrices:
        x = x + x @ matrix
    loss = (x * x).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    hashes.append(models.digest(loss.reshape(1)))
models.mark()
hashes += [models.digest(matrix) for matrix in matrices]
weight_bytes = sum(matrix.numel() * matrix.element_size() for matrix in matrices)
finite = all(bool(torch.isfinite(matrix.cpu()).all()) for matrix in matrices)
models.report(hashes=hashes, finite=finite, weight_bytes=weight_bytes, iterations=options.passes)
