"""ComfyUI: recognised in a command, and started so that its models go to the
card and stay there, where autooffload streams them.

By default ComfyUI offloads by itself ("dynamic VRAM"): its weights lie in
memory that it maps itself, which autooffload leaves alone. `--gpu-only` ends
that, and keeps text encoders and autoencoders on the card as well. Captured graphs keep their weights on the card, so what captures is
switched off as well. Which switches a version knows is read in the text of its
`comfy/cli_args.py`; nothing of it is run. What the user said stays.

Not here: what was seen with which switches (docs/comfyui.md).
"""

import configparser
import os
import re

CHOICES = ("auto", "off")

OFF = "`--comfyui off` leaves the command as it is"

# Said by the user, each of these decides where models lie.
PLACES = ("--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram", "--cpu",
          "--enable-dynamic-vram")

# The first of these that a version knows is added.
ON_THE_CARD = ("--gpu-only", "--highvram")

CAPTURES = ("--disable-comfy-compiler", "--disable-cuda-graphs")


class Installation:
    """A ComfyUI, as its files show it."""

    def __init__(self, folder):
        self.folder = folder
        text = read(os.path.join(folder, "comfy", "cli_args.py"))
        self.switches = set(re.findall(r"""add_argument\(\s*["'](--[\w-]+)["']""", text))
        found = re.search(r"""__version__\s*=\s*["']([\w.+-]+)["']""",
                          read(os.path.join(folder, "comfyui_version.py")))
        self.name = f"ComfyUI {found[1]}" if found else "ComfyUI"

    def said(self, words):
        """The switches among the user's words; argparse takes abbreviations."""
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        return {flag for flag in flags if flag in self.switches} | {
            switch for flag in flags if flag not in self.switches and len(flag) > 2
            for switch in self.switches if switch.startswith(flag)}


def adjust(command, allocator, say, where="."):
    """The command to run: as it is, or with switches added to a ComfyUI's."""
    found = in_command(command, where)
    if found is None:
        return command
    installation, words, extend = found
    said = installation.said(words)
    added, why = switches(installation, said, allocator)
    if "--cpu" in said:
        return command
    if why:
        say(f"{installation.name}: {why}")
    if not added:
        return command
    say(f"{installation.name}: added {' '.join(added)}, so that models go to the card, stay there, "
        f"and are streamed by autooffload; {OFF}")
    return extend(added)


def switches(installation, said, allocator):
    """What to add; and a sentence where the user's own words keep models off the card."""
    added, why = [], None
    places = [flag for flag in PLACES if flag in said]
    if not places:
        added += [flag for flag in ON_THE_CARD if flag in installation.switches][:1]
    elif places[0] not in ON_THE_CARD:
        why = (f"{places[0]} is yours, so ComfyUI moves its models itself and autooffload only "
               "keeps it within the budget; without it, autooffload streams them")
    if not why:
        added += [flag for flag in CAPTURES
                  if flag in installation.switches and flag not in said
                  and "--enable" + flag[len("--disable"):] not in said]
    if allocator == "native" and "--disable-cuda-malloc" in installation.switches \
            and not said & {"--cuda-malloc", "--disable-cuda-malloc"}:
        added.append("--disable-cuda-malloc")
    return added, why


# --- where in the command it is ------------------------------------------------

def in_command(command, where):
    """(installation, the words meant for it, how to add words), or None."""
    if os.path.basename(command[0]) in ("comfy", "comfycli", "comfy-cli") and "launch" in command:
        return in_comfy_launch(command, where)
    for position, word in enumerate(command):
        if word.endswith(".py"):
            script = os.path.join(directory_option(command[:position], where), word)
            folder = os.path.dirname(os.path.realpath(script))
            if os.path.isfile(script) and is_comfyui(folder):
                words = command[position + 1:]
                return Installation(folder), words, lambda more: command + more
            return None
    return None


def directory_option(words, where):
    """Where `uv run --directory DIR` would look, else the present directory."""
    for position, word in enumerate(words):
        if word == "--directory" and position + 1 < len(words):
            return os.path.join(where, words[position + 1])
        if word.startswith("--directory="):
            return os.path.join(where, word.partition("=")[2])
    return where


def in_comfy_launch(command, where):
    """comfy-cli: `comfy [--workspace DIR | --here | --recent] launch [-- words]`.

    Words given there replace those that the user has configured for the default
    workspace, so these are passed on in front of ours.
    """
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(os.path.expanduser("~/.config/comfy-cli/config.ini"), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        pass
    defaults = config.defaults()
    place = command.index("--") if "--" in command else len(command)
    options, words = command[:place], command[place + 1:]
    default, recent = defaults.get("default_workspace"), defaults.get("recent_workspace")
    named = [after for word, after in zip(options, options[1:]) if word == "--workspace"]
    named += [word.partition("=")[2] for word in options if word.startswith("--workspace=")]
    if named or "--recent" in options:
        default, folders = None, named[:1] or [recent]
    elif "--here" in options:
        default, folders = None, parents(where)
    else:
        default = default or "~/comfy"
        folders = [*parents(where), default, recent]
    for folder in filter(None, folders):
        folder = os.path.join(where, os.path.expanduser(folder))
        for inside in (folder, os.path.join(folder, "ComfyUI")):
            if is_comfyui(inside):
                if not words and default and same(folder, os.path.expanduser(default)):
                    words = defaults.get("default_launch_extras", "").split()
                return Installation(inside), words, lambda more: [*options, "--", *words, *more]
    return None


def parents(where):
    """The folder, and those that it lies in."""
    path = os.path.realpath(where)
    while True:
        yield path
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)


def same(one, other):
    return os.path.realpath(one) == os.path.realpath(other)


def is_comfyui(folder):
    return "--highvram" in read(os.path.join(folder, "comfy", "cli_args.py"))


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
