"""What the launcher says, and how it refuses. Not here: what is said."""

import errno
import os
import sys

EXIT_NOT_WRITTEN = 1
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127


class Refusal(Exception):
    """The program cannot be started this way: a sentence, an exit status."""

    def __init__(self, sentence, status):
        super().__init__(sentence)
        self.status = status


def say(sentence):
    tell(f"autooffload-launch: {sentence}")


def tell(line):
    """On standard error. If nobody can hear it, that is no failure: the exit status is the
    program's."""
    if sys.stderr is None:  # it was closed; print would take standard output instead
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # What was not written would be tried again, and fail, at the end.
        sys.stderr = open(os.devnull, "w")


def show(text):
    """On standard output: what was asked for. If it cannot be written, that is a refusal."""
    try:
        if sys.stdout is None:  # it was closed; print would say nothing
            raise OSError(errno.EBADF, "it is closed")
        print(text, flush=True)
    except OSError as error:
        # What was not written would be tried again, and fail, at the end.
        sys.stdout = open(os.devnull, "w")
        raise Refusal(f"standard output cannot be written: {error.strerror}; give it a file "
                      "or a terminal that takes all of it", EXIT_NOT_WRITTEN) from None
