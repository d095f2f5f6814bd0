"""`autooffload doctor`: what autooffload needs of this machine, line by line.

Each line is *ok*, *problem* (with what to do) or *unknown* (it could not be
seen, and why). Nothing is changed, and no CUDA context is made. The driver is
asked in a process of its own (`probe`), so that a driver that crashes is a line
as well.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys

from . import allocator, comfyui, version
from .library import find_library
from .messages import Refusal, show

OK, PROBLEM, UNKNOWN = "ok", "problem", "unknown"

GIB = 1 << 30
OLDEST_DRIVER = 12040  # CUDA 12.4, driver 550: cuFuncGetParamInfo came with it

# cuda.h: CUdevice_attribute
ATTRIBUTES = {"capability_major": 75, "capability_minor": 76, "copy_engines": 40,
              "address_mapping": 102, "host_located": 141,
              "pci_bus": 33, "pci_device": 34, "pci_domain": 50}


def run(as_json):
    """Prints all lines; the exit status is 1 if one is a problem."""
    lines = [dict(zip(("name", "verdict", "found", "todo"), (*line, None)[:4]))
             for check in CHECKS for line in check()]
    if as_json:
        show(json.dumps({"version": version(), "checks": lines}, indent=1))
    else:
        text = [f"autooffload {version()}"]
        for line in lines:
            text.append(f"{line['verdict']:<8} {line['name']:<20} {line['found']}")
            if line["todo"]:
                text.append(f"{'':<30}-> {line['todo']}")
        show("\n".join(text))
    return 1 if any(line["verdict"] == PROBLEM for line in lines) else 0


# --- what is ours -----------------------------------------------------------

def library():
    try:
        yield "library", OK, find_library()
    except Refusal as refusal:
        yield "library", PROBLEM, str(refusal), "scripts/build, or install the package again"


def settings():
    known = set(known_settings())
    for name in sorted(os.environ):
        if name.startswith("AUTOOFFLOAD") and name not in known:
            yield ("setting", PROBLEM, f"{name} is not a setting",
                   "see `autooffload-launch --help`; the library ignores it")
        elif name in known:
            yield "setting", OK, f"{name}={os.environ[name]}"


def known_settings():
    from .launch import MARKER_VARIABLE, SETTINGS, SWITCHES
    return [MARKER_VARIABLE, "AUTOOFFLOAD_LIB",
            *[variable for _, variable, *_ in SWITCHES + SETTINGS]]


def preloads():
    others = [entry for entry in re.split(r"[\s:]+", os.environ.get("LD_PRELOAD", "")) if entry]
    system = text_of("/etc/ld.so.preload").split()
    if others or system:
        yield ("other preloads", UNKNOWN, " ".join(others + system),
               "they stay, after ours; if something fails, try without them first")
    else:
        yield "other preloads", OK, "none"


def allocator_variables():
    env, said = dict(os.environ), []
    allocator.adjust(env, "keep", said.append)
    for sentence in said:
        yield "allocator settings", OK, f"the launcher will say: {sentence}"
    if not said:
        kept = [f"{name}={env[name]}" for name in allocator.VARIABLES if name in env]
        yield "allocator settings", OK, " ".join(kept) or "none"


# --- the driver ---------------------------------------------------------------

def ask_driver():
    """What `probe` prints; `error` and `todo`, if there is no answer."""
    asked = subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); "
                            "from autooffload.doctor import probe; probe()",
                            os.path.dirname(os.path.dirname(os.path.realpath(__file__)))],
                           text=True, capture_output=True, cwd="/", env=without_preloads())
    try:
        return json.loads(asked.stdout)
    except ValueError:
        return {"error": f"asking it ended with status {asked.returncode}",
                "todo": "see whether `nvidia-smi` works; if not, install the driver again"}


def without_preloads():
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def cuda_name(number):
    return f"{number // 1000}.{number % 1000 // 10}"


def driver():
    seen = ask_driver()
    if "error" in seen:
        yield ("driver", PROBLEM, seen["error"], seen["todo"])
        return
    number = seen["version"]
    name = f"CUDA {cuda_name(number)}"
    if number < OLDEST_DRIVER:
        yield ("driver", PROBLEM, f"it is for {name}", "install driver 550 or newer")
    else:
        yield "driver", OK, f"it is for {name}"
    yield ("kernel parameters", OK, "the driver can list them") if seen["param_info"] else \
        ("kernel parameters", PROBLEM, "the driver has no cuFuncGetParamInfo",
         "install driver 550 or newer; until then nothing is offloaded")
    for device in seen["devices"]:
        yield from device_lines(device)
    if not seen["devices"]:
        yield ("card", PROBLEM, "the driver sees none",
               "look at CUDA_VISIBLE_DEVICES, and at the container's options (--gpus all)")


def device_lines(device):
    yield "card", OK, (f"{device['name']}, {gib(device['total'])}, compute capability "
                       f"{device['capability_major']}.{device['capability_minor']}")
    if device["address_mapping"]:
        yield "address mapping", OK, "the card can map memory anew behind an address"
    else:
        yield ("address mapping", PROBLEM, "the card or its driver mode has none (VMM)",
               "a vGPU profile or an old card: nothing can be offloaded here")
    yield ("memory in the host", OK, "kernels can read it in place") if device["host_located"] \
        else ("memory in the host", UNKNOWN,
              "kernels cannot read it in place by an address that stays",
              "what is read in small parts is copied whole; all else works")
    engines = device["copy_engines"]
    yield ("copy engines", OK, str(engines)) if engines > 1 else \
        ("copy engines", UNKNOWN, str(engines), "copies in and out take turns: slower, not wrong")
    yield link(device)


def link(device):
    path = (f"/sys/bus/pci/devices/{device['pci_domain']:04x}:{device['pci_bus']:02x}:"
            f"{device['pci_device']:02x}.0")
    speed, width = (text_of(f"{path}/max_link_{what}").strip() for what in ("speed", "width"))
    if not speed:
        return "link", UNKNOWN, f"{path} says nothing"
    now = text_of(f"{path}/current_link_width").strip()
    if now and now != width:
        return ("link", PROBLEM, f"{speed} x{now}, the card can x{width}",
                "the slot has fewer lanes: streaming is slower by that much; try another slot")
    return "link", OK, f"{speed} x{width}"


def probe():
    """In a process of its own: prints what the driver answers, as JSON."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        print(json.dumps({"error": f"no NVIDIA driver: {error}", "todo":
                          "install it, or run on the stand-in (docs/standin.md) to look around"}))
        return
    status = cuda.cuInit(0)
    if status:
        print(json.dumps({"error": f"cuInit answers {status}", "todo":
                          "see whether `nvidia-smi` works; after an update of the driver, "
                          "restart the machine"}))
        return
    number, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    devices = []
    for index in range(count.value):
        name, total, value = ctypes.create_string_buffer(128), ctypes.c_size_t(), ctypes.c_int()
        cuda.cuDeviceGetName(name, len(name), index)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(total), index)
        seen = {"name": name.value.decode(errors="replace"), "total": total.value}
        for key, attribute in ATTRIBUTES.items():
            failed = cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
            seen[key] = 0 if failed else value.value
        devices.append(seen)
    print(json.dumps({"version": number.value, "devices": devices,
                      "param_info": hasattr(cuda, "cuFuncGetParamInfo")}))


