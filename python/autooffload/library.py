"""The library to preload: where it is, and how LD_PRELOAD names it.

Two arrangements are known: the source tree (`python/autooffload` beside
`target/release`), and an installed package that holds the library itself.
"""

import os
import re
import sys

from .messages import EXIT_NOT_FOUND, Refusal

LIBRARY = "libautooffload.so"


def folders():
    """Where the library may lie, best first."""
    package = os.path.dirname(os.path.realpath(__file__))
    root = os.path.dirname(os.path.dirname(package))
    targets = [os.path.join(root, "target")]
    if os.environ.get("CARGO_TARGET_DIR"):
        targets.insert(0, os.environ["CARGO_TARGET_DIR"])
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    return [package, script, *[os.path.join(target, "release") for target in targets],
            os.path.join(root, "lib"), os.path.expanduser("~/.local/lib"),
            "/usr/local/lib", "/usr/lib"]


def find_library():
    """The library to preload, as an absolute path."""
    named = os.environ.get("AUTOOFFLOAD_LIB")
    if named:
        if not os.path.isfile(named):
            raise Refusal(f"AUTOOFFLOAD_LIB names {named!r}, which is not a file: "
                          f"set it to the path of {LIBRARY}, or unset it", EXIT_NOT_FOUND)
        return os.path.abspath(named)
    looked = folders()
    for folder in looked:
        path = os.path.join(folder, LIBRARY)
        if os.path.isfile(path):
            return os.path.abspath(path)
    raise Refusal(f"{LIBRARY} not found (looked in {', '.join(looked)}): build it with "
                  "scripts/build, or set AUTOOFFLOAD_LIB to its path", EXIT_NOT_FOUND)


def preload_value(library, private_dir, inherited):
    """LD_PRELOAD with the library first and the user's own entries kept."""
    if re.search(r"[\s:]", library):
        # The loader splits LD_PRELOAD at blanks and colons: go by a plain name.
        alias = os.path.join(private_dir, LIBRARY)
        os.symlink(library, alias)
        library = alias
    others = [entry for entry in re.split(r"[\s:]+", inherited or "")
              if entry and os.path.realpath(entry) != os.path.realpath(library)]
    return ":".join([library] + others)


def find_program_of_ours():
    """The program `autooffload`: beside this Python where it is installed, else in the build tree."""
    looked = [os.path.dirname(sys.executable), *folders()]
    for folder in looked:
        path = os.path.join(folder, "autooffload")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise Refusal(f"the program autooffload was not found (looked in {', '.join(looked)}): build "
                  "it with scripts/build", EXIT_NOT_FOUND)
