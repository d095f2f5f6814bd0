"""autooffload: runs PyTorch programs whose weights need more VRAM than there is.

This package is the Python side: the launcher (`launch`) and what it knows of
programs, of PyTorch's allocator settings and of ComfyUI. The work itself is
done by `libautooffload.so`, which the launcher preloads.

Python 3.9 or newer, standard library only: it must run with whatever python3
the machine has, not with the program's environment.
"""

import os
import re


def version():
    """The version: of the installed package, else of the source tree it lies in."""
    manifest = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "Cargo.toml")
    try:
        with open(manifest, encoding="utf-8") as file:
            found = re.search(r'^name = "autooffload"\nversion = "(.+)"$', file.read(), re.MULTILINE)
        if found:
            return found[1]
    except OSError:
        pass
    from importlib import metadata
    try:
        return metadata.version("autooffload")
    except metadata.PackageNotFoundError:
        return "unknown"
