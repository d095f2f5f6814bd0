"""Memory that kernels reach by other ways than their own parameters."""

from harness import MIB, assert_same, assert_streamed, reference, run


def test_what_a_table_of_pointers_names_stays_resident():
    wanted = reference("pointer_table")
    weights = wanted.out["weight_bytes"]
    result = run("pointer_table", vram=weights // 2)
    assert_same(result, wanted)
    assert_streamed(result, weights // 2, 3 * weights // 2)
    kept = result.stats["device"]["kept_resident_bytes"]
    # Three segments of 2 MiB, which may hold other weights as well; not all.
    assert 3 * 2 * MIB <= kept <= weights // 4
