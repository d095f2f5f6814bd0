"""A freed stream-ordered allocation is reused for a longer one of as many
frames; its last byte must survive a journey to the host."""

import json

import torch

MIB = 2**20

short = torch.zeros(3 * MIB, dtype=torch.uint8, device="cuda")
del short
expected = (torch.arange(4 * MIB) % 251).to(torch.uint8)
longer = torch.empty(4 * MIB, dtype=torch.uint8, device="cuda")
longer.copy_(expected)
others = []
for value in range(10):
    other = torch.empty(8 * MIB, dtype=torch.uint8, device="cuda")
    other.copy_(torch.full((8 * MIB,), value, dtype=torch.uint8))
    others.append(other)
print(json.dumps({"same": torch.equal(longer.cpu(), expected)}))
