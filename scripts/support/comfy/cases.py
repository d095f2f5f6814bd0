"""The cells of scripts/test-comfyui: what one server is asked, and what its row says.

Owns: the sequences of requests, the arms, each budget, the least that must cross. Not here:
the workflows (workflows.py), the server (server.py), the table (scripts/test-comfyui).

A cell's budget holds a share of the weights, and what the same runs need beside them on a
card with memory enough.
"""

import json
import statistics
import struct
import time

from support.peers import bounds

from . import workflows
from .server import Failed, Server

MIB = 1 << 20
AMPLE = 8 << 30
ALONE, OURS, DYNAMIC, DYNAMIC_MORE = "alone", "autooffload", "dynamic", "dynamic + 256 MiB"

# What dynamic VRAM leaves unused, whatever the card's size; an arm of its own gets that in
# addition, so that it may use as much as we do.
UNUSED = 256 * MIB


class Case:
    """`steady`: from this request on they count as settled; `alike`: they are the same but for
    the text and the seed, so that the least can be said."""

    def __init__(self, shows, files, requests, steady=3, alike=True):
        self.shows, self.files, self.requests = shows, files, requests
        self.steady, self.alike = steady, alike

    def weights(self, models):
        return sum((models / name).stat().st_size for name in self.files)


def repeated(make):
    def requests(runs):
        return [lambda server, i=i: server.run(make(i)) for i in range(runs)]
    return requests


def mixed(_runs):
    """LoRA on and off, two models in one workflow, a batch, an interrupt, everything freed, the
    node."""
    def workflow(made):
        return lambda server: server.run(made)

    def interrupted(server):
        prompt = server.submit(workflows.sd15(50, steps=40))
        server.until_said("1/40 [")  # a step is over
        server.post("/interrupt")
        told = server.wait(prompt)
        if told["status"]["status_str"] == "success":
            raise Failed("a run that was interrupted went on to its end")
        return server.run(workflows.sd15(51))

    def freed(server):
        server.post("/free", unload_models=True, free_memory=True)
        time.sleep(2)
        return server.run(workflows.sd15(60))

    return [workflow(workflows.sd15(0)), workflow(workflows.sd15(1, strength=1.0)),
            workflow(workflows.sd15(2, strength=0.5)), workflow(workflows.sd15(3)),
            workflow(workflows.both(4)), workflow(workflows.both(5)),
            workflow(workflows.sd15(6, batch=2)), interrupted, freed,
            workflow(workflows.with_node(8, True)), workflow(workflows.with_node(9, False)),
            workflow(workflows.both(7))]


SD15 = ("checkpoints/sd15.safetensors",)
FLUX = ("diffusion_models/flux.safetensors", "text_encoders/clip_l.safetensors",
        "vae/flux.safetensors")

CASES = {
    "sd15": Case("Stable Diffusion 1.5, fewer blocks", SD15, repeated(workflows.sd15)),
    "flux": Case("Flux at half its width, CLIP", FLUX, repeated(workflows.flux)),
    "mixed": Case("both, LoRA, batch, interrupt, /free, the node", SD15 + FLUX, mixed,
                  steady=2, alike=False),
}


# --- the least ---------------------------------------------------------------------

# What one run of a workflow uses, in order, by the first part of the names in a file.
PASSES = {
    "checkpoints/sd15.safetensors": [
        ("cond_stage_model.", 2), ("model.diffusion_model.", workflows.STEPS),
        ("first_stage_model.decoder.", 1)],
    "text_encoders/clip_l.safetensors": [("", 2)],
    "diffusion_models/flux.safetensors": [("", workflows.STEPS)],
    "vae/flux.safetensors": [("decoder.", 1)],
}


def tensors(path):
    """Names and sizes in a safetensors file, in its order."""
    with open(path, "rb") as file:
        told = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return {name: what["data_offsets"][1] - what["data_offsets"][0]
            for name, what in told.items() if name != "__metadata__"}


def least(case, models, room, runs=6):
    """Bytes in per settled run that no policy avoids. An embedding's rows are not counted: a
    run reads few of them."""
    sizes, run = [], []
    for name in sorted(case.files, key=list(PASSES).index):
        found = {key: size for key, size in tensors(models / name).items()
                 if "token_embedding" not in key}
        for prefix, times in PASSES[name]:
            mine = [size for key, size in found.items() if key.startswith(prefix)]
            first = len(sizes)
            sizes += mine
            run += [[item] for item in range(first, len(sizes))] * times
    return bounds.least([run] * runs, sizes, room, runs - 2, whole=False)


# --- a cell ------------------------------------------------------------------------

class Place:
    """Where cells run."""

    def __init__(self, root, python, comfyui, models, work, ours_with=()):
        self.root, self.python, self.comfyui = root, python, comfyui
        self.models, self.work, self.ours_with, self.count = models, work, ours_with, 0

    def server(self, arm, budget):
        self.count += 1
        command, card, switches = (), AMPLE, ()
        if arm == ALONE:
            switches = ("--highvram",)
        elif arm == OURS:
            switches = self.ours_with
            command = (self.root / "scripts" / "autooffload-launch", "--vram", str(budget))
        else:
            card = budget + (UNUSED if arm == DYNAMIC_MORE else 0)
        return Server(self.root, self.python, self.comfyui,
                      self.work / f"{self.count:03}", command, switches,
                      STANDIN_VRAM=str(card))


def cell(place, case, arm, budget, runs, told):
    """The answers of each request, and what the stand-in counted before and after each."""
    began = time.monotonic()
    server = place.server(arm, budget)
    try:
        answers, accounts = [], [server.account()]
        for number, request in enumerate(case.requests(runs)):
            answers.append(request(server))
            accounts.append(server.account())
            told(number)
        said = server.close()
    except Failed as failure:
        missing = unknown_kernels(server)
        raise Failed(f"{failure}{missing and f' (no kernel {missing})'}") from None
    finally:
        server.kill()
    return {"answers": answers, "accounts": accounts, "said": said,
            "seconds": time.monotonic() - began}


def unknown_kernels(server):
    """Those that the stand-in does not have, where it can still be asked."""
    try:
        return ", ".join(server.account()["unknown_kernels"])
    except (OSError, Failed):
        return ""


def each(found, key):
    values = [account[key] for account in found["accounts"]]
    return [b - a for a, b in zip(values, values[1:])]


def row(case, found, alone):
    """What the table says of a cell; `alone`: the same with memory enough."""
    def settled(values):
        return statistics.fmean(values[case.steady - 1:] or values[-1:])
    accounts = found["accounts"]
    after = {f"{key}_after": {number: accounts[number][name] / MIB
                              for number in (1, 3, 10) if number < len(accounts)}
             for key, name in (("device", "device_bytes"), ("rss", "rss"))}
    into, out = each(found, "h2d_bytes"), each(found, "d2h_bytes")
    return after | {
        "identical": found["answers"] == alone["answers"],
        "in_each_mib": [round(count / MIB) for count in into],
        "out_each_mib": [round(count / MIB) for count in out],
        "in_first_mib": into[0] / MIB, "in_mib": settled(into) / MIB, "out_mib": settled(out) / MIB,
        "clock_ms": settled(each(found, "clock_ns")) / 1e6,
        "waits": settled(each(found, "blocking_calls")),
        "peak_mib": accounts[-1]["device_peak_bytes"] / MIB,
        "violations": accounts[-1]["violations"], "seconds": round(found["seconds"], 1),
        "said": [line for line in found["said"].splitlines() if line.startswith("autooffload")],
    }
