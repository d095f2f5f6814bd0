"""Starts plain PyTorch programs on the stand-in, with and without autooffload,
and holds what they and the device's account say.

Every test here must fail when the library is off (`scripts/test --idle` sees
to it): identical output alone proves nothing, so each test also asserts
something that only happens when weights are moved.
"""

import functools
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support import standin  # noqa: E402
from support.account import Account  # noqa: E402

PROGRAMS = ROOT / "tests" / "e2e" / "programs"
STANDIN_RUN = ROOT / "standin" / "run"
STANDIN_LIBRARIES = standin.libraries(ROOT)
LAUNCHER = ROOT / "scripts" / "autooffload-launch"

MIB = 2**20
AMPLE = 4 * 2**30
LIMIT_SECONDS = 400

# torch's cuBLAS workspaces would else be 8 MiB, a third of the smallest device here.
SMALL_WORKSPACES = {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "64"}

NATIVE, ASYNC = "native", "cudaMallocAsync"


class Result:
    """One finished program. `out`: the JSON of its last line of output."""

    def __init__(self, outcome, account, stats):
        self.returncode = outcome.returncode
        self.stdout, self.stderr = outcome.stdout, outcome.stderr
        self.account, self.stats = account, stats
        lines = self.stdout.strip().splitlines()
        self.out = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None

    @property
    def ours(self):
        """What the library said on standard error."""
        return [line for line in self.stderr.splitlines() if line.startswith("autooffload:")]

    @property
    def out_of_memory(self):
        return self.returncode != 0 and "out of memory" in self.stderr.lower()

    def ok(self):
        assert self.returncode == 0, f"status {self.returncode}\n{self.stdout}\n{self.stderr[-4000:]}"
        return self


def run(program, *arguments, vram=AMPLE, preload=True, allocator=NATIVE, **env):
    """Runs programs/<program>.py on the stand-in.

    `vram`: the device's memory in bytes. `env`: further variables by name;
    a value of None removes one.
    """
    with tempfile.TemporaryDirectory(prefix="autooffload-e2e-") as folder:
        account, stats = pathlib.Path(folder, "account.json"), pathlib.Path(folder, "stats.json")
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("PYTORCH_") and name != "LD_PRELOAD"}
        environment.update(
            STANDIN_VRAM=str(int(vram)), STANDIN_ACCOUNT=str(account),
            AUTOOFFLOAD_STATS=str(stats),
            PYTORCH_ALLOC_CONF=f"backend:{allocator}", **SMALL_WORKSPACES)
        for name, value in env.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = str(value)
        command = [STANDIN_RUN] + ([LAUNCHER] if preload else []) + \
            [sys.executable, PROGRAMS / f"{program}.py", *map(str, arguments)]
        outcome = finished(command, environment)
        result = Result(outcome, Account(account) if account.exists() else None,
                        json.loads(stats.read_text()) if stats.exists() else None)
        result.stats_mode = stat.S_IMODE(stats.stat().st_mode) if stats.exists() else None
        return result


def finished(command, environment):
    """Runs `command` to its end; past the limit it is ended with all its children."""
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@functools.cache
def reference(program, *arguments, allocator=NATIVE):
    """The same program without the library and with memory enough."""
    result = run(program, *arguments, preload=False, allocator=allocator).ok()
    assert not result.account["violations"], result.account["violation_sentences"]
    return result


def assert_same(result, wanted):
    """Every hash the program printed, in order."""
    result.ok()
    assert result.out["hashes"] == wanted.out["hashes"]
    assert len(set(wanted.out["hashes"])) > 1, "a constant output proves nothing"
    assert wanted.out.get("finite", True)


def assert_streamed(result, vram, least_bytes):
    """The device's own account: the cap held, weights were copied in, nothing was misused."""
    account = result.account
    assert max(account["device_peak_bytes_by_device"]) <= vram
    assert account["h2d_bytes"] >= least_bytes, \
        f"{account['h2d_bytes']} bytes copied in, at least {least_bytes} expected"
    assert not account["violations"], account["violation_sentences"]


def identical_at(program, *arguments, vram, allocator=NATIVE, least_bytes=None, **env):
    """Runs with and without us; asserts same output, streaming and cap. Returns our run.

    `least_bytes` defaults to the floor of physics: each iteration all that does
    not fit must be copied in, on top of the upload every run makes.
    """
    wanted = reference(program, *arguments, allocator=allocator)
    result = run(program, *arguments, vram=vram, allocator=allocator, **env)
    assert_same(result, wanted)
    if least_bytes is None:
        rounds = wanted.out["iterations"] - 1  # the first may find weights still there
        least_bytes = wanted.account["h2d_bytes"] \
            + rounds * max(0, wanted.out["weight_bytes"] - vram)
    assert_streamed(result, vram, least_bytes)
    return result
