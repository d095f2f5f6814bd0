"""Each patch of tests/mutants applies to the sources as they are, and says what it takes away
and which tests are to notice. Not here: whether they do (`scripts/test --mutants`)."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "tests" / "mutants").glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_applies(patch):
    what, tests = patch.read_text().splitlines()[:2]
    assert what.startswith("# ") and tests.startswith(("# tests: ", "# cargo: "))
    done = subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
