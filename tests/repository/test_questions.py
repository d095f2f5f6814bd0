"""questions/: the programs compile without a GPU, make every call they would make
on a card, and the stand-in's answers never pass for measurements."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from support import questions  # noqa: E402

KEYS = {"question", "item", "answer", "number", "unit", "p50", "p99", "n", "standin"}
SOURCES = sorted((ROOT / "questions").glob("*.*"))


@pytest.fixture(scope="module")
def programs():
    try:
        return questions.build(strict=True)
    except questions.NotBuilt as reason:
        if "does not compile" in str(reason):
            raise
        pytest.skip(str(reason))


def rehearse(programs, name, *more):
    """One program on the stand-in as if it were a card; its answers."""
    env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    env |= {"STANDIN_UNKNOWN": "count", "STANDIN_SM": "9.0"}
    done = subprocess.run([ROOT / "standin" / "run", programs / name, "--limit", "60", "--kernels",
                           programs / questions.KERNELS, "--shim", questions.SHIM, *more], env=env, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers, done.stderr
    for answer in answers:
        assert set(answer) == KEYS
        assert answer["standin"] is True
    return answers


@pytest.mark.parametrize("name, number", [(name, number) for name, number, _ in questions.PROGRAMS])
def test_every_call_is_made(programs, name, number):
    """No kernel computes in a rehearsal, but every call must be accepted."""
    answers = rehearse(programs, name, "--rehearse", "1")
    assert {questions.number_of(answer["question"]) for answer in answers} == {number}
    unanswered = [f"{answer['item']}: {answer['answer']}" for answer in answers
                  if answer["answer"].startswith("not measured")]
    # What the stand-in does not have, by name.
    known = re.compile(r"cuTensorMapEncodeTiled|host-located|none can be had here")
    assert [text for text in unanswered if not known.search(text)] == []


def test_the_librarys_own_kernel_is_asked(programs):
    """The one kernel that the stand-in knows: here it must be right."""
    answers = {answer["item"]: answer["answer"] for answer in
               rehearse(programs, "fingerprint", "--rehearse", "1", "--part", "right")}
    assert answers == {"does our kernel compute what the library expects": "yes",
                       "one changed word of 20 MiB": "its 64 KiB are stored, nothing else"}


def test_bytes_back_are_those_of_the_library():
    library = ROOT / "target" / "release" / "libautooffload.so"
    env = os.environ | {"LD_PRELOAD": str(library), "AUTOOFFLOAD_VRAM": "48M"}
    done = subprocess.run([ROOT / "standin" / "run", sys.executable, ROOT / "questions" /
                           "programs.py", "--streamed"], env=env, text=True, capture_output=True,
                          timeout=300)
    answer = json.loads(done.stdout.splitlines()[-1])
    back, into = map(int, answer["answer"].split(" of "))
    assert into > 40 * 2**20 and back <= 0.005 * into, answer


def test_what_needs_a_card_is_not_measured_here(programs):
    answers = rehearse(programs, "coherence")
    assert all(answer["answer"] == "not measured: stand-in" for answer in answers)


def answer(**changes):
    return {"question": "2 Bandwidth", "item": "to cuMemAlloc", "answer": "", "number": 55.5,
            "unit": "GB/s", "p50": 55.5, "p99": 56.25, "n": 7, "standin": False} | changes


def test_a_card_is_shown_with_its_numbers():
    assert questions.row(answer()) == ("2 Bandwidth", "to cuMemAlloc", "measured", "55.5", "GB/s",
                                       "p50 55.5, p99 56.25, n 7")


@pytest.mark.parametrize("change", [{}, {"answer": "yes"}, {"number": None, "answer": "accepted"}])
def test_the_stand_in_never_shows_a_number(change):
    cells = questions.row(answer(standin=True, **change))
    assert cells[2].startswith("not measured: ran on the stand-in")
    assert cells[3:] == ("", "", "")


def test_the_table_is_sorted_by_question_and_lists_names():
    text = questions.table([answer(question="10 Pinning"), answer(item="a|b"),
                            answer(question="8 Lookup", item="libx asks for", names=["cuInit"])])
    lines = text.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| 2 Bandwidth", "| 8 Lookup",
                                                             "| 10 Pinning"]
    assert "a/b" in lines[2] and lines[-1] == "libx asks for: cuInit"


def test_a_program_that_fails_is_told_of(tmp_path):
    for name, body in (("killed", "kill -9 $$"), ("silent", "true"),
                       ("fine", f"echo 'other output'; echo '{json.dumps(answer())}'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    runner = questions.Runner(tmp_path, say=lambda line: None)
    for name in ("killed", "silent", "fine"):
        runner.program(name, 2, 10)
    killed, silent, fine = runner.answers
    assert "signal 9" in killed["answer"] and killed["answer"].startswith("not measured")
    assert silent["answer"].startswith("not measured")
    assert fine == answer()


def test_no_time_left_is_told_of(tmp_path):
    runner = questions.Runner(tmp_path, say=lambda line: None, total_seconds=1)
    runner.program("anything", 2, 10)
    assert runner.answers[0]["answer"] == "not measured: no time left"


def test_all_programs_together_stay_below_six_minutes():
    assert questions.TOTAL_SECONDS < 360
    assert {number for _, number, _ in questions.PROGRAMS} | {9} == set(questions.TITLES)


def test_no_managed_memory_and_no_settings():
    forbidden = re.compile(r"AllocManaged|PREFETCH|nvidia-smi|cuCtxSetLimit|cuDeviceReset|"
                           r"PrimaryCtxReset", re.IGNORECASE)
    found = [f"{path.name}:{number}" for path in SOURCES
             for number, line in enumerate(path.read_text().splitlines(), 1)
             if forbidden.search(line)]
    assert found == []


def test_every_program_says_what_it_asks():
    for name, _, _ in questions.PROGRAMS:
        text = (ROOT / "questions" / f"{name}.cpp").read_text()
        assert text.startswith("// Question ") and "// Not here:" in text, name
