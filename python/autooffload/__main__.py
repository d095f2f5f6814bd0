"""`python -m autooffload`: the same words as the program `autooffload`."""

import os
import sys

from . import launch
from .library import find_program_of_ours
from .messages import Refusal, say


def main():
    words = sys.argv[1:]
    if words[:1] == ["run"]:
        launch.main(words[1:])
    elif words[:1] in (["doctor"], ["demo"]):
        launch.main([f"--{words[0]}", *words[1:]])
    else:
        try:
            program = find_program_of_ours()
        except Refusal as refusal:
            say(str(refusal))
            sys.exit(refusal.status)
        os.execv(program, [program, *words])


main()
