"""What the driver tells of the device's memory, before and with a model."""

import torch

import models


def told():
    free, total = torch.cuda.mem_get_info()
    return total, free


with torch.no_grad():
    torch.zeros(1, device="cuda")
    before = told()
    model = models.stack(60)
    hashes = []
    for iteration in range(6):
        x = models.make_input(iteration).to("cuda")
        for index in models.shuffled(60):
            x = model[index](x)
        hashes.append(models.digest(x))
    models.report(hashes=hashes, before=before, with_model=told(),
                  weight_bytes=models.weight_bytes(model))
