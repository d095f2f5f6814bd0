"""Draws the plots of scripts/bench: `bench_plots.py PLAN.JSON FOLDER`.

Owns: which plots there are and how they look; each is written as SVG and PNG.
Runs in the environment of scripts/requirements-bench.txt. Not here: any figure
that plan.json does not hold.
"""

import json
import pathlib
import re
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams.update({
    "svg.hashsalt": "autooffload",  # the same figures give the same file
    "svg.fonttype": "none",  # letters as text: small, and to be searched
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False, "figure.dpi": 110,
})
import matplotlib.pyplot as plot  # noqa: E402
from matplotlib.ticker import LogLocator  # noqa: E402

OURS, FLOOR = "#c8102e", "#555555"
LINE = ["-", "--", ":", "-."]
# A policy has one look in all plots. Those told the future are dotted.
LOOK = {"ours": (OURS, "-"), "prefix": ("C0", "-"), "block-swap": ("C1", "-"),
        "zero-copy": ("C2", "-"), "leaf": ("C4", "-"), "lru": ("C5", "-"),
        "window": ("C7", "-"), "demand-paging": ("C8", "-"), "clairvoyant": ("C9", ":"),
        "lru-prefetch": ("C6", ":")}


def main():
    source, folder = map(pathlib.Path, sys.argv[1:])
    found = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("over-b2", over_b2), ("time-by-budget", time_by_budget),
                       ("policies", policies), ("first-iterations", first_iterations),
                       ("planning-time", planning_time)):
        figure = draw(found)
        if figure is None:
            continue
        figure.savefig(folder / f"{name}.png", bbox_inches="tight")
        drawing = folder / f"{name}.svg"
        figure.savefig(drawing, bbox_inches="tight", metadata={"Date": None})
        # A hundredth of a point is enough, and a third of the size.
        drawing.write_text(re.sub(r"(\d\.\d\d)\d+", r"\1", drawing.read_text()))
        plot.close(figure)


def periodic(found):
    return [cell for cell in found["details"]
            if cell["kind"] == "periodic" and cell["over_b2"] is not None]


def unique(values):
    return list(dict.fromkeys(values))


def panels(count, columns=4, width=3.1, height=2.3):
    columns = min(columns, count)
    lines = -(-count // columns)
    figure, axes = plot.subplots(lines, columns, squeeze=False, layout="constrained",
                                 figsize=(columns * width, lines * height))
    flat = list(axes.flat)
    for spare in flat[count:]:
        spare.remove()
    return figure, flat[:count]


def over_b2(found):
    """One panel a trace: how far from the bound, whatever the budget, card and link."""
    cells = periodic(found)
    traces = unique(cell["trace"] for cell in cells)
    if not traces:
        return None
    settings = sorted({(cell["card"], cell["link"]) for cell in cells})
    cards = unique(card for card, _ in settings)
    links = sorted({link for _, link in settings})
    figure, axes = panels(len(traces))
    top = max(1.06, max(cell["over_b2"] for cell in cells) * 1.005)
    for axis, trace in zip(axes, traces):
        for card, link in settings:
            points = sorted((cell["share"], cell["over_b2"]) for cell in cells
                            if (cell["trace"], cell["card"], cell["link"]) == (trace, card, link))
            axis.plot(*zip(*points) if points else ([], []), LINE[cards.index(card) % 4],
                      color=f"C{links.index(link)}", linewidth=1,
                      label=f"{card}, {link:g} GB/s")
        axis.axhline(1.05, color=FLOOR, linewidth=0.6)
        axis.set(title=trace, ylim=(0.998, top), xticks=(0, 0.5, 1))
        axis.grid(False)
    figure.supxlabel("memory for weights over weights, R/W")
    figure.supylabel("steady iteration over B2")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center",
                  ncols=min(len(settings), 6 if len(traces) > 3 else 3))
    return figure


