"""The ways in which scripts/bench peers runs a program on a card that is too small for it.

    resident   everything on the card
    ours       the same program, with the library preloaded (cell.py's caller does that)
    back       the same where our kernel is not to be had: whatever a kernel received is
               copied back
    leaf       diffusers' group offloading, a layer at a time, on a stream of its own
    block      the same, a block at a time
    map        accelerate's device map: what fits stays, the rest is moved in when it is needed
    prefix     a hand-written double buffer that keeps the first layers
    spread     the same, what it keeps spread evenly over the step

Not here: the programs (programs.py). `budget` is what the last three may fill.
"""

import torch

from . import models

ALIGN = 512  # of an address in the hand-written engine's buffer


class Unable(Exception):
    """This arm cannot run this program on this card; the reason in words."""


def place(arm, program, budget):
    """Puts the program's weights where the arm wants them."""
    card = torch.device("cuda")
    if arm in ("resident", "ours", "back"):
        for part in program.parts:
            part.to(card)
    elif arm in ("leaf", "block"):
        from diffusers.hooks import apply_group_offloading
        kind = {"offload_type": "leaf_level"} if arm == "leaf" else \
            {"offload_type": "block_level", "num_blocks_per_group": 1}
        for part in program.parts:
            apply_group_offloading(part, onload_device=card, offload_device=torch.device("cpu"),
                                   use_stream=True, record_stream=True, **kind)
    elif arm == "map":
        device_map(program, card, budget)
    elif arm in ("prefix", "spread"):
        hand_written(program, budget, arm == "spread")
    else:
        raise ValueError(arm)


def device_map(program, card, budget):
    from accelerate import cpu_offload, dispatch_model, infer_auto_device_map
    times = {id(part): sum(program.order.count(unit) for unit in part.units()[:1])
             for part in program.parts}
    # Who measures gives the card to the part that runs most often.
    for part in sorted(program.parts, key=lambda part: -times[id(part)]):
        whole = sorted({type(unit).__name__ for unit in part.units()})
        found = infer_auto_device_map(part, max_memory={0: max(budget, 1), "cpu": 1 << 40},
                                      no_split_module_classes=whole)
        places = set(found.values())
        if places == {"cpu"}:
            cpu_offload(part, card)
        elif places == {0}:
            part.to(card)
        else:
            dispatch_model(part, found, main_device=0, force_hooks=True)
        budget -= sum(size(p) for p in part.parameters() if p.is_cuda)


