#!/usr/bin/env bash
# comfy-aimdo, which moves ComfyUI's weights, says that it is ready on a machine
# without an NVIDIA driver: `control.init` returns True. Only `control.init_device`
# says False, and logs that it found no module that is already loaded.
#
# Expected: `init` answers whether it can work here; it returns False, with a
# sentence, where its own library cannot be loaded.
# Seen (comfy-aimdo 0.4.10, 0.5.6 and 0.6.0, Linux). Its library links no driver: it
# looks for one that somebody else has loaded. So the package being there, and
# `init` being content, say nothing of whether dynamic VRAM will be on.
# Needs a machine without the driver, for that is what it is about.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
for version in 0.4.10 0.5.6 0.6.0; do
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps "comfy-aimdo==$version"
    venv/bin/python - <<'PYTHON'
import ctypes
import importlib.metadata
import sys

try:
    ctypes.CDLL("libcuda.so.1")
    sys.exit("this machine has a driver: nothing can be said here")
except OSError:
    pass

from comfy_aimdo import control

ready, device = control.init("cuda"), control.init_device(0)
print("comfy-aimdo", importlib.metadata.version("comfy-aimdo"), "init:", ready, "device 0:", device)
assert (ready, device) == (True, False)
PYTHON
done
