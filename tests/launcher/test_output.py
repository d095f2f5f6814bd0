"""What was asked for and cannot be written is said, in one sentence, by the exit status too.

For the launcher and for every command of the program. Not here: what is written.
"""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "autooffload-launch"
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"

# What each command of the program needs to write something.
COMMANDS = {
    "forecast": ["sdxl-unet", "--vram", "3G", "--link", "12"],
    "report": ["--help"],  # it writes a file
    "traces": [], "cards": [], "trace": ["sdxl-unet", "-o", "-"], "top": ["--once"],
    "completions": ["bash"], "manual": ["--help"], "bench-plan": ["--help"],  # files
    "run": ["--dry-run", "ls"], "doctor": [], "demo": ["--version"], "help": ["forecast"],
}
ASKED = [[LAUNCHER, *words] for words in (["--dry-run", "ls"], ["--doctor"], ["--doctor", "--json"],
                                          ["--help"], ["--version"])] + \
    [[PROGRAM, name, *words] for name, words in COMMANDS.items()] + \
    [[PROGRAM, *words] for words in (["--help"], ["--version"], ["run", "--help"],
                                     ["doctor", "--json"], ["top", "--json"])]


def nowhere(kind):
    """Standard output that takes nothing."""
    if kind == "full":
        return open("/dev/full", "wb")
    read_end, write_end = os.pipe()
    os.close(read_end)
    return os.fdopen(write_end, "wb")


@pytest.mark.parametrize("kind", ["full", "reader-gone"])
@pytest.mark.parametrize("command", ASKED, ids=lambda words: " ".join([words[0].name, *words[1:]]))
def test_output_that_cannot_be_written_is_told(command, kind, env):
    with nowhere(kind) as output:
        done = subprocess.run(command, env=env, text=True, stdout=output,
                              stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"autooffload(-launch)?: standard output cannot be written: [^\n]+\n",
                        done.stderr), done.stderr


def test_the_launcher_says_so_where_it_was_closed(env):
    done = subprocess.run(["sh", "-c", f"exec {LAUNCHER} --dry-run ls >&-"], env=env, text=True,
                          stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1 and "it is closed" in done.stderr and "Traceback" not in done.stderr


def test_every_command_is_tried():
    listed = subprocess.run([PROGRAM, "--help"], text=True, stdout=subprocess.PIPE, check=True)
    assert set(re.findall(r"^  (\w[\w-]*) ", listed.stdout, re.MULTILINE)) == set(COMMANDS)
