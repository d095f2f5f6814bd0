"""Starts a program with autooffload preloaded, and passes its end on unchanged.

    autooffload-launch [options] [--] program args...

Owns: the command line, and the environment the program starts with. Not here:
anything that happens inside the program (that is the library's), nor the
meaning of a setting's value (the library parses it and warns).
"""

import argparse
import os
import shutil
import sys
import tempfile

from . import allocator, child, comfyui, version
from .library import find_library, preload_value
from .messages import EXIT_CANNOT_RUN, Refusal, say, show, tell
from .program import executed_files, find_program, loader_objection

# The options that mirror a setting of the library: option, environment
# variable, metavar, help. The library documents and checks the values.
SETTINGS = [
    ("--vram", "AUTOOFFLOAD_VRAM", "SIZE",
     "device memory the program may use, context included: auto, 8G, 75%%"),
    ("--headroom", "AUTOOFFLOAD_HEADROOM", "SIZE",
     "device memory left free for other programs"),
    ("--window", "AUTOOFFLOAD_WINDOW", "N|SIZE",
     "how far ahead weights are copied in: auto, a count of chunks, or bytes"),
    ("--ram", "AUTOOFFLOAD_RAM", "SIZE",
     "cap on all host copies of weights: auto or a size"),
    ("--report", "AUTOOFFLOAD_REPORT", "MODE",
     "what the program is told of its memory: budget or enlarged"),
    ("--log", "AUTOOFFLOAD_LOG", "FILTER",
     "log filter: error, warn, info, debug, or module=level pairs"),
    ("--plans", "AUTOOFFLOAD_PLANS", "WHERE",
     "where a program's order is kept for its next start: auto, off, or a folder"),
    ("--stats", "AUTOOFFLOAD_STATS", "FILE",
     "write statistics as JSON at exit; %%p becomes the process id"),
    ("--trace", "AUTOOFFLOAD_TRACE", "FILE",
     "record copies, waits and memory as JSON for Perfetto and `autooffload report`; "
     "%%p becomes the process id"),
    ("--metrics", "AUTOOFFLOAD_METRICS", "ADDRESS",
     "serve metrics for Prometheus on unix:PATH or 127.0.0.1:PORT"),
]

# Without a value: option, variable, what it becomes, help.
SWITCHES = [
    ("--no-pin", "AUTOOFFLOAD_PIN", "0", "do not page-lock host memory (slower copies)"),
    ("--off", "AUTOOFFLOAD", "0", "preload, but pass every call through untouched"),
    ("--verify", "AUTOOFFLOAD_VERIFY", "1",
     "find faults, slowly: a kernel that touches memory it does not name is told by name"),
]

# Those that name a file.
FILES = {"AUTOOFFLOAD_STATS", "AUTOOFFLOAD_TRACE"}

# The launcher's own options with a value: option, values (the first is the
# default), help.
CHOICES = [
    ("--allocator", allocator.CHOICES,
     "PyTorch's allocator: keep the program's choice, native, or async "
     "(cudaMallocAsync: one allocation for each tensor)"),
    ("--comfyui", comfyui.CHOICES,
     "auto: a ComfyUI gets the switches with which its models go to the card and stay there; "
     "off: it is started as it is"),
]

# In this directory the library leaves a file named after its process id when
# cuInit succeeds: how we know, after the exit, whether CUDA was used. A file
# PID.summary there holds the lines of a process that ended before it could
# say them; the library removes it when it has said them itself.
MARKER_VARIABLE = "AUTOOFFLOAD_LAUNCH_DIR"


# --- command line -----------------------------------------------------------

def build_parser():
    parser = argparse.ArgumentParser(
        prog="autooffload-launch",
        usage="autooffload-launch [options] [--] program [args...]",
        description="Run a PyTorch program whose weights need more VRAM than "
                    "there is, unchanged. The program's exit status and "
                    "signals are passed on; the processes it starts are covered. "
                    "If the launcher is killed, the program gets SIGTERM.",
        epilog="An option of the first group sets the AUTOOFFLOAD_* variable of its name for "
               "the program; a variable already set is kept unless its option is given. "
               "The library is taken from AUTOOFFLOAD_LIB, from beside this script, "
               "from the build tree, or from where it is installed. Exit status "
               "126: the program cannot be run this way; 127: program or library "
               "not found; 2: wrong usage.",
        allow_abbrev=False, add_help=False)
    # Shown by `main`: argparse hides that standard output could not be written.
    parser.add_argument("-h", "--help", action="store_true", help="show this, and start nothing")
    parser.add_argument("--version", action="store_true", help="show the version")
    for option, variable, metavar, text in SETTINGS:
        parser.add_argument(option, dest=variable, metavar=metavar, help=text)
    for option, variable, value, text in SWITCHES:
        parser.add_argument(option, dest=variable, action="store_const", const=value, help=text)
    for option, values, text in CHOICES:
        parser.add_argument(option, choices=values, default=values[0], help=text)
    parser.add_argument("--dry-run", action="store_true",
                        help="say what would be started, and how, and start nothing")
    parser.add_argument("--doctor", action="store_true",
                        help="look at this machine and say what is ok, what is a problem and "
                             "what to do; --json: for programs")
    parser.add_argument("--demo", action="store_true",
                        help="run a model on this card with and without autooffload, and compare")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    return parser


