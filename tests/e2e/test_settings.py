"""What is said and written: echo, warnings, summary, statistics, C exports, fallbacks."""

import json
import os
import sys

from harness import LAUNCHER, MIB, PROGRAMS, SMALL_WORKSPACES, STANDIN_RUN, assert_same, \
    finished, reference, run

SMALL = 20 * MIB


def test_echo_statistics_and_exports():
    result = run("settings", vram=SMALL, AUTOOFFLOAD_WINDOW="8", AUTOOFFLOAD_LOG="info")
    assert_same(result, reference("settings"))
    echoes = [line for line in result.ours if "AUTOOFFLOAD_WINDOW=8" in line]
    assert len(echoes) == 1, result.ours
    exports = result.out["exports"]
    assert exports["version"] >= 1
    assert exports["set_good"] == 0 and exports["set_bad"] != 0
    assert set(exports["stats"]) <= set(result.stats)
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]


def test_summary_at_exit():
    result = run("settings", vram=SMALL).ok()
    summary = "\n".join(result.ours).lower()
    for word in ("budget", "resident", "streamed", "link", "demand", "stall", "waits"):
        assert word in summary, (word, result.ours)


def test_bad_value_gives_a_warning_and_the_default():
    result = run("settings", vram=SMALL, AUTOOFFLOAD_WINDOW="soon", AUTOOFFLOAD_VRAM="lots")
    assert_same(result, reference("settings"))
    assert any("AUTOOFFLOAD_WINDOW=soon" in line for line in result.ours), result.ours
    assert any("AUTOOFFLOAD_VRAM=lots" in line for line in result.ours), result.ours


def test_statistics_per_process(tmp_path):
    """%p keeps a parent and its child apart; a process without CUDA writes nothing."""
    program = PROGRAMS / "settings.py"
    environment = dict(os.environ, **SMALL_WORKSPACES, STANDIN_VRAM=str(SMALL),
                       AUTOOFFLOAD_STATS=str(tmp_path / "stats-%p.json"), AUTOOFFLOAD_LOG="info")
    code = ("import subprocess, sys\n"
            "for _ in range(2): subprocess.run([sys.executable, sys.argv[1]], check=True)")
    done = finished([STANDIN_RUN, LAUNCHER, sys.executable, "-c", code, program], environment)
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("stats-*.json"))
    assert len(files) == 2, files
    for file in files:
        assert json.loads(file.read_text())
    assert done.stderr.count("AUTOOFFLOAD_VRAM=") == 2, done.stderr


def test_expandable_segments_are_resident_and_said():
    """The program's own use of the VMM is passed through: correct, not offloaded."""
    wanted = reference("settings")
    # Set inside the program's environment only: the launcher would remove it.
    result = run("expandable").ok()
    assert result.out["hashes"] == wanted.out["hashes"]
    said = "leaves that memory alone; take expandable_segments:True out"
    assert any(said in line for line in result.ours), result.ours
    refused = run("expandable", vram=SMALL)
    assert refused.out_of_memory


def test_the_launcher_removes_expandable_segments():
    result = run("settings", vram=SMALL, PYTORCH_ALLOC_CONF="expandable_segments:True")
    assert_same(result, reference("settings"))
    assert "removed expandable_segments:True" in result.stderr
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]


def test_children_that_fork():
    """A forked child leaves the library's state alone; the parent goes on."""
    result = run("forked", vram=SMALL)
    assert_same(result, reference("forked"))
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]
