"""The programs of questions/: building them, running them, and their table.

Owns: which programs there are and how long each may take. Not here: what they
ask (questions/), the machine's description and the command (scripts/gpu-check).
"""

import concurrent.futures
import glob
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from . import child, cuda_compiler

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "questions"
SHIM = ROOT / "shim" / "fingerprint.ptx"
BUILT = ROOT / "target" / "questions"
TOTAL_SECONDS = 345  # all programs together; the issue asks for less than six minutes
TITLES = {1: "Aliasing", 2: "Bandwidth", 3: "Submission", 4: "Host-located handles",
          5: "Fingerprint", 6: "Protection", 7: "Graphs", 8: "Lookup", 9: "Nothing missed",
          10: "Pinning", 11: "Tensor maps"}

# (program, question, most seconds), in the order they are run: short ones first.
PROGRAMS = (("aliasing", 1, 40), ("protection", 6, 20), ("tensor_maps", 11, 10),
            ("lookup", 8, 20), ("submission", 3, 25), ("graphs", 7, 30),
            ("host_located", 4, 30), ("bandwidth", 2, 60), ("fingerprint", 5, 30),
            ("coherence", 1, 95), ("pinning", 10, 60))
TORCH_SECONDS = 60
KERNELS = "kernels.fatbin"
RECORDER = "librecorder.so"
# Machine code for the two data-centre generations before Blackwell, and PTX that
# newer and other cards' drivers compile: 9.0's has the bulk tensor copies.
TARGETS = ("arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90",
           "arch=compute_80,code=compute_80", "arch=compute_90,code=compute_90")


class NotBuilt(Exception):
    """A sentence; nothing was run."""


# --- building --------------------------------------------------------------------

def commands(compiler, folder, strict):
    """{what is built: the command that builds it}; `strict`: warnings are errors."""
    warnings = ["-Wall", "-Wextra"] + (["-Werror"] if strict else [])
    gxx = ["g++", "-std=c++20", "-O2", *warnings, "-static-libstdc++", "-static-libgcc",
           f"-I{compiler.include}"]
    made = {KERNELS: [compiler.nvcc, "-fatbin", "-std=c++17", "-O3",
                      *(["-Werror", "all-warnings"] if strict else []),
                      *[word for target in TARGETS for word in ("-gencode", target)],
                      SOURCES / "kernels.cu", "-o", folder / KERNELS],
            RECORDER: ["gcc", "-O2", *warnings, "-shared", "-fPIC",
                       SOURCES / "recorder.c", "-o", folder / RECORDER, "-ldl", "-lpthread"]}
    for program, _, _ in PROGRAMS:
        made[program] = [*gxx, SOURCES / f"{program}.cpp", "-o", folder / program,
                         "-ldl", "-lpthread"]
    return made


def build(say=child.note, strict=False):
    """The folder with the programs: QUESTIONS_DIR as it is, or built where needed.

    On a card's machine, with whatever compilers it has, a warning must not be
    in the way; the tests are `strict`.
    """
    named = os.environ.get("QUESTIONS_DIR")
    if named:
        missing = [name for name in (KERNELS, RECORDER, *(p for p, _, _ in PROGRAMS))
                   if not (pathlib.Path(named) / name).is_file()]
        if missing:
            raise NotBuilt(f"QUESTIONS_DIR names {named!r}, which lacks {', '.join(missing)}")
        return pathlib.Path(named)
    try:
        compiler = cuda_compiler.find()
    except cuda_compiler.NoCompiler as reason:
        raise NotBuilt(f"the programs cannot be built: {reason}") from None
    stamp = BUILT / "stamp"
    digest = hashlib.sha256(compiler.version().encode())
    for source in sorted(SOURCES.iterdir()):
        if source.is_file():
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    digest.update(pathlib.Path(__file__).read_bytes())
    found = stamp.read_text().split() if stamp.is_file() else []
    if found[:1] == [digest.hexdigest()] and (not strict or found[1:] == ["strict"]):
        return BUILT
    BUILT.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    say(f"building questions/ with nvcc {compiler.version()}")

    def run_one(entry):
        name, command = entry
        done = subprocess.run([str(word) for word in command], text=True, capture_output=True)
        return name, done.returncode, done.stderr

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, code, errors in pool.map(run_one, commands(compiler, BUILT, strict).items()):
            if code != 0:
                raise NotBuilt(f"{name} does not compile:\n{errors[-3000:]}")
    stamp.write_text(digest.hexdigest() + (" strict" if strict else ""))
    return BUILT


# --- running ---------------------------------------------------------------------

