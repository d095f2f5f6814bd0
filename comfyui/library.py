"""The C calls of include/autooffload.h, if the library is in this process."""

import contextlib
import ctypes
import json

API_VERSION = 1
NO_ROOM = 3


class Range(ctypes.Structure):
    _fields_ = [("address", ctypes.c_uint64), ("bytes", ctypes.c_uint64)]


class Library:
    """What the functions answer; `missing` says why there are none."""

    def __init__(self, process=None):
        process = process or ctypes.CDLL(None)
        self.missing = "autooffload is not in this process"
        try:
            if process.autooffload_api_version() != API_VERSION:
                self.missing = "autooffload in this process is of another version than this node"
                return
            self.keep, self.release = process.autooffload_keep, process.autooffload_release
            self.ranges_json = process.autooffload_ranges_json
            self.stats_json = process.autooffload_stats_json
            self.set = process.autooffload_set
        except AttributeError:
            return
        for function in (self.keep, self.release):
            function.argtypes = [ctypes.POINTER(Range), ctypes.c_size_t]
        self.ranges_json.argtypes = [ctypes.POINTER(Range), ctypes.c_size_t, ctypes.c_char_p,
                                     ctypes.c_size_t]
        self.stats_json.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self.ranges_json.restype = self.stats_json.restype = ctypes.c_size_t
        self.missing = None

    def account(self):
        """The account of the process; empty if the library is not active."""
        return {} if self.missing else text_of(self.stats_json)

    def where(self, ranges):
        """Where the memory of the ranges is; empty if the library is not active."""
        if self.missing:
            return {}
        return text_of(lambda buffer, size: self.ranges_json(ranges, len(ranges), buffer, size))

    @contextlib.contextmanager
    def kept(self, ranges):
        """The memory of the ranges stays on the card meanwhile. Gives False if it cannot."""
        held = not self.missing and self.keep(ranges, len(ranges)) == 0
        try:
            yield held
        finally:
            if held:
                self.release(ranges, len(ranges))

    @contextlib.contextmanager
    def window(self, value, former):
        """The window of the whole process meanwhile."""
        if not self.missing:
            self.set(b"window", value.encode())
        try:
            yield
        finally:
            if not self.missing:
                self.set(b"window", former.encode())


def text_of(function):
    """The JSON that a function writes; it may have grown between two calls."""
    size = function(None, 0)
    while size:
        buffer = ctypes.create_string_buffer(size + 4096)
        size = function(buffer, len(buffer))
        if 0 < size <= len(buffer):
            return json.loads(buffer.value)
    return {}


def ranges_of(module):
    """The storages of a module's weights that are on a card, each once."""
    found = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cuda":
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return (Range * len(found))(*(Range(address, size) for address, size in found.items()
                                  if address))
