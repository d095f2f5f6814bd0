"""A captured graph over a few blocks, and an eager stack larger than the rest."""

import torch

import models

hashes = []
with torch.no_grad():
    small, large = models.stack(6), models.stack(60)
    x = models.make_input(0).to("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for block in small:
            block(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x
        for block in small:
            y = block(y)
    for iteration in range(6):
        x.copy_(models.make_input(iteration))
        graph.replay()
        z = y.clone()
        for index in models.shuffled(60):
            z = large[index](z)
        hashes.append(models.digest(z))
    models.report(hashes=hashes, weight_bytes=models.weight_bytes(small + large), iterations=6)
