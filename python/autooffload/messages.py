"""What the launcher says, and how it refuses. Not here: what is said."""

import sys

EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127


class Refusal(Exception):
    """The program cannot be started this way: a sentence, an exit status."""

    def __init__(self, sentence, status):
        super().__init__(sentence)
        self.status = status


def say(sentence):
    print(f"autooffload-launch: {sentence}", file=sys.stderr, flush=True)
