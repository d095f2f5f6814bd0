"""Reads, from a 64-bit little-endian ELF shared object, what it asks of others
(the libraries it needs and its undefined dynamic symbols with their versions)
and what it offers.

Not here: what is done with the answer (generate.py).
"""

import mmap
import struct
from dataclasses import dataclass

SHT_DYNAMIC, SHT_DYNSYM = 6, 11
SHT_GNU_VERNEED, SHT_GNU_VERSYM = 0x6FFFFFFE, 0x6FFFFFFF
DT_NEEDED = 1
SHN_UNDEF = 0
STB_WEAK = 2


@dataclass(frozen=True)
class Import:
    """An undefined symbol. `library` and `version` are None if unversioned."""

    name: str
    library: str | None
    version: str | None
    weak: bool


def read(path):
    """(needed sonames, imports) of the shared object at `path`."""
    return _with(path, _Reader.read)


def exports(path):
    """Names of the dynamic symbols that the shared object at `path` defines."""
    return _with(path, _Reader.exports)


def _with(path, ask):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is not a 64-bit little-endian ELF file")
        return ask(_Reader(data))


class _Reader:
    def __init__(self, data):
        self.data = data
        shoff, = struct.unpack_from("<Q", data, 0x28)
        entry_bytes, count = struct.unpack_from("<HH", data, 0x3A)
        # (name, type, flags, addr, offset, size, link, info, addralign, entsize)
        self.sections = [
            struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * entry_bytes) for i in range(count)
        ]

    def section(self, kind):
        return next((s for s in self.sections if s[1] == kind), None)

    def string(self, table, offset):
        start = self.sections[table][4] + offset
        return self.data[start:self.data.find(b"\0", start)].decode()

    def read(self):
        return self.needed(), self.imports()

    def needed(self):
        section = self.section(SHT_DYNAMIC)
        if section is None:
            return []
        entries = struct.iter_unpack("<qQ", self.data[section[4]:section[4] + section[5]])
        return [self.string(section[6], value) for tag, value in entries if tag == DT_NEEDED]

    def versions(self):
        """Version index -> (library, version), from .gnu.version_r."""
        section = self.section(SHT_GNU_VERNEED)
        found = {}
        if section is None:
            return found
        at = section[4]
        while True:
            _, count, file, aux, following = struct.unpack_from("<HHIII", self.data, at)
            library = self.string(section[6], file)
            aux += at
            for _ in range(count):
                _, _, index, name, step = struct.unpack_from("<IHHII", self.data, aux)
                found[index] = (library, self.string(section[6], name))
                aux += step
            if following == 0:
                return found
            at += following

    def symbols(self):
        """(index, name, info, section index) of each dynamic symbol."""
        table = self.section(SHT_DYNSYM)
        for i in range(1, table[5] // 24):
            name, info, _, shndx = struct.unpack_from("<IBBH", self.data, table[4] + 24 * i)
            yield i, self.string(table[6], name), info, shndx

    def exports(self):
        return {name for _, name, _, shndx in self.symbols() if shndx != SHN_UNDEF}

    def imports(self):
        versym, versions = self.section(SHT_GNU_VERSYM), self.versions()
        found = []
        for i, name, info, shndx in self.symbols():
            if shndx != SHN_UNDEF:
                continue
            index = 0
            if versym is not None:
                index, = struct.unpack_from("<H", self.data, versym[4] + 2 * i)
            library, version = versions.get(index & 0x7FFF, (None, None))
            found.append(Import(name, library, version, info >> 4 == STB_WEAK))
        return found
