"""The program as a child process: signals, exit status, and who outlives whom.

The launcher ends when the program ends, and as it ends. If the launcher is
killed outright, the kernel sends the program SIGTERM.
"""

import ctypes
import errno
import os
import resource
import signal
import sys

from .messages import EXIT_CANNOT_RUN, Refusal

# Signals a terminal, a shell or a supervisor sends to a job. SIGTSTP and
# SIGCONT keep their default: the launcher then stops and continues with the job.
FORWARDED = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
             signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}

SI_KERNEL = 0x80  # siginfo: raised by the kernel, e.g. Ctrl-C at the terminal

PR_SET_PDEATHSIG = 1


def run(path, command, env):
    """Runs the program to its end; returns its wait status and the mask to leave with."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
    return wait_forwarding(start(path, command, env, old_mask)), old_mask


def start(path, command, env, old_mask):
    """Forks and executes the program; returns its process id.

    A pipe that closes on exec carries the reason home when exec fails.
    """
    read_end, write_end = os.pipe()  # neither is inherited across exec
    launcher = os.getpid()
    libc = ctypes.CDLL(None)
    child = os.fork()
    if child == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != launcher:  # it died before the line above
                os._exit(EXIT_CANNOT_RUN)
            # Python ignores these two for itself; the program must not inherit that.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
            os.execve(path, command, env)
        except OSError as error:
            os.write(write_end, str(error.errno).encode())
        finally:
            os._exit(EXIT_CANNOT_RUN)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as reason:
        code = reason.read()
    if code:
        os.waitpid(child, 0)
        number = int(code)
        hint = ("it has no `#!` line and is no program of this machine's kind"
                if number == errno.ENOEXEC else os.strerror(number))
        raise Refusal(f"{path}: cannot be executed: {hint}", EXIT_CANNOT_RUN)
    return child


def wait_forwarding(child):
    """Waits for the program, handing on the signals we are sent.

    The signals are blocked and taken one by one, so none is lost between two
    steps. What the terminal raises goes to the whole job at once, so only
    what was sent to this process alone is handed on.
    """
    while True:
        info = signal.sigwaitinfo(FORWARDED | {signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid == child:
                return status
        elif info.si_code != SI_KERNEL:
            # The child is not reaped yet, so its id cannot be another process's.
            os.kill(child, info.si_signo)


def leave_as(status, old_mask):
    """Ends this process the way the program ended."""
    if not os.WIFSIGNALED(status):
        sys.exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's core is the one of use
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, old_mask - {number})
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # a signal that could not end us
