"""Builds the wheel: the Python package with the library inside it, the program
`autooffload`, its manual pages and completions.

    pip install .                            for this machine
    AUTOOFFLOAD_WHEEL_GLIBC=2.28 pip wheel .   for any Linux with that glibc; see scripts/wheel

Cargo builds; here its products are only put into their places. Not here: names
and dependencies (pyproject.toml), the version (Cargo.toml).
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).resolve().parent
GLIBC = os.environ.get("AUTOOFFLOAD_WHEEL_GLIBC")
COMPLETIONS = {"bash": "share/bash-completion/completions/autooffload",
               "zsh": "share/zsh/site-functions/_autooffload",
               "fish": "share/fish/vendor_completions.d/autooffload.fish"}


def cargo_build():
    """Builds library and program; returns the folder that they are in."""
    cargo = shutil.which("cargo") or str(pathlib.Path.home() / ".cargo" / "bin" / "cargo")
    if not os.path.exists(cargo):
        sys.exit("autooffload is built by cargo, and there is none: install Rust with "
                 "https://rustup.rs, or install a wheel")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        sys.exit(f"autooffload is for Linux on x86-64; this is {sys.platform} on "
                 f"{platform.machine()}. For aarch64 the forwarding of dlsym is missing: it is a "
                 "few lines of assembly (shim/)")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
    command, built = [cargo, "build"], target / "release"
    if GLIBC:
        triple = "x86_64-unknown-linux-gnu"
        command = [cargo, "zigbuild", "--target", f"{triple}.{GLIBC}"]
        built = target / triple / "release"
    subprocess.run([*command, "--release", "-p", "autooffload", "-p", "autooffload-cli"],
                   cwd=ROOT, check=True)
    return built


class Build(build_py):
    """The package, and in it the library; beside it what goes elsewhere."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # the launcher finds the library in the build tree
        built = cargo_build()
        package = pathlib.Path(self.build_lib) / "autooffload"
        shutil.copy(built / "libautooffload.so", package)
        shutil.copy(ROOT / "examples" / "bigger_than_vram.py", package)  # of the demo
        beside = pathlib.Path(self.build_lib).parent / "beside"
        shutil.rmtree(beside, ignore_errors=True)
        self.place(built / "autooffload", beside / "bin" / "autooffload")
        program = str(built / "autooffload")
        subprocess.run([program, "manual", str(beside / "share" / "man" / "man1")], check=True)
        for shell, path in COMPLETIONS.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            with open(beside / path, "wb") as file:
                subprocess.run([program, "completions", shell], check=True, stdout=file)
        self.distribution.data_files = [
            (str(path.parent.relative_to(beside)), [str(path)])
            for path in sorted(beside.rglob("*")) if path.is_file()]

    @staticmethod
    def place(source, target):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)


class Wheel(bdist_wheel):
    """Any Python 3, this platform: nothing in it depends on Python's own interface."""

    def get_tag(self):
        platform_tag = f"manylinux_{GLIBC.replace('.', '_')}_x86_64" if GLIBC else super().get_tag()[2]
        return "py3", "none", platform_tag


class Binary(Distribution):
    def has_ext_modules(self):
        return True


def version():
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    return re.search(r'^name = "autooffload"\nversion = "(.+)"$', text, re.MULTILINE)[1]


SCRATCH = ROOT / "target" / "wheel" / "setuptools"
SCRATCH.mkdir(parents=True, exist_ok=True)
setup(version=version(), distclass=Binary, cmdclass={"build_py": Build, "bdist_wheel": Wheel},
      options={"build": {"build_base": str(SCRATCH)}, "egg_info": {"egg_base": str(SCRATCH)}})
