"""The part of ComfyUI that the nodes use, as its source has it: `ModelPatcher` with wrappers by
kind and key, and a sampler that calls them. Not ComfyUI: no models, no scheduling."""

import sys
import types


class WrappersMP:
    SAMPLER_SAMPLE = "sampler_sample"
    PREDICT_NOISE = "predict_noise"


class ModelPatcher:
    def __init__(self, model, wrappers=None):
        self.model = model
        self.wrappers = {kind: {key: list(those) for key, those in keys.items()}
                         for kind, keys in (wrappers or {}).items()}

    def clone(self):
        return type(self)(self.model, self.wrappers)

    def add_wrapper_with_key(self, wrapper_type, key, wrapper):
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def all_wrappers(self, wrapper_type):
        return [wrapper for those in self.wrappers.get(wrapper_type, {}).values()
                for wrapper in those]


class ModelPatcherDynamic(ModelPatcher):
    """Its weights lie in mappings of ComfyUI's own."""

    def is_dynamic(self):
        return True


def execute(original, wrappers, *args):
    """As `WrapperExecutor` does: each wrapper gets the rest as a callable."""
    if not wrappers:
        return original(*args)
    return wrappers[0](lambda *more: execute(original, wrappers[1:], *more), *args)


def sample(patcher, latent, steps, step=None):
    """A sampler: `steps` predictions, one after the other."""
    def predict(x):
        y = patcher.model(x)
        if step:
            step()
        return y

    def sampling(x):
        for _ in range(steps):
            x = execute(predict, patcher.all_wrappers(WrappersMP.PREDICT_NOISE), x)
        return x
    return execute(sampling, patcher.all_wrappers(WrappersMP.SAMPLER_SAMPLE), latent)


def install():
    comfy, extension = types.ModuleType("comfy"), types.ModuleType("comfy.patcher_extension")
    extension.WrappersMP = WrappersMP
    comfy.patcher_extension = extension
    sys.modules["comfy"], sys.modules["comfy.patcher_extension"] = comfy, extension
