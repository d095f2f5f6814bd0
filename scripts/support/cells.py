"""Processes that run cells of a table: each imports the libraries once, and forks for every cell.

Owns: their environment and how they are started. Not here: what a cell is (peers/cell.py,
wild/cell.py).
"""

import os
import subprocess


def start(python, root, module, *arguments, preloaded, **env):
    """`python -m module arguments`, which reads a cell a line and answers with a line."""
    lib = root / "target" / "standin" / "lib"
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("PYTORCH_", "STANDIN_", "AUTOOFFLOAD"))}
    environment |= {"LD_LIBRARY_PATH": str(lib), "TRITON_LIBCUDA_PATH": str(lib),
                    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                    "PATH": f"{python.parent}:{environment['PATH']}"}
    launcher = [root / "scripts" / "autooffload-launch"] if preloaded else []
    return subprocess.Popen([*launcher, python, "-m", module, *arguments], env=environment | env,
                            cwd=root / "scripts", text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
