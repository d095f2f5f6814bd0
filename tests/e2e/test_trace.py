"""AUTOOFFLOAD_TRACE, and what is made of it: the page, forecasts."""

import fcntl
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from harness import MIB, ROOT, assert_same, assert_streamed, reference, run

PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"
BROWSER = ROOT / "scripts" / "support" / "browser"
VRAM = 40 * MIB
IN, OUT, WAITED, HOST = range(4)


def cli(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], text=True, capture_output=True,
                          timeout=300)


# Until the tests end.
FOLDER = tempfile.TemporaryDirectory(prefix="autooffload-trace-")


@functools.cache
def recorded():
    """A program that streamed, and its trace. No fixture: with the library off the tests
    themselves must fail."""
    path = pathlib.Path(FOLDER.name) / "t.json"
    result = run("outlook", vram=VRAM, AUTOOFFLOAD_VRAM=str(VRAM), AUTOOFFLOAD_TRACE=str(path))
    assert_same(result, reference("outlook"))
    assert_streamed(result, VRAM, 3 * result.out["weight_bytes"])
    result.path, result.trace = path, json.loads(path.read_text())
    return result


def spans(trace, track):
    return [event for event in trace["traceEvents"]
            if event["ph"] == "X" and event["tid"] == track]


def total(events, name):
    return sum(event["args"].get(name, 0) for event in events)


def test_every_copy_is_in_it():
    traced = recorded()
    streaming, copies_in, copies_out = (traced.stats["streaming"], spans(traced.trace, IN),
                                        spans(traced.trace, OUT))
    assert total(copies_in, "bytes") == streaming["streamed_bytes"] > 0
    assert len(copies_in) == streaming["fetches"]
    assert total(copies_in, "demanded") == streaming["demand_fetches"]
    assert total(copies_out, "bytes") == streaming["written_back_bytes"]
    assert total(copies_out, "looked_at") == streaming["compared_bytes"]
    assert traced.trace["otherData"]["left_out"] == 0


def test_times_are_the_devices():
    traced = recorded()
    copies = [event for event in spans(traced.trace, IN) if "end" not in event["args"]]
    assert len(copies) > 0.9 * len(spans(traced.trace, IN))
    # One after the other, as one stream carries them out.
    ends = [event["ts"] + event["dur"] for event in copies]
    assert all(event["dur"] > 0 for event in copies)
    assert all(begin["ts"] >= end - 1 for begin, end in zip(copies[1:], ends))


def test_waits_and_memory_are_in_it():
    traced = recorded()
    waits = traced.stats["waits"]
    assert len(spans(traced.trace, HOST)) == sum(wait["count"] for wait in waits.values())
    assert spans(traced.trace, WAITED)
    memory = [event["args"] for event in traced.trace["traceEvents"] if event["ph"] == "C"]
    assert all(now["resident"] + now["ring"] + now["unused"] <= VRAM for now in memory)
    assert memory[-1]["ring"] > 0 and memory[-1]["host"] == traced.stats["host"]["bytes"]


def test_it_tells_of_itself():
    traced = recorded()
    other = traced.trace["otherData"]
    assert other["autooffload"] == traced.stats["version"] and other["format"] == 1
    assert other["account"]["pid"] == traced.stats["pid"]
    names = [event["args"]["name"] for event in traced.trace["traceEvents"] if event["ph"] == "M"]
    assert {"copies in", "copies out", "launches that waited", "host waits"} <= set(names)
    order = other["devices"][0]
    used = {chunk for phase in order["phases"] for step in phase["steps"] for chunk in step[3]}
    assert used == set(range(len(order["chunks"])))


