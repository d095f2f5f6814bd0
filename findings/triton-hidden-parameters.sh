#!/usr/bin/env bash
# A Triton kernel has two parameters more than its Python function: pointers at
# the end, to scratch memory, also when it uses none.
#
# Expected: the parameters of the function's signature.
# Seen (Triton 3.6.0, compiled for sm_80 without a card). Who launches such a cubin
# by the signature alone gives the driver too few parameters; who looks at the
# parameters of launches meets two pointers that no tensor explains.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps triton==3.6.0
venv/bin/python - <<'PYTHON'
import pathlib
import sys

pathlib.Path("kernel.py").write_text(
    "import triton\nimport triton.language as tl\n"
    "@triton.jit\ndef store(where, number):\n    tl.store(where, number)\n")
sys.path.insert(0, ".")

import triton
from kernel import store
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

source = ASTSource(fn=store, signature={"where": "*i32", "number": "i32"})
ptx = triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
head = ptx[ptx.index(".entry"):]
types = [line.split()[1] for line in head[:head.index(")")].splitlines() if ".param" in line]
print("triton", triton.__version__)
print("function:", *source.signature.values())
print("kernel:  ", *types)
assert types == [".u64", ".u32", ".u64", ".u64"]
PYTHON
