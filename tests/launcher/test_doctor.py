"""`autooffload doctor`, on a machine without a card and on the stand-in."""

import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "autooffload-launch"
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"


def doctor(env, *command, **options):
    """{name: line} of the JSON, and the exit status."""
    done = subprocess.run([*(command or [LAUNCHER, "--doctor"]), "--json"], env=env, text=True,
                          capture_output=True, timeout=300, **options)
    lines = json.loads(done.stdout)["checks"]
    assert all(line["verdict"] in ("ok", "problem", "unknown") for line in lines)
    assert all(line["todo"] for line in lines if line["verdict"] == "problem")
    assert done.returncode == any(line["verdict"] == "problem" for line in lines)
    return {line["name"]: line for line in lines}


def test_on_the_stand_in_all_is_well(env):
    """The tests run there."""
    seen = doctor(env)
    for name in ("library", "driver", "kernel parameters", "card", "address mapping", "memory"):
        assert seen[name]["verdict"] == "ok", seen[name]
    assert "stand-in" in seen["card"]["found"]
    assert seen["torch"]["found"].startswith("2.")
    assert doctor(env, PROGRAM, "doctor").keys() == seen.keys()


def test_what_the_card_cannot_do_is_said(env):
    seen = doctor(env | {"STANDIN_HOST_LOCATED": "no"})
    assert seen["memory in the host"]["verdict"] == "unknown" and seen["memory in the host"]["todo"]


def test_without_a_driver(env):
    line = doctor({name: value for name, value in env.items() if name != "LD_LIBRARY_PATH"})
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a driver")
    assert line["driver"]["verdict"] == "problem" and "no NVIDIA driver" in line["driver"]["found"]


def test_a_driver_that_crashes_is_a_line(env, tmp_path):
    source = "#include <stdlib.h>\nint cuInit(unsigned f) { (void)f; abort(); }\n"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", tmp_path / "libcuda.so.1", "-"],
                   input=source, text=True, check=True)
    seen = doctor(env | {"LD_LIBRARY_PATH": str(tmp_path)})
    assert seen["driver"]["verdict"] == "problem" and "status" in seen["driver"]["found"]


@pytest.mark.parametrize("version, parameters, verdicts", [
    (12020, False, ("problem", "problem")), (12040, True, ("ok", "ok"))])
def test_an_old_driver_is_a_problem(env, tmp_path, version, parameters, verdicts):
    source = ("int cuInit(unsigned f) { (void)f; return 0; }\n"
              f"int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}\n"
              "int cuDeviceGetCount(int *n) { *n = 0; return 0; }\n"
              + ("int cuFuncGetParamInfo(void) { return 0; }\n" if parameters else ""))
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", tmp_path / "libcuda.so.1", "-"],
                   input=source, text=True, check=True)
    seen = doctor(env | {"LD_LIBRARY_PATH": str(tmp_path)})
    assert (seen["driver"]["verdict"], seen["kernel parameters"]["verdict"]) == verdicts
    assert seen["card"]["verdict"] == "problem" and "CUDA_VISIBLE_DEVICES" in seen["card"]["todo"]


def test_a_setting_that_is_none_is_found(env):
    seen = doctor(env | {"AUTOOFFLOAD_VRMA": "8G"})
    assert seen["setting"]["verdict"] == "problem" and "AUTOOFFLOAD_VRMA" in seen["setting"]["found"]
    assert "setting" not in doctor({name: value for name, value in env.items()
                                    if not name.startswith("AUTOOFFLOAD")})


def test_allocator_settings_and_other_preloads(env):
    seen = doctor(env | {"PYTORCH_ALLOC_CONF": "expandable_segments:True",
                         "LD_PRELOAD": "libm.so.6"})
    assert "removed expandable_segments" in seen["allocator settings"]["found"]
    assert seen["other preloads"]["verdict"] == "unknown" and "libm" in \
        seen["other preloads"]["found"]


def test_comfyui_in_this_folder(env, tmp_path):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "cli_args.py").write_text("p.add_argument('--highvram')")
    assert "--highvram" in doctor(env, cwd=tmp_path)["ComfyUI"]["found"]


def test_people_read_the_same(env):
    shown = subprocess.run([LAUNCHER, "--doctor"], env=env, text=True, capture_output=True)
    for name, line in doctor(env).items():
        if name == "memory":  # it changes
            continue
        assert re.search(rf"^{line['verdict']} +{re.escape(name)} +{re.escape(line['found'])}$",
                         shown.stdout, re.MULTILINE), line
