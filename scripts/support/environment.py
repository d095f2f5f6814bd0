"""Python environments for the scripts that need more than Python itself.

Owns: making one from pinned requirements, once. Not here: the stand-in's
(scripts/python-env), which these may look into but never change.
"""

import hashlib
import os
import shutil
import subprocess
import sys


class NotMade(Exception):
    """pip's own message has been shown."""


def made(folder, name, requirements, beside=None):
    """The environment's path; `beside`: another's, whose packages it sees as well."""
    text = requirements.read_bytes() + sys.version.encode() + str(beside).encode()
    env = folder / f"{name}-env-{hashlib.sha256(text).hexdigest()[:16]}"
    if env.exists():
        return env
    python = [beside / "bin" / "python"] if beside else [sys.executable]
    building = env.with_name(f"{env.name}.{os.getpid()}")
    failed = subprocess.run([*python, "-m", "venv", building]).returncode
    if not failed and beside:
        for packages in building.glob("lib/python3*/site-packages"):
            inside = packages.relative_to(building)
            (packages / "beside.pth").write_text(f"{beside / inside}\n")
    failed = failed or subprocess.run(
        [building / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps",
         "--disable-pip-version-check", "--no-input", "-r", requirements]).returncode
    if failed:
        shutil.rmtree(building, ignore_errors=True)
        raise NotMade()
    building.rename(env)  # pip's own scripts are not used, so their paths do not matter
    return env
