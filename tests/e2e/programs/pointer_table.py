"""The addresses of some weights are copied to the device in a table, as for a
batched matrix product; then a model runs."""

import torch

import models

BLOCKS, ITERATIONS = 50, 5
hashes = []
with torch.no_grad():
    model = models.stack(BLOCKS)
    table = torch.tensor([model[number].first.weight.data_ptr() for number in (3, 17, 31)],
                         dtype=torch.int64).to("cuda")
    for iteration in range(ITERATIONS):
        x = models.make_input(iteration).to("cuda")
        for index in models.shuffled(BLOCKS):
            x = model[index](x)
        hashes.append(models.digest(x))
    models.report(hashes=hashes, weight_bytes=models.weight_bytes(model), iterations=ITERATIONS,
                  table=len(table))
