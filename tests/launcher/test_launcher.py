"""scripts/autooffload-launch, with small programs and a stand-in library.

Not here: anything of CUDA or PyTorch (see tests/e2e).
"""

import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "autooffload-launch"
SILENCE = "no process of this run initialised CUDA"
TRAP = """
import signal, sys, time
def seen(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(40 + number)
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), seen)
print("ready", flush=True)
# Not in one go: a signal just ahead of the call would be seen after it.
end = time.monotonic() + 300
while time.monotonic() < end:
    time.sleep(0.02)
"""


def launch(*arguments, env, **options):
    return subprocess.run([LAUNCHER, *map(str, arguments)], env=env, text=True,
                          capture_output=True, timeout=300, **options)


def copied_launcher(root):
    """The launcher in a tree where nothing has been built."""
    script = root / "bin" / "autooffload-launch"
    script.parent.mkdir()
    shutil.copy(LAUNCHER, script)
    shutil.copytree(ROOT / "python", root / "python")
    return script


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


# --- the environment ---------------------------------------------------------

def test_options_become_settings(env, tmp_path):
    result = launch("--vram", "8G", "--window", "8", "--headroom=1G", "--ram", "20G",
                    "--report", "enlarged", "--no-pin", "--stats", "out-%p.json",
                    "--log", "info", "--", "env", env=env, cwd=tmp_path)
    got = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    assert got["AUTOOFFLOAD_VRAM"] == "8G"
    assert got["AUTOOFFLOAD_WINDOW"] == "8"
    assert got["AUTOOFFLOAD_HEADROOM"] == "1G"
    assert got["AUTOOFFLOAD_RAM"] == "20G"
    assert got["AUTOOFFLOAD_REPORT"] == "enlarged"
    assert got["AUTOOFFLOAD_PIN"] == "0"
    assert got["AUTOOFFLOAD_STATS"] == str(tmp_path / "out-%p.json")
    assert got["AUTOOFFLOAD_LOG"] == "info"
    assert "AUTOOFFLOAD" not in got


def test_settings_of_the_environment_stay(env):
    result = launch("sh", "-c", "echo $AUTOOFFLOAD_VRAM",
                    env=env | {"AUTOOFFLOAD_VRAM": "3G"})
    assert result.stdout == "3G\n"


def test_off(env):
    result = launch("--off", "sh", "-c", "echo $AUTOOFFLOAD", env=env)
    assert result.stdout == "0\n"
    assert SILENCE not in result.stderr


def test_the_programs_options_are_its_own(env):
    result = launch("echo", "--vram", "x", "--", "--help", env=env)
    assert result.stdout == "--vram x -- --help\n"


def test_user_preload_is_kept_after_ours(env, library):
    result = launch("sh", "-c", "echo $LD_PRELOAD", env=env | {"LD_PRELOAD": "libm.so.6"})
    assert result.stdout == f"{library}:libm.so.6\n"


def test_library_path_with_a_blank(env, library, tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    copy = folder / "libautooffload.so"
    copy.write_bytes(library.read_bytes())
    log = tmp_path / "loaded"
    launch("true", env=env | {"AUTOOFFLOAD_LIB": str(copy), "FAKE_LOADED": str(log)})
    assert log.exists()


# --- exit status and signals ---------------------------------------------------

@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exit_status(env, status):
    assert launch("sh", "-c", f"exit {status}", env=env).returncode == status


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "SIGINT"])
def test_death_by_signal(env, name):
    result = launch("sh", "-c", f"kill -{name[3:]} $$", env=env)
    assert result.returncode == -getattr(signal, name)


@pytest.mark.parametrize("nobody", ["2>/dev/full", "2>&-", "</dev/null >/dev/null 2>&-"])
def test_what_nobody_can_hear_changes_no_status(env, nobody):
    """It has something to say each time: CUDA was not used."""
    def status_and_output(command):
        line = f"{LAUNCHER} sh -c '{command}' {nobody}"
        done = subprocess.run(["sh", "-c", line], env=env, text=True, stdout=subprocess.PIPE,
                              timeout=300)
        return done.returncode, done.stdout
    shown = "" if ">/dev/null" in nobody else "hello\n"
    assert status_and_output("echo hello; exit 7") == (7, shown)
    status, output = status_and_output("echo hello; kill -TERM $$")
    assert status in (-signal.SIGTERM, 128 + signal.SIGTERM) and output == shown


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1",
                                  "SIGUSR2", "SIGWINCH"])
