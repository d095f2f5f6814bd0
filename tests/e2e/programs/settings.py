"""A short run, after which the library's C exports are asked, if it is there."""

import ctypes
import json

import torch

import models

with torch.no_grad():
    model = models.stack(30)
    hashes = []
    for iteration in range(5):
        x = models.make_input(iteration).to("cuda")
        for index in models.shuffled(30):
            x = model[index](x)
        hashes.append(models.digest(x))

exports = {}
process = ctypes.CDLL(None)
if hasattr(process, "autooffload_api_version"):
    exports["version"] = process.autooffload_api_version()
    needed = process.autooffload_stats_json(None, ctypes.c_size_t(0))
    buffer = ctypes.create_string_buffer(needed + 4096)
    process.autooffload_stats_json(buffer, ctypes.c_size_t(len(buffer)))
    exports["stats"] = json.loads(buffer.value)
    exports["set_good"] = process.autooffload_set(b"AUTOOFFLOAD_WINDOW", b"4")
    exports["set_bad"] = process.autooffload_set(b"AUTOOFFLOAD_WINDOW", b"never")
models.report(hashes=hashes, exports=exports, iterations=5,
              weight_bytes=models.weight_bytes(model))
