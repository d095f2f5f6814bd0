"""scripts/demo: with which Python it runs on a card, and what it makes where there is none.

A driver of a few lines takes the card's place, so nothing is run on it: `--dry-run`.
Not here: the demo on the stand-in (CI runs it), how it judges (test_support.py).
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "A Card"); return 0; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
"""


@pytest.fixture
def machine(tmp_path):
    """An environment with a driver for this CUDA, and this torch or none."""
    def make(version, torch=None):
        subprocess.run(["cc", "-shared", "-fPIC", f"-DVERSION={version}", "-x", "c", "-", "-o",
                        tmp_path / "libcuda.so.1"], input=DRIVER, text=True, check=True)
        path = tmp_path / "bin"
        path.mkdir()
        for name in ("python", "python3"):
            (path / name).symlink_to(sys.base_prefix + "/bin/python3")
        packages = tmp_path / "packages" / "torch"
        packages.mkdir(parents=True)
        (packages / "__init__.py").write_text(
            "raise ImportError('none')\n" if torch is None else
            f"__version__ = '2.99.0'\nclass version: cuda = {torch!r}\n")
        return {name: value for name, value in os.environ.items()
                if not name.startswith(("STANDIN", "AUTOOFFLOAD", "VIRTUAL_ENV"))} | {
            "PATH": f"{path}:/usr/bin:/bin", "LD_LIBRARY_PATH": str(tmp_path),
            "PYTHONPATH": str(packages.parent), "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "AUTOOFFLOAD_LIB": str(tmp_path / "libcuda.so.1")}
    return make


def demo(env, *options):
    return subprocess.run([sys.base_prefix + "/bin/python3", ROOT / "scripts" / "demo",
                           "--dry-run", *options], env=env, text=True, capture_output=True)


@pytest.mark.parametrize("version, torch", [(13010, "13.0"), (12040, "12.8"), (13000, "12.8")])
def test_a_torch_that_the_driver_runs_is_used(machine, tmp_path, version, torch):
    done = demo(machine(version, torch))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"would use {tmp_path}/bin/python"
    assert "GPU: A Card" in done.stdout and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("version, torch, said, cuda", [
    (13010, None, "has no torch that works", 13),
    (12080, None, "has no torch that works", 12),
    (13010, "", "was built without CUDA", 13),
    (12080, "13.0", "the driver is for CUDA 12.8, and torch 2.99.0 was built for 13.0", 12)])
def test_where_there_is_none_one_is_made(machine, tmp_path, version, torch, said, cuda):
    """Size and place are said, and why; the torch is one that the driver can run."""
    done = demo(machine(version, torch))
    assert done.returncode == 0, done.stderr
    *before, last = done.stdout.splitlines()
    assert said in " ".join(before)
    assert last.startswith(f"would install PyTorch for CUDA {cuda} for Python 3.")
    assert f"into {tmp_path}/cache/autooffload/venv-" in last
    assert "GB to download" in last and "GB on disk" in last
    assert not (tmp_path / "cache").exists()


def test_a_driver_too_old_for_us_is_told(machine):
    done = demo(machine(11080, "11.8"))
    assert done.returncode == 1
    assert "for CUDA 11.8; autooffload needs driver 550 (CUDA 12.4)" in done.stderr
    assert "--device standin" in done.stderr


def test_the_stand_in_can_always_be_chosen(machine):
    done = demo(machine(11080), "--device", "standin")
    assert done.returncode == 0 and "would build the library and the stand-in" in done.stdout


def test_what_is_missing_is_built(machine):
    env = machine(13010, "13.0")
    del env["AUTOOFFLOAD_LIB"]
    there = (ROOT / "target" / "release" / "libautooffload.so").exists()
    assert ("the library is there" if there else "would build") in demo(env).stdout
    done = demo(env | {"AUTOOFFLOAD_LIB": "/nowhere/lib.so"})
    assert done.returncode == 1 and "'/nowhere/lib.so', which is not a file" in done.stderr


@pytest.fixture
def scripts(tmp_path):
    """python-env beside requirements that are small."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "python-env", tmp_path / "scripts")
    (tmp_path / "a package").mkdir()
    (tmp_path / "a package" / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n")
    (tmp_path / "a package" / "backend.py").write_text(BACKEND)

    def write(disk):
        (tmp_path / "scripts" / "requirements-cuda12.txt").write_text(
            f"# to download, in MB: 1; on disk: {disk}\n./a package\n")
    return write


BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "in_place_of_torch-1-py3-none-any.whl"
    info = "in_place_of_torch-1.dist-info"
    with zipfile.ZipFile(folder + "/" + name, "w") as file:
        file.writestr("in_place_of_torch.py", "")
        file.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: in-place-of-torch\\nVersion: 1\\n")
        file.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(info + "/RECORD", "")
    return name
"""


def python_env(tmp_path, *options):
    return subprocess.run([tmp_path / "scripts" / "python-env", "--cuda", "12", *options],
                          cwd=tmp_path, text=True, capture_output=True,
                          env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"),
                                            "PYTHON": sys.base_prefix + "/bin/python3",
                                            "PIP_NO_INDEX": "1"})


def test_a_cards_environment_is_made_once(tmp_path, scripts):
    """With a package of a few lines in place of torch."""
    scripts(disk=1)
    done = python_env(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(once; about 0.0 GB to download, 0.0 GB on disk)" in done.stderr.splitlines()[0]
    made = pathlib.Path(done.stdout.strip())
    assert subprocess.run([made / "bin" / "python", "-c", "import in_place_of_torch"]).returncode == 0
    again = python_env(tmp_path)
    assert again.stdout == done.stdout and again.stderr == ""
    assert [path.name for path in made.parent.glob("building-*")] == []


def test_a_disk_too_small_is_told_before(tmp_path, scripts):
    scripts(disk=10**9)
    done = python_env(tmp_path)
    assert done.returncode == 1 and "1000000.0 GB are needed; make room" in done.stderr
    assert not list((tmp_path / "cache").rglob("bin"))