def test_signals_are_handed_on(env, name):
    process = subprocess.Popen([LAUNCHER, sys.executable, "-c", TRAP, name], env=env,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=300)
    assert out == f"{name}\n"
    assert process.returncode == 40 + getattr(signal, name)


def test_ctrl_c_at_the_terminal_arrives_once(env, tmp_path):
    """The terminal signals the whole job: a forwarded copy would be a second."""
    program = tmp_path / "count.py"
    program.write_text("""
import signal, time
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
print("ready", flush=True)
end = time.monotonic() + 300
while not seen and time.monotonic() < end:
    time.sleep(0.05)
for _ in range(10):
    time.sleep(0.05)
print("interrupts", len(seen), flush=True)
""")
    child, terminal = os.forkpty()
    if child == 0:
        os.execve(LAUNCHER, [str(LAUNCHER), sys.executable, str(program)], env)
    output = b""
    while b"ready" not in output:
        output += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while b"\n" not in output.partition(b"interrupts")[2]:
        output += os.read(terminal, 1024)
    os.waitpid(child, 0)
    os.close(terminal)
    assert b"interrupts 1" in output


def test_signal_mask_and_sigpipe_are_the_programs_own(env):
    program = ("import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), "
               "open('/proc/self/status').read().split('SigBlk:')[1].split()[0])")
    result = launch(sys.executable, "-c", program, env=env)
    assert result.stdout.split()[-1].strip("0") == ""
    result = launch("sh", "-c", "yes | head -1", env=env)
    assert result.stdout == "y\n" and result.returncode == 0


def test_standard_input_reaches_the_program(env):
    assert launch("cat", env=env, input="hello").stdout == "hello"


