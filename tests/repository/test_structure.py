"""The shape of the sources: rooms, their faces, what may know whom, and how large
they may be. What is not as it should be yet stands here by name."""

import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "src"
CORE = LIBRARY / "core" / "src"
SHARED = LIBRARY / "shared" / "src"
LARGEST_FILE = 500
LARGEST_CORE = 9000 + 5080  # until phases are described by the rule of `learn/predict`, too

# One entry point a line: as long as the driver's API.
TABLES = {"src/hooks/table.rs"}
# Not as it should be yet.
TOO_LARGE = {"src/hooks/copy.rs", "src/core/src/learn/surprise.rs"}
SEES_EVERYTHING = {f"src/core/src/{name}.rs" for name in (
    "learn/ahead", "learn/follow", "learn/laps", "learn/phases", "learn/surprise", "learn/times")}
# What a hook counts and looks up, filled once.
HOOK_STATICS = {"COUNTS", "ORIGINALS", "ALL_RESOLVED", "SAID"}
STATE_IN_HOOKS = {"GENERATION", "SHARED", "CACHE", "KERNELS", "FOREIGN", "FOREIGN_COUNT", "REMEMBERED",
                  "ORIGINS"}
STATE_IN_ENGINE = {"FLIGHT", "HELPERS", "THREAD"}
ENGINE_STATICS = {"ENGINE"}
# Looking a name up ends in the table, which names the function that looks names up.
CIRCLES = [{"src/hooks/proc_address.rs", "src/hooks/table.rs", "src/hooks/registry.rs"}]
CIRCLES_YET = [{f"src/{name}.rs" for name in names.split()} for names in (
    "exports hooks/init hooks/proc_address hooks/registry hooks/table lifecycle",
    "hooks/copy hooks/graphs hooks/launch hooks/streams hooks/touches",
    "engine/allocation engine/captures engine/card engine/chunk_bits engine/guards engine/inflight "
    "engine/operation engine/reach engine/setup engine/small engine/state engine/stream_ordered "
    "engine/users/mod engine/users/ends engine/users/marks engine/verify "
    "engine/waits",
    "core/src/learn/laps core/src/learn/phases core/src/learn/surprise")]


def name_of(path):
    return str(path.relative_to(ROOT))


def sources(*folders):
    found = [path for folder in folders for path in sorted(folder.rglob("*.rs"))
             if "target" not in path.parts]
    assert found
    return found


def shipping(text):
    """Without the tests at a file's end."""
    return re.split(r"^#\[cfg\(test\)\]\nmod ", text, maxsplit=1, flags=re.MULTILINE)[0]


def library_sources():
    crates = [LIBRARY / "core", LIBRARY / "shared"]
    ours = [path for path in sources(LIBRARY) if not set(crates) & set(path.parents)]
    return ours + sources(*(crate / "src" for crate in crates))


def test_no_file_sees_everything_of_another():
    """`use super::*` makes one room of many files. (Tests at a file's end may, and the
    driver's C names are one list.)"""
    found = {name_of(path) for path in library_sources() + sources(ROOT / "lab", ROOT / "cli")
             if re.search(r"^\s*(pub )?use (super|crate)(?!(::driver)?::abi::)(::\w+)*::\*",
                          shipping(path.read_text()), re.MULTILINE)}
    assert found - SEES_EVERYTHING == set()


def test_files_are_small_enough_to_be_read():
    large = {name_of(path) for path in library_sources()
             if path.read_text().count("\n") > LARGEST_FILE}
    assert large - TABLES - TOO_LARGE == set()


