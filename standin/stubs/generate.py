#!/usr/bin/env python3
"""Makes stub libraries for what PyTorch is linked to and the stand-in lacks.

    generate.py SITE_PACKAGES OUTPUT_DIR

Reads the shared objects of the torch package in SITE_PACKAGES and writes to
OUTPUT_DIR one shared object for each NVIDIA library they need, except those
the stand-in implements: same soname, same symbol versions, one function per
imported symbol. Such a function computes nothing: it says its name on stderr,
once, and returns its library's own code for "not supported". The few that
return text or a version say what they are instead.

Python's standard library and a C compiler (`cc`, or $CC) are enough.
"""

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import elf

# Built from source in standin/, never stubbed.
IMPLEMENTED = {"libcuda.so.1", "libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13"}

# Stem of a stubbed library -> (the result code that says "not supported" in
# its own numbering, prefixes of the functions torch imports without a version).
LIBRARIES = {
    "libcudnn": (3000, ("cudnn",)),
    "libcufft": (16, ("cufft",)),
    "libcufile": (5001, ("cuFile",)),
    "libcupti": (27, ("cupti",)),
    "libcurand": (204, ("curand",)),
    "libcusolver": (9, ("cusolver",)),
    "libcusparse": (10, ("cusparse",)),
    "libcusparseLt": (10, ("cusparseLt",)),
    "libnccl": (3, ("nccl",)),
    "libnvrtc": (11, ("nvrtc",)),
    "libnvshmem_host": (1, ("nvshmem",)),
}

# Functions for which an error code would be a wrong answer: they return text,
# or a version by value, and are asked while nothing is being computed. They
# say nothing: version 0 tells a caller that there is no such library.
SPOKEN = {
    "cudnnGetCudartVersion": "size_t %s(void) { return 0; }",
    "cudnnGetErrorString": "const char *%s(int code) { (void)code; return TEXT; }",
    "cudnnGetLastErrorString": "void %s(char *text, size_t size) { if (size) snprintf(text, size, TEXT); }",
    "cudnnGetVersion": "size_t %s(void) { return 0; }",
    "cuptiGetResultString": "int %s(int code, const char **text) { (void)code; *text = TEXT; return 0; }",
    "cuptiGetVersion": "int %s(unsigned *version) { *version = 0; return 0; }",
    "cusparseGetErrorString": "const char *%s(int code) { (void)code; return TEXT; }",
    "ncclGetErrorString": "const char *%s(int code) { (void)code; return TEXT; }",
    "ncclGetLastError": "const char *%s(void *comm) { (void)comm; return TEXT; }",
    "ncclGetVersion": "int %s(int *version) { *version = 0; return 0; }",
    "nvrtcGetErrorString": "const char *%s(int code) { (void)code; return TEXT; }",
}

PRELUDE = """\
#include <stdio.h>
#define TEXT "{soname} is a stub of the stand-in: it computes nothing"
#define STUB(name) int name(void) {{ \\
    static int said; \\
    if (!__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED)) \\
        fprintf(stderr, "standin: " #name ": " TEXT "\\n"); \\
    return {code}; }}
"""


def stem(soname):
    return soname.split(".so", 1)[0]


def owner(name):
    """Stem of the library that an unversioned symbol belongs to, or None."""
    owners = [
        (len(prefix), library)
        for library, (_, prefixes) in LIBRARIES.items()
        for prefix in prefixes
        if name.startswith(prefix)
    ]
    return max(owners)[1] if owners else None  # the longest prefix: cusparseLt before cusparse


def collect(site_packages):
    """soname -> version (or None) -> names of the functions torch imports from it."""
    sonames, versioned, unversioned = {}, defaultdict(set), set()
    objects = [p for p in sorted((site_packages / "torch").rglob("*.so*")) if p.is_file()]
    if not objects:
        sys.exit(f"generate.py: no torch in {site_packages}; scripts/python-env makes one")
    for path in objects:
        needed, imports = elf.read(path)
        for soname in needed:
            if stem(soname) in LIBRARIES:
                sonames[stem(soname)] = soname
        for symbol in imports:
            if symbol.weak:
                continue
            if symbol.library:
                versioned[symbol.library, symbol.version].add(symbol.name)
            else:
                unversioned.add(symbol.name)

    wanted = {soname: defaultdict(set) for soname in sonames.values()}
    for (library, version), names in versioned.items():
        if library in wanted:
            wanted[library][version] |= names
    for name in unversioned:
        soname = sonames.get(owner(name))
        if soname:
            wanted[soname][None].add(name)
    return wanted


def source(soname, names):
    code, _ = LIBRARIES[stem(soname)]
    lines = [PRELUDE.format(soname=soname, code=code)]
    lines += [SPOKEN[name] % name if name in SPOKEN else f"STUB({name})" for name in sorted(names)]
    return "\n".join(lines) + "\n"


def build(soname, versions, output):
    names = set().union(*versions.values())
    target = output / soname
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        scratch = Path(scratch)
        (scratch / "stub.c").write_text(source(soname, names))
        command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-w",
                   f"-Wl,-soname,{soname}", "-o", str(scratch / "stub.so"), str(scratch / "stub.c")]
        nodes = [f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};"
                 for version, names in versions.items() if version]
        if nodes:
            (scratch / "stub.map").write_text("\n".join(nodes) + "\n")
            command.append(f"-Wl,--version-script={scratch / 'stub.map'}")
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            sys.exit(f"generate.py: no C compiler '{command[0]}'; install gcc (Debian, Ubuntu: apt install gcc)")
        except subprocess.CalledProcessError:
            sys.exit(f"generate.py: the C compiler failed on the stub of {soname}")
        (scratch / "stub.so").replace(target)  # whole or not at all


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    site_packages, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    for soname, versions in sorted(collect(site_packages).items()):
        if soname not in IMPLEMENTED:
            build(soname, versions, output)


if __name__ == "__main__":
    main()