def size(tensor):
    return -(-tensor.numel() * tensor.element_size() // ALIGN) * ALIGN


def unit_bytes(unit):
    return sum(size(p) for p in unit.parameters())


# --- what a person writes by hand ------------------------------------------------

def hand_written(program, budget, spread):
    """Whole blocks or single layers, whichever has to move less."""
    best = None
    for order in (program.order, [leaf for unit in program.order for leaf in models.leaves(unit)]):
        inside = {id(p) for unit in order for p in unit.parameters()}
        outside = [p for part in program.parts for p in part.parameters() if id(p) not in inside]
        kept = choose(order, budget - sum({id(p): size(p) for p in outside}.values()), spread)
        if kept is not None:
            moved = sum(unit_bytes(unit) for unit in order if id(unit) not in kept)
            if best is None or moved < best[0]:
                best = (moved, order, kept, outside)
    if best is None:
        raise Unable("two buffers do not fit")
    _, order, kept, outside = best
    for p in outside:
        p.data = p.data.cuda()
    engine = DoubleBuffer(order, kept)
    program.again = engine.start


def distinct(order):
    return list({id(unit): unit for unit in order}.values())


def choose(order, budget, spread):
    """Which units stay, by id: of all sizes the buffers can have, the one that moves least."""
    units, best = distinct(order), None
    uses = {id(unit): sum(other is unit for other in order) for unit in units}
    for largest in sorted({unit_bytes(unit) for unit in units}):
        kept = {id(unit) for unit in units if unit_bytes(unit) > largest}
        room = budget - 2 * largest - sum(unit_bytes(u) for u in units if id(u) in kept)
        if room < 0:
            continue
        rest = [unit for unit in units if id(unit) not in kept]
        for often in sorted({uses[id(unit)] for unit in rest}, reverse=True):
            group = [unit for unit in rest if uses[id(unit)] == often]
            for unit in evenly(group, room) if spread else group:
                if unit_bytes(unit) <= room:
                    kept.add(id(unit))
                    room -= unit_bytes(unit)
        moved = sum(unit_bytes(unit) * uses[id(unit)] for unit in units if id(unit) not in kept)
        if best is None or moved < best[0]:
            best = (moved, kept)
    total = sum(map(unit_bytes, units))
    if total <= budget:
        return {id(unit) for unit in units}
    return best and best[1]


def evenly(units, room):
    """The units that stay first, so that what is moved lies evenly between them; then the rest."""
    share = min(1, room / max(1, sum(map(unit_bytes, units))))
    debt, first, later = 0.0, [], []
    for unit in units:
        debt += unit_bytes(unit) * share
        if debt >= unit_bytes(unit) / 2:
            debt -= unit_bytes(unit)
            first.append(unit)
        else:
            later.append(unit)
    return first + later


class DoubleBuffer:
    """What stays lies in one piece; the rest comes through two buffers on a copy stream."""

    def __init__(self, order, kept):
        units = distinct(order)
        moved = [unit for unit in units if id(unit) not in kept]
        largest = max(map(unit_bytes, moved), default=0)
        stay = {id(p): p for unit in units if id(unit) in kept for p in unit.parameters()}
        room = sum(map(size, stay.values()))
        # One piece of the card for everything: no segment is left half empty.
        everything = torch.empty(room + 2 * largest, dtype=torch.uint8, device="cuda")
        self.fill(everything, stay.values())
        self.buffers = [everything[room + i * largest:][:largest] for i in range(2)]
        self.order = [unit for unit in order if id(unit) not in kept]
        self.stream = torch.cuda.Stream()
        self.host, self.views = {}, {}
        for unit in moved:
            self.host[id(unit)] = torch.empty(unit_bytes(unit), dtype=torch.uint8, pin_memory=True)
            parameters = list(unit.parameters())
            self.views[id(unit)] = [list(zip(parameters, self.cut(buffer, parameters)))
                                    for buffer in self.buffers]
            self.fill(self.host[id(unit)], parameters)
            unit.register_forward_pre_hook(self.before)
            unit.register_forward_hook(self.after)
        self.filled = [torch.cuda.Event() for _ in range(2)]
        self.used = [torch.cuda.Event() for _ in range(2)]
        self.start()

    @staticmethod
    def cut(memory, parameters):
        at = 0
        for p in parameters:
            yield memory[at:at + p.numel() * p.element_size()].view(p.dtype).view(p.shape)
            at += size(p)

    def fill(self, memory, parameters):
        for p, view in zip(parameters, self.cut(memory, parameters)):
            view.copy_(p.data)
            p.data = view

    def start(self):
        """From the first unit on, whatever was under way."""
        self.now = 0
        self.stream.wait_stream(torch.cuda.current_stream())
        for k in range(2 if self.order else 0):
            self.fetch(k, wait=False)

    def fetch(self, k, wait=True):
        unit, buffer = self.order[k % len(self.order)], k % 2
        source = self.host[id(unit)]
        with torch.cuda.stream(self.stream):
            if wait:
                self.stream.wait_event(self.used[buffer])
            self.buffers[buffer][:source.numel()].copy_(source, non_blocking=True)
            self.filled[buffer].record()

    def before(self, unit, _):
        assert self.order[self.now % len(self.order)] is unit
        buffer = self.now % 2
        torch.cuda.current_stream().wait_event(self.filled[buffer])
        for p, view in self.views[id(unit)][buffer]:
            p.data = view

    def after(self, unit, *_):
        self.used[self.now % 2].record()
        self.fetch(self.now + 2)
        self.now += 1
