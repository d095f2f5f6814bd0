"""Which cells scripts/bench peers runs.

A cell is a program on a card that holds a share of its weights (and whatever
the program holds beside them), behind a link that needs `ratio` times as long
for what does not fit as the card does for the arithmetic, run in one way.
"""

from .shapes import SHAPES

ARMS = ("ours", "leaf", "block", "map", "prefix", "spread")
SHARES = (25, 50, 75)
# Links: for these programs slower and faster ones, too.
RATIOS = {"dit": (0.5, 1, 2), "mlp": (0.5, 1, 2), "decoder": (0.5, 1, 2)}
# Cards on which one launch needs nearly everything, MiB.
TIGHT = {"dit": (44, 46, 50)}
QUICK = {"dit": (50,), "mlp": (50,), "decoder-cat": (50,)}

# Where copies in and out slow each other down.
DUPLEX_SHARES, DUPLEX_ARMS = (50,), ("ours", "back", "leaf", "spread")


def cells(quick, only=None, arms=None, shares=None):
    """[{program, share or card, ratio, duplex, arm}]"""
    found = []

    def add(name, ways, **cell):
        allowed = SHAPES[name].arms or (*ARMS, "back")
        found.extend({"program": name, "share": None, "card": None, "ratio": 1, "duplex": False,
                      **cell, "arm": arm} for arm in ways if arm in allowed)
    for name in SHAPES:
        if only and name not in only:
            continue
        if quick:
            for share in QUICK.get(name, () if not only else SHARES[1:2]):
                add(name, ("ours", "leaf", "map", "spread"), share=share)
            continue
        for share in SHARES:
            for ratio in RATIOS.get(name, (1,)):
                add(name, ARMS, share=share, ratio=ratio)
        for share in DUPLEX_SHARES:
            add(name, DUPLEX_ARMS, share=share, duplex=True)
        for card in TIGHT.get(name, ()):
            add(name, ("ours", "leaf", "spread"), card=card)
    return [cell for cell in found if (not arms or cell["arm"] in arms)
            and (not shares or str(cell["share"]) in shares)]
