"""Two processes of one user share the host memory that a machine has for what their cards do
not hold: none takes the other's half, and what one gives back the other may have.

The machine's size is made up (`made_up_machine.c`); processes, their pages and all else are real.
What is waited for is what a process tells, never a time. Not here: the rule itself
(`src/engine/host/fair.rs`).
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from harness import LAUNCHER, MIB, PROGRAMS, ROOT, SMALL_WORKSPACES, STANDIN_RUN
from support.account import Account

TOP = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"
SOURCE = pathlib.Path(__file__).with_name("made_up_machine.c")
CAP = 88 * MIB
TENSOR = 40 * MIB  # as in taking.py
MARGIN = MIB  # of a machine of 16 MiB; what it has in all counts for nothing else
SPARE = 320 * MIB
PATIENCE_S = 300
# What a process takes at once is not missing from the machine until it has told.
HALF = SPARE // 2 + TENSOR // 2


class Machine:
    """What both have taken is no longer there."""

    def __init__(self, folder):
        self.folder, self.taken = folder, {}
        self.shim, self.meminfo = folder / "made_up.so", folder / "meminfo"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.shim, SOURCE, "-ldl"], check=True)
        self.write()

    def write(self):
        left = SPARE + MARGIN - sum(self.taken.values())
        new = self.meminfo.with_suffix(".new")
        new.write_text(f"MemTotal: {16 << 10} kB\nMemAvailable: {left >> 10} kB\n")
        new.rename(self.meminfo)

    @contextlib.contextmanager
    def process(self, name):
        account = self.folder / f"{name}.json"
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("PYTORCH_")}
        environment.update(
            SMALL_WORKSPACES, STANDIN_VRAM=str(CAP), STANDIN_ACCOUNT=str(account),
            STANDIN_HOST_LOCATED="no", XDG_RUNTIME_DIR=str(self.folder),
            LD_PRELOAD=str(self.shim), MADE_UP_MEMINFO=str(self.meminfo))
        command = [STANDIN_RUN, LAUNCHER, sys.executable, PROGRAMS / "taking.py"]
        with subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, start_new_session=True) as started:
            try:
                yield Process(self, name, started, account)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGKILL)

    def page(self, pid):
        done = subprocess.run([TOP, "top", "--json"], text=True, capture_output=True, check=True,
                              env=os.environ | {"XDG_RUNTIME_DIR": str(self.folder)})
        return next((page for page in json.loads(done.stdout)["processes"]
                     if page["pid"] == pid), None)


class Process:
    def __init__(self, machine, name, started, account):
        self.machine, self.name, self.started, self.account = machine, name, started, account

    def take(self):
        """One tensor more; whether there was room for it."""
        self.started.stdin.write("take\n")
        self.started.stdin.flush()
        told = json.loads(self.started.stdout.readline())
        self.pid, self.tensors, self.host = told["pid"], told["taken"], told["host"]
        self.machine.taken[self.name] = self.host
        self.machine.write()
        return not told["refused"]

    def until_others_know(self):
        """What it has stands in its page."""
        deadline = time.monotonic() + PATIENCE_S
        while (page := self.machine.page(self.pid)) is None or page["host_bytes"] != self.host:
            assert time.monotonic() < deadline, page

    def end(self):
        """What it had in its tensors."""
        self.started.stdin.close()
        hashes = json.loads(self.started.stdout.read().splitlines()[-1])["hashes"]
        assert self.started.wait(PATIENCE_S) == 0
        account = Account(self.account)
        assert max(account["device_peak_bytes_by_device"]) <= CAP
        assert account["d2h_bytes"] > 0 and not account["violations"]
        del self.machine.taken[self.name]
        self.machine.write()
        return hashes


def test_each_has_its_half(tmp_path):
    machine = Machine(tmp_path)
    with machine.process("first") as first, machine.process("second") as second:
        while not getattr(first, "host", 0):
            assert first.take()
        first.until_others_know()
        while second.take():
            assert second.host <= HALF
        assert SPARE // 2 - TENSOR < second.host <= HALF
        second.until_others_know()
        # The half that the other left is there for it.
        while first.take():
            assert first.host <= SPARE - second.host
        assert SPARE - HALF - TENSOR < first.host <= SPARE - second.host

        assert first.end() == list(range(first.tensors))
        assert second.take(), "what the first gave back"
        assert second.end() == list(range(second.tensors))


def test_alone_it_has_all(tmp_path):
    """Without the other there is no half."""
    with Machine(tmp_path).process("only") as only:
        while only.take():
            assert only.host <= SPARE
        assert SPARE - TENSOR < only.host <= SPARE
        assert only.end() == list(range(only.tensors))
