"""AUTOOFFLOAD_METRICS: what is served, to whom, and what happens where it cannot be."""

import re
import socket

import pytest

from harness import MIB, run

SMALL = 20 * MIB


def scraped(endpoint, *more, **env):
    result = run("scraped", endpoint, *more, vram=SMALL, AUTOOFFLOAD_METRICS=endpoint, **env).ok()
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]
    return result


def check(result):
    head, _, body = result.out["answer"].partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK") and f"Content-Length: {len(body)}" in head
    values = {}
    for line in body.splitlines():
        if not line.startswith("# "):
            found = re.fullmatch(r'(autooffload_\w+)(\{\w+="[^"]*"\})? (\d+)', line)
            assert found, line
            values[found[1] + (found[2] or "")] = int(found[3])
            assert f"# TYPE {found[1]} " in body and f"# HELP {found[1]} " in body
    # Nothing has happened since.
    assert values["autooffload_streamed_bytes_total"] == result.stats["streaming"]["streamed_bytes"] > 0
    assert values["autooffload_budget_bytes"] == result.stats["device"]["budget_bytes"]
    assert values[f'autooffload_info{{version="{result.stats["version"]}"}}'] == 1
    assert values['autooffload_host_waits_total{reason="allocation"}'] == \
        result.stats["waits"]["allocation"]["count"]
    assert result.out["refused"].startswith("HTTP/1.1 405")


def test_on_a_socket_that_is_the_users_alone(tmp_path):
    path = tmp_path / "m.sock"
    result = scraped(f"unix:{path}")
    check(result)
    assert result.out["mode"] == 0o600
    # What a process left there is in nobody's way.
    assert path.exists()
    check(scraped(f"unix:{path}"))


def test_on_a_port_of_this_machine(tmp_path):
    told = tmp_path / "told"
    for _ in range(5):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        result = scraped(f"127.0.0.1:{port}", told)
        if not any("no metrics are served" in line for line in result.ours):
            break  # nobody else took it meanwhile
    check(result)
    # A child that outlives its parent does not keep it.
    assert told.read_text() == "free"


@pytest.mark.parametrize("what", ["port", "socket", "file", "no folder", "elsewhere"])
def test_what_cannot_be_served_is_said_and_the_program_goes_on(what, tmp_path):
    path = tmp_path / "m.sock"
    taken = None
    if what == "port":
        taken = socket.create_server(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
    elif what == "socket":
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(str(path))
        taken.listen()
        endpoint = f"unix:{path}"
    elif what == "file":
        path.write_text("somebody's")
        endpoint = f"unix:{path}"
    elif what == "no folder":
        endpoint = f"unix:{tmp_path}/nowhere/m.sock"
    else:
        endpoint = "0.0.0.0:9400"
    # The program would wait for an answer of ours.
    result = run("forward", "--blocks", 30, "--iterations", 3, vram=SMALL,
                 AUTOOFFLOAD_METRICS=endpoint).ok()
    assert result.account["h2d_bytes"] > 2 * result.out["weight_bytes"]
    said = [line for line in result.ours if "AUTOOFFLOAD_METRICS" in line]
    assert len(said) == 1, result.ours
    if what == "file":
        assert path.read_text() == "somebody's"
    if taken:
        taken.close()
