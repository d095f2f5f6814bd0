"""ComfyUI as the launcher recognises it: which words it adds to which command.

The installations here are made up of what the launcher reads: `main.py`, the
text of `comfy/cli_args.py`, `comfyui_version.py`. Running one that is real is
not done here.
"""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "autooffload-launch"

SWITCHES = {
    "0.38.1": ("--listen", "--port", "--cuda-malloc", "--disable-cuda-malloc", "--gpu-only",
               "--highvram", "--lowvram", "--novram", "--cpu", "--reserve-vram",
               "--disable-dynamic-vram", "--enable-dynamic-vram", "--disable-comfy-compiler",
               "--disable-cuda-graphs"),
    "0.3.10": ("--listen", "--port", "--cuda-malloc", "--disable-cuda-malloc", "--gpu-only",
               "--highvram", "--normalvram", "--lowvram", "--novram", "--cpu"),
}
NEW, OLD = SWITCHES
ADDED = ["--gpu-only", "--disable-comfy-compiler", "--disable-cuda-graphs"]


def install(folder, version=NEW):
    """A ComfyUI whose main.py prints the words that it was given."""
    (folder / "comfy").mkdir(parents=True)
    lines = [f"parser.add_argument('{switch}', action='store_true')" if number % 2 else
             f'group.add_argument("{switch}", type=int, help="not --at-all a switch")'
             for number, switch in enumerate(SWITCHES[version])]
    text = "raise SystemExit('this file is to be read, not run')\n" + "\n".join(lines) + "\n"
    (folder / "comfy" / "cli_args.py").write_text(text)
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    (folder / "main.py").write_text("import sys\nprint(*sys.argv[1:], sep='\\n')\n")
    return folder


@pytest.fixture
def comfyui(tmp_path):
    return install(tmp_path / "ComfyUI")


def words(env, *command, options=(), **more):
    """(the words that main.py got, the launcher's lines about ComfyUI)."""
    done = subprocess.run([LAUNCHER, *options, *map(str, command)], env=env, text=True,
                          capture_output=True, timeout=300, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), [line for line in done.stderr.splitlines()
                                      if "ComfyUI" in line]


def test_models_go_to_the_card(env, comfyui):
    got, lines = words(env, sys.executable, "main.py", "--port", "81", cwd=comfyui)
    assert got == ["--port", "81", *ADDED]
    assert len(lines) == 1
    for part in (f"ComfyUI {NEW}", "added --gpu-only", "--comfyui off"):
        assert part in lines[0]


def test_a_version_gets_only_what_it_knows(env, tmp_path):
    old = install(tmp_path / "old", OLD)
    assert words(env, sys.executable, "main.py", cwd=old)[0] == ["--gpu-only"]
    (old / "comfy" / "cli_args.py").write_text('parser.add_argument("--highvram")\n')
    assert words(env, sys.executable, "main.py", cwd=old)[0] == ["--highvram"]


def test_off_changes_nothing(env, comfyui):
    assert words(env, sys.executable, "main.py", options=["--comfyui", "off"],
                 cwd=comfyui) == ([], [])
    assert words(env, sys.executable, "main.py", options=["--off"], cwd=comfyui) == ([], [])


@pytest.mark.parametrize("said", ["--lowvram", "--novram", "--enable-dynamic-vram", "--lowv"])
def test_where_the_user_wants_the_models_is_the_users_choice(env, comfyui, said):
    got, lines = words(env, sys.executable, "main.py", said, cwd=comfyui)
    assert got == [said]
    assert len(lines) == 1 and "is yours" in lines[0]


@pytest.mark.parametrize("said", ["--gpu-only", "--highvram", "--highv"])
def test_models_on_the_card_by_the_user(env, comfyui, said):
    assert words(env, sys.executable, "main.py", said, cwd=comfyui)[0] == [said, *ADDED[1:]]


def test_on_the_cpu_there_is_nothing_to_do(env, comfyui):
    assert words(env, sys.executable, "main.py", "--cpu", cwd=comfyui) == (["--cpu"], [])


