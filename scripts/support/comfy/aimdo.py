"""comfy-aimdo by itself, as ComfyUI's dynamic VRAM uses it: prints JSON.

Owns: what it is asked, in a process with or without us: it patches the driver's functions,
maps pages of its own, is told of PyTorch's memory, and gives everything back. Not here: the
version, and what is right (scripts/test-comfyui).
"""

import json
import logging
import sys

import torch

PAGES, PAGE = 5, 32 << 20


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    torch.zeros(1, device="cuda")  # it looks for a driver that is there, and for a context
    from comfy_aimdo import control
    assert control.init() and control.init_device(0), "it does not start"
    # Its functions are bound when the module is imported.
    from comfy_aimdo import model_vbar, torch as of_torch

    def used():
        if hasattr(control, "get_devctx"):
            return control.lib.get_total_vram_usage(control.get_devctx(0))
        return control.lib.get_total_vram_usage()

    vbar = model_vbar.ModelVBAR(PAGES * PAGE, 0)
    vbar.prioritize()
    pages = [vbar.alloc(PAGE) for _ in range(PAGES)]
    sums, faults = [], 0
    for number, alloc in enumerate(2 * pages):
        if vbar.fault(*alloc[1:]) is None:
            continue
        faults += 1
        page = of_torch.aimdo_to_tensor(alloc, torch.device("cuda"))
        page.fill_(number + 1)
        sums.append(int(page[::4096].long().sum()))
        vbar.unpin(*alloc[1:])
    before = used()
    tensor = torch.full((24 << 20,), 3, dtype=torch.uint8, device="cuda")
    noticed = used() - before
    sums.append(int(tensor[::4096].long().sum()))
    del tensor
    torch.cuda.empty_cache()
    vbar.free_memory(PAGES * PAGE)
    control.deinit()
    print(json.dumps({"sums": sums, "faults": faults, "noticed": noticed}))


if __name__ == "__main__":
    main()