def users_of_the_card():
    if not shutil.which("nvidia-smi"):
        yield "users of the card", UNKNOWN, "there is no nvidia-smi"
        return
    asked = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory",
                            "--format=csv,noheader"], text=True, capture_output=True)
    found = [line.strip() for line in asked.stdout.splitlines() if line.strip()]
    if asked.returncode != 0:
        yield "users of the card", UNKNOWN, (asked.stdout or asked.stderr).strip()[:200]
    else:
        yield "users of the card", OK, "; ".join(found) or "no process"


# --- the machine --------------------------------------------------------------

def ram():
    """Bytes that are to be had, and in all."""
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB", text_of("/proc/meminfo"), re.MULTILINE))
    return tuple(int(info.get(key, 0)) << 10 for key in ("MemAvailable", "MemTotal"))


def available_memory():
    """What this process may use of it."""
    return min(ram()[0], cgroup_limit() or 1 << 62)


def memory():
    available, total = ram()
    yield "memory", OK, f"{gib(available)} of {gib(total)} to be had for weights"
    limit = cgroup_limit()
    if limit and limit < available:
        yield ("cgroup", PROBLEM, f"this process may use {gib(limit)} of it",
               "raise the container's or the unit's limit (MemoryMax=, --memory) if the "
               "weights need more")
    else:
        yield "cgroup", OK, "no lower limit"


