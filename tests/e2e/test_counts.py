"""Every launch, allocation and copy of the program passes through our hooks, once."""

import re

import pytest

from harness import ASYNC, MIB, NATIVE, assert_same, reference, run

GROUPS = {
    "launches": r"cuLaunch(Kernel|KernelEx|CooperativeKernel|HostFunc)|cuGraphLaunch",
    "allocations": r"cuMem(Alloc|AllocPitch|AllocAsync|AllocFromPoolAsync|Free|FreeAsync)",
    "copies": r"cuMemcpy\w*",
}


def by_name(calls):
    """Call counts without the suffixes of versions and stream flavours."""
    merged = {}
    for name, count in calls.items():
        name = re.sub(r"(_v\d+)?(_pt[ds][sz])?$", "", name)
        merged[name] = merged.get(name, 0) + count
    return merged


def counted(calls, pattern):
    return {name: count for name, count in by_name(calls).items()
            if count and re.fullmatch(pattern, name)}


def assert_counts(result, plain):
    hooks = result.stats["hooks"]
    calls = {name: entry["calls"] for name, entry in hooks.items()}
    forwarded = {name: entry["forwarded"] for name, entry in hooks.items()}
    own = by_name(result.stats["own_calls"])
    device = by_name(result.account["calls"])
    for group, pattern in GROUPS.items():
        wanted = counted(plain.account["calls"], pattern)
        assert wanted, group
        assert counted(calls, pattern) == wanted, group
        theirs = {name: count - own.get(name, 0) for name, count in device.items()}
        assert counted(theirs, pattern) == counted(forwarded, pattern), group


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
def test_eager(allocator):
    plain = reference("counts", "eager", allocator=allocator)
    result = run("counts", "eager", vram=24 * MIB, allocator=allocator)
    assert_same(result, plain)
    assert result.account["h2d_bytes"] > 2 * plain.account["h2d_bytes"]
    assert_counts(result, plain)


def test_compiled(tmp_path):
    """Inductor's and Triton's own routes to the driver; outputs are not claimed.

    Inductor copies arguments to the host while it compares configurations, so
    the bytes that kernels nobody executed left behind must be readable.
    """
    pytest.importorskip("triton")
    settings = dict(STANDIN_UNKNOWN="count", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"),
                    TRITON_CACHE_DIR=str(tmp_path / "triton"))
    arguments = ("counts", "compile", "--blocks", 6, "--iterations", 4)
    run(*arguments, preload=False, **settings).ok()  # fills the caches: both runs then launch alike
    plain = run(*arguments, preload=False, **settings).ok()
    result = run(*arguments, **settings).ok()
    assert_counts(result, plain)


def test_captured_graph():
    """The weights of a captured graph stay resident, and that is said."""
    plain = reference("counts", "graph")
    result = run("counts", "graph")
    assert_same(result, plain)
    assert_counts(result, plain)
    assert any("graph" in line and "resident" in line for line in result.ours), result.ours


def test_captured_graph_beside_streamed_weights():
    """What the graph reaches fits and stays; the rest of the program is still streamed."""
    plain = reference("graph_and_stream")
    result = run("graph_and_stream", vram=40 * MIB)
    assert_same(result, plain)
    assert result.account["h2d_bytes"] > 2 * plain.account["h2d_bytes"]
    assert not result.account["violations"]
