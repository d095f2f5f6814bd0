"""What small machines have less of: memory that may be pinned, host memory that the card can
map, links. The bytes are the same, only slower."""

import pytest

from harness import ASYNC, MIB, NATIVE, identical_at, reference

ALLOCATORS = [NATIVE, ASYNC]


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("limit", [0, 40])
def test_little_may_be_pinned(allocator, limit):
    """As on WSL2: a bound on pinned memory, and no host memory in the card's address space."""
    arguments = ("--blocks", 60, "--iterations", 6)
    weights = reference("forward", *arguments, allocator=allocator).out["weight_bytes"]
    assert weights > 100 * MIB, "more must be kept in the host than may be pinned"
    result = identical_at("forward", *arguments, vram=weights // 4, allocator=allocator,
                          STANDIN_PINNED=limit * MIB or 1, STANDIN_HOST_LOCATED="no")
    assert result.account["pinned_peak_bytes"] <= limit * MIB
    assert any("page-locking host memory failed" in line for line in result.ours), result.ours


@pytest.mark.parametrize("writer", [None, "kernel"])
def test_one_narrow_link(writer):
    """Eight lanes of the third generation, which copies in and out have to share."""
    arguments = ("--blocks", 60, "--iterations", 8) + (("--update", writer) if writer else ())
    weights = reference("forward", *arguments).out["weight_bytes"]
    identical_at("forward", *arguments, vram=weights // 4, STANDIN_LINK="6.5",
                 STANDIN_DUPLEX="shared", STANDIN_PRICES="light", STANDIN_ORDER="late:1")
