#!/usr/bin/env bash
# Cubins of one Triton kernel have the same entry name whatever its parameters
# became: an argument that is a constant is no parameter any more, and those after
# it move up.
#
# Expected: a name that tells the variants apart, as C++ templates have.
# Seen (Triton 3.6.0, compiled for sm_80 without a card): `scale` with three and
# with two parameters of its own. So what was learned of a kernel's parameters under
# its name (a trace, a table of layouts) does not hold for the next launch of
# that name; it has to be asked of the function that is launched.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps triton==3.6.0
venv/bin/python - <<'PYTHON'
import pathlib
import re
import sys

pathlib.Path("kernel.py").write_text(
    "import triton\nimport triton.language as tl\n"
    "@triton.jit\ndef scale(count, by, where):\n"
    "    tl.store(where, tl.load(where) * by + count)\n")
sys.path.insert(0, ".")

import triton
from kernel import scale
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def entry(signature, constants):
    source = ASTSource(fn=scale, signature=signature, constexprs=constants)
    ptx = triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
    name, parameters = re.search(r"\.entry (\w+)\((.*?)\)", ptx, re.DOTALL).groups()
    return name, re.findall(r"\.param \.(\w+)", parameters)


print("Triton", triton.__version__)
plain = entry({"count": "i32", "by": "i32", "where": "*i32"}, {})
constant = entry({"count": "constexpr", "by": "i32", "where": "*i32"}, {"count": 1})
print("count given:   ", *plain)
print("count constant:", *constant)
assert plain[0] == constant[0] == "scale"
assert len(plain[1]) == len(constant[1]) + 1
PYTHON
