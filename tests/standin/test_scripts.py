"""standin/run and scripts/python-env: what they set, and what they say when they cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "standin" / "run"
PYTHON_ENV = ROOT / "scripts" / "python-env"


def run(*command, **variables):
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)


def test_the_environment_of_a_command():
    finished = run(RUN, "sh", "-c", 'echo "$LD_LIBRARY_PATH|$TRITON_LIBCUDA_PATH|$(command -v python)"')
    libraries, triton, python = finished.stdout.strip().split("|")
    assert Path(triton, "libcuda.so.1").exists()
    assert libraries.split(":")[0] == triton
    assert Path(python).parent == Path(sys.prefix, "bin")


def test_status_and_arguments_pass_through():
    assert run(RUN, "sh", "-c", "exit 7").returncode == 7
    assert run(RUN, "printf", "%s|", "a b", "", "--help").stdout == "a b||--help|"


def test_preload_is_left_alone():
    finished = run(RUN, "sh", "-c", 'echo "$LD_PRELOAD"', LD_PRELOAD="libm.so.6")
    assert finished.stdout.strip() == "libm.so.6"


def test_help_and_misuse():
    assert "STANDIN_VRAM" in run(RUN, "--help").stdout
    assert run(RUN).returncode == 2
    assert "unknown option" in run(RUN, "--nonsense", "true").stderr


def test_the_python_environment_has_one_path():
    finished = run(PYTHON_ENV)
    assert finished.returncode == 0
    assert Path(finished.stdout.strip()) == Path(sys.prefix)
    assert run(PYTHON_ENV, "--path").stdout == finished.stdout


def test_a_missing_interpreter_is_said():
    finished = run(PYTHON_ENV, PYTHON="no-such-python")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert "no 'no-such-python'" in finished.stderr and "install" in finished.stderr


def test_missing_tools_are_said_for_each_distribution(tmp_path):
    """scripts/build where there is no Rust, and where there is no C compiler."""
    for name in ("bash", "dirname", "env"):
        (tmp_path / name).symlink_to(shutil.which(name))
    build = ROOT / "scripts" / "build"
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    finished = run(build, **bare)
    assert finished.returncode == 1 and len(finished.stderr.splitlines()) == 1
    for word in ("no cargo", "Debian", "Ubuntu", "Fedora", "Arch", "rustup.rs"):
        assert word in finished.stderr
    (tmp_path / "cargo").write_text("#!/bin/sh\n")
    (tmp_path / "cargo").chmod(0o755)
    finished = run(build, **bare, CC="no-such-compiler")
    assert finished.returncode == 1 and len(finished.stderr.splitlines()) == 1
    for word in ("no-such-compiler", "apt", "dnf", "pacman"):
        assert word in finished.stderr


def test_other_requirements_give_another_environment(tmp_path):
    """The name is a hash of the contents: a changed pin never reuses an old environment."""
    (tmp_path / "scripts").mkdir()
    for name in ("python-env", "requirements.txt"):
        copy = tmp_path / "scripts" / name
        copy.write_bytes((ROOT / "scripts" / name).read_bytes())
        copy.chmod(0o755)
    same = run(tmp_path / "scripts" / "python-env", "--path").stdout
    with open(tmp_path / "scripts" / "requirements.txt", "a") as requirements:
        requirements.write("# changed\n")
    changed = run(tmp_path / "scripts" / "python-env", "--path").stdout
    assert same.strip() == sys.prefix and changed != same
