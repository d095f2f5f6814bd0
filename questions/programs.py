"""Questions 5, 8 and 9 with PyTorch: what goes back to the host of weights that are only
read (--streamed), which library asks the driver for what and calls it, and whether a
counting preload sees every launch the profiler sees.

Run with librecorder.so preloaded (both questions), or with libautooffload.so
(question 9 alone, by the library's own account). Prints the answer lines of
question.h. Not here: the counting (recorder.c), the table (scripts/gpu-check).
"""

import argparse
import ctypes
import json
import re
import sys

ROUNDS = 10
LAUNCHES = re.compile(r"cuLaunch(Kernel|KernelEx|CooperativeKernel)(_ptsz)?$")
GRAPH_LAUNCHES = re.compile(r"cuGraphLaunch(_ptsz)?$")
STANDIN = False


def answer(question, item, text, number=None, unit="", **more):
    print(json.dumps({"question": question, "item": item, "answer": text, "number": number,
                      "unit": unit, "p50": None, "p99": None, "n": int(number is not None),
                      "standin": STANDIN} | more), flush=True)


def not_measured(question, item, reason):
    answer(question, item, f"not measured: {reason}")


# --- the counts ----------------------------------------------------------------

class Recorder:
    """What librecorder.so has counted, by (library, name)."""

    def __init__(self, function):
        self.function = function

    def read(self):
        needed = self.function(None, 0)
        text = ctypes.create_string_buffer(needed + 65536)
        self.function(text, len(text))
        return json.loads(text.value)

    def asked(self):
        by_library = {}
        for entry in self.read():
            if entry["route"] != "linked":
                by_library.setdefault(entry["caller"], set()).add(entry["name"])
        return by_library

    def calls(self):
        counts = {}
        for entry in self.read():
            key = entry["caller"], entry["name"]
            counts[key] = counts.get(key, 0) + entry["calls"]
        return counts


class Account:
    """What libautooffload.so has counted, as one library."""

    def __init__(self, function):
        self.function = function

    def read(self):
        needed = self.function(None, 0)
        if not needed:
            return {}
        text = ctypes.create_string_buffer(needed + 65536)
        self.function(text, len(text))
        return json.loads(text.value)

    def calls(self):
        hooks = self.read().get("hooks", {})
        return {("all", name): entry["calls"] for name, entry in hooks.items()}

    def streaming(self):
        counts = self.read().get("streaming", {})
        return {name: count for name, count in counts.items() if name.endswith("_bytes")}


def counter():
    """The preloaded library's counts, and which library that is."""
    process = ctypes.CDLL(None)
    for name, kind, library in (("recorder_json", Recorder, "the recorder"),
                                ("autooffload_stats_json", Account, "libautooffload")):
        try:
            function = getattr(process, name)
        except AttributeError:
            continue
        function.restype = ctypes.c_size_t
        function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        return kind(function), library
    return None, None


def difference(after, before):
    return {key: count - before.get(key, 0) for key, count in after.items()
            if count > before.get(key, 0)}


def matching(calls, pattern):
    return sum(count for (_, name), count in calls.items() if pattern.match(name))


# --- the programs ----------------------------------------------------------------

class Program:
    """What is run again and again, and the launches seen while it was captured."""

    def __init__(self, run, captured=0):
        self.run, self.captured = run, captured


def programs(torch, counts):
    """(name, function that makes the Program), each warmed up by its caller."""
    functional = torch.nn.functional
    device = "cuda"

    def linear(dtype):
        layer = torch.nn.Linear(1024, 1024).to(device, dtype)
        data = torch.randn(64, 1024, device=device, dtype=dtype)
        return Program(lambda: layer(data))

    def convolution():
        layer = torch.nn.Conv2d(32, 32, 3, padding=1).to(device, torch.float16)
        data = torch.randn(4, 32, 64, 64, device=device, dtype=torch.float16)
        return Program(lambda: layer(data))

    def attention():
        query, key, value = (torch.randn(2, 8, 256, 64, device=device, dtype=torch.float16)
                             for _ in range(3))
        return Program(lambda: functional.scaled_dot_product_attention(query, key, value))

    def triton_kernel():
        return Program(triton_program(torch))

    def graph():
        data = torch.randn(256, 256, device=device)
        weight = torch.randn(256, 256, device=device)
        for _ in range(2):
            torch.relu(data @ weight)
        torch.cuda.synchronize()
        captured = torch.cuda.CUDAGraph()
        before = counts.calls()
        with torch.cuda.graph(captured):
            torch.relu(data @ weight)
        return Program(captured.replay, matching(difference(counts.calls(), before), LAUNCHES))

    yield "a Linear, fp32", lambda: linear(torch.float32)
    yield "a Linear, bf16", lambda: linear(torch.bfloat16)
    yield "a convolution", convolution
    yield "SDPA", attention
    yield "a Triton kernel", triton_kernel
    yield "a graph replay", graph


