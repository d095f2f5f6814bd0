"""Takes memory of the card as it is told on standard input: `take` one tensor more, answered
by what it has; at the end what the tensors hold."""

import ctypes
import json
import os
import sys

import torch

import models

MIB = 2**20
tell = ctypes.CDLL(None).autooffload_stats_json
text = ctypes.create_string_buffer(1 << 20)


def host_bytes():
    assert tell(text, len(text))
    return json.loads(text.value)["host"]["bytes"]


kept = []
for line in sys.stdin:
    try:
        kept.append(torch.full((40 * MIB,), len(kept), dtype=torch.uint8, device="cuda"))
        torch.cuda.synchronize()
        refused = False
    except torch.cuda.OutOfMemoryError:
        refused = True
    print(json.dumps({"pid": os.getpid(), "taken": len(kept), "refused": refused, "host": host_bytes()}), flush=True)
# The last first, and each goes once it is read: there is no room to bring one for another.
hashes = []
while kept:
    hashes.insert(0, int(kept.pop()[-1].item()))
    torch.cuda.empty_cache()
models.report(hashes=hashes)
