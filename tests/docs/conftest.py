"""A folder as a reader of the pages has it: this repository, a program, the tools in PATH.

The programs run on the stand-in, whose card is too small for `main.py`.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from pages import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from support import environment  # noqa: E402

MAIN = '''"""A plain PyTorch program of 24 layers, 96 MiB."""
import os
import torch

rank = int(os.environ.get("LOCAL_RANK", "0"))
torch.cuda.set_device(rank)
layers = [torch.nn.Linear(1024, 1024, bias=False).to("cuda") for _ in range(24)]
with torch.no_grad():
    for step in range(6):
        x = torch.ones(8, 1024, device="cuda")
        for layer in layers:
            x = torch.tanh(layer(x))
print("rank", rank, "done", float(x.sum()))
'''

# A ComfyUI as far as the launcher looks at it.
COMFYUI = {"comfy/cli_args.py": 'parser.add_argument("--gpu-only")\n'
                                'parser.add_argument("--highvram")\n', "main.py": MAIN}


@pytest.fixture(scope="session")
def tools():
    """The environment with uv, accelerate and Jupyter's kernel, beside the stand-in's."""
    beside = pathlib.Path(sys.prefix)
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    return environment.made(target, "recipes", ROOT / "scripts" / "requirements-recipes.txt",
                            beside)


@pytest.fixture(scope="session")
def reader(tools, tmp_path_factory):
    """(folder, environment variables)."""
    folder = tmp_path_factory.mktemp("reader")
    for entry in ROOT.iterdir():
        if not entry.name.startswith((".", "pyproject.toml")):  # uv would build that project
            (folder / entry.name).symlink_to(entry)
    (folder / "main.py").write_text(MAIN)
    (folder / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    for name, text in COMFYUI.items():
        path = folder / "ComfyUI" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    shims = folder / "bin"
    shims.mkdir()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    shim(shims, "autooffload-launch", f'exec "{ROOT}/scripts/autooffload-launch" "$@"')
    shim(shims, "autooffload", f'exec "{target}/release/autooffload" "$@"')
    for name, module in (("accelerate", "accelerate.commands.accelerate_cli"),
                         ("jupyter", "jupyter_core.command")):
        shim(shims, name, f'exec "{tools}/bin/python" -m {module} "$@"')
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("AUTOOFFLOAD", "PYTORCH_", "STANDIN_VRAM"))
            and name != "LD_PRELOAD"}
    env = kept | {
        "PATH": f"{shims}:{tools}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(tools),
        "PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder), "UV_OFFLINE": "1", "UV_PYTHON": f"{tools}/bin/python",
        "STANDIN_VRAM": "56M", "STANDIN_DEVICES": "2",
        "CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "64"}
    return folder, env


def shim(folder, name, line):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="session")
def run(reader):
    """Runs a shell text as the reader would; answers the finished process."""
    folder, env = reader

    def run(text, **more):
        return subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=folder,
                              env=env | more, text=True, capture_output=True, timeout=300)
    return run