def time_by_budget(found):
    """Seconds per iteration of every policy, and the floor, on one card."""
    cells = periodic(found)
    wanted = [("flux1-dev", 26.0), ("sdxl-unet", 26.0), ("qwen-image", 26.0),
              ("llama3-8b-decode", 26.0)]
    card = next((cell["card"] for cell in cells if "4090" in cell["card"]), None)
    chosen = [(trace, link) for trace, link in wanted
              if any((cell["trace"], cell["link"], cell["card"]) == (trace, link, card)
                     for cell in cells)]
    if not chosen:
        return None
    figure, axes = panels(len(chosen), columns=2, width=5, height=3.6)
    for axis, (trace, link) in zip(axes, chosen):
        some = sorted((cell for cell in cells if (cell["trace"], cell["link"], cell["card"])
                       == (trace, link, card)), key=lambda cell: cell["share"])
        share = [cell["share"] for cell in some]
        for name in reversed(LOOK):
            points = [(cell["share"], taken(cell, name) / 1e9) for cell in some
                      if taken(cell, name)]
            if points:
                style(axis.plot, name, *zip(*points), marker=".")
        bound = [cell["b2_ns"] / 1e9 for cell in some]
        axis.fill_between(share, bound, color="0.9", label="below the bound B2")
        axis.set(title=f"{trace}, {card}, {link:g} GB/s", yscale="log",
                 ylim=(min(bound) * 0.8, max(bound) * 3))
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    figure.supxlabel("memory for weights over weights, R/W (what is off the scale is slower)")
    figure.supylabel("seconds per iteration")
    handles = {}
    for axis in axes:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(list(handles.values())[::-1], list(handles)[::-1], loc="outside upper center",
                  ncols=6)
    return figure


def taken(cell, name):
    """Nanoseconds of an iteration; None where the policy cannot run."""
    return cell["ours_ns"] if name == "ours" else cell["policies"].get(name, {}).get("ns")


def style(draw, name, *arguments, **more):
    color, line = LOOK[name]
    return draw(*arguments, color=color, linestyle=line, label=name,
                linewidth=2.2 if name == "ours" else 1, zorder=3 if name == "ours" else 2, **more)


def policies(found):
    """In how many cells a policy is within a given distance of the bound."""
    cells = [cell for cell in periodic(found) if cell["streamed"]]
    if not cells:
        return None
    figure, axis = plot.subplots(figsize=(6.4, 4), layout="constrained")
    for name in LOOK:
        ratios = sorted(taken(cell, name) / cell["b2_ns"] for cell in cells if taken(cell, name))
        style(axis.step, name, ratios, [(rank + 1) / len(cells) for rank in range(len(ratios))],
              where="post")
    axis.set(xscale="log", xlim=(0.99, 12), ylim=(0, 1.01), xlabel="steady iteration over B2",
             ylabel="share of the cells that stream",
             title="cells within a multiple of the bound")
    ticks = [1, 1.1, 1.25, 1.5, 2, 3, 5, 10]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(loc="lower right")
    return figure


def first_iterations(found):
    cells = [cell for cell in periodic(found) if cell["streamed"] and cell["steady_ns"]]
    if not cells:
        return None
    names = ["first", "second", "third"]
    figure, axis = plot.subplots(figsize=(6.4, 2.6), layout="constrained")
    axis.boxplot([[cell[f"{name}_ns"] / cell["steady_ns"] for cell in cells] for name in names],
                 orientation="horizontal", widths=0.6, flierprops={"markersize": 3},
                 medianprops={"color": OURS})
    axis.set_yticks(range(1, len(names) + 1), names)
    axis.invert_yaxis()
    axis.set(xlabel="iteration over the steady one")
    return figure


def planning_time(found):
    rows = found["plan_ms_by_size"]
    if not rows:
        return None
    figure, axis = plot.subplots(figsize=(6.4, 3.4), layout="constrained")
    sizes = [row["chunks"] for row in rows]
    axis.plot(sizes, [row["plan_ms"] for row in rows], marker="o", label="first plan")
    axis.plot(sizes, [row["search_ms"] for row in rows], marker="s", color=OURS, label="searched")
    axis.axhline(50, color="C0", linewidth=0.6, linestyle=":")
    axis.axhline(2000, color=OURS, linewidth=0.6, linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="chunks (ten launches each)",
             ylabel="planning time (ms), one thread")
    axis.legend()
    return figure


if __name__ == "__main__":
    main()
