"""What no policy can beat: the bytes that must cross the link, with the order known.

Two of them: of weights, of which any part may stay (nobody gets below this),
and of the allocator's whole segments, which are present as wholes while a
launch names them.
"""

NEVER = 1 << 60


def least(uses, sizes, room, steady, whole):
    """Bytes in per step over the last `steady` steps; `uses`: per step, items used together.

    What is used next the latest goes first. None: what one use needs does not fit.
    """
    positions, count = {}, sum(map(len, uses))
    for k, items in zip(range(count), (items for step in uses for items in step)):
        for item in items:
            positions.setdefault(item, []).append(k)
    for places in positions.values():
        places.reverse()  # the next one last
    present, held, crossed, k = {}, 0, 0, 0
    for number, step in enumerate(uses):
        for items in step:
            for item in items:
                missing = sizes[item] - present.get(item, 0)
                crossed += missing if number >= len(uses) - steady else 0
                held += missing
                present[item] = sizes[item]
                while positions[item] and positions[item][-1] <= k:
                    positions[item].pop()
            k += 1
            if held <= room:
                continue
            for item in sorted(present, reverse=True,
                               key=lambda i: positions[i][-1] if positions[i] else NEVER):
                if whole and item in items:
                    continue
                gone = present[item] if whole else min(present[item], held - room)
                held -= gone
                present[item] -= gone
                if not present[item]:
                    del present[item]
                if held <= room:
                    break
            else:
                if whole:
                    return None
    return crossed / steady
