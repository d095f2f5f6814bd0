"""Which of the machine's devices a process sees, and which processes a device."""

import os
import subprocess
import sys

from harness import PROGRAMS, STANDIN_RUN, assert_same, assert_streamed, reference, run

FORWARD = ("forward", "--blocks", 60, "--iterations", 6)
WEIGHTS = "weight_bytes"


def half_streams(result):
    """With half of the weights' bytes, the program was right, and the rest was copied."""
    wanted = reference(*FORWARD)
    assert_same(result, wanted)
    half = wanted.out[WEIGHTS] // 2
    assert_streamed(result, half,
                    wanted.account["h2d_bytes"] + (wanted.out["iterations"] - 1) * half)


def test_one_of_two():
    """The second card of the machine is the program's first."""
    card = reference(*FORWARD).out[WEIGHTS] // 2
    result = run(*FORWARD, vram=card, STANDIN_DEVICES="2", CUDA_VISIBLE_DEVICES="1")
    half_streams(result)
    assert len(result.account["device_peak_bytes_by_device"]) == 1


def test_beside_another_process(tmp_path):
    """Another process has half of the card: what is left is what there is, without a setting."""
    weights = reference(*FORWARD).out[WEIGHTS]
    shared = {"STANDIN_SHARED": str(tmp_path / "card"), "STANDIN_VRAM": str(weights)}
    command = [STANDIN_RUN, sys.executable, PROGRAMS / "hold.py", str(weights // 2)]
    with subprocess.Popen(command, env=os.environ | shared, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        assert int(other.stdout.readline()) == weights // 2
        result = run(*FORWARD, **shared)
        other.stdin.close()
        assert other.wait(300) == 0
    half_streams(result)
    assert result.stats["refused"] == 0
