"""Asks the machine's own CUDA driver whether there is a GPU.

The question is put in a process of its own: a driver that hangs or crashes
must be reported, not take the caller with it. Not here: anything of PyTorch.
"""

import ctypes
import os
import subprocess
import sys

CUDA_ERROR_NO_DEVICE = 100
PROBE_SECONDS = 60
DRIVER = "libcuda.so.1"


class DriverFailure(Exception):
    """There is a driver and it fails: never replaced by the stand-in in silence."""


def gpu_present():
    """(whether there is a GPU, its name or a sentence that says why not).

    Raises DriverFailure when a driver is installed but does not work.
    """
    version, text = asked()
    return version is not None, text


def cuda_version():
    """What the driver of the GPU that is there knows: 12040 is CUDA 12.4."""
    return asked()[0]


def asked():
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    try:
        answer = subprocess.run([sys.executable, os.path.abspath(__file__)], text=True,
                                capture_output=True, timeout=PROBE_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise DriverFailure(f"the CUDA driver did not answer within {PROBE_SECONDS} s") from None
    kind, _, text = answer.stdout.strip().partition(" ")
    if answer.returncode < 0:
        raise DriverFailure(f"the CUDA driver ended the probe with signal {-answer.returncode}")
    if kind == "gpu":
        version, _, name = text.partition(" ")
        return int(version), name
    if kind == "none":
        return None, text
    raise DriverFailure(text or answer.stderr.strip() or "the probe of the CUDA driver failed")


def error_name(driver, code):
    name = ctypes.c_char_p()
    try:
        if driver.cuGetErrorName(code, ctypes.byref(name)) == 0 and name.value:
            return name.value.decode()
    except AttributeError:
        pass  # a driver too old to name its errors
    return "unknown error"


def ask():
    """One line for gpu_present: `gpu`, `none` or `broken`, and a sentence."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        if "No such file" in str(error):
            return f"none no CUDA driver is installed ({DRIVER} not found)"
        return f"broken {DRIVER} is installed but cannot be loaded: {error}"
    if hasattr(driver, "standin_account_json"):
        return "none the only libcuda here is the stand-in"
    code = driver.cuInit(0)
    if code == CUDA_ERROR_NO_DEVICE:
        return "none the CUDA driver finds no device (code 100)"
    if code != 0:
        return f"broken cuInit failed with code {code} ({error_name(driver, code)})"
    count = ctypes.c_int()
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != 0:
        return f"broken cuDeviceGetCount failed with code {code} ({error_name(driver, code)})"
    if count.value == 0:
        return "none the CUDA driver counts no device"
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, 0)
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"gpu {version.value} {name.value.decode()}"


if __name__ == "__main__":
    print(ask())
