"""Every way a program copies weights, most of which are not on the device then."""

import io
import threading

import torch

import models

BLOCKS = 60
hashes = []

with torch.no_grad():
    model = models.stack(BLOCKS)
    total = models.weight_bytes(model)

    def forward(seed):
        x = models.make_input(seed).to("cuda")
        for index in models.shuffled(BLOCKS):
            x = model[index](x)
        hashes.append(models.digest(x))

    for iteration in range(4):
        forward(iteration)

    # Device to host: a state saved, in order of creation, with blocking copies.
    file = io.BytesIO()
    torch.save([block.state_dict() for block in model], file)
    file.seek(0)
    saved = torch.load(file, map_location="cpu")
    hashes += [models.digest(tensor) for state in saved for tensor in state.values()]

    # Device to host without blocking, into pinned memory.
    pinned = [torch.empty(model[i].first.weight.shape, pin_memory=True) for i in range(0, 60, 7)]
    for tensor, i in zip(pinned, range(0, 60, 7)):
        tensor.copy_(model[i].first.weight, non_blocking=True)
    torch.cuda.synchronize()
    hashes += [models.digest(tensor) for tensor in pinned]

    # Host to device into weights, from pageable and from pinned memory, whole and in part.
    for i in range(0, BLOCKS, 4):
        model[i].first.weight.copy_(torch.full((504, 504), 1e-3 * i))
        model[i].second.weight[100:200].copy_(torch.full((100, 504), 2e-3))
        model[i + 1].first.weight.copy_(pinned[i % len(pinned)] * 0.5, non_blocking=True)
    forward(10)
    forward(11)

    # Device to device: between weights, and out of them.
    for i in range(0, BLOCKS - 1, 5):
        model[i].second.weight.copy_(model[(i + 31) % BLOCKS].second.weight)
    clones = [model[i].first.weight.clone() for i in range(3, 9)]
    forward(12)
    hashes += [models.digest(clone) for clone in clones]

    # Strided and converting reads, and memsets.
    hashes.append(models.digest(model[7].first.weight.t().contiguous()))
    hashes.append(models.digest(model[8].second.weight[:, ::2].contiguous()))
    for i in range(2, BLOCKS, 9):
        model[i].second.bias.zero_()
        model[i].second.weight.zero_()
    forward(13)
    forward(14)

    # The same again from another thread, which has no context of its own yet.
    thread = threading.Thread(target=lambda: hashes.append(models.digest(model[20].first.weight)))
    thread.start()
    thread.join()

    # A state loaded back.
    for block, state in zip(model, saved):
        block.load_state_dict(state)
    for iteration in range(3):
        forward(iteration)
    models.report(hashes=hashes, weight_bytes=total, iterations=11)
