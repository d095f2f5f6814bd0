"""`autooffload demo`: a model run twice on this card, with memory enough and with a quarter
of that; the answers must be the same.

Owns: what is run, with how much memory, and the verdict. Not here: the program
(`bigger_than_vram.py`, an ordinary PyTorch program), the card's and the driver's
names (`doctor`). `scripts/demo` in the source shows more, also without a card.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from . import doctor, version
from .messages import EXIT_NOT_FOUND, Refusal, show

PROGRAM = "bigger_than_vram.py"
ITERATIONS = 8
BLOCKS = 22
GIB = 1 << 30
# No larger: it is to be over in a minute or two.
LARGEST = 6 * GIB
# A context and the libraries beside it count against the budget, too.
BESIDE = 5 * GIB // 4

SOURCE = ("without one it runs on a stand-in for the driver: get the source of autooffload, and "
          "there run scripts/demo --device standin")


def run():
    """Shows it; the exit status is 0 if everything held."""
    seen = doctor.ask_driver()
    if "error" in seen:
        raise Refusal(f"the demo needs a card: {seen['error']} (`autooffload doctor` says "
                      f"what to do); {SOURCE}",
                      EXIT_NOT_FOUND)
    if not seen["devices"]:
        raise Refusal(f"the demo needs a card, and the driver sees none; {SOURCE}", EXIT_NOT_FOUND)
    python, torch = torch_python()
    refuse_an_old_driver(seen["version"], *torch)
    free = free_memory(python)
    width = width_for(free)
    size = weights(width)
    budget = max(size // 4, min(BESIDE, size * 6 // 10))
    show(f"autooffload {version()}: a demo on {seen['devices'][0]['name']}, torch {torch[0]} in "
         f"{python}\na model of {amount(size)}; on the card {amount(free)} are free")
    with tempfile.TemporaryDirectory(prefix="autooffload-demo-") as folder:
        show("\n== without autooffload, memory enough")
        plain = results(folder, "plain", [], python, width)
        show(f"\n== with autooffload, {amount(budget)}: {100 * budget // size} % of the weights")
        stats = os.path.join(folder, "stats.json")
        ours = results(folder, "ours", [*launcher(), "--vram", str(budget), "--stats", stats],
                       python, width)
        account = read(stats)
    return verdict(plain, ours, account, size, budget)


def verdict(plain, ours, account, size, budget):
    streamed = account["streaming"]["streamed_bytes"]
    demands = [
        ("the answers are the same, bit for bit", plain["hashes"] == ours["hashes"]),
        ("weights were streamed", streamed > 0),
        ("what they had of the card is within the budget",
         account["device"]["frames_peak_bytes"] <= budget),
    ]
    show(f"\n  weights                  {amount(size)}\n"
         f"  the card's memory        {amount(budget)}\n"
         f"  streamed in all          {amount(streamed)}\n"
         f"  seconds per iteration    {pace(plain)} without, {pace(ours)} with autooffload\n")
    for demand, holds in demands:
        show(f"  {'ok    ' if holds else 'FAILED'}  {demand}")
    held = all(holds for _, holds in demands)
    show("\neverything holds" if held else "\nsomething does not hold: please report all of this")
    return 0 if held else 1


# --- what is run ----------------------------------------------------------------

def program():
    """Beside this package where it is installed, else in the source tree."""
    here = os.path.dirname(os.path.realpath(__file__))
    for folder in (here, os.path.join(here, "..", "..", "examples")):
        path = os.path.normpath(os.path.join(folder, PROGRAM))
        if os.path.isfile(path):
            return path
    raise Refusal(f"{PROGRAM} is not beside {here}: install the package again", EXIT_NOT_FOUND)


def launcher():
    """The launcher, with this Python and from this package, wherever they lie."""
    code = ("import sys; sys.path.insert(0, sys.argv.pop(1)); "
            "from autooffload.launch import main; main()")
    return [sys.executable, "-c", code,
            os.path.dirname(os.path.dirname(os.path.realpath(__file__)))]


def results(folder, name, in_front, python, width):
    """Runs the program, shows what it says; answers what it wrote."""
    out = os.path.join(folder, f"{name}.json")
    command = [*in_front, python, program(), "--width", str(width), "--blocks", str(BLOCKS),
               "--iterations", str(ITERATIONS), "--out", out]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", env=plain_environment())
    try:
        for line in child.stdout:
            show(f"   {line.rstrip()}")
        status = child.wait()
    finally:  # nobody listens any more, or Ctrl-C, which it has got as well
        child.kill()
        child.wait()
    if status != 0:
        raise Refusal(f"the run {name} ended with status {status}: see above what it said; "
                      "`autooffload doctor` looks at this machine", 1)
    return read(out)


def plain_environment():
    """Without the user's settings of ours: it is their defaults that are shown."""
    return {name: value for name, value in doctor.without_preloads().items()
            if not name.startswith("AUTOOFFLOAD") or name == "AUTOOFFLOAD_LIB"}


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise Refusal("autooffload was not at work in that run, so there is nothing to compare; "
                      "`autooffload doctor` looks at this machine", 1) from None


def pace(run):
    steady = sorted(run["seconds"][-run["steady_iterations"]:])
    return f"{steady[len(steady) // 2]:.3f}"


# --- with what ------------------------------------------------------------------

def torch_python():
    """A Python with a CUDA build of torch, and (torch's version, its CUDA's)."""
    active = os.environ.get("VIRTUAL_ENV")
    tried = [active and os.path.join(active, "bin", "python"), shutil.which("python"),
             shutil.which("python3"), sys.executable]
    said = []
    for python in dict.fromkeys(path for path in tried if path and os.path.exists(path)):
        asked = ask(python, "import torch; print(torch.__version__, torch.version.cuda or '-')")
        if asked.returncode != 0:
            said.append(f"{python} has no torch that works")
            continue
        torch = asked.stdout.split()[-2:]
        if torch[1] != "-":
            return python, torch
        said.append(f"the torch of {python} was built without CUDA")
    raise Refusal(f"{'; '.join(said)}: activate the environment that you use, or install a CUDA "
                  "build (pip install torch)", EXIT_NOT_FOUND)


def refuse_an_old_driver(number, torch, cuda):
    """A driver runs what was built for its own major version of CUDA, and older."""
    if number // 1000 < int(cuda.split(".")[0]):
        raise Refusal(f"the driver is for CUDA {doctor.cuda_name(number)}, and torch {torch} was "
                      f"built for {cuda}: install a newer driver, or a torch for CUDA "
                      f"{number // 1000}", EXIT_NOT_FOUND)


def free_memory(python):
    asked = ask(python, "import torch; print(torch.cuda.mem_get_info()[0])")
    if asked.returncode != 0:
        why = (asked.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        raise Refusal(f"torch cannot use the card: {why}; `autooffload doctor` looks at this "
                      "machine", 1)
    return int(asked.stdout.split()[-1])


def ask(python, code):
    return subprocess.run([python, "-c", code], text=True, capture_output=True, cwd="/",
                          env=doctor.without_preloads())


def weights(width):
    return BLOCKS * 8 * width * width * 4


def width_for(free):
    """The widest model that runs with memory enough, too, here and in RAM."""
    room = min(LARGEST, free - GIB if free > 4 * GIB else free * 6 // 10,
               doctor.available_memory() * 4 // 10)
    width = max((w for w in range(256, 4097, 64) if weights(w) <= room), default=None)
    if width is None:
        raise Refusal(f"{amount(free)} of the card and {amount(doctor.available_memory())} of RAM "
                      "are free, too little for a demo: end other programs, and try again", 1)
    return width


def amount(count):
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"
