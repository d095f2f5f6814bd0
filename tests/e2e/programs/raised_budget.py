"""A model that streams, until the budget is raised in the running program."""

import ctypes

import torch

import models

BLOCKS, ITERATIONS = 50, 8
change = getattr(ctypes.CDLL(None), "autooffload_set", None)
hashes, answers = [], []
with torch.no_grad():
    model = models.stack(BLOCKS)
    total = models.weight_bytes(model)
    for iteration in range(ITERATIONS):
        if iteration == 5:
            models.mark()
            before = models.resident_bytes()
            if change is not None:
                answers.append(change(b"AUTOOFFLOAD_VRAM", b"%d" % (4 * total)))
        x = models.make_input(iteration).to("cuda")
        for block in model:
            x = block(x)
        hashes.append(models.digest(x))
        models.mark()
    after = models.resident_bytes()
    models.report(hashes=hashes, weight_bytes=total, iterations=ITERATIONS, answers=answers,
                  fell=before - after)
