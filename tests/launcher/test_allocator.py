"""PyTorch's allocator settings as the launcher leaves them.

What torch itself makes of its variables: test_what_torch_reads, on the stand-in.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "autooffload-launch"
CUDA, HIP, ALL = VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF",
                              "PYTORCH_ALLOC_CONF")


def after(env, *options, **settings):
    """(the variables and the budget that a program gets, the launcher's lines)."""
    done = subprocess.run([LAUNCHER, *options, "env"], env=env | settings, text=True,
                          capture_output=True, timeout=300, check=True)
    got = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return ({name: got[name] for name in (*VARIABLES, "AUTOOFFLOAD_VRAM") if name in got},
            [line for line in done.stderr.splitlines() if "CUDA, so nothing" not in line])


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("before, left", [
    ("expandable_segments:True", None),
    ("max_split_size_mb:64,expandable_segments:True", "max_split_size_mb:64"),
    ("expandable_segments:True,roundup_power2_divisions:[256:1,512:2]",
     "roundup_power2_divisions:[256:1,512:2]"),
    (" expandable_segments : True , backend:native,", "backend:native"),
])
def test_expandable_segments_removed_and_said(env, variable, before, left):
    got, lines = after(env, **{variable: before})
    assert got.get(variable) == left
    assert len(lines) == 1 and f"removed expandable_segments:True from {variable}" in lines[0]


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("value", [
    "expandable_segments:False", "backend:cudaMallocAsync", "throw_on_cudamalloc_oom:False",
    "max_split_size_mb:64, garbage_collection_threshold:0.8"])
def test_other_settings_stay_to_the_letter(env, variable, value):
    assert after(env, **{variable: value}) == ({variable: value}, [])


def test_an_early_end_by_torch_itself_is_removed(env):
    got, lines = after(env, **{ALL: "throw_on_cudamalloc_oom:True,max_split_size_mb:64"})
    assert got == {ALL: "max_split_size_mb:64"}
    assert len(lines) == 1 and "throw_on_cudamalloc_oom:True" in lines[0]


@pytest.mark.parametrize("options, value, budget", [
    ([], "0.5", "50%"), ([], "0.125", "12.5%"), ([], "1.0", None), (["--vram", "8G"], "0.5", "8G")])
def test_a_share_given_to_torch_becomes_the_budget(env, options, value, budget):
    got, lines = after(env, *options, **{CUDA: f"per_process_memory_fraction:{value}"})
    assert got == ({"AUTOOFFLOAD_VRAM": budget} if budget else {})
    assert len(lines) == 1 and "budget" in lines[0]


def test_an_empty_variable_is_removed_with_what_it_hid(env):
    """Torch reads the first that is set, even to nothing; a program that appends
    `,backend:…` to nothing makes torch refuse."""
    got, lines = after(env, **{CUDA: "", ALL: "max_split_size_mb:64"})
    assert got == {} and len(lines) == 2


def test_removing_one_does_not_bring_the_hidden_into_force(env):
    got, lines = after(env, **{HIP: "expandable_segments:True", ALL: "max_split_size_mb:64"})
    assert got == {} and len(lines) == 2 and ALL in lines[1]


def test_every_variable_is_cleaned(env):
    both = "expandable_segments:True,max_split_size_mb:64"
    got, lines = after(env, **{name: both for name in VARIABLES})
    assert set(got.values()) == {"max_split_size_mb:64"} and len(got) == len(lines) == 3


def test_switched_off_leaves_all_as_it_is(env):
    got, lines = after(env, "--off", "--allocator", "async", **{CUDA: "expandable_segments:True"})
    assert got == {CUDA: "expandable_segments:True"} and lines == []


@pytest.mark.parametrize("settings, variable, value", [
    ({}, CUDA, "backend:cudaMallocAsync"),
    ({ALL: "max_split_size_mb:64"}, ALL, "max_split_size_mb:64,backend:cudaMallocAsync"),
    ({CUDA: "backend:native", ALL: "backend:native"}, CUDA, "backend:cudaMallocAsync"),
    ({CUDA: ""}, CUDA, "backend:cudaMallocAsync"),
])
def test_allocator_async(env, settings, variable, value):
    assert after(env, "--allocator", "async", **settings)[0][variable] == value


def test_allocator_native(env):
    got, lines = after(env, "--allocator", "native",
                       **{ALL: "backend:cudaMallocAsync,max_split_size_mb:64"})
    assert got == {ALL: "max_split_size_mb:64"} and "--allocator native" in lines[0]


@pytest.mark.parametrize("settings, backend", [
    ({}, "native"), ({CUDA: "", ALL: "backend:cudaMallocAsync"}, "native"),
    ({ALL: "backend:cudaMallocAsync"}, "cudaMallocAsync")])
def test_what_torch_reads(settings, backend):
    """The rule that the launcher goes by is torch's."""
    pytest.importorskip("torch")
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run([sys.executable, "-c", "import torch; torch.cuda.init(); "
                           "print(torch.cuda.get_allocator_backend())"], env=clean | settings,
                          text=True, capture_output=True, timeout=300)
    assert done.stdout.strip() == backend, done.stderr
