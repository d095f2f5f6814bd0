#!/usr/bin/env bash
# In a cubin, one long parameter list changes the record of every parameter: above
# 4,352 bytes in all, kind 0x45 stands in the place of kind 0x17, with the size in
# another form, for the short parameters of that kernel as well.
#
# Expected: one kind of record for a parameter, or another only for the long one.
# Seen (ptxas of nvidia-cuda-nvcc 13.5.37; sm_80, sm_90, sm_100). What reads
# parameter layouts from cubins and knows only 0x17 finds a kernel with long
# parameters to have none at all.
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
for architecture in ("sm_80", "sm_90", "sm_100"):
    kinds = {}
    for size in (4344, 4352):
        seen = records(architecture, [f".param .align 8 .b8 long[{size}]", ".param .u64 short"])
        assert seen[0][2] == size and seen[1][2] == 8
        kinds[size + 8] = {kind for kind, _, _ in seen.values()}
        print(f"{architecture}, {size + 8} bytes:", *(hex(kind) for kind, _, _ in seen.values()))
    assert kinds == {4352: {0x17}, 4360: {0x45}}
PYTHON
