"""The wheel, as a user gets it: built by scripts/wheel, installed into a clean environment.

Not here: what the launcher does (tests/launcher).
"""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "wheel"


@pytest.fixture(scope="session")
def wheel():
    built = subprocess.run([SCRIPT], text=True, stdout=subprocess.PIPE, env=clean())
    assert built.returncode == 0
    return pathlib.Path(built.stdout.split()[-1])


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel and nothing else; and what was there before."""
    folder = tmp_path_factory.mktemp("clean environment") / "venv"
    venv.create(folder, with_pip=True)
    before = files(folder)
    pip(folder, "install", "--no-index", wheel)
    return folder, before


def clean(**more):
    """The environment without what points at this tree or at settings."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("AUTOOFFLOAD", "PYTORCH_", "PYTHON"))
            and name not in ("LD_PRELOAD", "VIRTUAL_ENV")}
    return kept | more


def pip(folder, *words):
    subprocess.run([folder / "bin" / "python", "-m", "pip", *words, "--quiet",
                    "--disable-pip-version-check"], check=True, env=clean(), cwd="/")


def files(folder):
    return {path for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def run(*command, **options):
    return subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=300,
                          cwd="/", env=clean(**options))


def test_any_linux_of_the_last_years_can_have_it(wheel):
    assert wheel.name.endswith("-py3-none-manylinux_2_28_x86_64.whl")
    newest = runpy.run_path(str(SCRIPT))["newest_glibc"](wheel)
    assert tuple(map(int, newest.split("."))) <= (2, 28)


def test_the_check_of_the_ceiling_reads_what_readelf_reads(tmp_path):
    """On this machine's own build, which may need more than the wheel may."""
    library = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "libautooffload.so"
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.write(library, "a.so")
    shown = subprocess.run(["readelf", "--version-info", "--wide", library], text=True,
                           stdout=subprocess.PIPE, check=True).stdout
    names = re.findall(r"Name: GLIBC_(2[\d.]+) ", shown)
    assert runpy.run_path(str(SCRIPT))["newest_glibc"](tmp_path / "a.whl") == \
        max(names, key=lambda name: list(map(int, name.split("."))))


def test_its_commands_start(installed):
    folder, _ = installed
    binaries = folder / "bin"
    version = run(binaries / "autooffload", "--version")
    assert version.stdout.startswith("autooffload "), version.stderr
    for command in ([binaries / "autooffload-launch", "--version"],
                    [binaries / "autooffload", "run", "--version"],
                    [binaries / "python", "-m", "autooffload", "--version"]):
        assert run(*command).stdout == version.stdout


@pytest.mark.parametrize("command", [["autooffload-launch"], ["autooffload", "run"],
                                     ["python", "-m", "autooffload", "run"]])
def test_its_library_is_preloaded(installed, command):
    folder, _ = installed
    done = run(folder / "bin" / command[0], *command[1:], "--vram", "8G", "--", "env")
    got = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert got["AUTOOFFLOAD_VRAM"] == "8G"
    library = pathlib.Path(os.path.realpath(got["LD_PRELOAD"]))
    assert folder in library.parents or got["LD_PRELOAD"].startswith("/tmp/"), done.stderr
    assert "ld.so" not in done.stderr


def test_the_doctor_needs_no_torch(installed):
    folder, _ = installed
    done = run(folder / "bin" / "autooffload", "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["library"]["verdict"] == "ok"
    assert str(folder) in checks["library"]["found"]


def test_it_offloads(installed, tmp_path):
    """Another environment's PyTorch, on the stand-in, with half of the memory it needs."""
    folder, _ = installed
    code = ("import torch\n"
            "layers = [torch.nn.Linear(2048, 2048, device='cuda') for _ in range(8)]\n"
            "with torch.no_grad():\n"
            "    for _ in range(4):\n"
            "        x = torch.ones(4, 2048, device='cuda')\n"
            "        for layer in layers: x = layer(x)\n"
            "assert torch.isfinite(x).all()\n")
    stats = tmp_path / "stats.json"
    done = run(folder / "bin" / "autooffload-launch", "--vram", "96M", "--stats", stats,
               sys.executable, "-c", code, STANDIN_VRAM="1G")
    assert done.returncode == 0, done.stderr
    written = json.loads(stats.read_text())
    assert written["streaming"]["streamed_bytes"] > 0, written


def test_its_demo_runs(installed):
    """With another environment's PyTorch, on the stand-in."""
    folder, _ = installed
    done = run(folder / "bin" / "autooffload", "demo", STANDIN_VRAM="320M")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything holds" in done.stdout


def test_nothing_is_left_of_it(installed):
    folder, before = installed
    pip(folder, "uninstall", "--yes", "autooffload")
    assert files(folder) == before
