"""Builds, runs and deletes a model, again and again; a mark after each round."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=50)
parser.add_argument("--blocks", type=int, default=30)
parser.add_argument("--iterations", type=int, default=3)
options = parser.parse_args()

hashes, resident = [], []
with torch.no_grad():
    for number in range(options.rounds):
        model = models.stack(options.blocks)
        total = models.weight_bytes(model)
        for iteration in range(options.iterations):
            x = models.make_input(number * 10 + iteration).to("cuda")
            for index in models.shuffled(options.blocks):
                x = model[index](x)
            hashes.append(models.digest(x))
        del model, x
        models.release()
        torch.cuda.synchronize()
        models.mark()
        resident.append(models.resident_bytes())
models.report(hashes=hashes, resident_bytes=resident, weight_bytes=total,
              iterations=options.rounds * options.iterations)
