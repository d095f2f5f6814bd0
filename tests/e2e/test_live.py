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


def test_a_budget_raised_until_all_fits_leaves_nothing_on_the_host():
    wanted = reference("raised_budget")
    weights = wanted.out["weight_bytes"]
    result = run("raised_budget", AUTOOFFLOAD_VRAM=str(weights // 4))
    assert_same(result, wanted)
    assert result.out["answers"] == [0]
    marks = result.account.marks("start")
    # From the iteration after the change on, nothing is copied but inputs and outputs.
    assert marks[-1]["h2d_bytes"] - marks[-2]["h2d_bytes"] < MIB
    assert marks[5]["pinned_bytes"] >= weights // 2 and marks[-1]["pinned_bytes"] == 0
    assert result.out["fell"] >= weights // 2
