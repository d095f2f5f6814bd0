"""The file that will be executed, and whether anything can be preloaded into it.

Not here: starting it (`child`).
"""

import os
import shutil
import stat
import struct

from .messages import EXIT_CANNOT_RUN, EXIT_NOT_FOUND, Refusal


def find_program(name):
    """The file that will be executed, as the shell would choose it."""
    if os.sep in name:
        if not os.path.exists(name):
            raise Refusal(f"{name}: no such file; check the path of the program",
                          EXIT_NOT_FOUND)
        path = name
    else:
        path = shutil.which(name)
        if path is None:
            if os.path.isfile(name):
                raise Refusal(f"{name}: not found in PATH, but there is such a file here; "
                              f"run it as {suggestion(name)}", EXIT_NOT_FOUND)
            raise Refusal(f"{name}: not found in PATH; check the spelling, or give the "
                          "path of the program", EXIT_NOT_FOUND)
    if os.path.isdir(path):
        raise Refusal(f"{path}: is a directory; name the program to run", EXIT_CANNOT_RUN)
    if not os.access(path, os.X_OK):
        raise Refusal(f"{path}: is not executable; run it as {suggestion(path)}",
                      EXIT_CANNOT_RUN)
    return path


def suggestion(path):
    if path.endswith(".py"):
        return f"`autooffload-launch python {path}`"
    by_path = path if os.sep in path else os.path.join(".", path)
    return f"`autooffload-launch {by_path}` after `chmod +x {path}`"


def executed_files(path, depth=0):
    """The program and, for a script, the interpreters that will run it."""
    yield path
    if depth == 4:  # the kernel follows no more either
        return
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError:
        return  # executable but unreadable: exec will tell
    if not first.startswith(b"#!"):
        return
    words = os.fsdecode(first[2:]).split()
    if not words:
        return
    if not os.path.exists(words[0]):
        raise Refusal(f"{path}: its interpreter {words[0]} does not exist; correct its "
                      "first line or install the interpreter", EXIT_CANNOT_RUN)
    yield from executed_files(words[0], depth + 1)
    if os.path.basename(words[0]) == "env":
        for word in words[1:]:
            if not word.startswith("-") and "=" not in word:
                found = shutil.which(word)
                if found:
                    yield from executed_files(found, depth + 1)
                return


def loader_objection(path):
    """Why the dynamic loader would not preload into this file, or None."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:4] != b"\x7fELF":
                return None
            if head[4] != 2:
                return ("is a 32-bit program and the library is 64-bit: use a 64-bit build "
                        "of the program")
            if not has_interpreter(file, head):
                return ("is statically linked, so nothing can be preloaded into it: use a "
                        "dynamically linked build of the program")
        mode = os.stat(path)
    except OSError:
        return None
    if (mode.st_mode & stat.S_ISUID and mode.st_uid != os.getuid()) or \
            (mode.st_mode & stat.S_ISGID and mode.st_gid != os.getgid()):
        return ("runs with the rights of its owner or group (set-ID bit), and the loader ignores "
                "preloads for such programs: use a copy without that bit")
    if os.getuid() != 0 and has_capabilities(path):
        return ("has file capabilities, and the loader ignores preloads for such programs: "
                "use a copy without them")
    return None


def has_interpreter(file, head):
    """Whether an ELF file asks for a dynamic loader (has a PT_INTERP header)."""
    order = "<" if head[5] == 1 else ">"
    table, = struct.unpack_from(order + "Q", head, 32)
    entry_size, count = struct.unpack_from(order + "HH", head, 54)
    for index in range(count):
        file.seek(table + index * entry_size)
        kind = file.read(4)
        if len(kind) == 4 and struct.unpack(order + "I", kind)[0] == 3:
            return True
    return False


def has_capabilities(path):
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