def test_the_program_does_not_outlive_a_killed_launcher(env):
    process = subprocess.Popen([LAUNCHER, sys.executable, "-c", TRAP, "SIGTERM"], env=env,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    out, _ = process.communicate(timeout=300)  # the program holds the other end
    assert out == "SIGTERM\n"


def test_what_an_interrupted_program_left_is_said(env, tmp_path):
    """As the library leaves it: a file in the launcher's directory, gone once it was said."""
    leave = 'echo "autooffload: streamed 3 GiB" >$AUTOOFFLOAD_LAUNCH_DIR/77.summary; '
    result = launch("sh", "-c", leave + "kill -TERM $$", env=env)
    assert result.returncode == -signal.SIGTERM
    assert "autooffload: streamed 3 GiB\n" in result.stderr


def test_a_dry_run_starts_nothing(env, library, tmp_path):
    result = launch("--dry-run", "--vram", "8G", "--", "touch", tmp_path / "made",
                    env=env | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
    assert result.returncode == 0 and not (tmp_path / "made").exists()
    for line in (f"with      {tmp_path / 'made'}", "set       AUTOOFFLOAD_VRAM=8G",
                 f"set       LD_PRELOAD={library}", "unset     PYTORCH_ALLOC_CONF"):
        assert line in result.stdout.splitlines()
    refused(launch("--dry-run", "no-such-program", env=env), 127, "not found in PATH")


def test_the_version_is_the_manifests(env):
    manifest = (ROOT / "Cargo.toml").read_text()
    assert f'version = "{launch("--version", env=env).stdout.split()[-1]}"' in manifest


# --- whether CUDA was used -----------------------------------------------------

def test_sentence_when_nothing_used_cuda(env):
    result = launch("true", env=env)
    assert SILENCE in result.stderr and result.returncode == 0


def test_no_sentence_when_a_grandchild_used_cuda(env):
    result = launch("sh", "-c", "FAKE_CUDA=1 sh -c 'true; true'; true", env=env)
    assert SILENCE not in result.stderr


def test_nested_launchers_agree(env):
    result = launch(LAUNCHER, "sh", "-c", "FAKE_CUDA=1 env true", env=env)
    assert SILENCE not in result.stderr


def test_children_are_covered(env, tmp_path):
    log = tmp_path / "loaded"
    launch("sh", "-c", "true; env true; true", env=env | {"FAKE_LOADED": str(log)})
    assert len(set(log.read_text().split())) >= 2


def test_private_directory_is_removed(env):
    result = launch("sh", "-c", "echo $AUTOOFFLOAD_LAUNCH_DIR", env=env)
    assert result.stdout.strip() and not os.path.exists(result.stdout.strip())


# --- what cannot be run ----------------------------------------------------------

def refused(result, status, *words):
    assert result.returncode == status
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_missing_library(env):
    refused(launch("true", env=env | {"AUTOOFFLOAD_LIB": "/nowhere/x.so"}), 127,
            "AUTOOFFLOAD_LIB", "/nowhere/x.so")


def test_library_found_nowhere(env, tmp_path):
    script = copied_launcher(tmp_path)
    bare = {name: value for name, value in env.items()
            if name not in ("AUTOOFFLOAD_LIB", "CARGO_TARGET_DIR")} | {"HOME": str(tmp_path)}
    result = subprocess.run([script, "true"], env=bare, text=True, capture_output=True)
    refused(result, 127, "scripts/build", "AUTOOFFLOAD_LIB")


@pytest.mark.parametrize("place", ["bin", "target/release", "home/.local/lib"])
def test_library_is_found(env, library, tmp_path, place):
    script = copied_launcher(tmp_path)
    found = tmp_path / place / "libautooffload.so"
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_bytes(library.read_bytes())
    bare = {name: value for name, value in env.items()
            if name not in ("AUTOOFFLOAD_LIB", "CARGO_TARGET_DIR")}
    result = subprocess.run([script, "sh", "-c", "echo $LD_PRELOAD"], text=True,
                            env=bare | {"HOME": str(tmp_path / "home")}, capture_output=True)
    assert result.stdout.strip() == str(found)


def test_missing_program(env):
    refused(launch("no-such-program", env=env), 127, "not found in PATH")
    refused(launch("./no-such-program", env=env), 127, "no such file")


def test_script_without_execute_permission(env, tmp_path):
    (tmp_path / "main.py").write_text("print(1)")
    refused(launch("./main.py", env=env, cwd=tmp_path), 126, "autooffload-launch python")
    refused(launch("main.py", env=env, cwd=tmp_path), 127, "autooffload-launch python main.py")


def test_directory(env, tmp_path):
    refused(launch(tmp_path, env=env), 126, "directory")


def test_file_of_no_known_kind(env, tmp_path):
    refused(launch(executable(tmp_path / "odd", "no shebang\n"), env=env), 126,
            "cannot be executed")


def test_missing_interpreter(env, tmp_path):
    refused(launch(executable(tmp_path / "s", "#!/no/such/shell\n"), env=env), 126,
            "/no/such/shell")


@pytest.fixture(scope="session")
def static_program(tmp_path_factory):
    path = tmp_path_factory.mktemp("static") / "program"
    build = subprocess.run(["cc", "-static", "-nostdlib", "-x", "c", "-o", path, "-"],
                           input="void _start(void){for(;;);}", text=True)
    assert build.returncode == 0
    return path


def test_static_program(env, static_program):
    refused(launch(static_program, env=env), 126, "statically linked")


def test_script_of_a_static_interpreter(env, static_program, tmp_path):
    script = executable(tmp_path / "script", f"#!{static_program}\n")
    refused(launch(script, env=env), 126, "statically linked")
    script = executable(tmp_path / "script2", f"#!/usr/bin/env {static_program}\n")
    refused(launch(script, env=env), 126, "statically linked")


@pytest.mark.skipif(os.getuid() != 0, reason="needs a file owned by another user")
def test_set_user_id_program(env, tmp_path):
    program = tmp_path / "suid"
    program.write_bytes(pathlib.Path("/bin/true").read_bytes())
    os.chown(program, 12345, 12345)
    program.chmod(0o755 | stat.S_ISUID)
    refused(launch(program, env=env), 126, "set-ID")


def test_usage(env):
    assert launch("--help", env=env).returncode == 0
    assert launch(env=env).returncode == 2
    assert launch("--vrma", "8G", "true", env=env).returncode == 2
    assert launch("--vram", env=env).returncode == 2
    assert launch("--allocator", "fast", "true", env=env).returncode == 2
    assert launch("--comfyui", "on", "true", env=env).returncode == 2


def test_starts_quickly(env):
    before = time.monotonic()
    launch("true", env=env)
    assert time.monotonic() - before < 5
