"""The program `autooffload`: forecasts, traces, and what it says when it cannot.

Not here: how good the plans are (tests/repository/test_bench.py).
"""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"

TRACE = "sdxl-unet"


def run(*arguments, **options):
    return subprocess.run([PROGRAM, *map(str, arguments)], text=True, capture_output=True,
                          timeout=300, **options)


def forecast(*arguments):
    done = run("forecast", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed():
    return [line.split()[0] for line in run("traces").stdout.splitlines()]


def test_a_forecast_says_what_a_card_would_give():
    done = run("forecast", TRACE, "--vram", "3G", "--link", 12, "--card", "rtx-3060-12g")
    assert done.returncode == 0, done.stderr
    for part in ("weights that stay", "streamed per iteration", "at best", "expected per",
                 "another GiB of VRAM saves", "streaming is free from"):
        assert part in done.stdout


def test_its_figures_fit_together():
    found = forecast(TRACE, "--vram", "3G", "--link", "pcie3")
    assert found["resident"] + found["ring"] + found["activations"] <= found["vram"] == 3 * 2**30
    assert found["b1_ns"] <= found["b2_ns"] <= found["expected_ns"] < 1.2 * found["b2_ns"]
    assert found["streamed"] >= found["weights"] - (found["vram"] - found["activations"])
    assert found["compute_ns"] <= found["everything_resident_ns"] <= found["expected_ns"]
    assert found["another_gib_saves_ns"] > 0 and found["free_from"] > found["vram"]


def test_a_faster_link_and_more_memory_help():
    slow, fast, large = (forecast(TRACE, "--vram", vram, "--link", link)["expected_ns"]
                         for vram, link in (("3G", 12), ("3G", 26), ("5G", 12)))
    assert fast < slow and large < slow


def test_where_streaming_is_free_it_says_so():
    found = forecast("hunyuan-video", "--vram", "16G")
    assert found["free_from"] <= found["vram"]
    assert found["expected_ns"] <= 1.01 * found["everything_resident_ns"]
    assert "free here" in run("forecast", "hunyuan-video", "--vram", "16G").stdout


def test_a_pipeline_has_a_row_for_each_phase():
    found = forecast("t5-flux-vae", "--vram", "50%", "--card", "rtx-4090")
    assert [phase["iterations"] for phase in found["phases"]] == [1, 28, 1]
    assert all(phase["expected_ns"] > 0 for phase in found["phases"])


def test_a_trace_file_gives_the_same_forecast(tmp_path):
    path = tmp_path / "a.trace"
    assert run("trace", TRACE, "--iterations", 12, "-o", path).returncode == 0
    by_name, by_file = (forecast(source, "--vram", "3G") for source in (TRACE, path))
    assert by_name == by_file
    assert run("trace", TRACE, "-o", "-").stdout == run("trace", TRACE, "-o", "-").stdout != ""


def safetensors(path, layers, mib):
    """A checkpoint of so many equal matrices; its data is a hole in the file."""
    size = mib * 2**20
    header = {f"layers.{i}.weight": {"dtype": "F16", "shape": [size // 2048, 1024],
                                     "data_offsets": [i * size, (i + 1) * size]}
              for i in range(layers)}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + layers * size)
    return path


def test_a_checkpoint_is_forecast_by_its_header(tmp_path):
    path = safetensors(tmp_path / "model.safetensors", layers=40, mib=100)
    small, large, busy = (forecast(path, "--vram", vram, "--link", 25, "--beside", "512M", *more)
                          for vram, more in (("3G", []), ("5G", []), ("3G", ["--tokens", "20000"])))
    assert small["weights"] == 40 * 100 * 2**20 and small["activations"] == 512 * 2**20
    # What does not fit has to come in each step.
    missing = small["weights"] + small["activations"] - small["vram"]
    assert small["expected_ns"] >= missing / 25 and small["streamed"] >= missing
    assert large["streamed"] == 0 and large["expected_ns"] < small["expected_ns"]
    assert small["four_gib_save_ns"] >= small["another_gib_saves_ns"] > 0
    assert busy["compute_ns"] > 10 * small["compute_ns"]
    told = run("forecast", path, "--vram", "3G").stdout
    assert "fits in VRAM" in told and "no, " in told and "4 GiB more save" in told


def test_a_checkpoint_in_parts_is_forecast_by_its_index(tmp_path):
    parts = [safetensors(tmp_path / f"part-{i}.safetensors", layers=10, mib=100) for i in range(2)]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {str(i): part.name for i, part in enumerate(parts)}}))
    assert forecast(index, "--vram", "2G")["weights"] == 20 * 100 * 2**20


@pytest.mark.parametrize("content, word", [
    (b"", "ends within its header"), (b"\xff" * 40, "longer than the file"),
    ((30).to_bytes(8, "little") + b"{" * 30, "not a JSON object"),
])
def test_a_damaged_checkpoint_is_refused(content, word, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    done = run("forecast", path, "--vram", "3G")
    assert done.returncode == 1 and word in done.stderr and "x.safetensors" in done.stderr


def test_everything_that_is_listed_is_known():
    traces, cards = listed(), run("cards").stdout
    assert TRACE in traces and len(traces) >= 12
    for name in ("rtx-4090", "h200", "pcie4"):
        assert name in cards


@pytest.mark.parametrize("arguments, word", [
    (["nosuch", "--vram", "8G"], TRACE),
    ([TRACE, "--vram", "8X"], "unknown unit"),
    ([TRACE, "--vram", "8G", "--card", "abacus"], "rtx-4090"),
    ([TRACE, "--vram", "8G", "--link", "fast"], "pcie4"),
    ([TRACE, "--vram", "8G", "--link", "0"], "0.1 to"),
    ([TRACE, "--vram", "100M"], "activations"),
    (["llama3-8b-decode", "--vram", "1200M"], "give at least"),
    ([TRACE], "--vram"),
])
def test_an_error_says_what_to_do(arguments, word):
    done = run("forecast", *arguments)
    assert done.returncode != 0 and word in done.stderr
    assert "panicked" not in done.stderr


def test_the_least_that_it_asks_for_is_enough():
    """What the error names as the least is accepted."""
    done = run("forecast", "llama3-8b-decode", "--vram", "1200M")
    least = done.stderr.split("give at least ")[1].split(" with")[0].replace(" ", "")
    assert forecast("llama3-8b-decode", "--vram", least)["expected_ns"] > 0


def test_a_damaged_trace_is_refused_with_its_place(tmp_path):
    path = tmp_path / "a.trace"
    run("trace", TRACE, "-o", path)
    lines = path.read_text().splitlines()
    lines[5] = "nonsense"
    path.write_text("\n".join(lines))
    done = run("forecast", path, "--vram", "3G")
    assert done.returncode != 0 and "6" in done.stderr and "panicked" not in done.stderr
    path.write_bytes(b"\xff\xfe\x00")
    done = run("forecast", path, "--vram", "3G")
    assert done.returncode != 0 and "panicked" not in done.stderr


def test_a_reader_that_stops_early_is_no_failure():
    done = subprocess.run(f"{PROGRAM} traces | head -1; exit ${{PIPESTATUS[0]}}", shell=True,
                          executable="/bin/bash", text=True, capture_output=True)
    assert done.returncode == 0 and done.stderr == ""
