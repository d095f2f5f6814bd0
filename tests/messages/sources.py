"""Every message in the sources, as a pattern.

A message is made by one of few means: `log::error!`, `warn!` and `info!` and
what stands for them in the library (MAKERS), the lines of the summary, the
errors of settings; in the launcher every sentence that is not a docstring or a
help text. Not here: debug messages, and the doctor's lines (tests/launcher).
"""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

LITERAL = r'"((?:[^"\\]|\\.)*)"'
MAKERS = (rf'log::(?:error|warn|info)!\(\s*(?:target: \w+,\s*)?{LITERAL}',
          rf'say_once!\(\s*(?:error|warn|info),\s*{LITERAL}',
          rf'warn_once\(\s*(?:format!\(\s*)?{LITERAL}',
          rf'let why =\s*(?:format!\(\s*)?{LITERAL}',
          rf'refuse_if_managed!\([^"]*{LITERAL}',
          rf'\bsay\(\s*&?(?:format!\(\s*)?{LITERAL}')

# Where each sentence is said, however it is made there.
ALL_OF = {"src/engine/account/stats.rs": rf'format!\(\s*{LITERAL}',
          "src/engine/account/passed.rs": LITERAL,
          "src/core/src/config.rs": rf'(?:Err\(\s*|format!\(\s*){LITERAL}',
          "src/core/src/units.rs": rf'(?:Err\(\s*|format!\(\s*|\|_\| ){LITERAL}'}

LAUNCHER = ("allocator", "child", "comfyui", "launch", "library", "program")


def template(literal):
    """A Rust literal as a regular expression."""
    text = re.sub(r"\\\n\s*", "", literal).replace('\\"', '"').replace("\\\\", "\\")
    text = text.replace("{{", "\0").replace("}}", "\1")
    parts = re.split(r"\{[^{}]*\}", text)
    return ".*".join(re.escape(part.replace("\0", "{").replace("\1", "}")) for part in parts)


def is_sentence(text):
    """Not a key, a unit or a name: at least two words besides what is filled in."""
    return not re.fullmatch(r"\w+", text) and len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{[^{}]*\}", " ", text))) >= 2


def of_library():
    """{pattern: where}."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        name = str(path.relative_to(ROOT))
        if name.startswith(("src/core/tests", "src/core/fuzz", "src/core/examples")):
            continue
        text = path.read_text().split("#[cfg(test)]\nmod ")[0]
        text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
        for maker in (*MAKERS, *([ALL_OF[name]] if name in ALL_OF else [])):
            for match in re.finditer(maker, text, re.DOTALL):
                if is_sentence(match[1]) and not re.search(r"^\s*doc: $", text[:match.start()]):
                    found[template(match[1])] = name
    return found


def of_launcher():
    found = {}
    for module in LAUNCHER:
        path = ROOT / "python" / "autooffload" / f"{module}.py"
        tree = ast.parse(path.read_text())
        for pattern in sentences(tree):
            found[pattern] = str(path.relative_to(ROOT))
    return found


def sentences(tree):
    """Texts outside docstrings, help texts, regular expressions and tables of options."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and node.body and \
                isinstance(node.body[0], ast.Expr):
            skipped.update(map(id, ast.walk(node.body[0])))
        if isinstance(node, ast.FunctionDef) and node.name == "build_parser" or \
                isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
                    "SETTINGS", "SWITCHES", "CHOICES") or \
                isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
                    "findall", "search", "split"):
            skipped.update(map(id, ast.walk(node)))
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in ast.walk(node) if part is not node)
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None
                     for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [node.value]
        else:
            continue
        if is_sentence(" ".join(part or "" for part in parts)) and " " in "".join(
                part or "" for part in parts).strip():
            yield "".join(".*" if part is None else re.escape(part) for part in parts)
