"""The models the end-to-end programs run. Plain PyTorch."""

import ctypes
import gc
import hashlib
import json
import math
import random

import torch
from torch import nn
from torch.nn import functional as F

# 504 x 504 floats are just under 1 MiB: PyTorch's allocator puts two such
# weights into one 2 MiB segment, so that even a tenth of the model's size
# holds several segments.
WIDTH = 504


class Block(nn.Module):
    """x + MLP(norm(x)): one segment's worth of weights at the default width."""

    def __init__(self, width=WIDTH, dtype=torch.float32):
        super().__init__()
        self.norm = nn.LayerNorm(width, dtype=dtype)
        self.first = nn.Linear(width, width, dtype=dtype)
        self.second = nn.Linear(width, width, dtype=dtype)

    def forward(self, x):
        return x + self.second(F.gelu(self.first(self.norm(x))))


class BareBlock(nn.Module):
    """x + gelu(Wx): one matrix and nothing else."""

    def __init__(self, width=WIDTH, dtype=torch.float32):
        super().__init__()
        self.matrix = nn.Linear(width, width, bias=False, dtype=dtype)

    def forward(self, x):
        return x + F.gelu(self.matrix(x))


class AttentionBlock(nn.Module):
    """A pre-norm transformer block whose attention is written out."""

    def __init__(self, width, heads, dtype=torch.float32):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, dtype=dtype)
        self.qkv = nn.Linear(width, 3 * width, dtype=dtype)
        self.out = nn.Linear(width, width, dtype=dtype)
        self.norm2 = nn.LayerNorm(width, dtype=dtype)
        self.up = nn.Linear(width, 4 * width, dtype=dtype)
        self.down = nn.Linear(4 * width, width, dtype=dtype)

    def forward(self, x):
        tokens, width = x.shape
        q, k, v = (part.reshape(tokens, self.heads, -1).transpose(0, 1)
                   for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        scores = q @ k.transpose(1, 2) / math.sqrt(width // self.heads)
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(0, 1).reshape(tokens, width)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def stack(blocks, device="cuda", make=Block):
    """`blocks` blocks, seeded; made on the host, moved one by one."""
    torch.manual_seed(0)
    return [make().to(device) for _ in range(blocks)]


def shuffled(blocks):
    """An order of execution other than that of creation, one block twice."""
    order = list(range(blocks))
    random.Random(5).shuffle(order)
    return order + order[:1]


def weight_bytes(model):
    return sum(p.numel() * p.element_size() for block in model for p in block.parameters())


def make_input(iteration, tokens=8, width=WIDTH, dtype=torch.float32):
    generator = torch.Generator().manual_seed(100 + iteration)
    return torch.randn(tokens, width, generator=generator).to(dtype)


def digest(tensor):
    """SHA-256 of a tensor's bytes, whatever its type."""
    data = tensor.detach().cpu().contiguous().view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def resident_bytes():
    """Memory of this process that the kernel counts as resident, less what the
    C library's heap merely keeps for later: that comes and goes by tens of MiB."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def mark():
    """A snapshot in the account of whoever watches the device."""
    torch.cuda.profiler.start()


def release():
    """What a program does after deleting its model."""
    gc.collect()
    torch.cuda.empty_cache()


def report(**values):
    print(json.dumps(values), flush=True)
