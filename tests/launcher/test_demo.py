"""`autooffload demo`: on the stand-in as on a card, and what it says where it cannot run.

Not here: `scripts/demo` (tests/repository/test_support.py).
"""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"
sys.path.insert(0, str(ROOT / "python"))
from autooffload import demo, doctor  # noqa: E402
from autooffload.messages import Refusal  # noqa: E402


def run(env, **more):
    return subprocess.run([PROGRAM, "demo"], env=env | more, text=True, capture_output=True,
                          timeout=300)


def without(env, *names):
    return {name: value for name, value in env.items() if name not in names}


def test_it_shows_that_it_works(env):
    done = run(without(env, "AUTOOFFLOAD_LIB"), STANDIN_VRAM="320M", AUTOOFFLOAD="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything holds" in done.stdout and "FAILED" not in done.stdout
    streamed, unit = re.search(r"streamed in all +([\d.]+) (\w+)", done.stdout).groups()
    assert unit == "GiB" and float(streamed) > 0.2
    # Each iteration's hash stands there twice.
    hashes = re.findall(r"sha256 (\w+)", done.stdout)
    assert len(hashes) == 16 and hashes[:8] == hashes[8:]


def test_what_does_not_hold_is_told(env):
    """A library that does nothing."""
    done = run(env, STANDIN_VRAM="320M")
    assert done.returncode == 1 and "everything holds" not in done.stdout
    assert re.fullmatch(r"autooffload-launch: autooffload was not at work in[^\n]*\n",
                        done.stderr), done.stderr


def test_without_a_card_it_says_how_to_see_it(env):
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a driver")
    for other in (without(env, "LD_LIBRARY_PATH"), env | {"STANDIN_DEVICES": "0"}):
        done = run(other)
        assert done.returncode == 127 and done.stdout == ""
        assert re.fullmatch(r"autooffload-launch: the demo needs a card[^\n]*"
                            r"scripts/demo --device standin\n", done.stderr), done.stderr


def test_without_torch_it_says_what_to_do(env, tmp_path):
    for name in ("python", "python3"):
        (tmp_path / name).symlink_to(sys.base_prefix + "/bin/python3")
    path = f"{tmp_path}:/usr/bin:/bin"
    done = run(without(env, "VIRTUAL_ENV"), PATH=path)
    assert done.returncode == 127 and "pip install torch" in done.stderr, done.stderr
    assert "has no torch that works" in done.stderr


def test_a_driver_too_old_for_torch_is_told():
    demo.refuse_an_old_driver(12040, "2.11.0", "12.8")
    demo.refuse_an_old_driver(13010, "2.11.0", "12.8")
    with pytest.raises(Refusal, match="for CUDA 12.4, and torch 2.11.0 was built for 13.0"):
        demo.refuse_an_old_driver(12040, "2.11.0", "13.0")


def test_the_model_is_as_large_as_there_is_room(monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda: 64 << 30)
    sizes = [demo.weights(demo.width_for(free << 30)) for free in (2, 6, 12, 80)]
    assert sizes == sorted(sizes) and sizes[0] < 1.3 * 2**30 and sizes[3] <= demo.LARGEST
    assert sizes[1] > 4 * 2**30
    monkeypatch.setattr(doctor, "available_memory", lambda: 4 << 30)
    assert demo.weights(demo.width_for(80 << 30)) < 2 << 30
    monkeypatch.setattr(doctor, "available_memory", lambda: 10 << 20)
    with pytest.raises(Refusal, match="too little"):
        demo.width_for(80 << 30)
