"""What the last sampling run moved and waited for: recorded per step, as text and as a picture."""

# A run longer than this shows its last steps.
STEPS = 1000

WIDTH, PANEL, GAP = 768, 120, 12

RESIDENT, RING, LINK, WAIT, PAPER = ((0.15, 0.35, 0.65), (0.55, 0.75, 0.95), (0.2, 0.55, 0.3),
                                     (0.8, 0.3, 0.2), (1.0, 1.0, 1.0))


class Recorder:
    """Differences of the account from step to step."""

    def __init__(self):
        self.steps, self.last = [], None

    def begin(self, account):
        self.steps, self.last = [], figures(account)

    def step(self, account):
        now = figures(account)
        if now and self.last:
            self.steps.append({
                "resident": now["resident"], "ring": now["ring"],
                **{key: now[key] - self.last[key] for key in ("streamed", "back", "waited")}})
            del self.steps[:-STEPS]
        self.last = now

    def text(self):
        if not self.steps:
            return "Nothing was recorded: no sampler ran with this node's model since the start."
        def mib(key, pick):
            return f"{pick(step[key] for step in self.steps) / 2**20:,.0f} MiB"
        return "\n".join([
            f"{len(self.steps)} steps",
            f"memory (above): {mib('resident', max)} stay, {mib('ring', max)} for what streams",
            f"link (middle): {mib('streamed', sum)} came in, {mib('streamed', max)} at most in a "
            f"step; {mib('back', sum)} went back",
            f"waits of the host (below): {sum(step['waited'] for step in self.steps) / 1e6:,.0f} ms, "
            f"{max(step['waited'] for step in self.steps) / 1e6:,.0f} ms at most in a step"])

    def picture(self):
        """An IMAGE: [1, height, width, 3]. Three panels: memory, link, waits; a column a step."""
        import torch
        image = torch.ones(1, 3 * PANEL + 4 * GAP, WIDTH, 3)
        image[:] = torch.tensor(PAPER)
        panels = ((("resident", RESIDENT), ("ring", RING)), (("streamed", LINK),),
                  (("waited", WAIT),))
        for number, parts in enumerate(panels):
            bottom = (number + 1) * (PANEL + GAP)
            image[0, bottom, GAP:WIDTH - GAP] = 0.0
            most = max((sum(step[key] for key, _ in parts) for step in self.steps), default=0)
            for index, step in enumerate(self.steps if most else ()):
                left, right = (GAP + (WIDTH - 2 * GAP) * at // len(self.steps)
                               for at in (index, index + 1))
                foot = bottom
                for key, colour in parts:
                    height = round(PANEL * step[key] / most)
                    image[0, foot - height:foot, left:max(left + 1, right - 1)] = \
                        torch.tensor(colour)
                    foot -= height
        return image


def figures(account):
    if not account:
        return None
    return {"resident": account["device"]["resident_bytes"],
            "ring": account["device"]["ring_bytes"],
            "streamed": account["streaming"]["streamed_bytes"],
            "back": account["streaming"]["written_back_bytes"],
            "waited": sum(wait["ns"] for wait in account["waits"].values())}
