"""Which of the machine's devices a process sees, and which processes a device."""

import contextlib
import json
import os
import subprocess
import sys

from harness import (LAUNCHER, MIB, PROGRAMS, SMALL_WORKSPACES, STANDIN_RUN, Result, assert_same,
                     assert_streamed, reference, run)
from support.account import Account

FORWARD = ("forward", "--blocks", 60, "--iterations", 6)
WEIGHTS = "weight_bytes"


def half_streams(result):
    """With half of the weights' bytes, the program was right, and the rest was copied."""
    wanted = reference(*FORWARD)
    assert_same(result, wanted)
    half = wanted.out[WEIGHTS] // 2
    assert_streamed(result, half,
                    wanted.account["h2d_bytes"] + (wanted.out["iterations"] - 1) * half)


@contextlib.contextmanager
def holding(count, env):
    """Another process, not under us, has so many bytes of the card."""
    command = [STANDIN_RUN, sys.executable, PROGRAMS / "hold.py", str(count)]
    with subprocess.Popen(command, env=os.environ | env, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        assert int(other.stdout.readline()) == count
        yield
        other.stdin.close()
        assert other.wait(300) == 0


class Step:
    """programs/steps.py under us, which stops before each of its steps."""

    def __init__(self, folder, name, env):
        self.account, self.stats = folder / f"{name}.account", folder / f"{name}.stats"
        self.errors = open(folder / f"{name}.errors", "w+")
        own = {"STANDIN_ACCOUNT": str(self.account), "AUTOOFFLOAD_STATS": str(self.stats)}
        self.process = subprocess.Popen(
            [STANDIN_RUN, LAUNCHER, sys.executable, PROGRAMS / "steps.py"],
            env=os.environ | SMALL_WORKSPACES | own | env, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors)

    def reached(self, step):
        line = self.process.stdout.readline()
        self.errors.seek(0)
        assert line.strip() == step, f"{line!r} instead of {step}: {self.errors.read()[-4000:]}"

    def go(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self):
        stdout, _ = self.process.communicate(timeout=400)
        self.errors.seek(0)
        outcome = subprocess.CompletedProcess([], self.process.returncode, stdout,
                                              self.errors.read())
        self.errors.close()
        return Result(outcome, Account(self.account), json.loads(self.stats.read_text()))


def alone(folder, env):
    """The same with the same budget, and nobody else on the card."""
    step = Step(folder, "alone", env)
    for name in ("begun", "passed"):
        step.reached(name)
        step.go()
    return step.end()


def assert_as_alone(result, wanted, budget):
    """Within its budget, right, and it streamed what it must."""
    least = wanted.out[WEIGHTS] + (wanted.out["iterations"] - 1) * (wanted.out[WEIGHTS] - budget)
    assert_same(result, wanted)
    assert_streamed(result, budget, least)
    # How soon a plan is found is a matter of time, and so are some of the bytes.
    assert result.account["h2d_bytes"] <= 2 * wanted.account["h2d_bytes"]
    assert abs(result.out["free_bytes"] - wanted.out["free_bytes"]) <= 4 * MIB
    assert result.stats["refused"] == 0


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
    with holding(weights // 2, shared):
        result = run(*FORWARD, **shared)
    half_streams(result)
    assert result.stats["refused"] == 0


def test_two_with_half_each(tmp_path):
    """Each has its budget, whatever the other takes later."""
    half = reference(*FORWARD).out[WEIGHTS] // 2
    env = {"AUTOOFFLOAD_VRAM": str(half), "STANDIN_VRAM": str(2 * half + 4 * MIB)}
    wanted = alone(tmp_path, env)
    env["STANDIN_SHARED"] = str(tmp_path / "card")
    steps = [Step(tmp_path, name, env) for name in ("first", "second")]
    for step in steps:
        step.reached("begun")
    for step in steps:
        step.go()
        step.reached("passed")
    for step in steps:
        step.go()
    for step in steps:
        assert_as_alone(step.end(), wanted, half)


def test_another_process_comes_later(tmp_path):
    """A budget is not used up by what others take."""
    half = reference(*FORWARD).out[WEIGHTS] // 2
    env = {"AUTOOFFLOAD_VRAM": str(half), "STANDIN_VRAM": str(2 * half + 4 * MIB)}
    wanted = alone(tmp_path, env)
    env["STANDIN_SHARED"] = str(tmp_path / "card")
    step = Step(tmp_path, "first", env)
    step.reached("begun")
    with holding(half, env):
        step.go()
        step.reached("passed")
        step.go()
        assert_as_alone(step.end(), wanted, half)