def test_each_test_file_has_a_name_of_its_own():
    """Without packages pytest knows a file by its name: two of one are not collected."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_shipping_core_is_small():
    lines = sum(shipping(path.read_text()).count("\n") for path in sources(CORE))
    assert lines <= LARGEST_CORE


# Who may name whom, in the library.
ARROWS = {"hooks": {"hooks", "engine", "driver", "lifecycle", "thread"},
          "engine": {"engine", "driver", "thread"},
          "driver": {"driver"}}


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_know_only_what_is_below_them(room):
    wrong = []
    for path in sources(LIBRARY / room):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for known in re.findall(r"\bcrate::(\w+)", line.split("//")[0]):
                if known not in ARROWS[room] and (LIBRARY / f"{known}.rs").exists() | \
                        (LIBRARY / known).is_dir():
                    wrong.append(f"{name_of(path)}:{number}: {line.strip()}")
    assert wrong == []


def test_crates_know_only_what_is_below_them():
    """cli → lab → core; the library → core; both → shared. (Tests of the core may use the laboratory.)"""
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"], cwd=ROOT,
        check=True, stdout=subprocess.PIPE).stdout)
    wanted = {"autooffload": {"core", "shared"}, "autooffload-core": set(), "autooffload-lab": {"core"},
              "autooffload-shared": set(), "autooffload-cli": {"core", "lab", "shared"}}
    for package in metadata["packages"]:
        known = {one["name"].removeprefix("autooffload-") for one in package["dependencies"]
                 if one["name"].startswith("autooffload-") and one["kind"] is None}
        if package["name"] in wanted:
            assert known == wanted.pop(package["name"]), package["name"]
    assert not wanted


def changing_statics(folder):
    kinds = r"Atomic\w+|Mutex|RwLock|OnceLock|OnceCell|LazyLock|Lazy|Cell|RefCell|UnsafeCell|Count"
    return {name for path in sources(folder)
            for name, kind in re.findall(r"^\s*(?:pub(?:\([^)]*\))? )?static (\w+):\s*([^=]+)=",
                                         shipping(path.read_text()), re.MULTILINE)
            if re.search(rf"\b({kinds})\b", kind)}


def test_hooks_hold_no_state():
    assert changing_statics(LIBRARY / "hooks") - HOOK_STATICS - STATE_IN_HOOKS == set()


def test_the_engine_holds_its_state_in_one_place():
    assert changing_statics(LIBRARY / "engine") - ENGINE_STATICS - STATE_IN_ENGINE == set()


# --- circles ---------------------------------------------------------------------

def module_of(path, root):
    parts = list(path.relative_to(root).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] in ("mod", "lib") else parts)


def imports(path, module, modules):
    """The modules that `path` names in paths from the crate, its parent or itself."""
    here = module if path.name in ("mod.rs", "lib.rs") else module[:-1]
    text = re.sub(r"//.*", "", shipping(path.read_text()))
    text = re.sub(r"\bpub\([^)]*\)", "", text)
    for start, rest in re.findall(r"\b(crate|super(?:::super)*|self)::((?:\w+::)*\w+)", text):
        ups = start.count("super")
        base = () if start == "crate" else module[:len(module) - ups] if ups else module
        yield from longest(base + tuple(rest.split("::")), modules)
    for start, names in re.findall(r"\buse (crate|super(?:::super)*)::(?:\w+::)*\{([^}]*)\}", text):
        ups = start.count("super")
        base = () if start == "crate" else module[:len(module) - ups]
        for name in re.findall(r"\w+(?:::\w+)*", names):
            yield from longest(base + tuple(name.split("::")), modules)


def longest(path, modules):
    for end in range(len(path), 0, -1):
        if path[:end] in modules:
            yield path[:end]
            return


def circles(root, skip=()):
    """Sets of files each of which leads to the others. A room's face knows its files."""
    paths = {module_of(path, root): path for path in sources(root)
             if path.name not in ("mod.rs", "lib.rs") and not set(skip) & set(path.parts)}
    arrows = {module: set(imports(path, module, paths)) - {module}
              for module, path in paths.items()}
    reach = {module: set(known) for module, known in arrows.items()}
    changed = True
    while changed:
        changed = False
        for module, known in reach.items():
            more = set().union(*(reach[other] for other in known)) if known else set()
            if not more <= known:
                known |= more
                changed = True
    found = {frozenset(name_of(paths[other]) for other in reach[module] | {module}
                       if module in reach[other] and other in reach[module])
             for module in paths if module in reach[module]}
    return [set(one) for one in found if len(one) > 1]


def test_no_circle_of_files_but_the_one_that_is_explained():
    found = circles(LIBRARY, skip=("core", "shared")) + circles(CORE) + circles(SHARED)
    known = CIRCLES + CIRCLES_YET
    assert [one for one in found if not any(one <= circle for circle in known)] == []
