#!/usr/bin/env bash
# A kernel's first parameter need not lie at offset 0 of its parameters, and where
# it lies depends on the card. With an alignment of 64 (a tensor map has 64 or 128)
# it begins at 32 on sm_80, at 48 on sm_90 and at 0 on sm_100; with 128 at 32, 112
# and 0.
#
# Expected: offset 0, as the alignment is counted from the beginning of the
# parameters. It is counted in the constant bank in which they lie, and there they
# begin at 0x160, 0x210 and 0x380.
# Seen (ptxas of nvidia-cuda-nvcc 13.5.37). So offsets of parameters cannot be
# worked out from their types and alignments; they have to be read or asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps nvidia-cuda-nvcc==13.5.37 nvidia-nvvm==13.5.37
venv/bin/python - <<'PYTHON'
import importlib.metadata
import pathlib
import struct
import subprocess

PTXAS, = pathlib.Path("venv").rglob("bin/ptxas")


def records(architecture, parameters):
    """{position: (kind of record, offset, size)} of a kernel's parameters in its cubin."""
    pathlib.Path("k.ptx").write_text(
        f".version 9.0\n.target {architecture}\n.address_size 64\n"
        f".visible .entry k({', '.join(parameters)}) {{ ret; }}\n")
    subprocess.run([PTXAS, f"-arch={architecture}", "k.ptx", "-o", "k.cubin"], check=True)
    cubin = pathlib.Path("k.cubin").read_bytes()
    table, = struct.unpack_from("<Q", cubin, 40)
    entry, count, names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + entry * i) for i in range(count)]
    found = {}
    for name, _, _, _, begin, size in sections:
        start = sections[names][4] + name
        if cubin[start:cubin.index(b"\0", start)] != b".nv.info.k":
            continue
        place = begin
        while place < begin + size:
            form, kind, length = struct.unpack_from("<BBH", cubin, place)
            place += 4
            if kind in (0x17, 0x45):
                position, offset = struct.unpack_from("<HH", cubin, place + 4)
                packed, = struct.unpack_from("<I", cubin, place + 8)
                found[position] = (kind, offset, packed >> 18 if kind == 0x17 else packed)
            place += length if form == 4 else 0
    return found


print("ptxas of nvidia-cuda-nvcc", importlib.metadata.version("nvidia-cuda-nvcc"))
seen = {(architecture, alignment): records(architecture, [
            f".param .align {alignment} .b8 map[128]", ".param .u64 after"])[0][1]
        for architecture in ("sm_80", "sm_90", "sm_100") for alignment in (16, 64, 128)}
for (architecture, alignment), offset in seen.items():
    print(f"{architecture}, aligned to {alignment:3}: begins at {offset}")
assert seen == {("sm_80", 16): 0, ("sm_80", 64): 32, ("sm_80", 128): 32,
                ("sm_90", 16): 0, ("sm_90", 64): 48, ("sm_90", 128): 112,
                ("sm_100", 16): 0, ("sm_100", 64): 0, ("sm_100", 128): 0}
PYTHON
