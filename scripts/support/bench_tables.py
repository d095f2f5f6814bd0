"""The tables of scripts/bench, for a terminal.

Pure: the contents of plan.json in, text out. Not here: what is measured and
how it is judged (cli/src/bench).
"""

import math

CYCLE_WANTED = 1.035  # of the phase-aware bound, as the targets have it


def everything(found):
    parts = [headline(found), over_bounds(found), policies(found), iterations(found),
             phases(found), costs(found), planning(found), targets(found)]
    return "\n".join(part for part in parts if part)


def markdown(found):
    """The same for docs/performance.md: what was run, where, and the tables as they are."""
    command = "scripts/bench plan" + (" --quick" if found["quick"] else "")
    return (f"`{command}`, {found['machine']}, {found['seconds']:.0f} s.\n\n```text\n"
            f"{everything(found | {'machine': ''}).strip()}\n```\n")


def headline(found):
    return (f"\n{found['cells']} cells, {found['streamed_cells']} of which stream"
            f"{' (a part of the grid)' if found['quick'] else ''}\n{found.get('machine', '')}")


def over_bounds(found):
    """By trace and by share: where the time over B2 comes from is seen best there."""
    cells = [cell for cell in found["details"]
             if cell["kind"] == "periodic" and cell["over_b2"] is not None]
    planned = found["over_b2_planned"]
    rows = [["all", *spread([cell["over_b2"] for cell in cells]),
             *spread([cell["over_b1"] for cell in cells])]]
    for key in ("trace", "share", "link"):
        rows.append(None)
        for value in unique(cell[key] for cell in cells):
            some = [cell for cell in cells if cell[key] == value]
            name = {"share": f"R/W {value}", "link": f"{value} GB/s"}.get(key, value)
            rows.append([name, *spread([cell["over_b2"] for cell in some]),
                         *spread([cell["over_b1"] for cell in some])])
    text = table("time over the bounds, steady iteration",
                 ["", "B2: median", "p90", "worst", "B1: median", "p90", "worst"], rows)
    text += ("\nthe same plans made with everything known, and carried out by one who knows the "
             f"position:\n  B2: median {number(planned['median'])}, p90 {number(planned['p90'])}, "
             f"worst {number(planned['worst'])}\n")
    copied, less = found["over_b2_copied_back"], found["over_copied_back_where_link_binds"]
    text += ("\nthe same with everything copied back that a kernel received, as it was before our "
             "own kernel looked at it,\nand still is where that is not to be had:\n"
             f"  B2: median {number(copied['median'])}, p90 {number(copied['p90'])}, worst "
             f"{number(copied['worst'])}; where the link takes as long as the kernels or longer, "
             f"ours takes {number(less['median'])} of that (median; worst "
             f"{number(less['worst'])})\n")
    exceptions = found["over_b2"]["exceptions"]
    if exceptions:
        text += "\nabove 1.05 of B2:\n" + "".join(map(exception, exceptions))
    resident = found["over_resident_where_free_spread"]
    text += (f"\nover everything resident, where D/BW is at most 0.8 C ({resident['cells']} cells): "
             f"median {number(resident['median'])}, p90 {number(resident['p90'])}, "
             f"worst {number(resident['worst'])}\n")
    text += "".join(f"  {cell['ratio']:.3f}  {place(cell)}: no policy gets below "
                    f"{cell['bound']:.3f} there (B2)\n"
                    for cell in found["over_resident_impossible"])
    return text


def policies(found):
    rows = []
    ranked = sorted(found["policies"].items(),
                    key=lambda item: (item[0] != "ours", item[1]["median"] or math.inf))
    for name, row in ranked:
        rows.append([name + (" (told the future)" if row["clairvoyant"] else ""),
                     *(number(row[key]) for key in ("median", "p90", "worst")),
                     f"{row['feasible']} of {row['cells']}", number(row["ours_faster_median"])])
    text = table("policies on the same traces and clock, time over B2 where anything is streamed",
                 ["", "median", "p90", "worst", "feasible", "slower than ours (median)"], rows)
    speedup = found["speedup_over_prefix_at_half"]
    return text + (f"\nover resident prefix at R/W 0.5, where (D/BW)/C is 0.8 to 1.3: "
                   f"{number(speedup['median'])} (median of {speedup['cells']} cells); "
                   f"of {found['streamed_cells']} cells that stream ours is the fastest in "
                   f"{found['ours_fastest_cells_strictly']}, and within 1 % of it in "
                   f"{found['ours_fastest_cells']}\n"
                   + "".join(f"  {cell['ratio']:.3f}  {place(cell)}: {cell['by']} is faster\n"
                             for cell in found["ours_not_fastest"]))


