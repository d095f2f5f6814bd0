"""scripts/bench launch: how it reads a profile, and that it runs and names every figure.

Not here: whether the targets hold (scripts/bench launch says so itself).
"""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support import bench_launch  # noqa: E402

LIBRARY = pathlib.Path("/opt/ours.so")
# The program calls us (10 of our own), we call libc (7), the driver (1000) and
# ourselves (5); the driver's own use of libc (90) is not ours.
PROFILE = """\
ob=(1) /bin/program
fn=(1) work
+1 3
cob=(2) /opt/ours.so
cfn=(2) cuLaunchKernel
calls=2 0
+1 1022
ob=(2)
fn=(2)
10 10
cob=(3) /lib/libc.so.6
cfn=(3) memcpy
calls=4 0
* 7
cob=(4) /lib/libcuda.so.1
cfn=(4) cuLaunchKernel
calls=2 0
* 1000
cfn=(5) inner
calls=1 0
* 5
fn=(5)
11 5
ob=(4)
fn=(4)
5 910
cob=(3)
cfn=(3)
calls=2 0
* 90
"""


def test_a_profile_is_split_into_ours_libc_and_the_driver():
    found = bench_launch.split(PROFILE, LIBRARY, calls=2, all_calls=2)
    assert found == {"own": 7.5, "libc": 3.5, "all": 11, "driver": {"cuLaunchKernel": 1}}


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_every_promised_figure_is_there():
    done = subprocess.run([ROOT / "scripts" / "bench", "launch"], text=True, capture_output=True,
                          timeout=550)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads((ROOT / "target" / "bench" / "launch.json").read_text())
    missing = [case.name for case in bench_launch.CASES if not found["ours"][case.name]]
    assert missing == []
    failed = [target["name"] for target in found["targets"] if not target["holds"]]
    assert done.returncode == (1 if failed else 0)
