"""The custom nodes of comfyui/, against the interfaces of ComfyUI that they use
(comfy_interface.py), with real PyTorch models on the stand-in.

Not here: a real ComfyUI, and the C calls themselves (tests/ranges.rs).
"""

import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import comfy_interface
import workflow

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
MIB = 2**20


def run(case, vram="72M", **env):
    kept = {name: value for name, value in os.environ.items()
            if name == "AUTOOFFLOAD_LIB"
            or not name.startswith(("AUTOOFFLOAD", "PYTORCH_")) and name != "LD_PRELOAD"}
    done = subprocess.run(
        [ROOT / "standin" / "run", ROOT / "scripts" / "autooffload-launch", sys.executable,
         HERE / "workflow.py", case],
        env=kept | {"STANDIN_VRAM": vram, "CUBLAS_WORKSPACE_CONFIG": ":16:8",
                    "CUBLASLT_WORKSPACE_SIZE": "64"} | env,
        text=True, capture_output=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), done


@pytest.fixture(scope="module")
def nodes():
    """The package in this process, where no library was preloaded."""
    return workflow.package()


# --- while it samples ----------------------------------------------------------

@pytest.fixture(scope="module")
def two_models():
    """48 MiB each, in segments of 20, of which they share one; the card has room for 88."""
    return run("two models", vram="96M")


def test_the_results_are_the_same(two_models):
    out, _ = two_models
    assert out["outputs"] == [out["plain"][0], out["plain"][1], out["plain"][0]]


def test_a_model_that_is_not_offloaded_is_resident_while_it_samples(two_models):
    out, done = two_models
    assert len(out["seen"]["stays"]) == 10
    for seen in out["seen"]["stays"]:
        assert seen["bytes"] >= 48 * MIB and seen["resident_bytes"] == seen["bytes"], seen
        assert seen["kept"] == seen["allocations"]
    assert re.search(r"streamed [\d.]+ \w+", done.stderr), done.stderr


def test_another_model_keeps_its_own_setting(two_models):
    """The one that is offloaded is never kept, and both are free to move afterwards."""
    out, _ = two_models
    assert all(seen["kept"] == 0 for seen in out["seen"]["streams"])
    assert [where["kept"] for where in out["after"]] == [0, 0]


def test_the_last_run_is_shown(two_models):
    out, _ = two_models
    assert out["text"].startswith("5 steps\n") and "came in" in out["text"]
    assert out["shape"][0] == 1 and out["shape"][3] == 3 and out["drawn"] and out["latent"]


def test_an_error_takes_it_back():
    out, _ = run("error")
    assert out["raised"] == "out of pixels"
    assert out["after"]["kept"] == 0 and out["after"]["allocations"] > 0


def test_a_model_that_does_not_fit_is_streamed_and_that_is_said():
    out, done = run("too large")
    assert out["output"] == out["plain"]
    assert out["after"]["kept"] == 0
    assert "does not fit the card as a whole" in done.stdout


def test_a_thousand_toggles_and_a_hundred_loads_change_no_level():
    out, _ = run("levels")
    toggled, loaded = out["levels"][:2], out["levels"][2:]
    for before, after in (toggled, loaded):
        assert all(now <= then for now, then in zip(after, before)), out["levels"]


# --- what is said ----------------------------------------------------------------

def test_inputs_and_outputs_are_those_of_the_original_node(nodes):
    inputs = nodes.AutoCPUOffload.INPUT_TYPES()["required"]
    assert list(inputs) == ["model", "window_size", "enable", "pin_memory"]
    kind, options = inputs["window_size"]
    assert kind == "INT" and (options["default"], options["min"], options["max"]) == (8, 1, 1024)
    assert inputs["enable"][1]["default"] is True and inputs["pin_memory"][1]["default"] is False
    assert nodes.AutoCPUOffload.RETURN_NAMES == ("model", "info")
    assert nodes.AutoCPUOffload.CATEGORY == "patches"
    assert nodes.NODE_DISPLAY_NAME_MAPPINGS["AutoCPUOffload"] == "Auto CPU Offload"
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()


def info(nodes, patcher, monkeypatch, missing=None, argv=("main.py", "--port", "8189"),
         enable=True, pin_memory=False, window=8):
    monkeypatch.setattr(nodes.nodes.library, "missing", missing)
    monkeypatch.setattr(sys, "argv", list(argv))
    return nodes.AutoCPUOffload().apply(patcher, window, enable, pin_memory)[1]


class Weights:
    """Something that a weak reference can name."""


def test_without_the_launcher_it_says_what_to_type(nodes, monkeypatch):
    said = info(nodes, comfy_interface.ModelPatcher(Weights()), monkeypatch,
                "autooffload is not in this process")
    assert said.splitlines()[-1] == f"autooffload-launch {sys.executable} main.py --port 8189"
    assert nodes.library.Library().missing == "autooffload is not in this process"


def test_with_dynamic_vram_it_says_what_to_type(nodes, monkeypatch):
    said = info(nodes, comfy_interface.ModelPatcherDynamic(Weights()), monkeypatch,
                argv=("main.py", "--lowvram"))
    assert "dynamic VRAM" in said
    assert said.splitlines()[-1] == f"autooffload-launch {sys.executable} main.py --gpu-only"


def test_switched_off_it_says_what_to_type(nodes, monkeypatch):
    monkeypatch.setenv("AUTOOFFLOAD", "0")
    said = info(nodes, comfy_interface.ModelPatcher(Weights()), monkeypatch)
    assert "AUTOOFFLOAD=0" in said and "autooffload-launch" in said


def test_what_is_chosen_is_said(nodes, monkeypatch):
    patcher = comfy_interface.ModelPatcher(Weights())
    assert "chosen by autooffload" in info(nodes, patcher, monkeypatch)
    assert "12 blocks" in info(nodes, patcher, monkeypatch, window=12)
    assert "stays on the card" in info(nodes, patcher, monkeypatch, enable=False)
    monkeypatch.setenv("AUTOOFFLOAD_PIN", "0")
    assert "without `--no-pin`" in info(nodes, patcher, monkeypatch, pin_memory=True)


def test_another_version_of_the_library_is_not_called(nodes):
    class Process:
        @staticmethod
        def autooffload_api_version():
            return nodes.library.API_VERSION + 1
    assert "another version" in nodes.library.Library(Process()).missing


def test_the_account_may_grow_between_two_calls(nodes):
    texts = [b'{"a": 1}', b'{"a": 1, "b": "' + b"x" * 9000 + b'"}']

    def grows(buffer, size):
        text = texts[0] if buffer is None else texts[1]
        if buffer is not None:
            ctypes.memmove(buffer, text[:size - 1] + b"\0", min(size, len(text) + 1))
        return len(text) + 1
    assert nodes.library.text_of(grows)["a"] == 1


def test_the_package_is_what_the_registry_takes():
    project = tomllib.loads((ROOT / "comfyui" / "pyproject.toml").read_text())
    assert "comfyui" not in project["project"]["name"].lower()
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    version = manifest["package"]["version"]
    assert project["project"]["version"] == version
    assert project["project"]["dependencies"] == [f"autooffload=={version}"]
    assert {"PublisherId", "DisplayName"} <= project["tool"]["comfy"].keys()
