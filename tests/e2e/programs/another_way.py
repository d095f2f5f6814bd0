"""The forward program with memory that is had in another way than PyTorch's own.

    another_way.py block BYTES …        one block first, given back to the allocator, which
                                        carves the model out of it (as transformers loads)
    another_way.py pluggable FILE …     every tensor by the two functions of a library
"""

import pathlib
import runpy
import sys

import torch

way, what = sys.argv[1:3]
del sys.argv[1:3]
if way == "block":
    block = torch.empty(int(what), dtype=torch.uint8, device="cuda")
    del block
else:
    torch.cuda.memory.change_current_allocator(
        torch.cuda.memory.CUDAPluggableAllocator(what, "plug_allocate", "plug_free"))
runpy.run_path(str(pathlib.Path(__file__).with_name("forward.py")), run_name="__main__")
