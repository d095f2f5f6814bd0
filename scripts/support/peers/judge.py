"""What the figures of scripts/bench peers must be, and how they are shown.

Pure: rows in, targets and text out.
"""

import statistics

LIBRARIES = ("leaf", "block", "map")
BACK = 0.005  # of the bytes in: what kernels only read does not go back
LINK_BINDS = 1.25  # times the arithmetic, for what must cross
WHOLE_SEGMENTS = 1.10  # of a clairvoyant that moves whole segments, where these forbid the rest


def place(row):
    share = f"{row['share']} %" if row["share"] else f"{row['card']} MiB"
    link = "" if row["ratio"] == 1 else f", link x{row['ratio']}"
    return f"{row['program']} {share}{link}{', duplex' if row['duplex'] else ''}"


def by_place(rows):
    found = {}
    for row in rows:
        key = tuple(row[name] for name in ("program", "share", "card", "ratio", "duplex"))
        found.setdefault(key, {})[row["arm"]] = row
    return list(found.values())


def runs(row):
    return row is not None and not row["failed"]


def targets(rows):
    """[{name, wanted, found, holds, where}]: every one of them, for what was run."""
    everywhere = [group for group in by_place(rows) if runs(group.get("ours"))]
    groups = [group for group in by_place(rows) if not next(iter(group.values()))["duplex"]]
    ours = [group for group in groups if runs(group.get("ours"))]
    judged = []

    def spread(name, pairs, median, worst):
        """`pairs`: (ratio, group). Median and worst, excused where whole segments forbid it."""
        if not pairs:
            return
        middle = statistics.median(ratio for ratio, _ in pairs)
        judged.append({"name": f"{name}, median", "wanted": median, "found": middle,
                       "holds": middle <= median, "where": []})
        open_ = [(ratio, group) for ratio, group in pairs if ratio > worst and not (
            group["ours"]["over_segments"] and group["ours"]["over_segments"] <= WHOLE_SEGMENTS)]
        judged.append({"name": f"{name}, worst", "wanted": worst,
                       "found": max((ratio for ratio, _ in open_), default=
                                    max(ratio for ratio, _ in pairs)),
                       "holds": not open_, "where": worst_places(open_)})

    spread("over the hand-written spread engine",
           [(g["ours"]["ms"] / g["spread"]["ms"], g) for g in ours if runs(g.get("spread"))],
           1.0, 1.05)
    best = [(g, min((g[a]["ms"] for a in LIBRARIES if runs(g.get(a))), default=None)) for g in ours]
    spread("over the best library", [(g["ours"]["ms"] / ms, g) for g, ms in best if ms], 0.8, 1.0)
    every("first step over leaf's",
          [(g["ours"]["first"][0] / g["leaf"]["first"][0], g) for g in ours if runs(g.get("leaf"))],
          1.2, judged)
    every("third step over our settled one",
          [(g["ours"]["first"][2] / g["ours"]["ms"], g) for g in ours], 1.05, judged)
    every("host waits in a settled step", [(g["ours"]["waits"], g) for g in ours], 0, judged)
    every("bytes out over bytes in, in a settled step",
          [(g["ours"]["out_mib"] / max(g["ours"]["in_mib"], 1), g) for g in everywhere], BACK, judged)
    every("over the same with everything copied back, where the link binds",
          [(g["ours"]["ms"] / g["back"]["ms"], g) for g in everywhere if runs(g.get("back"))
           and (g["ours"]["segments_ms"] or 0) > LINK_BINDS * g["ours"]["compute_ms"]], 0.8, judged)
    failed = [(1, g) for g in groups if "ours" in g and not runs(g["ours"])
              and any(runs(row) for arm, row in g.items() if arm != "ours")]
    judged.append({"name": "cells that fail where another arm runs", "wanted": 0,
                   "found": len(failed), "holds": not failed, "where": worst_places(failed)})
    return judged


def every(name, pairs, wanted, judged):
    if not pairs:
        return
    missed = [(value, group) for value, group in pairs if value > wanted + 1e-9]
    judged.append({"name": name, "wanted": wanted, "found": max(value for value, _ in pairs),
                   "holds": not missed, "missed": f"{len(missed)} of {len(pairs)}",
                   "where": worst_places(missed)})


def worst_places(pairs, count=6):
    return [f"{value:.2f} {place(group['ours'])}"
            for value, group in sorted(pairs, key=lambda pair: -pair[0])[:count]]


# --- shown ------------------------------------------------------------------------

def target_lines(judged):
    lines = []
    for target in judged:
        state = "ok    " if target["holds"] else "FAILED"
        missed = f", missed in {target['missed']}" if target.get("missed") else ""
        lines.append(f"  {state} {target['name']}: {target['found']:.3f} (wanted "
                     f"{target['wanted']:g}){'' if target['holds'] else missed}")
        if not target["holds"] and target["where"]:
            lines.append("         " + "; ".join(target["where"]))
    return "\n".join(lines)


def cell_of(row):
    if row is None:
        return "–"
    if row["failed"]:
        return "fails"
    larger = "*" if row["vram_mib"] > row["card_mib"] else ""
    return f"{row['ms']:.1f}{larger}"


HEADS = ["program, card", "bound", "whole segments", "ours", "in/out MiB", "1st/2nd/3rd", "waits",
         "back", "leaf", "block", "map", "prefix", "spread"]


def table_rows(rows):
    for group in by_place(rows):
        any_, ours = next(iter(group.values())), group.get("ours")
        shown = [place(any_), f"{any_['bound_ms']:.1f}",
                 f"{any_['segments_ms']:.1f}" if any_["segments_ms"] else "–", cell_of(ours)]
        if runs(ours):
            shown += [f"{ours['in_mib']:.0f}/{ours['out_mib']:.0f}",
                      "/".join(f"{ms:.0f}" for ms in ours["first"]), f"{ours['waits']:.1f}"]
        else:
            shown += ["–"] * 3
        yield shown + [cell_of(group.get(arm)) for arm in HEADS[7:]]


def table(rows):
    lines = [HEADS, *table_rows(rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADS))]
    return "\n".join("  ".join(text.ljust(width) if k == 0 else text.rjust(width)
                               for k, (text, width) in enumerate(zip(line, widths)))
                     for line in lines)


def failures(rows):
    return "\n".join(f"  {row['arm']} on {place(row)}: {row['failed'][:160]}"
                     for row in rows if row["failed"])


def everything(found):
    rows, judged = found["rows"], found["targets"]
    programs = len({row["program"] for row in rows})
    missed = sum(not target["holds"] for target in judged)
    head = f"{len(rows)} cells of {programs} programs"
    if found["part"]:
        head += (" (a PART of the grid: what holds here need not hold in the whole, "
                 "scripts/bench peers)")
    notes = [head, "", table(rows), "", "ms a settled step; * on a larger card, since it met the "
             "end of memory on this one; back: ours without its own kernel, everything copied back; "
             "duplex: copies in and out slow each other (only the targets of bytes out)"]
    if failures(rows):
        notes += ["", "what failed:", failures(rows)]
    notes += ["", "targets:", target_lines(judged), "",
              "every target holds" if not missed else f"{missed} targets do not hold"]
    return "\n".join(notes)
