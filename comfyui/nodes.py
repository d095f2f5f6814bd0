"""The two nodes. What they use of ComfyUI: `ModelPatcher.clone`, `.model` and
`.add_wrapper_with_key`, and `WrappersMP.SAMPLER_SAMPLE` and `.PREDICT_NOISE` of
`comfy.patcher_extension`.
"""

import contextlib
import os
import shlex
import sys
import weakref

from .last_run import Recorder
from .library import Library, ranges_of

KEY = "auto_cpu_offload"

# The number that workflows have unless somebody chose another: then the window
# is left to the library.
DEFAULT_WINDOW = 8

# With one of these ComfyUI moves models itself.
IN_THE_WAY = {"--enable-dynamic-vram", "--normalvram", "--lowvram", "--novram", "--cpu"}

library = Library()
recorder = Recorder()


class AutoCPUOffload:
    """Offloads one model, or keeps it on the card while it samples."""

    CATEGORY = "patches"
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL", "STRING")
    RETURN_NAMES = ("model", "info")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {
            "model": ("MODEL",),
            "window_size": ("INT", {
                "default": DEFAULT_WINDOW, "min": 1, "max": 1024, "step": 1,
                "tooltip": "How many blocks of memory are copied ahead while this model samples. "
                           "8 leaves it to autooffload."}),
            "enable": ("BOOLEAN", {
                "default": True,
                "tooltip": "Off: this model stays on the card while it samples."}),
            "pin_memory": ("BOOLEAN", {
                "default": False,
                "tooltip": "Chosen for the whole program when it starts; see info."}),
        }}

    def apply(self, model, window_size, enable, pin_memory):
        from comfy.patcher_extension import WrappersMP
        patched = model.clone()
        weights = weakref.ref(patched.model)
        # The wrappers live with the model; they must not keep it alive.
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY,
                                     around_sampling(weights, window_size, enable))
        patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, around_step)
        return patched, info(model, window_size, enable, pin_memory)


class AutoCPUOffloadLastRun:
    """What the last sampling moved, as a picture and as text. The latent passes through, so
    that this comes after the sampler."""

    CATEGORY = "patches"
    FUNCTION = "show"
    RETURN_TYPES = ("LATENT", "IMAGE", "STRING")
    RETURN_NAMES = ("latent", "picture", "text")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",)}}

    def show(self, latent):
        return latent, recorder.picture(), recorder.text()


# --- while it samples ----------------------------------------------------------

def around_sampling(weights, window_size, enable):
    def wrapper(executor, *args, **kwargs):
        with contextlib.ExitStack() as stack:
            if window_size != DEFAULT_WINDOW:
                former = os.environ.get("AUTOOFFLOAD_WINDOW") or "auto"
                stack.enter_context(library.window(str(window_size), former))
            module = weights()
            if not enable and module is not None:
                if not stack.enter_context(library.kept(ranges_of(module))) \
                        and not library.missing:
                    print("Auto CPU Offload: the model does not fit the card as a whole; it is "
                          "streamed although `enable` is off")
            recorder.begin(library.account())
            return executor(*args, **kwargs)
    return wrapper


def around_step(executor, *args, **kwargs):
    answer = executor(*args, **kwargs)
    recorder.step(library.account())
    return answer


# --- what is said ----------------------------------------------------------------

def info(model, window_size, enable, pin_memory):
    """One line for each thing that the user should know; what to type, if anything."""
    if library.missing:
        return (f"{library.missing}, so nothing is offloaded by it. Stop ComfyUI and start it with:\n"
                f"{command()}")
    if os.environ.get("AUTOOFFLOAD") == "0":
        return f"autooffload is switched off (AUTOOFFLOAD=0). Start ComfyUI with:\n{command()}"
    if is_dynamic(model):
        return ("ComfyUI's dynamic VRAM holds this model, so autooffload cannot stream it. "
                f"Stop ComfyUI and start it with:\n{command('--gpu-only')}")
    pins = os.environ.get("AUTOOFFLOAD_PIN", "1") not in ("0", "off", "false", "no")
    lines = ["offloaded where it does not fit" if enable else
             "stays on the card while it samples",
             "window: " + ("chosen by autooffload" if window_size == DEFAULT_WINDOW else
                           f"{window_size} blocks, of the whole program, while this model samples"),
             f"copies are {'' if pins else 'not '}page-locked"]
    if pins and not pin_memory:
        lines[-1] += "; to change that, start with `autooffload-launch --no-pin`"
    elif pin_memory and not pins:
        lines[-1] += "; to change that, start without `--no-pin`"
    return "\n".join(lines)


def is_dynamic(model):
    asked = getattr(model, "is_dynamic", None)
    return bool(asked()) if callable(asked) else "Dynamic" in type(model).__name__


def command(*more):
    """How to start this very ComfyUI with the library in it."""
    words = [word for word in sys.argv if word not in IN_THE_WAY]
    return shlex.join(["autooffload-launch", sys.executable, *words,
                       *[word for word in more if word not in words]])
