"""Tests of the stand-in itself: real PyTorch, no preloaded library.

Run with `standin/run python -m pytest tests/standin`. Tests whose environment
matters (capacity, allocator) run their program in a process of its own.
"""

import ctypes
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_sessionstart(session):
    try:
        ctypes.CDLL("libstandin_cudart.so").standin_runtime_marker
    except (OSError, AttributeError):
        pytest.exit("these tests need the stand-in: standin/run python -m pytest tests/standin", returncode=2)
    # What comparing imports (a second's worth in PyTorch 2.15) is there before the tests fork.
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))


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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs each test of this directory in a process of its own.

    A failed kernel leaves a CUDA context unusable for good; so that it fails
    one test and not all that follow, the process that collected the tests
    never initialises CUDA: it forks.
    """
    if "program" in pyfuncitem.fixturenames or not pyfuncitem.path.is_relative_to(HERE):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        failure = ""
        try:
            pyfuncitem.obj(**arguments)
        except BaseException:
            failure = traceback.format_exc()
        with open(writer, "w") as pipe:
            pipe.write(failure)
        sys.stdout.flush()
        os._exit(1 if failure else 0)
    os.close(writer)
    with open(reader) as pipe:
        failure = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        pytest.fail(failure or f"the test's process ended with status {status}", pytrace=False)
    return True