def cgroup_limit():
    """The lowest memory.max from this process's group up to the root, or None."""
    entry = re.search(r"^0::(/.*)$", text_of("/proc/self/cgroup"), re.MULTILINE)
    limits, path = [], entry[1] if entry else "/"
    while True:
        limits.append(text_of(f"/sys/fs/cgroup{path}/memory.max").strip())
        if path in ("/", ""):
            break
        path = os.path.dirname(path)
    numbers = [int(limit) for limit in limits if limit.isdigit()]
    return min(numbers, default=None)


def surroundings():
    if "microsoft" in text_of("/proc/version").lower():
        yield ("WSL", UNKNOWN, "this is WSL: Windows caps page-locked memory, and kernels may "
               "not read host memory in place",
               "if pinning fails, use --no-pin or a smaller --ram")
    inside = [name for name in ("/.dockerenv", "/run/.containerenv") if os.path.exists(name)]
    yield "container", OK, f"yes ({inside[0]})" if inside else "no sign of one"


def python_environment():
    python = shutil.which("python") or shutil.which("python3")
    code = ("import importlib.metadata as m, json, sys\nfound = {}\n"
            "for name in ('torch', 'comfy-aimdo'):\n"
            "    try: found[name] = m.version(name)\n"
            "    except m.PackageNotFoundError: pass\n"
            "print(json.dumps([sys.executable, found]))")
    asked = subprocess.run([python, "-c", code], text=True, capture_output=True, cwd="/") \
        if python else None
    try:
        where, found = json.loads(asked.stdout)
    except (AttributeError, ValueError):
        yield "torch", UNKNOWN, "there is no python in PATH that runs"
        return
    torch = found.get("torch")
    if not torch:
        yield ("torch", UNKNOWN, f"not in {where}",
               "activate the environment that you use, if it is another")
    elif "+cpu" in torch or "+rocm" in torch:
        yield ("torch", PROBLEM, f"{torch} in {where} cannot use an NVIDIA card",
               "install a CUDA build (pip install torch)")
    else:
        yield "torch", OK, f"{torch} in {where}"
    if "comfy-aimdo" in found:
        yield ("comfy-aimdo", OK, f"{found['comfy-aimdo']}: ComfyUI's own offloading; the launcher "
               "switches it off for ComfyUI (docs/comfyui.md)")


def comfyui_here():
    if comfyui.is_comfyui("."):
        found = comfyui.Installation(".")
        knows = [flag for flag in (*comfyui.ON_THE_CARD, *comfyui.CAPTURES) if flag in found.switches]
        yield "ComfyUI", OK, f"{found.name} in this folder; it knows {' '.join(knows)}"
    else:
        yield "ComfyUI", UNKNOWN, "not in this folder"


def text_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def gib(count):
    return f"{count / GIB:.1f} GiB"


CHECKS = [library, driver, users_of_the_card, memory, surroundings, python_environment,
          comfyui_here, allocator_variables, settings, preloads]
