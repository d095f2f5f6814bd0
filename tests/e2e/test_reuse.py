"""Memory that the program freed and got again."""

from harness import ASYNC, MIB, run


def test_a_longer_allocation_in_the_same_frames():
    result = run("reused", vram=40 * MIB, allocator=ASYNC).ok()
    assert result.out == {"same": True}
    assert result.account["h2d_bytes"] > 84 * MIB
