"""What a measurement holds for besides the card: driver, kernel, virtual or not.

Reads files and asks nvidia-smi; changes nothing. Not here: whether there is a
GPU at all (probe.py).
"""

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess

OLDEST_DRIVER = 550


def driver_version():
    """As nvidia-smi or the kernel module tells it, with the card's memory; or why not known."""
    try:
        told = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,memory.total,"
                               "pcie.link.gen.max,pcie.link.width.max", "--format=csv,noheader"],
                              text=True, capture_output=True, timeout=30)
        if told.returncode == 0 and told.stdout.strip():
            version, memory, generation, width = \
                (told.stdout.splitlines()[0].split(",") + [""] * 4)[:4]
            return (f"{version.strip()}, memory {memory.strip()}, "
                    f"PCIe generation {generation.strip()} x{width.strip()} (at most)")
    except (OSError, subprocess.TimeoutExpired):
        pass
    try:
        text = pathlib.Path("/proc/driver/nvidia/version").read_text()
        found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
        return found[1] if found else "unknown"
    except OSError:
        return "unknown"


def driver_is_new_enough():
    """True as well where the version cannot be learnt: the programs will tell."""
    found = re.match(r"\d+", driver_version())
    return found is None or int(found[0]) >= OLDEST_DRIVER


def description():
    """Processor count, memory, kernel, and what is known about virtualisation."""
    return (f"{os.cpu_count()} CPUs, {memory_gib():.0f} GiB, {platform.platform()}, "
            f"{virtualisation()}")


def name():
    """CPU model and cores, nothing more: what figures that no clock on a wall is in are told by."""
    model = re.search(r"^model name\s*:\s*(.+?)\s*$", read("/proc/cpuinfo"), re.MULTILINE)
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs"


def memory_gib():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        return 0


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def virtualisation():
    """Bare metal or virtual, from what the kernel shows."""
    signs = []
    if "gVisor" in read("/proc/version") or platform.release() == "4.4.0":
        signs.append("gVisor")
    if re.search(r"^flags\s*:.*\bhypervisor\b", read("/proc/cpuinfo"), re.MULTILINE):
        signs.append("a hypervisor")
    product = read("/sys/class/dmi/id/product_name").strip()
    if product:
        signs.append(f"product {product!r}")
    if os.path.exists("/.dockerenv") or "docker" in read("/proc/1/cgroup"):
        signs.append("a container")
    return "virtual: " + ", ".join(signs) if signs else "bare metal, or no sign of anything else"


def torch_version():
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
