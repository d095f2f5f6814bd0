"""Each message of library and launcher, produced by a real situation; and none
in the sources that messages.py does not hold.

The library runs on the stand-in, mostly under raw.py, which calls the driver
itself. Not here: what the library does in those situations (tests/e2e).
"""

import functools
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

import pytest

import sources
from messages import MESSAGES, OUT_OF_REACH

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
LAUNCHER = ROOT / "scripts" / "autooffload-launch"
STANDIN_RUN = ROOT / "standin" / "run"
PROGRAMS = ROOT / "tests" / "e2e" / "programs"
sys.path.insert(0, str(ROOT / "scripts"))
from support import standin  # noqa: E402

LIBRARIES = standin.libraries(ROOT)
SMALL_WORKSPACES = {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "64"}


def clean():
    return {name: value for name, value in os.environ.items()
            if name == "AUTOOFFLOAD_LIB"
            or not name.startswith(("AUTOOFFLOAD", "PYTORCH_")) and name != "LD_PRELOAD"} | \
        {"AUTOOFFLOAD_PLANS": "off"}


def said(*command, cwd=None, **env):
    """Both outputs of a command, in one text."""
    done = subprocess.run(list(map(str, command)), env=clean() | env, text=True, cwd=cwd,
                          capture_output=True, timeout=300)
    return done.stdout + done.stderr


def raw(case, **env):
    """raw.py on a card of 40 MiB. Page-locked memory is out of reach of some containers' limits,
    not of the stand-in's."""
    return said(STANDIN_RUN, LAUNCHER, sys.executable, HERE / "raw.py", case,
                **{"STANDIN_VRAM": "40M", "AUTOOFFLOAD_LOG": "info"} | env)


def program(name, *arguments, vram="40M", **env):
    """A program of tests/e2e."""
    return said(STANDIN_RUN, LAUNCHER, sys.executable, PROGRAMS / f"{name}.py", *arguments,
                STANDIN_VRAM=vram, AUTOOFFLOAD_LOG="info", **SMALL_WORKSPACES, **env)


def learned(**env):
    """Small allocations in the same order, again and again, on a card that holds half of them."""
    return program("forward", "--bare", "--width", 724, "--blocks", 120, "--iterations", 25,
                   "--update", "kernel", vram="120M", PYTORCH_ALLOC_CONF="backend:cudaMallocAsync", **env)


def old_driver():
    """The stand-in's driver without the functions that came with CUDA 12.4."""
    with tempfile.TemporaryDirectory() as folder:
        old = pathlib.Path(folder, "lib")
        shutil.copytree(LIBRARIES, old)
        code = (old / "libcuda.so.1").read_bytes()
        for name in (b"cuFuncGetParamInfo", b"cuKernelGetParamInfo"):
            assert name in code
            code = code.replace(name, name[:-1] + b"X")
        (old / "libcuda.so.1").unlink()
        (old / "libcuda.so.1").write_bytes(code)
        return raw("evict", STANDIN_LIB_DIR=str(old))


