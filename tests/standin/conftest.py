"""Tests of the stand-in itself: real PyTorch, no preloaded library.

Run with `standin/run python -m pytest tests/standin`. Tests whose environment
matters (capacity, allocator) run their program in a process of its own.
"""

import ctypes
import os
import subprocess
import sys
import textwrap

import pytest


def pytest_sessionstart(session):
    try:
        ctypes.CDLL("libcudart.so.13").standin_runtime_marker
    except (OSError, AttributeError):
        pytest.exit("these tests need the stand-in: standin/run python -m pytest tests/standin", returncode=2)


@pytest.fixture
def program(tmp_path):
    """Runs Python source in a fresh process: `program(source, NAME=value…)`.

    Returns the finished process; unless `fails=True`, a failure fails the test.
    """

    def run(source, fails=False, timeout=300, **variables):
        environment = {**os.environ, "STANDIN_ACCOUNT": "", **variables}
        environment.pop("LD_PRELOAD", None)
        script = tmp_path / "program.py"
        script.write_text(textwrap.dedent(source))
        finished = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True,
                                  text=True, timeout=timeout)
        if not fails:
            assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished

    return run


@pytest.fixture(autouse=True)
def quiet_device():
    """Each test starts and ends with nothing cached and nothing queued."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
