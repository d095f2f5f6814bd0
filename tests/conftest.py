"""For all Python tests: how the run was started must not decide how they end."""

import os
import signal

# What one run leaves for the next start would make tests depend on each other.
os.environ.setdefault("AUTOOFFLOAD_PLANS", "off")


def pytest_sessionstart():
    # Started in the background of a script, Python inherits an ignored SIGINT and so would
    # every program the tests start and then interrupt. A handler, unlike SIG_IGN, ends at exec.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
