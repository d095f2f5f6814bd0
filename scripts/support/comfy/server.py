"""A ComfyUI on the stand-in: started, asked over HTTP, ended.

Owns: its processes and folders; nothing is left when `close` returns. Not here: what it is
asked (workflows.py), what the answers mean (scripts/test-comfyui).
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

STARTS_WITHIN = 180  # seconds
RUNS_WITHIN = 400
ENDS_WITHIN = 60


class Failed(Exception):
    """A sentence, and the last that the server said."""


class Server:
    def __init__(self, root, python, comfyui, folder, command=(), switches=(), **env):
        """`command`: what stands in front of the interpreter; `env`: for the server alone."""
        self.folder = folder
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        (folder / "user").mkdir(parents=True)
        lib = root / "target" / "standin" / "lib"
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("PYTORCH_", "STANDIN_", "AUTOOFFLOAD"))}
        environment |= {
            "LD_LIBRARY_PATH": str(lib), "TRITON_LIBCUDA_PATH": str(lib), "HF_HUB_OFFLINE": "1",
            "PATH": f"{python.parent}:{environment['PATH']}"}
        self.log = folder / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, python, comfyui / "main.py", "--port", str(self.port),
                 "--disable-api-nodes", "--disable-metadata", "--disable-auto-launch",
                 "--output-directory", folder / "output", "--temp-directory", folder,
                 "--user-directory", folder / "user",
                 "--database-url", "sqlite:///:memory:", *switches],
                env=environment | env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True)
        try:
            self.wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def wait_until_it_answers(self):
        began = time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise Failed(f"ComfyUI ended while it started: {self.last_words()}")
            try:
                return self.get("/system_stats")
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() - began > STARTS_WITHIN:
                    raise Failed(f"ComfyUI did not answer within {STARTS_WITHIN} s") from None
                time.sleep(0.3)

    # --- asked ---------------------------------------------------------------------

    def get(self, path):
        with urllib.request.urlopen(self.base + path, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def post(self, path, **fields):
        request = urllib.request.Request(self.base + path, json.dumps(fields).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            raise Failed(f"{path}: {error.read().decode(errors='replace')[:400]}") from None

    def account(self):
        """What the stand-in has counted so far, and the process's memory."""
        return self.get("/autooffload-test/account")

    def submit(self, workflow):
        return self.post("/prompt", prompt=workflow)["prompt_id"]

    def wait(self, prompt):
        """The history of a prompt that has ended."""
        began = time.monotonic()
        while time.monotonic() - began < RUNS_WITHIN:
            told = self.get(f"/history/{prompt}").get(prompt)
            if told and told["status"]:
                return told
            if self.process.poll() is not None:
                raise Failed(f"ComfyUI ended while it ran: {self.last_words()}")
            time.sleep(0.1)
        raise Failed(f"no end after {RUNS_WITHIN} s: {self.last_words()}")

    def run(self, workflow):
        """What the workflow wrote, by hash, in order of its nodes."""
        told = self.wait(self.submit(workflow))
        if told["status"]["status_str"] != "success":
            raise Failed(reason(told))
        found = {}
        for name, outputs in sorted(told["outputs"].items()):
            for kind, items in sorted(outputs.items()):
                found[f"{name}.{kind}"] = [self.hashed(item) if isinstance(item, dict) else item
                                           for item in items]
        return found

    def until_said(self, text):
        began = time.monotonic()
        while text not in self.log.read_text(errors="replace"):
            if time.monotonic() - began > RUNS_WITHIN or self.process.poll() is not None:
                raise Failed(f"ComfyUI did not come to say {text!r}: {self.last_words()}")
            time.sleep(0.2)

    def hashed(self, item):
        path = self.folder / "output" / item["subfolder"] / item["filename"]
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    # --- ended ---------------------------------------------------------------------

    def close(self):
        """Ctrl-C; gives all that it has said."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"ComfyUI did not end within {ENDS_WITHIN} s of Ctrl-C") from None
        self.kill()  # what it has started and left
        return self.log.read_text(errors="replace")

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def last_words(self, lines=4):
        return " / ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])


def reason(told):
    for kind, fields in reversed(told["status"].get("messages", ())):
        if kind == "execution_error":
            return f"{fields['node_type']}: {fields['exception_message'].strip()[:400]}"
    return "it failed, and ComfyUI gave no reason"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What its user has put into a ComfyUI, or it has written itself.
THEIRS = {".git", "models", "output", "input", "user", "temp", "custom_nodes", "venv", ".venv"}


def staged(comfyui, into, models, nodes):
    """A copy of a ComfyUI without what is its user's, with `nodes` in custom_nodes."""
    def ignored(folder, names):
        return {"__pycache__"} & set(names) | (
            THEIRS & set(names) if pathlib.Path(folder) == comfyui else set())
    shutil.copytree(comfyui, into, ignore=ignored)
    (into / "models").symlink_to(models)
    for name in ("input", "custom_nodes"):
        (into / name).mkdir()
    for name, source in nodes.items():
        place = into / "custom_nodes" / name
        if source.is_dir():
            shutil.copytree(source, place, ignore=ignored)
        else:
            shutil.copy(source, place)