def triton_program(torch):
    import triton
    import triton.language as tl

    # Triton reads a kernel's source from its module: it must be a global there.
    global add_one

    @triton.jit
    def add_one(data, count, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(data + at, tl.load(data + at, mask=at < count) + 1, mask=at < count)

    data = torch.zeros(4096, device="cuda")
    return lambda: add_one[(4,)](data, 4096, BLOCK=1024)


def called(calls):
    """`library: name count, …`, the most frequent first."""
    by_library = {}
    for (library, name), count in calls.items():
        by_library.setdefault(library, []).append((count, name))
    return "; ".join(
        f"{library}: " + ", ".join(f"{name} {count}" for count, name in sorted(found, reverse=True))
        for library, found in sorted(by_library.items())) or "nothing"


def profiled_kernels(torch, run):
    """Kernels that ran on the device, by the profiler's count."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(ROUNDS):
            run()
        torch.cuda.synchronize()
    kernels = 0
    for event in profiler.profiler.kineto_results.events():
        on_device = "CUDA" in str(event.device_type())
        if on_device and not re.match(r"Mem(cpy|set)|Context Sync|Event Sync|Stream Sync", event.name()):
            kernels += 1
    return kernels


def ask(torch, counts, library):
    for name, make in programs(torch, counts):
        item = f"during {name}"
        try:
            program = make()
            for _ in range(3):
                program.run()
            torch.cuda.synchronize()
            before = counts.calls()
            for _ in range(ROUNDS):
                program.run()
            torch.cuda.synchronize()
            if isinstance(counts, Recorder):
                answer("8 Lookup", f"called {item}",
                       f"{ROUNDS} rounds: {called(difference(counts.calls(), before))}")
            if STANDIN:
                not_measured("9 Nothing missed", f"{item}, by {library}", "stand-in")
                continue
            before = counts.calls()
            kernels = profiled_kernels(torch, program.run)
            compare(f"{item}, by {library}", program, difference(counts.calls(), before), kernels)
        except Exception as error:  # one program that fails must not hide the others
            sentence = str(error).strip().splitlines() or [""]
            not_measured("9 Nothing missed", f"{item}, by {library}",
                         f"{type(error).__name__}: {sentence[0][:150]}")


def compare(item, program, seen, kernels):
    """Launches we saw against kernels the profiler saw."""
    if not kernels:
        not_measured("9 Nothing missed", item, "the profiler reported no kernel here")
        return
    launches, replays = matching(seen, LAUNCHES), matching(seen, GRAPH_LAUNCHES)
    text = f"{launches} launches seen"
    if replays:
        # A replay is one call; what it launches was seen while it was captured.
        text += f", {replays} replays of a graph that {program.captured} were captured into"
        launches += replays * program.captured
    verdict = "none missed" if launches == kernels else "DIFFERENT"
    answer("9 Nothing missed", item, f"{verdict}: {text}; profiler: {kernels} kernels",
           kernels - launches, "launches missed")


def streamed(torch, account):
    """Weights beyond the budget that this was started with, in passes that only read them."""
    width, count, dtype = (1024, 24, torch.float32) if STANDIN else (4096, 64, torch.bfloat16)
    layers = [torch.nn.Linear(width, width, bias=False).to("cuda", dtype) for _ in range(count)]
    data = torch.randn(64, width, device="cuda", dtype=dtype)

    def run(passes):
        with torch.no_grad():
            for _ in range(passes):
                x = data
                for layer in layers:
                    x = layer(x)
                torch.cuda.synchronize()
    run(8)
    before = account.streaming()
    run(ROUNDS)
    moved = difference(account.streaming(), before)
    into = moved.get("streamed_bytes", 0)
    back = moved.get("written_back_bytes", 0) + moved.get("stored_bytes", 0)
    item = "bytes back of bytes in, weights that are only read"
    if not into:
        not_measured("5 Fingerprint", item, "nothing streamed")
        return
    answer("5 Fingerprint", item, f"{back} of {into}", 100 * back / into, "%")


def asked_for(counts):
    for library, names in sorted(counts.asked().items()):
        answer("8 Lookup", f"{library} asks for", "the names are listed below the table",
               len(names), "names", names=sorted(names))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=float)
    parser.add_argument("--streamed", action="store_true",
                        help="question 5; with libautooffload.so and a budget")
    options = parser.parse_args()
    counts, library = counter()
    if counts is None:
        not_measured("9 Nothing missed", "launches", "neither librecorder.so nor libautooffload.so "
                     "is preloaded")
        return 0
    try:
        import torch
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device")
    except Exception as error:
        reason = f"no PyTorch that runs here ({error})"
        if isinstance(counts, Recorder):
            not_measured("8 Lookup", "names asked for and called", reason)
        not_measured("9 Nothing missed", f"launches, by {library}", reason)
        return 0
    global STANDIN
    STANDIN = hasattr(ctypes.CDLL("libcuda.so.1"), "standin_account_json")
    if options.streamed:
        streamed(torch, counts)
        return 0
    answer("8 Lookup", "PyTorch", f"{torch.__version__}, {torch.cuda.get_device_name(0)}")
    ask(torch, counts, library)
    if isinstance(counts, Recorder):
        asked_for(counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