def test_nobody_else_reads_it(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("what was here before")
    path.chmod(0o644)
    result = run("forward", "--blocks", 30, "--iterations", 4, vram=VRAM // 2,
                 AUTOOFFLOAD_TRACE=str(tmp_path / "%p.json")).ok()
    assert [file.name for file in tmp_path.glob("[0-9]*.json")] == [f"{result.stats['pid']}.json"]
    run("forward", "--blocks", 30, "--iterations", 4, vram=VRAM // 2,
        AUTOOFFLOAD_TRACE=str(path)).ok()
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["traceEvents"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_it_is_whole_after_a_signal(name, tmp_path):
    path = tmp_path / "t.json"
    result = run("killed", name, AUTOOFFLOAD_VRAM=str(VRAM // 2), AUTOOFFLOAD_TRACE=str(path))
    assert result.returncode == -getattr(signal, name)
    trace = json.loads(path.read_text())
    assert total(spans(trace, IN), "bytes") > 0 and trace["otherData"]["account"]


@pytest.mark.parametrize("what", ["link", "hard link", "folder", "no folder", "in use"])
def test_what_is_in_the_way_stays_as_it_is(what, tmp_path):
    """Said, and the program goes on without a trace."""
    path, other = tmp_path / "t.json", tmp_path / "other"
    other.write_text("somebody's")
    held = None
    if what == "link":
        path.symlink_to(other)
    elif what == "hard link":
        os.link(other, path)
    elif what == "folder":
        path.mkdir()
    elif what == "no folder":
        path = tmp_path / "nowhere" / "t.json"
    else:
        held = path.open("w")
        held.write("somebody's")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
    result = run("forward", "--blocks", 30, "--iterations", 4, vram=VRAM // 2,
                 AUTOOFFLOAD_TRACE=str(path)).ok()
    assert result.account["h2d_bytes"] > result.out["weight_bytes"]
    said = [line for line in result.ours if "AUTOOFFLOAD_TRACE" in line]
    assert len(said) == 1 and "no trace is written" in said[0], result.ours
    assert other.read_text() == "somebody's"
    if held:
        assert path.read_text() == "somebody's"


# --- the page -----------------------------------------------------------------

def test_the_page_shows_it(tmp_path):
    traced = recorded()
    page = tmp_path / "page.html"
    assert cli("report", traced.path, "-o", page).returncode == 0
    text = page.read_text()
    for part in ("Memory on the card", "Use of the link", "Stalls", "Chunks",
                 "What more memory would buy", "as it was", "stay on the card",
                 f"process {traced.stats['pid']}"):
        assert part in text, part
    assert "http" not in text and "<script" not in text and "src=" not in text
    assert cli("report", traced.path).stdout.strip() == f"{traced.path}.html"


def test_a_trace_that_was_cut_is_shown_as_far_as_it_goes(tmp_path):
    traced = recorded()
    cut = tmp_path / "cut.json"
    cut.write_bytes(traced.path.read_bytes()[:200_000])
    shown = cli("report", cut, "-o", "-")
    assert shown.returncode == 0 and "end of the file is missing" in shown.stdout
    refused = cli("forecast", cut, "--vram", "1G")
    assert refused.returncode == 1 and "its end is missing" in refused.stderr


def test_what_is_no_trace_is_refused(tmp_path):
    traced = recorded()
    assert traced.stats["streaming"]["streamed_bytes"] > 0
    (tmp_path / "x.json").write_text('{"traceEvents":[],"other":1}')
    (tmp_path / "y.json").write_text("[]")
    for name in ("y.json", "nothing.json"):
        done = cli("report", tmp_path / name, "-o", "-")
        assert done.returncode == 1 and name in done.stderr


def browser():
    """Node with a Chromium, from npm into target/; a reason where that cannot be had."""
    place = ROOT / "target" / "browser"
    if not shutil.which("npm"):
        return None, "there is no npm"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "look.mjs"):
        shutil.copyfile(BROWSER / name, place / name)
    if not (place / "node_modules" / "playwright-core").exists():
        try:
            made = subprocess.run(["npm", "install", "--no-fund", "--no-audit", "--silent"],
                                  cwd=place, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return None, "npm takes too long"
        if made.returncode != 0:
            shutil.rmtree(place / "node_modules", ignore_errors=True)
            return None, f"npm: {made.stderr[-300:]}"
    return place, None


def test_chromium_shows_the_page(tmp_path):
    traced = recorded()
    assert traced.stats["streaming"]["streamed_bytes"] > 0
    place, why = browser()
    if why:
        pytest.skip(f"no browser: {why}")
    page = tmp_path / "page.html"
    assert cli("report", traced.path, "-o", page).returncode == 0
    done = subprocess.run(["node", "look.mjs", page, tmp_path / "page.png"], cwd=place, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["complaints"] == [] and seen["requests"] == [f"file://{page}"]
    assert seen["charts"] >= 4 and seen["widest"] <= seen["window"]
    assert {"Memory on the card", "Use of the link", "Stalls", "Chunks"} <= set(seen["headings"])
    # Areas that lie in one chart differ without colour: each has its own pattern.
    assert all(len(patterns) == len(set(patterns)) for patterns in seen["patterns"])
    picture = pathlib.Path(tmp_path / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


# --- forecasts ------------------------------------------------------------------

def forecast(path, vram, *more):
    done = cli("forecast", path, "--vram", vram, *more, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_recorded_program_is_forecast():
    traced = recorded()
    as_it_was, more, all_of_it = (forecast(traced.path, size) for size in (VRAM, "80M", "2G"))
    # On the same card it is what was seen there, unless that is below what bytes and link allow.
    assert 1 <= as_it_was["expected_ns"] / as_it_was["recorded_step_ns"] <= 1.1
    assert as_it_was["recorded_step_ns"] >= as_it_was["compute_ns"]
    assert as_it_was["expected_ns"] > more["expected_ns"] >= all_of_it["expected_ns"]
    assert all_of_it["expected_ns"] == all_of_it["compute_ns"] and all_of_it["missing"] == 0
    assert forecast(traced.path, VRAM, "--link", 1)["expected_ns"] > as_it_was["expected_ns"]
    told = cli("forecast", traced.path, "--vram", VRAM).stdout
    assert "4 GiB more save" in told and "fits in VRAM" in told
