"""Settings that change while the program runs."""

from harness import MIB, assert_same, assert_streamed, reference, run


def test_a_lower_budget_is_met_at_once_and_held():
    wanted = reference("live_budget")
    weights = wanted.out["weight_bytes"]
    result = run("live_budget")
    assert_same(result, wanted)
    assert result.out["answer"] == 0
    assert_streamed(result, weights * 4, 3 * weights)
    # The model is still there when the program ends.
    assert result.account["device_bytes"] <= weights // 2 + 2 * MIB
