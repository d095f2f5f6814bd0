"""The walls between the rooms of the repository, checked by search."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files_under(*folders):
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard",
                             *folders], cwd=ROOT, text=True, check=True,
                            stdout=subprocess.PIPE).stdout.split("\n")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def mentions(pattern, paths):
    found = []
    for path in paths:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if re.search(pattern, line, re.IGNORECASE):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def test_the_library_knows_nothing_of_the_stand_in():
    """The same library serves a GPU: it must not be able to tell the difference."""
    sources = files_under("src", "shim", "build.rs", "Cargo.toml")
    sources = [path for path in sources if path.name != "Cargo.toml" or path.parent != ROOT]
    assert sources
    assert mentions(r"stand[-_]?in", sources) == []


def test_the_stand_in_knows_nothing_of_the_library():
    sources = [path for path in files_under("standin") if path.suffix == ".rs"]
    assert sources
    assert mentions(r"autooffload", sources) == []


def test_the_pure_core_calls_nothing_outside():
    manifest = (ROOT / "src" / "core" / "Cargo.toml").read_text()
    assert not re.search(r"^(libc|cudarc)\b", manifest, re.MULTILINE)
    assert "forbid(unsafe_code)" in (ROOT / "src" / "core" / "src" / "lib.rs").read_text()


def test_nothing_of_the_laboratory_ships():
    """What measures plans must not be linked into what carries them out."""
    tree = subprocess.run(["cargo", "tree", "-p", "autooffload", "-e", "normal,build", "--offline",
                           "--prefix", "none"], cwd=ROOT, text=True, check=True,
                          stdout=subprocess.PIPE).stdout
    assert re.search(r"^autooffload-core ", tree, re.MULTILINE)
    assert not re.search(r"^autooffload-(lab|cli) ", tree, re.MULTILINE)


def test_every_source_file_says_what_it_owns():
    bare = []
    for path in files_under("src", "lab", "cli", "standin"):
        if path.suffix == ".rs" and not path.read_text().lstrip().startswith("//!"):
            bare.append(str(path.relative_to(ROOT)))
    assert bare == []


@pytest.mark.parametrize("pattern", [r"\btodo!\(", r"\bunimplemented!\(", r"(?<!')\bstatic mut\b",
                                     r"#!?\[allow\(dead_code\)\]"])
def test_nothing_left_unfinished(pattern):
    sources = [path for path in files_under("src", "lab", "cli", "standin") if path.suffix == ".rs"]
    assert mentions(pattern, sources) == []


def test_every_setting_is_in_the_readme():
    """The README's table is the one the code prints."""
    code = (ROOT / "src" / "core" / "src" / "config.rs").read_text()
    names = re.findall(r'name: "(AUTOOFFLOAD\w*)",\s*default: "([^"]*)",', code)
    assert len(names) >= 9
    readme = (ROOT / "README.md").read_text()
    for name, default in names:
        shown = f"`{default}`" if default else ""
        assert f"| `{name}` | {shown} |" in readme, name
