"""The same work eagerly, compiled, or as a captured graph."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("way", choices=["eager", "compile", "graph"])
parser.add_argument("--blocks", type=int, default=40)
parser.add_argument("--iterations", type=int, default=5)
options = parser.parse_args()


def run(model, x):
    for index in models.shuffled(options.blocks):
        x = model[index](x)
    return x


def eager(model):
    hashes = []
    for iteration in range(options.iterations):
        x = models.make_input(iteration).to("cuda")
        hashes.append(models.digest(run(model, x)))
    return hashes


def compiled(model):
    """Outputs are not read: the stand-in does not execute compiled kernels."""
    step = torch.compile(lambda x: run(model, x), dynamic=False)
    for iteration in range(options.iterations):
        step(models.make_input(iteration).to("cuda"))
    torch.cuda.synchronize()
    return []


def captured(model):
    x = models.make_input(0).to("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(model, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run(model, x)
    hashes = []
    for iteration in range(options.iterations):
        x.copy_(models.make_input(iteration))
        graph.replay()
        hashes.append(models.digest(y))
    return hashes


with torch.no_grad():
    model = models.stack(options.blocks)
    hashes = {"eager": eager, "compile": compiled, "graph": captured}[options.way](model)
    models.report(hashes=hashes, weight_bytes=models.weight_bytes(model),
                  iterations=options.iterations)