def test_the_users_own_switches_are_not_given_twice(env, comfyui):
    said = ["--disable-cuda-graphs", "--disable-dynamic-vram"]
    assert words(env, sys.executable, "main.py", *said, cwd=comfyui)[0] == [*said, *ADDED[:2]]


def test_the_native_allocator_is_kept_from_being_replaced(env, comfyui):
    native = ["--allocator", "native"]
    assert words(env, sys.executable, "main.py", options=native,
                 cwd=comfyui)[0] == [*ADDED, "--disable-cuda-malloc"]
    assert words(env, sys.executable, "main.py", "--cuda-malloc", options=native,
                 cwd=comfyui)[0] == ["--cuda-malloc", *ADDED]


def test_from_another_directory_and_by_a_link(env, comfyui, tmp_path):
    assert words(env, sys.executable, "-u", comfyui / "main.py", cwd="/")[0] == ADDED
    link = tmp_path / "start.py"
    link.symlink_to(comfyui / "main.py")
    assert words(env, sys.executable, link, cwd="/")[0] == ADDED


def test_by_a_program_that_starts_it(env, comfyui, tmp_path):
    """As `uv run` does: some words, then Python's."""
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nshift\n[ "$1" != --directory ] || { cd "$2"; shift 2; }\n'
                  f'exec {sys.executable} "$@"\n')
    uv.chmod(0o755)
    assert words(env, uv, "run", comfyui / "main.py")[0] == ADDED
    assert words(env, uv, "run", "--directory", comfyui, "main.py", cwd="/")[0] == ADDED


@pytest.fixture
def comfy(tmp_path, comfyui):
    """comfy-cli: its program, and a home whose settings name the installation."""
    home = tmp_path / "home"
    (home / ".config" / "comfy-cli").mkdir(parents=True)
    (home / ".config" / "comfy-cli" / "config.ini").write_text(
        f"[DEFAULT]\ndefault_workspace = {comfyui}\ndefault_launch_extras = --port 99\n")
    program = tmp_path / "bin" / "comfy"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return program, {"HOME": str(home)}


def test_comfy_launch(env, comfy, comfyui, tmp_path):
    program, home = comfy
    env = env | home
    assert words(env, program, "launch", cwd="/")[0] == ["launch", "--", "--port", "99", *ADDED]
    assert words(env, program, "launch", "--", "--port", "5", cwd="/")[0] == \
        ["launch", "--", "--port", "5", *ADDED]
    old = install(tmp_path / "w" / "ComfyUI", OLD)
    assert words(env, program, "--workspace", old.parent, "launch", cwd="/")[0] == \
        ["--workspace", str(old.parent), "launch", "--", "--gpu-only"]
    assert words(env, program, "--here", "launch", cwd=comfyui)[0] == \
        ["--here", "launch", "--", *ADDED]
    assert words(env, program, "launch", cwd=comfyui / "comfy")[0] == \
        ["launch", "--", "--port", "99", *ADDED]
    assert words(env, program, "env", cwd=comfyui) == (["env"], [])


def test_other_programs_are_left_alone(env, tmp_path):
    (tmp_path / "main.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    assert words(env, sys.executable, "main.py", "--x", cwd=tmp_path) == (["--x"], [])
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "cli_args.py").write_text("nothing of the kind\n")
    assert words(env, sys.executable, "main.py", "--x", cwd=tmp_path) == (["--x"], [])


def test_the_empty_variable_that_comfyui_appends_to(env, comfyui):
    """Its cuda_malloc.py adds `,backend:cudaMallocAsync` to what is there; torch
    refuses a value that begins with a comma."""
    (comfyui / "main.py").write_text(
        "import os\nprint(os.environ.get('PYTORCH_CUDA_ALLOC_CONF', 'unset'))\n")
    for value in ("", "expandable_segments:True", ","):
        got, _ = words(env | {"PYTORCH_CUDA_ALLOC_CONF": value}, sys.executable, "main.py",
                       cwd=comfyui)
        assert got == ["unset"]
