"""Memory that is not ours: handles that the program makes itself, or many small
allocations. How much the device gives before it is out of memory, and what can
be had beside it."""

import argparse
import ctypes

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("kind", choices=["handles", "small", "mixed"])
parser.add_argument("--blocks", type=int, default=30)
options = parser.parse_args()

MIB = 2**20
driver = ctypes.CDLL("libcuda.so.1")


class Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class Properties(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("handles", ctypes.c_int), ("location", Location),
                ("meta", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8)]


def handle():
    properties = Properties(type=1, location=Location(1, 0))
    made = ctypes.c_uint64()
    code = driver.cuMemCreate(ctypes.byref(made), ctypes.c_size_t(2 * MIB),
                              ctypes.byref(properties), ctypes.c_uint64(0))
    return made if code == 0 else None


def small():
    address = ctypes.c_uint64()
    code = driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(MIB - 4096))
    return address if code == 0 else None


def give_back(taken):
    for which, what in taken:
        free = driver.cuMemRelease if which is handle else driver.cuMemFree_v2
        assert free(what) == 0


def forward(seed):
    x = models.make_input(seed).to("cuda")
    for block in model:
        x = block(x)
    return models.digest(x)


makers = {"handles": [handle], "small": [small], "mixed": [handle, small]}[options.kind]
with torch.no_grad():
    model = models.stack(options.blocks)
    hashes = [forward(0)]
    taken = []
    # More than any device of these tests has, so that the end is the device's.
    for number in range(4096):
        maker = makers[number % len(makers)]
        made = maker()
        if made is None:
            break
        taken.append((maker, made))
    refused = len(taken)
    models.mark()
    # Half of it given back: what fits then must run.
    give_back(taken[refused // 2:])
    for number in range(1, 4):
        hashes.append(forward(number))
    give_back(taken[:refused // 2])
    hashes.append(forward(4))
weight_bytes = sum(p.numel() * p.element_size() for block in model for p in block.parameters())
models.report(hashes=hashes, weight_bytes=weight_bytes, iterations=5, refused=refused)
