"""The programs of scripts/bench peers: what one step does, and in which order it uses weights.

Not here: how often they are run (shapes.py), the layers (models.py), where weights
lie (arms.py).
A step ends when its result is on the host.
"""

import threading

import torch

from . import models


class Program:
    """Parts, a step, and the units of one step in order of use."""

    def __init__(self, parts, step, order=None, again=None):
        self.parts, self.step = parts, step
        self.order = order or [unit for part in parts for unit in part.units()]
        self.again = again or (lambda: None)  # the hand-written engine's: start over


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(model, tokens=16):
    return Program([model], lambda i: model(noise(i, tokens, 16).cuda()).cpu())


def layers(width, heads, count):
    return models.Chain(16, width, 16, lambda w: models.Transformer(w, heads), count)


def diffusion(model=None, tokens=lambda i: 16):
    model = model or models.Diffusion()
    state = {}

    def step(i):
        count = tokens(i)
        x = state.get(count)
        x = noise(count, count, 16).cuda() if x is None else x
        state[count] = x - 0.1 * model(x, float(12 - i))
        return state[count].cpu()
    return Program([model], step)


def decoder(model):
    state = {"tokens": torch.randint(0, 1000, (8,), generator=torch.Generator().manual_seed(0))}

    def step(i):
        scores = model(state["tokens"].cuda())
        state["tokens"] = scores.argmax(-1).cpu()
        return scores.cpu()
    return Program([model], step)


def pipeline():
    """A text encoder, eight steps of a denoiser, a decoder: one image."""
    text = models.Chain(16, 384, 16, lambda w: models.Transformer(w, 6), 5)
    denoiser = models.Diffusion(count=14)
    image = models.Chain(16, 448, 48, lambda w: models.Transformer(w, 7), 4)

    def step(i):
        x = noise(100 + i, 16, 16).cuda() + text(noise(i, 24, 16).cuda())[:16]
        for time in range(8):
            x = x - 0.1 * denoiser(x, float(8 - time))
        return image(x).cpu()
    order = text.units() + 8 * denoiser.units() + image.units()
    return Program([text, denoiser, image], step, order)


def repeated():
    model = models.Repeated()

    def step(i):
        tokens = torch.randint(0, 4000, (16,), generator=torch.Generator().manual_seed(i))
        return model(tokens.cuda()).cpu()
    return Program([model], step)


def precision():
    """Weights become half and float again before the fifth step, as when a setting is tried."""
    program = plain(layers(312, 6, 24))
    inner = program.step

    def step(i):
        if i == 4:
            program.parts[0].half()
            program.parts[0].float()
        return inner(i)
    program.step = step
    return program


def adapters():
    """Low-rank changes added to the weights before the third step, taken away before the sixth."""
    program = plain(layers(312, 6, 24))
    inner, pairs = program.step, []

    def change(sign):
        if not pairs:
            for unit in program.order:
                for leaf in models.leaves(unit):
                    rows, columns = leaf.out_features, leaf.in_features
                    pairs.append((leaf, noise(rows, rows, 4) * 0.01, noise(columns, 4, columns)))
        for leaf, left, right in pairs:
            place = leaf.weight.device
            leaf.weight.data += sign * (left.to(place) @ right.to(place))

    def step(i):
        if i in (2, 5):
            change(1 if i == 2 else -1)
        return inner(i)
    program.step = step
    return program


def threads():
    """Four threads that share one model, two requests each."""
    program = plain(layers(312, 6, 24))
    model = program.parts[0]

    def step(i):
        found = [None] * 8

        @torch.no_grad()
        def serve(first):
            for k in range(first, 8, 4):
                found[k] = model(noise(10 * i + k, 16, 16).cuda()).cpu()
        workers = [threading.Thread(target=serve, args=(k,)) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return torch.stack(found)
    program.step = step
    return program


class Cancelled(Exception):
    """The user pressed the button."""


def cancelled():
    """Each third step is given up in the middle, and asked for again."""
    program = plain(layers(312, 6, 24))
    inner, half, armed = program.step, program.order[len(program.order) // 2], []

    def stop(*_):
        if armed:
            armed.clear()
            raise Cancelled()
    half.register_forward_hook(stop)

    def step(i):
        if i % 3 == 2:
            armed.append(True)
            try:
                inner(i)
            except Cancelled:
                program.again()
        return inner(i)
    program.step = step
    return program


# By name; what each of them shows is in shapes.py.
MAKE = {
    "dit": diffusion,
    "unet": lambda: plain(models.Unet(), 256),
    "decoder": lambda: decoder(models.Decoder(512, 12, room=64)),
    "pipeline": pipeline,
    "decoder-cat": lambda: decoder(models.Decoder(256, 24, room=0)),
    "mlp": lambda: plain(models.Chain(16, 886, 16, models.Perceptron, 10)),
    "decoder-wide": lambda: decoder(models.Decoder(1024, 4, room=64)),
    "small-layers": lambda: plain(layers(192, 6, 60)),
    "long-layers": lambda: plain(layers(640, 8, 8)),
    "sharded": lambda: plain(models.Chain(16, 1152, 16, models.Sharded, 5)),
    "shared": repeated,
    "two-streams": lambda: plain(models.Branches()),
    "alternating": lambda: diffusion(tokens=lambda i: 16 if i % 2 else 64),
    "precision": precision,
    "adapters": adapters,
    "threads": threads,
    "cancelled": cancelled,
}
