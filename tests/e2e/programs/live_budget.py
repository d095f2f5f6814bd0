"""A model that fits, until the budget is lowered in the running program."""

import ctypes

import torch

import models

BLOCKS, ITERATIONS = 50, 8
lower = getattr(ctypes.CDLL(None), "autooffload_set", None)
hashes, answer = [], None
with torch.no_grad():
    model = models.stack(BLOCKS)
    for iteration in range(ITERATIONS):
        if iteration == 3 and lower is not None:
            answer = lower(b"AUTOOFFLOAD_VRAM", b"%d" % (models.weight_bytes(model) // 2))
        x = models.make_input(iteration).to("cuda")
        for index in models.shuffled(BLOCKS):
            x = model[index](x)
        hashes.append(models.digest(x))
    models.report(hashes=hashes, weight_bytes=models.weight_bytes(model), iterations=ITERATIONS,
                  answer=answer)
