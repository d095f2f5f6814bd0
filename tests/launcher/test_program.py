"""`autooffload run`, completions and manual pages: the launcher's options under another name."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "autooffload-launch"
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "autooffload"
ELSEWHERE = {"--help", "--version", "--doctor", "--demo"}  # of the launcher alone


def output(*command, **options):
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=300,
                          **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_is_the_launcher(env):
    assert output(PROGRAM, "run", "--vram", "8G", "--", "sh", "-c", "echo $AUTOOFFLOAD_VRAM",
                  env=env) == "8G\n"
    assert subprocess.run([PROGRAM, "run", "sh", "-c", "exit 7"], env=env,
                          stderr=subprocess.DEVNULL).returncode == 7


def test_both_know_the_same_options(env, tmp_path):
    """The program's are made from the library's table of settings."""
    launcher = set(re.findall(r"^  (--[\w-]+)", output(LAUNCHER, "--help", env=env), re.MULTILINE))
    output(PROGRAM, "manual", tmp_path)
    page = (tmp_path / "autooffload-run.1").read_text().replace("\\-", "-")
    assert set(re.findall(r"^\\fB(--[\w-]+)", page, re.MULTILINE)) == launcher - ELSEWHERE


def test_there_is_a_manual_page_for_each_command(tmp_path):
    output(PROGRAM, "manual", tmp_path)
    listed = re.findall(r"^  (\w[\w-]*) ", output(PROGRAM, "--help"), re.MULTILINE)
    pages = {path.stem for path in tmp_path.iterdir()}
    assert {f"autooffload-{name}" for name in listed if name != "help"} | {"autooffload"} == pages


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell):
    text = output(PROGRAM, "completions", shell)
    for word in ("forecast", "vram", "allocator"):
        assert word in text
    if shell != "zsh":
        assert "autooffload-launch" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_one_version():
    manifests = [(ROOT / path / "Cargo.toml").read_text() for path in (".", "cli")]
    versions = {re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] for text in manifests}
    assert len(versions) == 1
    assert output(PROGRAM, "--version") == f"autooffload {versions.pop()}\n"
