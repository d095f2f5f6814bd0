"""A workflow with the nodes in it, under the launcher on the stand-in: prints JSON."""

import gc
import importlib.util
import json
import pathlib
import sys

import torch

import comfy_interface

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "comfyui" / "__init__.py"


def package():
    """The node package, loaded from its folder as ComfyUI does."""
    comfy_interface.install()
    spec = importlib.util.spec_from_file_location("auto_cpu_offload", PACKAGE,
                                                  submodule_search_locations=[str(PACKAGE.parent)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["auto_cpu_offload"] = module
    spec.loader.exec_module(module)
    return module


class Model(torch.nn.Module):
    """12 layers of 4 MiB."""

    def __init__(self, seed, layers=12):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(1024, 1024, bias=False) for _ in range(layers))
        for layer in self.layers:
            layer.weight.data = torch.randn(1024, 1024, generator=generator) / 32

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def main(case):
    nodes = package()
    node = nodes.AutoCPUOffload()
    library, ranges_of = nodes.nodes.library, nodes.library.ranges_of

    def where(model):
        return library.where(ranges_of(model))

    def load(seed, **more):
        return comfy_interface.ModelPatcher(Model(seed, **more).to("cuda"))

    def checksum(tensor):
        return tensor.double().sum().item()

    def patched(patcher, enable, window=8):
        return node.apply(patcher, window, enable, False)[0]

    out = {}
    latent = torch.ones(4, 1024, device="cuda")
    if case == "two models":
        first, second = load(1), load(2)
        plain = [checksum(comfy_interface.sample(model, latent, 5)) for model in (first, second)]
        stays, streams = patched(first, enable=False), patched(second, enable=True, window=4)
        seen = {"stays": [], "streams": []}
        outputs = []
        for name, model in (("stays", stays), ("streams", streams), ("stays", stays)):
            outputs.append(checksum(comfy_interface.sample(
                model, latent, 5, lambda: seen[name].append(where(model.model)))))
        picture = nodes.AutoCPUOffloadLastRun().show({"samples": latent})
        out = {"plain": plain, "outputs": outputs, "seen": seen,
               "after": [where(first.model), where(second.model)],
               "text": picture[2], "shape": list(picture[1].shape),
               "drawn": bool((picture[1] < 0.9).any()), "latent": picture[0] is not None}
    elif case == "error":
        model = load(1)
        stays = patched(model, enable=False)

        def fail():
            raise RuntimeError("out of pixels")
        try:
            comfy_interface.sample(stays, latent, 5, fail)
        except RuntimeError as error:
            out["raised"] = str(error)
        out["after"] = where(model.model)
    elif case == "too large":
        model = load(1, layers=30)
        out["plain"] = checksum(comfy_interface.sample(model, latent, 3))
        out["output"] = checksum(comfy_interface.sample(patched(model, enable=False), latent, 3))
        out["after"] = where(model.model)
    elif case == "levels":
        patcher = load(1)

        def level():
            gc.collect()
            torch.cuda.synchronize()
            account = library.account()
            return [account["device"]["frames_bytes"], account["host"]["peak_bytes"],
                    torch.cuda.memory_reserved(), len(gc.get_objects()) // 2000]
        levels = []
        for turn in range(1001):
            comfy_interface.sample(patched(patcher, enable=turn % 2 == 0, window=1 + turn % 20),
                                   latent, 1)
            if turn in (100, 1000):
                levels.append(level())
        for turn in range(101):
            loaded = load(turn, layers=4)
            comfy_interface.sample(patched(loaded, enable=turn % 2 == 0), latent, 1)
            del loaded
            if turn in (20, 100):
                levels.append(level())
        out["levels"] = levels
    print(json.dumps(out))


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1])
