"""Counts what a preloaded library adds to one driver call: instructions, not time.

    scripts/bench launch                  this library
    scripts/bench launch --against LIB…   other preloaded libraries, in the same run

A small C program (launch_cost.c) makes one kind of call again and again on the
stand-in's driver, under valgrind's callgrind. Counted are the instructions of
the calling thread that lie in the library, and in what it calls but for the
driver: exact, and the same on a busy machine. How often the library calls the
driver by itself stands beside them. Not here: time by any clock.

Writes target/bench/launch.json. A figure is null where the program does not
run under that library.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "scripts" / "support" / "launch_cost.c"
OUT = ROOT / "target" / "bench" / "launch.json"
LIMIT_S = 300

FITS, SHORT = "1G", "48M"
Case = collections.namedtuple("Case", "name what kind vram chunks calls warm part at_most")
CASES = [
    Case("none", "launch that names nothing", "none", FITS, 4, 500, 2, "all", 200),
    Case("one", "launch, one allocation, all fits", "one", FITS, 4, 500, 2, "all", 300),
    Case("eight", "launch, eight allocations, all fits", "eight", FITS, 8, 500, 2, "all", 600),
    Case("struct_4k", "launch, a struct of 4 KB, all fits", "struct", FITS, 8, 500, 2, "all", 1500),
    Case("one_short", "launch, one allocation, memory is short, nothing moves", "one", SHORT, 20,
         500, 4, "all", 1500),
    Case("steady_own", "steady streaming, one allocation a launch: the library", "cycle", SHORT, 20,
         400, 4, "own", 3000),
    Case("steady_libc", "steady streaming: libc and the loader, for the library", "cycle", SHORT,
         20, 400, 4, "libc", 1000),
    Case("copy_64", "copy of 64 bytes to the device, all fits", "copy", FITS, 4, 500, 2, "all", 300),
    Case("mem_get_info", "cuMemGetInfo", "info", FITS, 8, 500, 2, "all", 800),
]


class Failed(Exception):
    """A sentence for the person who watches."""


def measure(library, driver_folder, others):
    """Figures by library: {"ours": {case: number}, NAME: …}; prints as it goes."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        raise Failed("there is no valgrind; install it (Debian, Ubuntu: apt install valgrind)")
    libraries = {"ours": library}
    for other in others:
        name = other.stem if other.stem not in libraries else str(other)
        libraries[name] = other
    found = {name: {} for name in libraries}
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(driver_folder, pathlib.Path(folder))
        for name, path in libraries.items():
            runs = {}
            for case in CASES:
                key = (case.kind, case.vram)
                if key not in runs:
                    runs[key] = counted(valgrind, program, path, driver_folder, case)
                found[name][case.name] = runs[key] and round(runs[key][case.part])
            found[name]["driver_calls_a_call"] = {
                f"{kind}, {vram}": {call: round(times, 2) for call, times in run["driver"].items()}
                for (kind, vram), run in runs.items() if run}
    return found


def compiled(driver_folder, folder):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not compiler:
        raise Failed("there is no C compiler; install gcc (Debian, Ubuntu: apt install gcc)")
    program = folder / "launch_cost"
    done = subprocess.run([compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o",
                           program, SOURCE, f"-L{driver_folder}", "-l:libcuda.so.1"])
    if done.returncode != 0:
        raise Failed("launch_cost.c does not compile: see above")
    return program


def counted(valgrind, program, library, driver_folder, case):
    """Instructions a call of one run: own, libc, all; driver calls by name; None: it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("AUTOOFFLOAD", "STANDIN", "LD_"))}
        environment |= {"LD_LIBRARY_PATH": str(driver_folder), "STANDIN_VRAM": case.vram,
                        "STANDIN_UNKNOWN": "count", "AUTOOFFLOAD_LOG": "off"}
        command = [valgrind, "--tool=callgrind", "--separate-threads=yes",
                   "--toggle-collect=counted", f"--callgrind-out-file={out}",
                   # Of valgrind's own children only the program is preloaded.
                   "env", f"LD_PRELOAD={library}", program,
                   case.kind, str(case.calls), str(case.chunks), str(case.warm)]
        command[1:1] = ["--trace-children=yes", "--trace-children-skip=*/env"]
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode != 0:
            return None
        # The calling thread is the first.
        return split(folder_profile(pathlib.Path(folder)), pathlib.Path(library), case.calls,
                     case.calls * (case.warm + 1))


def folder_profile(folder):
    profiles = [path for path in folder.iterdir() if path.name.endswith("-01")]
    return max(profiles, key=lambda path: path.stat().st_size).read_text()


def split(profile, library, calls, all_calls):
    """What a callgrind profile says of `library`, a call. How often the driver is
    called is counted from the start, all `all_calls` of the run."""
    own = libc = 0
    driver = collections.Counter()
    for caller, callee, name, times, cost in lines(profile):
        if caller != str(library.resolve()):
            continue
        if callee is None:
            own += cost
        elif "/libcuda.so" in callee:
            driver[name] += times
        elif callee != caller:
            libc += cost
    return {"own": own / calls, "libc": libc / calls, "all": (own + libc) / calls,
            "driver": {name: times / all_calls for name, times in sorted(driver.items())}}


def lines(profile):
    """(object, called object or None, called function, times, instructions) of each line of cost."""
    names = {"ob": {}, "fn": {}, "fl": {}}

    def named(kind, text):
        number, _, name = text.partition(" ")
        return names[kind].setdefault(number, name) if name else names[kind][number]

    obj = called = function = None
    times = 0
    for line in profile.splitlines():
        key, mark, text = line.partition("=")
        if mark and re.fullmatch(r"[a-z]+", key):
            if key == "ob":
                obj = named("ob", text)
            elif key == "cob":
                called = named("ob", text)
            elif key in ("fn", "cfn"):
                name = named("fn", text)
                if key == "cfn":
                    function = name
            elif key == "calls":
                times = int(text.split()[0])
        elif line and line[0] in "+-*0123456789":
            cost = int(line.split()[1])
            if times:
                yield obj, called or obj, function, times, cost
                called, function, times = None, None, 0
            else:
                yield obj, None, None, 0, cost


def table(found):
    """The targets and how each library stands to them."""
    others = [name for name in found if name != "ours"]
    rows = [f"{'instructions a call':<70} {'ours':>7} {'target':>8}         " +
            " ".join(f"{name[:18]:>18}" for name in others)]
    for case in CASES:
        ours = found["ours"][case.name]
        verdict = "ok" if holds(found, case) else "FAILED"
        rows.append(f"{case.name:<13} {case.what:<56} {shown(ours):>7} {'≤ ' + str(case.at_most):>8} "
                    f"{verdict:<7} " +
                    " ".join(f"{shown(found[name][case.name]):>18}" for name in others))
    return "\n".join(rows)


def holds(found, case):
    return found["ours"][case.name] is not None and found["ours"][case.name] <= case.at_most


def shown(figure):
    return "–" if figure is None else f"{figure:,}"


def run(library, driver_folder, others):
    """The whole bench; the exit status."""
    found = measure(library, driver_folder, others)
    print(table(found))
    failed = [case.name for case in CASES if not holds(found, case)]
    found["targets"] = [{"name": case.name, "at_most": case.at_most, "holds": holds(found, case)}
                        for case in CASES]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{'every target holds' if not failed else f'{len(failed)} targets do not hold'}; "
          f"written to {OUT.relative_to(ROOT)}")
    return 1 if failed else 0