def iterations(found):
    rows = [[name, *(number(found["iterations"][name][key]) for key in ("median", "p90", "worst"))]
            for name in ("first", "second", "third", "fourth")]
    text = table("iterations over the steady one (periodic traces that stream)",
                 ["", "median", "p90", "worst"], rows)
    fast = found["fast_from_iteration"]
    return text + (f"\nwithin 1.05 of the steady one from iteration {fast['median']:.0f} on "
                   f"(median; p90 {fast['p90']:.0f}, worst {fast['worst']:.0f}); the order is "
                   f"described as at the end by the third in {found['steady_by_third']:.0%} of "
                   "the cells\n")


def phases(found):
    """By trace; and every cell above what is wanted, with its reason."""
    cells = [cell for cell in found["phase_cells"] if cell["ratio"] is not None]
    if not cells:
        return ""
    rows = []
    for trace in unique(cell["trace"] for cell in cells):
        some = [cell for cell in cells if cell["trace"] == trace]
        rows.append([trace, *spread([cell["ratio"] for cell in some]),
                     max(cell["recovery"] for cell in some)])
    text = table("several phases: a whole cycle over its phase-aware bound",
                 ["", "median", "p90", "worst", "iterations to recover, worst"], rows)
    above = sorted((cell for cell in cells if cell["ratio"] > CYCLE_WANTED),
                   key=lambda cell: -cell["ratio"])
    if above:
        text += f"\nabove {CYCLE_WANTED}:\n" + "".join(map(exception, above))
    return text


def place(cell):
    return f"{cell['trace']}, {cell['card']}, {cell['link']:g} GB/s, R/W {cell['share']}"


def exception(cell):
    return f"  {cell['ratio']:.3f}  {place(cell)}: {cell['why']}\n"


def costs(found):
    text = ""
    for key, title in (("detours", "runs that go astray (time over the bound of the same run)"),
                       ("jitter", "what jitter costs (time over the same without)"),
                       ("misestimates", "what planning with wrong rates costs "
                                        "(time over planning with the right ones)")):
        rows = [[row["what"], number(row["median"]), number(row["p90"]), number(row["worst"]),
                 str(row["cells"])] for row in found[key]]
        if rows:
            text += table(title, ["", "median", "p90", "worst", "cells"], rows)
    return text


def planning(found):
    rows = [[f"{row['chunks']:,} chunks, {row['launches']:,} launches",
             f"{row['plan_ms']:.1f}", f"{row['search_ms']:.0f}"]
            for row in found["plan_ms_by_size"]]
    return table("planning time, one thread (ms)", ["", "first plan", "searched"], rows)


def targets(found):
    rows = [["ok" if row["holds"] else "FAILED", row["name"], row["wanted"], row["found"]]
            for row in found["targets"]]
    return table("targets", ["", "", "wanted", "found"], rows, left=2)


# --- text ---------------------------------------------------------------------

def spread(values):
    ordered = sorted(values)
    return [number(value) for value in (quantile(ordered, 0.5), quantile(ordered, 0.9),
                                        ordered[-1] if ordered else None)]


def quantile(ordered, share):
    """Nearest rank, as the program's own figures are."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def number(value):
    return "–" if value is None else f"{value:.3f}"


def unique(values):
    return list(dict.fromkeys(values))


def table(title, head, rows, left=1):
    """Aligned columns below a title; the first `left` to the left. None: a blank line."""
    text = [[str(cell) for cell in row] for row in [head, *(row for row in rows if row)]]
    widths = [max(len(row[column]) for row in text) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [str(cell).ljust(width) if column < left else str(cell).rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))] if row else []
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join([f"\n{title}", *lines]) + "\n"
