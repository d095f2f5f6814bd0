"""What the demo measured, what it demands, and how it is shown.

Pure: results and accounts in, a summary, criteria and a table out.
"""

import array
import math

# Iteration 1 on the device against PyTorch on the CPU, both fp32: the blocks
# add up rounding differences of differently ordered sums.
CPU_TOLERANCE = 1e-3
HIT_RATE_WANTED = 0.95


def compare_outputs(path, reference_path):
    """(largest absolute difference, whether the output is finite and not constant)."""
    output, reference = floats(path), floats(reference_path)
    if len(output) != len(reference) or not output:
        return math.inf, False
    healthy = all(map(math.isfinite, output)) and min(output) != max(output)
    if not healthy:
        return math.inf, False
    return max(map(abs, map(float.__sub__, output, reference))), True


def floats(path):
    with open(path, "rb") as file:
        return array.array("f", file.read())


def summarise(device, plain, offloaded, budget_bytes, max_abs_diff, accounts=None,
              peak_device_bytes=None):
    """The keys of target/demo/summary.json.

    `plain`, `offloaded`: what the program wrote. `accounts`: the stand-in's
    books of the two runs; without them (on a GPU) what they alone can tell is None.
    """
    summary = {
        "device": device,
        "identical": plain["hashes"] == offloaded["hashes"],
        "max_abs_diff_cpu": max_abs_diff,
        "weight_bytes": offloaded["weight_bytes"],
        "budget_bytes": budget_bytes,
        "peak_device_bytes": peak_device_bytes,
        "h2d_bytes_per_iteration": None,
        "d2h_bytes_per_iteration": None,
        "prefetch_hit_rate": None,
        "added_host_syncs_per_iteration": None,
        "leaked_device_bytes": None,
        "leaked_pinned_bytes": None,
        "iterations": offloaded["iterations"],
    }
    if accounts:
        plain_account, account = accounts
        iterations = offloaded["steady_iterations"]
        steady, plain_steady = account.steady(), plain_account.steady()
        uses = steady["streamed_uses"]
        summary.update(
            peak_device_bytes=account["device_peak_bytes"],
            h2d_bytes_per_iteration=steady["h2d_bytes"] // iterations,
            d2h_bytes_per_iteration=steady["d2h_bytes"] // iterations,
            prefetch_hit_rate=steady["streamed_hits"] / uses if uses else None,
            added_host_syncs_per_iteration=(
                steady.host_waits() - plain_steady.host_waits()) / iterations,
            leaked_device_bytes=account.last()["device_bytes"]
            - plain_account.last()["device_bytes"],
            leaked_pinned_bytes=account.last()["pinned_bytes"]
            - plain_account.last()["pinned_bytes"])
    return summary


def criteria(summary, healthy, refused_without_us, violations):
    """(what is demanded, whether it holds) for every demand that can be judged."""
    demands = [
        ("every iteration's output identical", summary["identical"]),
        (f"iteration 1 within {CPU_TOLERANCE:g} of PyTorch on the CPU",
         summary["max_abs_diff_cpu"] <= CPU_TOLERANCE),
        ("output finite and not constant", healthy),
    ]
    if refused_without_us is not None:
        demands.append(("same device without autooffload: out of memory", refused_without_us))
    if summary["peak_device_bytes"] is not None:
        demands.append(("peak device memory within the budget",
                        summary["peak_device_bytes"] <= summary["budget_bytes"]))
    if summary["h2d_bytes_per_iteration"] is not None:
        rate = summary["prefetch_hit_rate"]
        demands += [
            ("streamed per iteration at least weights - budget",
             summary["h2d_bytes_per_iteration"]
             >= summary["weight_bytes"] - summary["budget_bytes"]),
            (f"prefetch hit rate at least {HIT_RATE_WANTED}",
             rate is not None and rate >= HIT_RATE_WANTED),
            ("no host wait added", summary["added_host_syncs_per_iteration"] <= 0),
            ("no device memory left behind", summary["leaked_device_bytes"] <= 0),
            ("no pinned memory left behind", summary["leaked_pinned_bytes"] <= 0),
            ("no memory misused on the device", not violations),
        ]
    return demands


def table(rows):
    """Two aligned columns, as one string."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def rows(summary, seconds):
    return [
        ("device", summary["device"]),
        ("weights", size(summary["weight_bytes"])),
        ("budget", f"{size(summary['budget_bytes'])}  "
                   f"({summary['budget_bytes'] / summary['weight_bytes']:.0%} of the weights)"),
        ("peak device memory", size(summary["peak_device_bytes"])),
        ("identical output", "yes" if summary["identical"] else "NO"),
        ("largest difference to the CPU", f"{summary['max_abs_diff_cpu']:.2e}"),
        ("copied in per iteration", size(summary["h2d_bytes_per_iteration"])),
        ("copied out per iteration", size(summary["d2h_bytes_per_iteration"])),
        ("prefetch hit rate", plain(summary["prefetch_hit_rate"])),
        ("host waits added per iteration", plain(summary["added_host_syncs_per_iteration"])),
        ("device memory left behind", size(summary["leaked_device_bytes"])),
        ("pinned memory left behind", size(summary["leaked_pinned_bytes"])),
        ("iterations", str(summary["iterations"])),
        ("seconds per iteration", " / ".join(
            f"{value:.2f} {label}" for label, value in seconds.items())),
    ]


def size(count):
    if count is None:
        return "not known on this device"
    if abs(count) < 2**20:
        return f"{count} bytes"
    return f"{count / 2**20:.1f} MiB" if abs(count) < 2**30 else f"{count / 2**30:.2f} GiB"


def plain(value):
    return "not known on this device" if value is None else f"{value:.3g}"