def no_threads():
    with tempfile.TemporaryDirectory() as folder:
        shim = pathlib.Path(folder, "no_threads.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, HERE / "no_threads.c"], check=True)
        return raw("evict", LD_PRELOAD=str(shim))


def launch(*arguments, where=None, **env):
    return said(LAUNCHER, *arguments, cwd=where,
                **{"AUTOOFFLOAD_LIB": str(LIBRARIES / "libcuda.so.1")} | env)


def in_folder(*arguments, make, **env):
    """The launcher in a folder that `make` has filled."""
    with tempfile.TemporaryDirectory() as folder:
        make(pathlib.Path(folder))
        return launch(*arguments, where=folder, **env)


def comfyui(*words):
    def make(folder):
        (folder / "comfy").mkdir()
        (folder / "comfy" / "cli_args.py").write_text(
            'parser.add_argument("--highvram")\nparser.add_argument("--gpu-only")\n'
            'parser.add_argument("--lowvram")\n')
        (folder / "comfyui_version.py").write_text('__version__ = "0.38.1"\n')
        (folder / "main.py").write_text("")
    return in_folder(sys.executable, "main.py", *words, make=make)


def executable(name, content):
    def make(folder):
        path = folder / name
        path.write_bytes(content)
        path.chmod(0o755)
    return in_folder(f"./{name}", make=make)


def static(folder):
    subprocess.run(["cc", "-static", "-nostdlib", "-x", "c", "-o", folder / "static", "-"],
                   input="void _start(void){for(;;);}", text=True, check=True)


def set_id(folder):
    shutil.copy("/bin/true", folder / "suid")
    if os.getuid() == 0:
        os.chown(folder / "suid", 12345, 12345)
    (folder / "suid").chmod(0o755 | stat.S_ISUID)


def unbuilt(*words):
    """The launcher in a tree where nothing has been built."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "python", pathlib.Path(folder, "python"))
        code = ("import os, sys, runpy; sys.path.insert(0, sys.argv.pop(1)); "
                "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)")
        env = {name: value for name, value in clean().items()
               if name not in ("CARGO_TARGET_DIR", "AUTOOFFLOAD_LIB")}
        bare = shutil.copytree(pathlib.Path(sys.executable).parent,
                               pathlib.Path(folder, "bin"), symlinks=True,
                               ignore=lambda _, names: set(names) - {"python"})
        os.symlink(os.path.realpath(sys.executable), pathlib.Path(folder, "bin", "python3"))
        done = subprocess.run([bare / "python3", "-c", code, pathlib.Path(folder, "python"), *words],
                              env=env | {"HOME": folder}, text=True, capture_output=True,
                              cwd=folder, timeout=300)
        return done.stdout + done.stderr


SETTINGS = {"AUTOOFFLOAD": "maybe", "AUTOOFFLOAD_VRAM": "lots", "AUTOOFFLOAD_HEADROOM": "5%",
            "AUTOOFFLOAD_WINDOW": "0", "AUTOOFFLOAD_RAM": "8X", "AUTOOFFLOAD_REPORT": "all",
            "AUTOOFFLOAD_PLANS": "here", "AUTOOFFLOAD_STATS": "/no/such/folder/file",
            "AUTOOFFLOAD_TRACE": "/no/such/folder/trace", "AUTOOFFLOAD_METRICS": "example:80",
            "AUTOOFFLOAD_VRMA": "8G"}
MORE_SETTINGS = {"AUTOOFFLOAD_VRAM": "0", "AUTOOFFLOAD_HEADROOM": "9999999T",
                 "AUTOOFFLOAD_WINDOW": "5%", "AUTOOFFLOAD_RAM": "200%",
                 "AUTOOFFLOAD_METRICS": "0.0.0.0:80", "AUTOOFFLOAD_STATS": "/dev/null",
                 "AUTOOFFLOAD_PLANS": "/no/such/folder/orders"}

SITUATIONS = {
    "more than the card holds": lambda: raw("evict"),
    "all fits": lambda: raw("evict", STANDIN_VRAM="1G"),
    "all but fills the card": lambda: raw("evict", STANDIN_VRAM="80M"),
    "a model, learned": learned,
    "a plan in force": lambda: program("outlook", vram="40M"),
    "stacked experts": lambda: program("stacked", "--iterations", 40, vram="158M"),
    "small allocations and the program's own": lambda: raw("passed_on"),
    "an allocation inside a graph": lambda: raw("capture"),
    "a card without virtual memory": lambda: raw("evict", STANDIN_VMM="no"),
    "no address space": lambda: raw("evict", STANDIN_FAULT="cuMemAddressReserve:1+:2"),
    "an old driver": old_driver,
    "no stream": lambda: raw("evict", STANDIN_FAULT="cuStreamCreateWithPriority:1+:2"),
    "captured graphs": lambda: program("graph_and_stream"),
    "a table of addresses": lambda: raw("pinned"),
    "memory that would escape": lambda: raw("refused"),
    "a wait that does not end": lambda: raw("stalled"),
    "a launch larger than the budget": lambda: program("oom", "launch"),
    "a launch larger than the card": lambda: program("oom", "launch", STANDIN_HOST_LOCATED="no"),
    "too little RAM": lambda: raw("evict", AUTOOFFLOAD_RAM="8M"),
    "no page-locking": lambda: raw("evict", STANDIN_FAULT="hostregister:1+:2"),
    "no kernel of ours": lambda: raw("evict", STANDIN_PTX="off"),
    "no memory of the host on the card": lambda: raw("evict", STANDIN_HOST_LOCATED="refused"),
    "no mapping": lambda: raw("evict", STANDIN_FAULT="cuMemMap:30+:2"),
    "no access": lambda: raw("evict", STANDIN_FAULT="cuMemSetAccess:8+:2"),
    "no second mapping": lambda: learned(STANDIN_FAULT="cuMemAddressReserve:2+:2"),
    "no access for a peer": lambda: raw("peers", STANDIN_DEVICES="2",
                                        STANDIN_FAULT="cuMemSetAccess:3+:2"),
    "a copy of ours fails": lambda: raw("evict", STANDIN_FAULT="cuMemcpyDtoHAsync_v2:1+:700"),
    "no stream after a reset": lambda: raw("reset",
                                           STANDIN_FAULT="cuStreamCreateWithPriority:4+:2"),
    "parameters not told": lambda: program("settings",
                                           STANDIN_FAULT="cuFuncGetParamInfo:2+:999,"
                                                         "cuKernelGetParamInfo:2+:999"),
    "a kernel that is watched": lambda: raw("unseen", AUTOOFFLOAD_VERIFY="1"),
    "a driver that shuts nothing": lambda: raw("unseen", AUTOOFFLOAD_VERIFY="1",
                                               STANDIN_FAULT="cuMemSetAccess:32:2"),
    "no threads": no_threads,
    "settings that are not understood": lambda: raw("evict", **SETTINGS),
    "more settings that are not understood": lambda: raw("evict", **MORE_SETTINGS),
    "metrics that cannot be served": lambda: raw(
        "settings", AUTOOFFLOAD_METRICS="unix:/no/such/folder/socket"),
    "a file where metrics should be served": lambda: raw(
        "settings", AUTOOFFLOAD_METRICS=f"unix:{HERE / 'raw.py'}"),
    "settings changed while it runs": lambda: raw("settings"),

    "nothing used CUDA": lambda: launch("true"),
    "PyTorch's settings": lambda: launch(
        "true", PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True,throw_on_cudamalloc_oom:True,"
                                        "per_process_memory_fraction:0.5",
        PYTORCH_ALLOC_CONF="max_split_size_mb:64"),
    "PyTorch's settings beside ours": lambda: launch(
        "--vram", "8G", "--allocator", "native", "true",
        PYTORCH_ALLOC_CONF="per_process_memory_fraction:0.5,backend:cudaMallocAsync"),
    "an empty variable, and a whole share": lambda: launch(
        "true", PYTORCH_CUDA_ALLOC_CONF="", PYTORCH_ALLOC_CONF="per_process_memory_fraction:1.0"),
    "ComfyUI": comfyui,
    "ComfyUI with a wish of the user's": lambda: comfyui("--lowvram"),
    "no program named": launch,
    "a dry run": lambda: launch("--dry-run", "true"),
    "no such library": lambda: launch("true", AUTOOFFLOAD_LIB="/nowhere/x.so"),
    "a tree that was not built": lambda: unbuilt("autooffload", "run", "true"),
    "the program of a tree that was not built": lambda: unbuilt("autooffload", "cards"),
    "no such program": lambda: launch("no-such-program"),
    "no such path": lambda: launch("./no-such-program"),
    "a directory": lambda: launch("/usr"),
    "a script that is not executable": lambda: in_folder(
        "./main.py", make=lambda folder: (folder / "main.py").write_text("print(1)")),
    "a program here, not in PATH": lambda: in_folder(
        "tool", make=lambda folder: (folder / "tool").write_text("print(1)")),
    "an interpreter that is missing": lambda: executable("script", b"#!/no/such/shell\n"),
    "a file of no known kind": lambda: executable("odd", b"nothing of a program\n"),
    "a static program": lambda: in_folder("./static", make=static),
    "a 32-bit program": lambda: executable("narrow", b"\x7fELF\x01" + bytes(80)),
    "a set-ID program": lambda: in_folder("./suid", make=set_id),
}

ROOT_ONLY = {"a set-ID program"}


@functools.cache
def lines_of(situation):
    prefix = re.compile(r"(autooffload(-launch)?: |autooffload-launch: error: )?")
    return [prefix.sub("", line, count=1) for line in SITUATIONS[situation]().splitlines()
            if not line.startswith("{")]


def pattern(text):
    return ".*".join(re.escape(part) for part in text.split("…"))


@pytest.mark.parametrize("situation", list(MESSAGES))
def test_it_is_said(situation):
    if situation in ROOT_ONLY and os.getuid() != 0:
        pytest.skip("needs a file owned by another user")
    lines = lines_of(situation)
    for text in MESSAGES[situation]:
        found = [line for line in lines
                 if re.fullmatch(r"(error: )?" + pattern(text), line)]
        assert found, text + "\n\nsaid was:\n" + "\n".join(lines)
        assert len(found) == 1 or "dry run" in situation, found


def test_every_situation_has_its_messages():
    assert set(MESSAGES) == set(SITUATIONS)


def test_every_message_of_the_sources_is_here():
    """A message that is new is given a situation in messages.py that brings it about."""
    known = [text for lines in MESSAGES.values() for text in lines] + list(OUT_OF_REACH)
    made = sources.of_library() | sources.of_launcher()
    assert len(made) > 80, "the sources are not read"
    missing = {where: text for text, where in made.items()
               if not any(re.search(text, line) for line in known)}
    assert not missing, missing


def test_what_is_out_of_reach_is_still_said():
    made = sources.of_library() | sources.of_launcher()
    for text in OUT_OF_REACH:
        assert any(re.fullmatch(found, text) for found in made), text


@pytest.mark.parametrize("text", ["device {device}: {what} is on fire", "nothing goes \\\n  on"])
def test_a_new_message_is_missed(text, tmp_path, monkeypatch):
    """What the search is for: it sees a message that nobody has put into the table."""
    source = tmp_path / "src" / "new.rs"
    source.parent.mkdir()
    source.write_text(f'fn f() {{ log::warn!(\n    "{text}", 1); }}\n')
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    known = [line for lines in MESSAGES.values() for line in lines] + list(OUT_OF_REACH)
    found = sources.of_library()
    assert len(found) == 1
    assert not any(re.search(next(iter(found)), line) for line in known)
