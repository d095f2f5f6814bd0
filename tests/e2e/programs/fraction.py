"""Allows itself nine tenths of the card, and says whether that was too little."""

import torch

import models

ITERATIONS = 4

torch.cuda.set_per_process_memory_fraction(0.9)
hashes, ran_out, weights = [], False, 0
try:
    with torch.no_grad():
        model = models.stack(60)
        weights = models.weight_bytes(model)
        for iteration in range(ITERATIONS):
            x = models.make_input(iteration).to("cuda")
            for block in model:
                x = block(x)
            hashes.append(models.digest(x))
except torch.OutOfMemoryError:
    ran_out = True
models.report(hashes=hashes, iterations=ITERATIONS, ran_out=ran_out, weight_bytes=weights)
