"""The stand-in refuses to serve a CUDA runtime that is not its own."""

import subprocess
import sys

PROGRAM = """
import ctypes, sys
ctypes.CDLL(sys.argv[1])
print("cuInit", ctypes.CDLL("libcuda.so.1").cuInit(0))
"""


def test_a_foreign_runtime_is_refused_with_a_sentence(tmp_path):
    # A library of that name without our marker; what it contains does not matter.
    foreign = tmp_path / "libcudart.so.12"
    subprocess.run(["cc", "-shared", "-x", "c", "-o", foreign, "-"],
                   input="int nothing_of_ours;", text=True, check=True)
    done = subprocess.run([sys.executable, "-c", PROGRAM, foreign], text=True, capture_output=True)
    code = int(done.stdout.split()[-1])
    assert code != 0, done.stdout
    assert "libcudart" in done.stderr and "stand-in" in done.stderr, done.stderr