def split_command(argv):
    """Our options, and the program with its arguments.

    Done by hand because argparse versions disagree on what becomes of `--`
    in front of a remainder, and because the program's own options must never
    be taken for ours.
    """
    takes_value = {option for option, *_ in SETTINGS + CHOICES}
    position = 0
    while position < len(argv):
        word = argv[position]
        if word == "--":
            return argv[:position], argv[position + 1:]
        if not word.startswith("-"):
            break
        position += 2 if word in takes_value else 1
    return argv[:position], argv[position:]


# --- what the program starts with ----------------------------------------------

def settings_environment(options):
    """The environment with our options in it, before anything depends on them."""
    env = dict(os.environ)
    for variable, value in vars(options).items():
        if value is None or not variable.startswith("AUTOOFFLOAD"):
            continue
        if variable in FILES or \
                (variable == "AUTOOFFLOAD_PLANS" and value not in ("auto", "off", "")):
            value = os.path.abspath(value)  # the program may change directory
        elif variable == "AUTOOFFLOAD_METRICS" and value.startswith("unix:"):
            value = "unix:" + os.path.abspath(value.removeprefix("unix:"))
        env[variable] = value
    return env


def prepared(options, command, private_dir):
    """(file to execute, command, environment) of the program."""
    path = find_program(command[0])
    for file in executed_files(path):
        objection = loader_objection(file)
        if objection:
            raise Refusal(f"{file}: {objection}", EXIT_CANNOT_RUN)
    library = find_library()
    env = settings_environment(options)
    if env.get("AUTOOFFLOAD") != "0":
        allocator.adjust(env, options.allocator, say)
        if options.comfyui == "auto":
            command = comfyui.adjust(command, options.allocator, say)
    env["LD_PRELOAD"] = preload_value(library, private_dir, env.get("LD_PRELOAD"))
    env[MARKER_VARIABLE] = private_dir
    return path, command, env


def description(path, command, env):
    """What would be started, in lines."""
    yield f"would run {path}"
    yield f"with      {' '.join(command[1:]) or 'no arguments'}"
    for name in sorted(set(env) | set(os.environ)):
        if name == MARKER_VARIABLE or env.get(name) == os.environ.get(name):
            continue
        yield f"set       {name}={env[name]}" if name in env else f"unset     {name}"


# --- after its end -----------------------------------------------------------

def cuda_was_used(private_dir):
    return any(name.isdigit() for name in os.listdir(private_dir))


def tell_outer_launcher():
    """Inside another launcher's tree, its question is answered too."""
    outer = os.environ.get(MARKER_VARIABLE)
    if outer and os.path.isdir(outer):
        with open(os.path.join(outer, str(os.getpid())), "w"):
            pass


def tell_what_was_left(private_dir):
    """Says for interrupted processes what they could not say themselves."""
    for name in sorted(os.listdir(private_dir)):
        if name.endswith(".summary"):
            with open(os.path.join(private_dir, name), errors="replace") as file:
                for line in file.read().splitlines():
                    tell(line)


def run(options, command):
    private_dir = tempfile.mkdtemp(prefix="autooffload-launch-")
    try:
        path, command, env = prepared(options, command, private_dir)
        if options.dry_run:
            return show("\n".join(description(path, command, env)))
        status, old_mask = child.run(path, command, env)
        tell_what_was_left(private_dir)
        if cuda_was_used(private_dir):
            tell_outer_launcher()
        elif env.get("AUTOOFFLOAD") != "0":
            say("no process of this run initialised CUDA, so nothing was offloaded")
    finally:
        shutil.rmtree(private_dir, ignore_errors=True)
    child.leave_as(status, old_mask)


def main(argv=None):
    ours, command = split_command(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    options = parser.parse_args(ours)
    try:
        if options.help:
            show(parser.format_help().rstrip())
        elif options.version:
            show(f"autooffload {version()}")
        elif options.doctor:
            from . import doctor
            sys.exit(doctor.run(options.json))
        elif options.demo:
            from . import demo
            sys.exit(demo.run())
        elif command:
            run(options, command)
        else:
            parser.error("name the program to run, e.g. `autooffload-launch python main.py`")
    except Refusal as refusal:
        say(str(refusal))
        sys.exit(refusal.status)
    except KeyboardInterrupt:  # of the demo; a program's is passed on as it is
        sys.exit(130)
