"""scripts/support: the demo's arithmetic and verdict, the driver probe, the child runner."""

import array
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support import child, probe, summary as report  # noqa: E402
from support.account import Account  # noqa: E402

KEYS = ["device", "identical", "max_abs_diff_cpu", "weight_bytes", "budget_bytes",
        "peak_device_bytes", "h2d_bytes_per_iteration", "d2h_bytes_per_iteration",
        "prefetch_hit_rate", "added_host_syncs_per_iteration", "leaked_device_bytes",
        "leaked_pinned_bytes", "iterations"]


def account(per_iteration, left=0):
    """An account of six steady iterations, each adding `per_iteration`."""
    names = ("h2d_bytes", "d2h_bytes", "blocking_calls", "query_polls", "streamed_uses",
             "streamed_hits")
    start = {"label": "start", "device_bytes": 90, "pinned_bytes": 50} | {n: 7 for n in names}
    stop = dict(start, label="stop") | {n: 7 + 6 * per_iteration.get(n, 0) for n in names}
    last = dict(stop, device_bytes=left, pinned_bytes=left)
    made = Account.__new__(Account)
    made.totals = {"device_peak_bytes": 100, "marks": [start, stop, last]}
    return made


def results(**changes):
    return {"hashes": ["a", "b"], "weight_bytes": 400, "iterations": 10, "steady_iterations": 6,
            "seconds": [1.0] * 10} | changes


def summarise(ours, plain=None, **changes):
    plain = plain or account({"blocking_calls": 2})
    return report.summarise("stand-in", results(), results(**changes), 100, 1e-6, (plain, ours))


GOOD = {"h2d_bytes": 300, "d2h_bytes": 0, "blocking_calls": 2, "streamed_uses": 20,
        "streamed_hits": 20}


def failures(summary, healthy=True, refused=True, violations=0):
    return [text for text, holds in report.criteria(summary, healthy, refused, violations)
            if not holds]


def test_the_keys_are_those_promised():
    assert list(summarise(account(GOOD))) == KEYS
    assert list(report.summarise("card", results(), results(), 100, 0.0)) == KEYS


def test_a_good_run_holds():
    summary = summarise(account(GOOD))
    assert summary["h2d_bytes_per_iteration"] == 300
    assert summary["prefetch_hit_rate"] == 1.0
    assert summary["added_host_syncs_per_iteration"] == 0
    assert failures(summary) == []


@pytest.mark.parametrize("change, word", [
    ({"h2d_bytes": 299}, "streamed"), ({"streamed_hits": 18}, "hit rate"),
    ({"streamed_uses": 0, "streamed_hits": 0}, "hit rate"),
    ({"blocking_calls": 3}, "host wait"), 
])
def test_each_criterion_is_noticed(change, word):
    failed = failures(summarise(account(GOOD | change)))
    assert len(failed) == 1 and word in failed[0]


def test_other_criteria_are_noticed():
    assert "identical" in failures(summarise(account(GOOD), hashes=["a", "c"]))[0]
    assert len(failures(summarise(account(GOOD, left=8)))) == 2
    good = summarise(account(GOOD))
    assert failures(good, healthy=False) and failures(good, refused=False)
    assert failures(good, violations=1)
    assert failures(good | {"peak_device_bytes": 101})
    assert failures(good | {"max_abs_diff_cpu": 1.0})


def test_on_a_gpu_only_what_is_known_is_judged():
    summary = report.summarise("card", results(), results(), 100, 0.0)
    assert failures(summary, refused=None) == []
    assert report.table(report.rows(summary, {"without": 1.0}))


@pytest.mark.parametrize("values, healthy", [
    ([1.0, 2.0], True), ([1.0, 1.0], False), ([1.0, float("nan")], False), ([], False)])
def test_outputs_are_compared(tmp_path, values, healthy):
    (tmp_path / "a").write_bytes(array.array("f", values).tobytes())
    (tmp_path / "b").write_bytes(array.array("f", [1.0, 2.25][:len(values)]).tobytes())
    difference, finite = report.compare_outputs(tmp_path / "a", tmp_path / "b")
    assert finite is healthy
    assert (difference == 0.25) if healthy else difference == float("inf")


FAKE_DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "Card"); return 0; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_X"; return 0; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
"""


@pytest.mark.parametrize("init, count, wanted", [
    (0, 1, (True, "Card")), (100, 0, (False, "code 100")), (0, 0, (False, "no device")),
    (803, 0, "803 (CUDA_ERROR_X)")])
def test_the_driver_is_asked(tmp_path, monkeypatch, init, count, wanted):
    """A failing driver is reported with its code, never taken for an absent one."""
    subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", "-x", "c",
                    "-", "-o", tmp_path / "libcuda.so.1"], input=FAKE_DRIVER, text=True, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    if isinstance(wanted, str):
        with pytest.raises(probe.DriverFailure, match="803"):
            probe.gpu_present()
        return
    present, why = probe.gpu_present()
    assert present is wanted[0] and wanted[1] in why
    assert probe.cuda_version() == (13010 if present else None)


def test_a_broken_driver_is_not_an_absent_one(tmp_path, monkeypatch):
    (tmp_path / "libcuda.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(probe.DriverFailure, match="cannot be loaded"):
        probe.gpu_present()


def test_a_child_that_takes_too_long_is_ended():
    outcome = child.run([sys.executable, "-c", "import time; time.sleep(60)"], limit_seconds=1)
    assert outcome.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    assert "longer than 1 s" in outcome.error_tail()


def test_ctrl_c_ends_the_child_too(tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
            "from support import child\n"
            "try: child.run([sys.executable, '-c', 'import os, time; print(os.getpid(), "
            "flush=True); time.sleep(600)'], show=lambda line: print(line, flush=True))\n"
            "except KeyboardInterrupt: sys.exit(130)\n")
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                           stderr=subprocess.DEVNULL, start_new_session=True)
    pid = int(job.stdout.readline())
    os.killpg(job.pid, signal.SIGINT)
    assert job.wait(300) == 130
    deadline = time.monotonic() + 300
    while pathlib.Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not pathlib.Path(f"/proc/{pid}").exists()
