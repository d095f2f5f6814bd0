"""Memory that a program has in another way than from PyTorch's caching allocator, and one
block that the allocator carves the model out of: same bytes, within the budget."""

import os
import subprocess

import pytest

from harness import MIB, PROGRAMS, STANDIN_LIBRARIES, assert_same, assert_streamed, identical_at, \
    reference, run

# A matrix of 2 MiB to a block, and nothing smaller that stays.
MODEL = ("--bare", "--width", 724, "--blocks", 80, "--iterations", 5)
WEIGHTS = 80 * 724 * 724 * 4


def test_without_a_cache():
    """Each tensor is an allocation, made and freed for each operation."""
    identical_at("forward", *MODEL, vram=WEIGHTS // 2, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def test_an_allocator_of_the_programs_own(tmp_path):
    library = tmp_path / "pluggable.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library,
                    PROGRAMS / "pluggable.c", f"-L{STANDIN_LIBRARIES}", "-l:libcuda.so.1"],
                   check=True)
    wanted = reference("forward", *MODEL)
    result = run("another_way", "pluggable", library, *MODEL, vram=WEIGHTS // 2)
    assert_same(result, wanted)
    assert_streamed(result, WEIGHTS // 2, 4 * (WEIGHTS - WEIGHTS // 2))


@pytest.mark.parametrize("percent", [25, 75])
def test_one_block_for_the_model(percent):
    """Of nearly the budget: the rest of the model lies beside it."""
    budget = WEIGHTS * percent // 100
    wanted = reference("forward", *MODEL)
    result = run("another_way", "block", budget - 12 * MIB, *MODEL, vram=budget)
    assert_same(result, wanted)
    assert_streamed(result, budget, 4 * (WEIGHTS - budget))


def test_a_block_larger_than_the_budget_is_refused_with_a_sentence():
    """It could never be there whole. What to do instead is in docs/compatibility.md."""
    result = run("another_way", "block", WEIGHTS, *MODEL, vram=WEIGHTS // 2)
    assert result.out_of_memory
    said = [line for line in result.ours if "an allocation of" in line and "at once" in line]
    assert len(said) == 1, result.ours
    # Without the block it runs.
    identical_at("forward", *MODEL, vram=WEIGHTS // 2)