def cublas():
    """The cuBLAS of the installed PyTorch, or an empty string."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        spec = None
    for place in (spec.submodule_search_locations if spec else None) or ():
        for pattern in ("cu13/lib/libcublas.so.*", "cublas/lib/libcublas.so.*"):
            found = sorted(glob.glob(os.path.join(place, pattern)))
            if found:
                return found[0]
    return ""


class Runner:
    """Runs programs one after the other within one limit, and keeps their answers."""

    def __init__(self, folder, prefix=(), say=child.note, total_seconds=TOTAL_SECONDS, more=()):
        self.folder, self.prefix, self.say, self.more = folder, list(prefix), say, list(more)
        self.ends = time.monotonic() + total_seconds
        self.answers = []

    def left(self):
        return self.ends - time.monotonic()

    def program(self, name, question, seconds, extra=(), preload=None):
        """One program; its answers, or one line that says why there are none."""
        seconds = min(seconds, self.left() - 3)
        self.run(name, question, [self.folder / name, "--limit", f"{seconds:.0f}",
                                  "--kernels", self.folder / KERNELS, "--shim", SHIM,
                                  "--cublas", cublas(),
                                  *self.more, *extra], seconds, preload)

    def script(self, name, question, seconds, preload, *extra, **env):
        """questions/programs.py, with the Python that runs us or the stand-in's."""
        python = "python" if self.prefix else sys.executable
        self.run(name, question, [python, SOURCES / "programs.py", *extra],
                 min(seconds, self.left() - 3), preload, **env)

    def run(self, name, question, command, seconds, preload, **env):
        if seconds < 2:
            self.lacking(question, name, "no time left")
            return
        self.say(f"{name}: at most {seconds:.0f} s")
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        environment |= env
        if preload:
            environment["LD_PRELOAD"] = str(preload)
        outcome = child.run(self.prefix + command, env=environment, limit_seconds=seconds + 3,
                            cwd=ROOT)
        found = [parsed for parsed in map(parse, outcome.lines) if parsed]
        self.answers += found
        if outcome.returncode != 0 or not found:
            told = outcome.error_tail(2).replace("\n", " ") or "it said nothing"
            self.lacking(question, f"{name}, what is missing above" if found else name,
                         f"{ended(outcome.returncode)}: {told[:200]}")
        self.say(f"{name}: {len(found)} answers in {outcome.seconds:.0f} s")

    def lacking(self, question, item, reason):
        self.answers.append({"question": f"{question} {TITLES[question]}", "item": item,
                             "answer": f"not measured: {reason}", "number": None, "unit": "",
                             "p50": None, "p99": None, "n": 0, "standin": bool(self.prefix)})


def ended(code):
    return f"it was ended by signal {-code}" if code < 0 else f"it ended with status {code}"


def parse(line):
    """One answer line, or None: other libraries print to the same output."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "question" in answer else None


def ask_all(runner, library):
    """Every question, in the order of PROGRAMS; `library`: libautooffload, or None."""
    for name, question, seconds in PROGRAMS:
        if name == "coherence":
            # The long ones last: what torch shows, first.
            with_torch(runner, library)
        runner.program(name, question, seconds)
        if name == "submission":
            label = "libautooffload preloaded"
            if library:
                runner.program(name, question, seconds,
                               ["--part", "launch costs", "--label", label], preload=library)
            else:
                runner.lacking(question, f"launch costs, {label}", "libautooffload.so is not built")
    return runner.answers


def with_torch(runner, library):
    runner.script("programs.py with the recorder", 8, TORCH_SECONDS, runner.folder / RECORDER)
    if library:
        runner.script("programs.py with libautooffload", 9, TORCH_SECONDS, library)
        # A third of two GiB of weights, beside a context of some hundred MiB.
        runner.script("programs.py under a budget", 5, TORCH_SECONDS, library, "--streamed",
                      AUTOOFFLOAD_VRAM="48M" if runner.prefix else "1280M")
    else:
        runner.lacking(5, "bytes back of bytes in", "libautooffload.so is not built")
        runner.lacking(9, "launches, by libautooffload", "libautooffload.so is not built")


# --- the table ---------------------------------------------------------------------

def number_of(question):
    found = re.match(r"\d+", question)
    return int(found[0]) if found else 99


def table(answers):
    """Markdown: question, answer, number, unit, spread; then the lists of names."""
    rows = [("question", "item", "answer", "number", "unit", "spread")]
    for answer in sorted(answers, key=lambda one: number_of(one["question"])):
        rows.append(row(answer))
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    for answer in answers:
        if answer.get("names"):
            lines += ["", f"{answer['item']}: {', '.join(answer['names'])}"]
    return "\n".join(lines)


def row(answer):
    """One line's cells. What the stand-in answers is never shown as a measurement."""
    text = answer["answer"]
    number, unit, spread = "", answer["unit"], ""
    if answer["standin"]:
        if not text.startswith("not measured"):
            text = "not measured: ran on the stand-in" + (
                f", which says: {text}" if text and answer["number"] is None else "")
        unit = ""
    elif text.startswith("not measured"):
        unit = ""
    elif answer["number"] is not None:
        number = f"{answer['number']:.6g}"
        if answer["p99"] is not None:
            spread = f"p50 {answer['p50']:.4g}, p99 {answer['p99']:.4g}, n {answer['n']}"
    cells = (answer["question"], answer["item"], text or "measured", number, unit, spread)
    return tuple(cell.replace("|", "/") for cell in cells)
