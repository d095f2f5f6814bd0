"""Runs one child command for a script a person watches.

Owns: time limit, clean end on Ctrl-C, showing the child's lines as they come.
"""

import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5


class Outcome:
    def __init__(self, returncode, lines, errors, seconds):
        self.returncode, self.lines, self.errors, self.seconds = \
            returncode, lines, errors, seconds

    def error_tail(self, count=15):
        return "\n".join(self.errors[-count:])


def run(command, env=None, limit_seconds=600, show=None, show_errors=None, cwd=None):
    """Runs `command`; each line of its two outputs goes to `show` and `show_errors`.

    On Ctrl-C the child, which the terminal has signalled too, is given a few
    seconds to end before it is ended; then KeyboardInterrupt goes on.
    """
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], env=env, cwd=cwd, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             errors="replace")
    lines, errors = [], []

    def drain(stream, kept, shown):
        for line in stream:
            line = line.rstrip("\n")
            kept.append(line)
            if shown:
                shown(line)

    threads = [threading.Thread(target=drain, args=(child.stdout, lines, show), daemon=True),
               threading.Thread(target=drain, args=(child.stderr, errors, show_errors), daemon=True)]
    for thread in threads:
        thread.start()
    try:
        child.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        end(child)
        errors.append(f"ended: it ran longer than {limit_seconds} s")
    except KeyboardInterrupt:
        end(child, signalled=True)
        raise
    for thread in threads:
        thread.join(GRACE_SECONDS)  # a grandchild may hold the pipe open
    return Outcome(child.returncode, lines, errors, time.monotonic() - began)


def end(child, signalled=False):
    if not signalled:
        child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


def note(line):
    print(line, file=sys.stderr, flush=True)
