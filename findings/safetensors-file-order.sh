#!/usr/bin/env bash
# safetensors writes tensors in the order of their names, not in the order in which
# they were given, and compares names as text: layer 10 lies before layer 2.
#
# Expected: a file whose tensors follow each other as the program gave them, which
# for a model's state is about the order of use.
# Seen (safetensors 0.8.0): given layers 0, 2, 10, 1; in the file 0, 1, 10, 2, and
# `keys()` says the same. So the order in a file says nothing of the order of use,
# and reading a model of more than ten layers in the order of use jumps about.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import json
import struct

import numpy
import safetensors
from safetensors.numpy import save

names = [f"layer.{number}.weight" for number in (0, 2, 10, 1)]
content = save({name: numpy.zeros(4, numpy.float32) for name in names})
length, = struct.unpack_from("<Q", content)
header = json.loads(content[8:8 + length])
in_file = sorted(header, key=lambda name: header[name]["data_offsets"][0])
print("safetensors", safetensors.__version__)
print("given:  ", *names)
print("in file:", *in_file)
assert in_file == sorted(names) and in_file.index("layer.10.weight") < in_file.index("layer.2.weight")
PYTHON
