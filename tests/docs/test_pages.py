"""What the pages tell the reader to type is typed here; what takes longer than a
minute (blocks marked `long`) is parsed.

Not here: what the programs do in detail (the other tests).
"""

import configparser
import os
import re
import shutil
import subprocess

import pytest

from pages import PAGES, ROOT, blocks, file_block

SHELL = blocks("sh")
SHORT = [block for block in SHELL if not block.is_long]
LONG = [block for block in SHELL if block.is_long]

# Programs of others that a long block may start, and words of the shell.
OTHERS = {"pip", "python", "python3", "cargo", "cd", "source", "for", "git", "tee", "comfy"}

# Run with these, a program moves nothing.
IDLE = {"--off", "--dry-run", "--help", "--version", "doctor"}


def test_there_are_pages_and_commands():
    """Each page that tells what to do has something to try; nothing passes by finding none."""
    found = {block.page.name for block in SHELL}
    assert {"README.md", "use.md", "comfyui.md", "troubleshooting.md", "contributing.md",
            "standin.md"} <= found
    assert len(SHORT) >= 15 and len(LONG) >= 5
    assert {"design.md", "performance.md", "design-notes.md"} <= {page.name for page in PAGES}


def test_every_block_says_what_it_is():
    """A command in a block without a language would be run by nobody."""
    known = {"sh", "text", "json", "ini", "dockerfile", "python", "c"}
    assert not [block.name for block in blocks() if block.language not in known]
    # Indented blocks are not seen by these tests.
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"^ {4}(autooffload|scripts/|python|pip)", text, re.MULTILINE), page


def offloads(words):
    starts = [word for word in words if word.endswith("autooffload-launch")] or \
        (words[:2] == ["autooffload", "run"]) or (words[1:4] == ["-m", "autooffload", "run"])
    return bool(starts) and not IDLE & set(words)


@pytest.mark.parametrize("block", SHORT, ids=lambda block: block.name)
def test_a_command_works(block, run):
    # Without us the program needs what its weights need.
    done = run(block.text, **({"STANDIN_VRAM": "1G"} if "--off" in block.text else {}))
    assert "doctor" in block.text or done.returncode == 0, done.stdout + done.stderr[-3000:]
    if any(offloads(words) for words in block.commands()):
        assert re.search(r"streamed [\d.]+ \w+", done.stderr), done.stderr[-3000:]
        assert "everything fitted" not in done.stderr


@pytest.mark.parametrize("block", LONG, ids=lambda block: block.name)
def test_a_long_command_is_one(block, reader):
    """Its syntax, its programs, and the options of those that are ours."""
    folder, env = reader
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for words in block.commands():
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            words = words[1:]
        program = words[0]
        if program.startswith(".venv/bin/"):
            program = program.removeprefix(".venv/bin/")
        if program.startswith("scripts/"):
            path = ROOT / program
            assert os.access(path, os.X_OK), words
            if path.read_bytes().startswith(b"#!"):
                command = [word for word in words[1:2] if word.isalpha()]
                help_text = subprocess.run([path, *command, "--help"], env=env, text=True,
                                           capture_output=True, timeout=300)
                assert help_text.returncode == 0, words
                for option in [word for word in words[1:] if word.startswith("-")]:
                    assert option.partition("=")[0] in help_text.stdout, words
        elif program == "cargo":
            test = dict(zip(words, words[1:])).get("--test")
            package = dict(zip(words, words[1:]))["-p"]
            manifest = {"autooffload-core": "src/core", "autooffload-lab": "lab"}[package]
            assert (ROOT / manifest / "tests" / f"{test}.rs").exists(), words
        else:
            assert program in OTHERS or shutil.which(program, path=env["PATH"]), words


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert target.startswith("https://") or (page.parent / target).exists(), \
                f"{page.relative_to(ROOT)}: {target}"


# --- recipes that are files ----------------------------------------------------

def test_a_jupyter_kernel(reader, tools):
    """The kernel of the page runs a cell that streams, and the cell of the page sees it."""
    folder, env = reader
    kernel = folder / "share" / "kernels" / "autooffload"
    kernel.mkdir(parents=True, exist_ok=True)
    (kernel / "kernel.json").write_text(file_block("use.md", "kernel.json"))
    cell = next(block.text for block in blocks("python") if block.page.name == "use.md")
    client = f"""
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
specs = KernelSpecManager(kernel_dirs=[{str(kernel.parent)!r}])
manager = KernelManager(kernel_name="autooffload", kernel_spec_manager=specs)
manager.start_kernel()
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=180)
    for code in (open("main.py").read(), {cell!r}):
        reply = client.execute_interactive(code, timeout=180)
        assert reply["content"]["status"] == "ok", reply
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=False)
"""
    done = subprocess.run([tools / "bin" / "python", "-c", client], cwd=folder, env=env,
                          text=True, capture_output=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 96 << 20, done.stdout


def test_a_systemd_unit(run):
    text = file_block("use.md", "main.service")
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read_string(text)
    service = unit["Service"]
    assert service["LimitMEMLOCK"] == "infinity"
    command = service["ExecStart"].replace("/opt/app/venv/bin/", "").replace("/opt/app/", "") \
        .replace("/run/app/", "")
    done = run(command)
    assert done.returncode == 0 and "streamed" in done.stderr, done.stderr[-3000:]
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(["systemd-analyze", "verify", "--man=no", "main.service"],
                                 text=True, capture_output=True, cwd=write(run, text))
        assert "Unknown" not in checked.stderr and "Failed to parse" not in checked.stderr, \
            checked.stderr


def write(run, text):
    """A folder with the unit in it."""
    done = run(f"mkdir -p unit && cat > unit/main.service <<'END'\n{text}END\npwd")
    return os.path.join(done.stdout.strip(), "unit")


def test_a_container_file():
    """Not built here: its instructions, and that it starts what the other recipes start."""
    text = file_block("use.md", "Dockerfile")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    assert {name for name, _ in lines} <= {"FROM", "COPY", "RUN", "ENTRYPOINT", "CMD"}
    values = dict(lines)
    assert lines[0][0] == "FROM"
    assert values["ENTRYPOINT"] == '["autooffload-launch"]'
    assert values["CMD"].startswith('["python", ')
