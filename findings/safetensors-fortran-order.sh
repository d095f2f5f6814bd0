#!/usr/bin/env bash
# safetensors stores an array of column order under its own shape, but with its
# bytes as they lie in memory: what is loaded has other numbers in other places.
#
# Expected: the numbers that were saved, or an error. The documentation asks for
# arrays that are "contiguous and dense"; numpy calls this one contiguous.
# Seen (safetensors 0.8.0, numpy 2.4.6): no error, no warning. Weights that come
# from Fortran code, or from `numpy.asfortranarray`, must be made contiguous in C
# order first (`numpy.ascontiguousarray`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy
import safetensors
from safetensors.numpy import load, save

saved = numpy.asfortranarray(numpy.arange(6, dtype=numpy.float32).reshape(2, 3))
assert saved.flags["F_CONTIGUOUS"] and saved.flags["FORC"]
loaded = load(save({"weight": saved}))["weight"]
print("safetensors", safetensors.__version__, "numpy", numpy.__version__)
print("saved: ", saved.tolist())
print("loaded:", loaded.tolist())
assert loaded.shape == saved.shape
assert loaded.tolist() == saved.ravel(order="K").reshape(2, 3).tolist() != saved.tolist()
again = load(save({"weight": numpy.ascontiguousarray(saved)}))["weight"]
assert again.tolist() == saved.tolist()
PYTHON
