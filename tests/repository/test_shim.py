"""The library's own device code, compiled by NVIDIA's assembler for every architecture that
it knows from the oldest supported one on. What it computes is shown by the stand-in's tests."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support import cuda_compiler  # noqa: E402

MODULES = sorted((ROOT / "shim").glob("*.ptx"))
OLDEST = 75


@pytest.fixture(scope="module")
def ptxas():
    return cuda_compiler.find().nvcc.parent / "ptxas"


def architectures(ptxas):
    told = subprocess.run([ptxas, "--help"], text=True, capture_output=True, check=True).stdout
    found = {int(number) for number in re.findall(r"'sm_(\d+)'", told)}
    assert OLDEST in found
    return sorted(number for number in found if number >= OLDEST)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_assembles_everywhere_without_warnings_or_spills(module, ptxas, tmp_path):
    for number in architectures(ptxas):
        done = subprocess.run(
            [ptxas, "-v", "--warning-as-error", "--warn-on-spills", "--warn-on-local-memory-usage",
             f"-arch=sm_{number}", str(module), "-o", str(tmp_path / "out.cubin")],
            text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert re.search(r"\b0 bytes spill stores, 0 bytes spill loads", done.stderr), done.stderr


def test_a_driver_of_cuda_12_4_reads_it():
    for module in MODULES:
        text = module.read_text()
        version = re.search(r"^\.version (\d+)\.(\d+)$", text, re.MULTILINE)
        assert (int(version[1]), int(version[2])) <= (8, 4), "PTX of a newer driver"
        assert re.search(r"^\.target sm_75$", text, re.MULTILINE)


def test_there_is_a_module():
    assert MODULES
