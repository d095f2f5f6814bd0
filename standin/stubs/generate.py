#!/usr/bin/env python3
"""Makes the libraries that PyTorch is linked to, whatever its version.

    generate.py SITE_PACKAGES OUTPUT_DIR

Reads the shared objects of the torch package in SITE_PACKAGES and writes to
OUTPUT_DIR one shared object for each NVIDIA library they need (except the
driver): same soname, same symbol versions, one function per imported symbol.
Such a function computes nothing: it says its name on stderr, once, and returns
its library's own code for "not supported". The few that return text or a
version say what they are instead.

Where the stand-in implements a library, for whichever release of CUDA
(libstandin_*.so in OUTPUT_DIR), the made one stands in front of it: what is
implemented is found there, so that only the rest is a stub.

Python's standard library and a C compiler (`cc`, or $CC) are enough.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import elf

# Stem of a library -> what stands behind it, built from source in standin/.
IMPLEMENTED = {
    "libcudart": "libstandin_cudart.so",
    "libcublas": "libstandin_cublas.so",
    "libcublasLt": "libstandin_cublasLt.so",
}

# Of the names that changed their signature, the implementation has the form of
# CUDA 13; libcudart.so.12 leads them to functions with this in front.
CUDA_12 = "standin_cuda12_"

# Stem of a stubbed library -> (the result code that says "not supported" in
# its own numbering, prefixes of the functions torch imports without a version).
LIBRARIES = {
    "libcublas": (15, ("cublas",)),
    "libcublasLt": (15, ("cublasLt",)),
    "libcudart": (801, ("cuda", "__cuda")),
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
    "libnvidia-ml": (3, ("nvml",)),
}

# Of the driver's own libraries, the one that torch opens by name, and the
# object of torch whose text holds the names it then looks up.
OPENED = ("libnvidia-ml.so.1", "libc10_cuda.so", rb"\0(nvml[A-Z]\w*)\0")

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
    # torch takes these for granted where the library is; there are no other processes.
    "nvmlDeviceGetComputeRunningProcesses": "int %s(void *device, unsigned *count) { *count = 0; return 0; }",
    "nvmlDeviceGetHandleByPciBusId_v2": "int %s(const char *id, void **device) { *device = device; return 0; }",
    "nvmlInit_v2": "int %s(void) { return 0; }",
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
/* To the same function under another name, arguments and all. */
#define LEAD(name, target) __attribute__((naked)) void name(void) {{ \\
    __asm__("jmp *" #target "@GOTPCREL(%rip)"); }}
"""
# The driver serves no runtime without it (standin/driver).
MARKER = 'const char standin_front[] = "standin_runtime_marker";\n'


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
    soname, opener, pattern = OPENED
    for path in objects:
        if path.name == opener:
            names = re.findall(pattern, path.read_bytes().replace(b"\0", b"\0\0"))
            wanted[soname] = {None: {name.decode() for name in names}}
    return wanted


def source(soname, names, led):
    code, _ = LIBRARIES[stem(soname)]
    lines = [PRELUDE.format(soname=soname, code=code)]
    if stem(soname) == "libcudart":
        lines.append(MARKER)
    for name in sorted(names):
        if name in led:
            lines.append(f"LEAD({name}, {led[name]})")
        else:
            lines.append(SPOKEN[name] % name if name in SPOKEN else f"STUB({name})")
    return "\n".join(lines) + "\n"


def build(soname, versions, output):
    behind, linked = set(), []
    if stem(soname) in IMPLEMENTED:
        library = output / IMPLEMENTED[stem(soname)]
        behind = elf.exports(library)
        linked = ["-Wl,--no-as-needed", str(library), "-Wl,-rpath,$ORIGIN"]
    # Name -> the function it leads to instead of its namesake.
    led = {name.removeprefix(CUDA_12): name for name in behind
           if name.startswith(CUDA_12) and soname.endswith(".so.12")}
    versions = {version: {name for name in names if name in led or name not in behind}
                for version, names in versions.items()}
    names = set().union(*versions.values())
    target = output / soname
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        scratch = Path(scratch)
        (scratch / "stub.c").write_text(source(soname, names, led))
        command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-w",
                   f"-Wl,-soname,{soname}", "-o", str(scratch / "stub.so"), str(scratch / "stub.c"), *linked]
        nodes = [f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names)) or 'standin_front;'} }};"
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
        build(soname, versions, output)


if __name__ == "__main__":
    main()
