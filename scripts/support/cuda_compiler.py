"""Finds NVIDIA's compiler and headers, or installs them from the Python registry.

They need no GPU and are never committed. An nvcc of the machine is preferred:
it fits the machine's driver. Not here: what is compiled (questions.py).
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# One CUDA release: the compiler, the device compiler it calls, the headers of both.
WHEELS = ("nvidia-cuda-nvcc==13.0.88", "nvidia-nvvm==13.0.88", "nvidia-cuda-crt==13.0.88",
          "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cccl==13.0.85")
INSTALL_SECONDS = 300


class NoCompiler(Exception):
    """A sentence: why there is none."""


class Compiler:
    def __init__(self, nvcc):
        self.nvcc = pathlib.Path(nvcc)
        self.include = self.nvcc.resolve().parent.parent / "include"
        if not (self.include / "cuda.h").is_file():
            # Some systems keep the headers in a folder for each target.
            found = sorted(self.nvcc.resolve().parent.parent.glob("targets/*/include/cuda.h"))
            if not found:
                raise NoCompiler(f"{self.nvcc} has no cuda.h beside it")
            self.include = found[0].parent

    def version(self):
        told = subprocess.run([self.nvcc, "--version"], text=True, capture_output=True).stdout
        lines = [line for line in told.splitlines() if "release" in line]
        return lines[0].split("release", 1)[1].strip() if lines else "of unknown version"


def find(install=True):
    """The machine's compiler, or ours from the cache, or a newly installed one."""
    candidates = [os.environ.get("NVCC"), shutil.which("nvcc")]
    candidates += [str(pathlib.Path(home) / "bin" / "nvcc") for home in
                   (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
                   if home]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            try:
                return Compiler(candidate)
            except NoCompiler:
                continue
    if shutil.which("g++") is None:
        raise NoCompiler("there is no g++ (Debian, Ubuntu: apt install g++)")
    folder = cached()
    if not folder.is_dir():
        if not install:
            raise NoCompiler("there is no nvcc")
        install_into(folder)
    return Compiler(folder / "nvidia" / "cu13" / "bin" / "nvcc")


def cached():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    key = hashlib.sha256(" ".join(WHEELS).encode()).hexdigest()[:16]
    return cache / "autooffload" / f"cuda-compiler-{key}"


def install_into(folder):
    """Made beside its place and renamed, so that an interrupted one is never used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing NVIDIA's compiler into {folder} (once; about 100 MB to download)",
          file=sys.stderr, flush=True)
    making = tempfile.mkdtemp(prefix="cuda-compiler-", dir=folder.parent)
    try:
        made = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input",
             "--disable-pip-version-check", "--only-binary=:all:", "--target", making, *WHEELS],
            text=True, capture_output=True, timeout=INSTALL_SECONDS)
        if made.returncode != 0:
            last = made.stderr.strip().splitlines() or ["no message"]
            raise NoCompiler(f"pip could not install it: {last[-1]}")
        try:
            os.rename(making, folder)
        except OSError:
            if not folder.is_dir():  # else another caller was faster
                raise
    except subprocess.TimeoutExpired:
        raise NoCompiler(f"pip did not install it within {INSTALL_SECONDS} s") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)
