"""`autooffload top`: what the pages of running processes tell, and who may read them.

Every process here streams on the stand-in while it is looked at.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import stat
import struct
import subprocess
import sys
import termios
import time

import pytest

from harness import LAUNCHER, MIB, PROGRAMS, ROOT, SMALL_WORKSPACES, STANDIN_RUN

TOP = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"
CAP = 24 * MIB
PATIENCE_S = 300


@contextlib.contextmanager
def running(runtime, *arguments, vram=CAP, streams=True, **env):
    """A program that streams, settled; ended by what the test does, or killed."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment.update(SMALL_WORKSPACES, STANDIN_VRAM="1G", AUTOOFFLOAD_VRAM=str(vram),
                       XDG_RUNTIME_DIR=str(runtime), **{name: str(env[name]) for name in env})
    command = [STANDIN_RUN, LAUNCHER, sys.executable, PROGRAMS / "watched.py", *arguments]
    with subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        try:
            streamed = int(process.stdout.readline())
            assert streamed > 0 if streams else streamed == 0
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finish(process):
    process.stdin.close()
    out = json.loads(process.stdout.read().splitlines()[-1])
    assert process.wait(PATIENCE_S) == 0
    return out


def top(runtime, *arguments):
    done = subprocess.run([TOP, "top", *map(str, arguments)], text=True, capture_output=True,
                          timeout=PATIENCE_S, env=dict(os.environ, XDG_RUNTIME_DIR=str(runtime)))
    assert "panicked" not in done.stderr
    return done


def processes(runtime):
    done = top(runtime, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["processes"]


def until(runtime, holds=lambda page: True):
    """The only process's page, as soon as there is one and `holds` says yes to it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = processes(runtime)
        if len(found) == 1 and holds(found[0]):
            return found[0]
        assert time.monotonic() < deadline, found


def pages(runtime):
    return sorted((pathlib.Path(runtime) / "autooffload").glob("*.page"))


def test_it_tells_what_a_process_does(tmp_path):
    with running(tmp_path) as process:
        page = until(tmp_path, lambda page: page["devices"] and page["devices"][0]["period"]
                     and page["devices"][0]["iteration_ns"]
                     and any(chunk["next_use"] for chunk in page["devices"][0]["largest"]))
        assert "watched.py" in page["command"] and page["streamed_bytes"] > 0
        assert page["pinned_bytes"] > 0 and page["operations"] > 0
        [device] = page["devices"]
        ours = sum(device[f"{part}_bytes"] for part in ("weights", "activations", "ring", "spare"))
        assert 0 < ours <= device["cap_bytes"] <= CAP
        assert device["ring_bytes"] > 0 and device["streamed_chunks"] > 0
        assert device["total_bytes"] == 2**30
        assert device["bytes_per_iteration"] > 0
        assert len(device["largest"]) == 8

        [file] = pages(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert file.name == f"{page['pid']}.page"
        text = top(tmp_path, page["pid"], "--once").stdout
        for part in ("watched.py", "ring", "page-locked", "at best", "phase", "streamed uses"):
            assert part in text, text
        assert len(set(finish(process)["hashes"])) == 4
    assert pages(tmp_path) == [] and processes(tmp_path) == []
    assert "nothing to see" in top(tmp_path, "--once").stdout


def test_a_process_that_was_killed_is_not_shown(tmp_path):
    with running(tmp_path) as process:
        page = until(tmp_path)
        os.kill(page["pid"], signal.SIGKILL)
        process.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while processes(tmp_path):
            assert time.monotonic() < deadline
    assert pages(tmp_path) == []
    done = top(tmp_path, page["pid"], "--once")
    assert done.returncode != 0 and str(page["pid"]) in done.stderr


def test_a_forked_child_leaves_its_parents_page_alone(tmp_path):
    with running(tmp_path, "--fork") as process:
        until(tmp_path, lambda page: page["streamed_bytes"] > 0)
        finish(process)


def test_while_everything_fits_there_is_no_page(tmp_path):
    with running(tmp_path, vram=2**29, streams=False) as process:
        assert not (tmp_path / "autooffload").exists()
        # With less, the same program has one.
        finish(process)
    with running(tmp_path):
        until(tmp_path)


def test_a_place_that_others_may_write_to_is_not_used(tmp_path):
    shared = tmp_path / "autooffload"
    shared.mkdir()
    shared.chmod(0o777)
    with running(tmp_path) as process:
        assert finish(process)["hashes"]
        assert list(shared.iterdir()) == []
    done = top(tmp_path, "--once")
    assert done.returncode != 0 and "others may write" in done.stderr
    shared.chmod(0o700)
    with running(tmp_path):
        until(tmp_path)


def on_a_terminal(runtime, leave):
    """What top writes to a terminal until `leave(pid, terminal)`; its status; the modes before
    and after."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    before = termios.tcgetattr(terminal)
    command = [TOP, "top"]
    environment = dict(os.environ, XDG_RUNTIME_DIR=str(runtime), TERM="xterm-256color")
    with subprocess.Popen(command, env=environment, stdin=terminal, stdout=terminal,
                          stderr=terminal, start_new_session=True) as process:
        try:
            written, left = b"", False
            deadline = time.monotonic() + PATIENCE_S
            while process.poll() is None or select.select([master], [], [], 0)[0]:
                assert time.monotonic() < deadline, written
                if select.select([master], [], [], 0.1)[0]:
                    written += os.read(master, 65536)
                if not left and b"watched.py" in written:
                    leave(process.pid, master)
                    left = True
        finally:
            process.kill()
    after = termios.tcgetattr(terminal)
    os.close(master)
    os.close(terminal)
    return written, process.returncode, before, after


def test_the_terminal_is_given_back(tmp_path):
    enter, leave = b"\x1b[?1049h", b"\x1b[?1049l"
    ways = {"q": lambda pid, master: os.write(master, b"q"),
            "Ctrl-C": lambda pid, master: os.write(master, b"\x03"),
            "SIGTERM": lambda pid, master: os.kill(pid, signal.SIGTERM)}
    with running(tmp_path):
        for name, way in ways.items():
            written, status, before, after = on_a_terminal(tmp_path, way)
            assert status == 0, name
            assert written.count(enter) == 1 and written.count(leave) == 1, (name, written)
            assert after == before, name


@pytest.mark.parametrize("columns", [120, 15000])
@pytest.mark.parametrize("controlling", [True, False])
def test_it_ends_with_its_terminal(tmp_path, controlling, columns):
    """A window that is closed leaves no process behind, told of it by a signal or not, between
    two pictures or while one is drawn: 15,000 columns are more than a terminal keeps unread."""
    def take_terminal():
        # Whoever started the tests may ignore it (nohup), and that is inherited.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 4, columns, 0, 0))
    with running(tmp_path), subprocess.Popen(
            [TOP, "top"], stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            preexec_fn=take_terminal if controlling else None,
            env=dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path), TERM="xterm-256color")) as process:
        try:
            os.close(terminal)
            written = b""
            while b"watched.py" not in written:
                written += os.read(master, 4096)
            os.close(master)
            assert process.wait(PATIENCE_S) == (-signal.SIGHUP if controlling else 0)
        finally:
            process.kill()
