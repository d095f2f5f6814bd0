"""Models of different largest tensors, one after the other; what the device says is
free once each is gone."""

import torch

import models

SIZES = [40, 8, 56, 8, 40]  # MiB of each model's largest tensor
hashes, free = [], []


def forward(table, weights, seed):
    rows = torch.randint(0, len(table), (8,), generator=torch.Generator().manual_seed(seed))
    x = table[rows.to("cuda")]
    for weight in weights:
        x = torch.tanh(x @ weight)
    hashes.append(models.digest(x))


def one(size, number):
    generator = torch.Generator().manual_seed(number)
    table = torch.randn(size * 2**20 // 4 // 512, 512, generator=generator).to("cuda")
    weights = [torch.randn(512, 512, generator=generator).div_(22).to("cuda") for _ in range(40)]
    for seed in range(4):
        forward(table, weights, seed)
    return table.numel() * 4 + 40 * 2**20


with torch.no_grad():
    total = 0
    for number, size in enumerate(SIZES):
        total = max(total, one(size, number))
        models.release()
        free.append(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
models.report(hashes=hashes, weight_bytes=total, iterations=len(hashes), free=free)
