"""Models of different sizes come and go, part of one always alive."""

import torch

import models

hashes = []


def forward(model, seed):
    x = models.make_input(seed).to("cuda")
    for index in models.shuffled(len(model)):
        x = model[index](x)
    hashes.append(models.digest(x))


with torch.no_grad():
    first = models.stack(40)
    total = models.weight_bytes(first)
    for iteration in range(4):
        forward(first, iteration)
    second = models.stack(30)
    for iteration in range(3):
        forward(first, iteration)
        forward(second, iteration)
    del first[10:]
    models.release()
    for iteration in range(3):
        forward(first, 20 + iteration)
        forward(second, 20 + iteration)
    third = models.stack(35)
    for iteration in range(3):
        for model in (third, second, first):
            forward(model, 30 + iteration)
    # Replaced while others are alive: new tensors at addresses used before.
    second[5:25] = models.stack(20)
    for iteration in range(3):
        forward(second, 40 + iteration)
    models.report(hashes=hashes, weight_bytes=total, iterations=len(hashes))
