"""The order of a program is known at its next start: streamed from the first iteration on as one
that is known, and never trusted.
"""

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import stat
import tempfile
import time

import pytest

from harness import MIB, assert_same, assert_streamed, reference, run
from test_top import PATIENCE_S, finish, running

CAP = 24 * MIB
ONCE = ("watched", "--iterations", 1)
SEVERAL = ("watched", "--iterations", 4)


def orders(folder):
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(folder) if name.endswith(".order"))
    return []


@functools.cache
def kept():
    """A folder with the order of watched.py, by a process that ran until it was kept."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="autooffload-orders-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    folder = base / "orders"
    with running(base, AUTOOFFLOAD_PLANS=folder) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not orders(folder):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(set(finish(process)["hashes"])) == 4
    return folder


def start(folder, *program):
    return run(*program, AUTOOFFLOAD_VRAM=str(CAP), AUTOOFFLOAD_PLANS=folder)


def copied(folder, into):
    """A copy of a folder of orders, to be damaged; its only file."""
    into.mkdir(mode=0o700)
    [name] = orders(folder)
    file = into / name
    file.touch(mode=0o600)
    file.write_bytes((folder / name).read_bytes())
    return file


def test_the_first_iteration_is_foretold():
    unknown, known = start("off", *ONCE), start(kept(), *ONCE)
    wanted = reference(*ONCE)
    for result in unknown, known:
        assert result.ok().out["hashes"] == wanted.out["hashes"]
        assert_streamed(result, CAP, wanted.account["h2d_bytes"])
    assert (unknown.stats["plan"]["recalled"], known.stats["plan"]["recalled"]) == (0, 1)
    late = [result.stats["streaming"]["touches"] - result.stats["streaming"]["hits"]
            for result in (unknown, known)]
    assert late[1] < late[0], late


def test_what_is_kept_is_the_users_alone():
    folder = kept()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    [name] = orders(folder)
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert not [other for other in os.listdir(folder) if other != name]


@pytest.mark.parametrize("damage", ["cut", "flipped", "another's", "a link", "open to others"])
def test_what_is_damaged_or_foreign_is_not_used(tmp_path, damage):
    file = copied(kept(), tmp_path / "orders")
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-9])
    elif damage == "flipped":
        file.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    elif damage == "another's":
        file.write_bytes(whole[:10] + bytes(8) + whole[18:])
    elif damage == "a link":
        file.unlink()
        file.symlink_to(pathlib.Path(kept(), file.name))
    else:
        file.chmod(0o644)
    result = start(file.parent, *SEVERAL)
    wanted = reference(*SEVERAL)
    assert_same(result, wanted)
    assert_streamed(result, CAP, wanted.account["h2d_bytes"])
    assert result.stats["plan"]["recalled"] == 0


def test_an_order_that_no_longer_comes_does_no_harm():
    """Other blocks are used: what is foretold does not come."""
    arguments = (*SEVERAL, "--backwards")
    result = start(kept(), *arguments)
    wanted = reference(*arguments)
    assert_same(result, wanted)
    assert_streamed(result, CAP, wanted.account["h2d_bytes"])
    assert result.stats["plan"]["recalled"] == 1
