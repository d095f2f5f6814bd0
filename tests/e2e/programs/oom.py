"""Runs out of memory in the middle, catches it as programs do, and goes on."""

import argparse

import torch

import models

parser = argparse.ArgumentParser()
parser.add_argument("case", choices=["launch", "retry", "host", "fault"])
parser.add_argument("--blocks", type=int, default=60)
options = parser.parse_args()

hashes, caught = [], []
# Of what the device might not hold at once.
whole = []


def forward(model, seed):
    x = models.make_input(seed).to("cuda")
    for index in models.shuffled(len(model)):
        x = model[index](x)
    hashes.append(models.digest(x))


def attempt(action):
    """Whether `action` ran; the error it met is kept."""
    try:
        action()
        return True
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if "out of memory" not in str(error):
            raise
        caught.append(type(error).__name__)
        return False


def one_launch_too_big():
    """Three tensors of 16 MiB that one kernel needs at once."""
    model = models.stack(options.blocks)
    for seed in range(3):
        forward(model, seed)

    def add():
        parts = [torch.arange(4 * 2**20, dtype=torch.float32, device="cuda") + i for i in range(2)]
        both = parts[0] + parts[1]
        both += parts[1]
        whole.extend([models.digest(both), models.digest(parts[0])])

    attempt(add)
    models.release()
    return model


def smaller_batches():
    """Tries again with half the batch, as accelerate's find_executable_batch_size."""
    model = models.stack(options.blocks)
    batch = 1 << 14

    def run():
        x = torch.ones(batch, models.WIDTH, device="cuda")
        for block in model:
            x = block(x)
        # Of each batch the same, whatever its size.
        whole.append(models.digest(x[:1]))

    while not attempt(run):
        models.release()
        batch //= 2
    models.release()
    return model


def host_memory_too_small():
    """Builds until refused, and goes on with fewer blocks; what was made stays as made."""
    torch.manual_seed(0)
    model, made = [], []

    def grow():
        block = models.Block()
        kept = [p.clone() for p in block.parameters()]
        model.append(block.to("cuda"))
        made.append(kept)

    while len(model) < options.blocks and attempt(grow):
        pass
    intact = all(torch.equal(p.cpu(), kept)
                 for block, keeps in zip(model, made) for p, kept in zip(block.parameters(), keeps))
    hashes.append(f"intact {intact}")
    # Room for the activations.
    del model[-4:], made[-4:]
    models.release()
    x = models.make_input(0)
    wanted = x
    for block, (norm_w, norm_b, w1, b1, w2, b2) in zip(model, made):
        F = torch.nn.functional
        normed = F.layer_norm(wanted, wanted.shape[-1:], norm_w, norm_b)
        wanted = wanted + F.linear(F.gelu(F.linear(normed, w1, b1)), w2, b2)
    for _ in range(3):
        y = x.to("cuda")
        for block in model:
            y = block(y)
        hashes.append(f"close {bool((y.cpu() - wanted).abs().max() < 1e-3)}")
    return model


def allocations_that_fail():
    """Every step is tried again after an error, as a server's request would be."""

    def persist(action):
        for _ in range(20):
            if attempt(action):
                return
            models.release()
        raise SystemExit("out of memory 20 times in a row")

    model = []
    torch.manual_seed(0)
    for _ in range(options.blocks):
        block = models.Block()
        persist(lambda: model.append(block.to("cuda")))
    for seed in range(6):
        persist(lambda: forward(model, seed))
    return model


with torch.no_grad():
    model = {"launch": one_launch_too_big, "retry": smaller_batches, "host": host_memory_too_small,
             "fault": allocations_that_fail}[options.case]()
    if options.case != "host":
        for seed in range(10, 13):
            forward(model, seed)
        hashes += [models.digest(p) for block in model for p in block.parameters()]
    models.report(hashes=hashes, whole=whole, caught=caught, built=len(model), iterations=3,
                  weight_bytes=models.weight_bytes(model))
