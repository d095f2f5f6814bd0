"""Structs with more slots than a launch fills (`torch.cat`): what lies in the
others, addresses of former launches, costs nothing and fails nothing."""

import pytest

from harness import ASYNC, MIB, NATIVE, assert_same, assert_streamed, identical_at, \
    reference, run


@pytest.mark.parametrize("allocator", [NATIVE, ASYNC])
@pytest.mark.parametrize("vram", [28, 38, 44])
def test_stale_slots_cost_nothing(vram, allocator):
    """No launch needs more than one weight and a few small tensors, so it fits
    at every budget, and moves what the same program moves that copies instead."""
    wanted = reference("concatenate", allocator=allocator)
    cap = vram * MIB
    result = identical_at("concatenate", vram=cap, allocator=allocator)
    if allocator == ASYNC:
        # Every row of it an allocation: another program than the control.
        return
    control = run("concatenate", "--one-by-one", vram=cap, allocator=allocator)
    assert_same(control, wanted)
    floor = (wanted.out["iterations"] - 1) * (wanted.out["weight_bytes"] - cap)
    assert_streamed(control, cap, wanted.account["h2d_bytes"] + floor)
    assert result.account["h2d_bytes"] <= 1.05 * control.account["h2d_bytes"]
